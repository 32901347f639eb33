//! Pages to read: none of this is code.

#[doc = include_str!("equal.md")]
pub mod equal {}

#[cfg(feature = "grpc")]
#[doc = include_str!("grpc.md")]
pub mod grpc {}

#[doc = include_str!("matrix.md")]
pub mod matrix {}

#[doc = include_str!("mismatch.md")]
pub mod mismatch {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("runbook.md")]
pub mod runbook {}

#[doc = include_str!("streams.md")]
pub mod streams {}
