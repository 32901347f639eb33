//! Pages to read: none of this is code.

#[doc = include_str!("matrix.md")]
pub mod matrix {}

#[doc = include_str!("runbook.md")]
pub mod runbook {}
