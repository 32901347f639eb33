//! gRPC, through tonic's own server and client.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test says what it is by its name, and shares one set of tools"
)]

mod calls;
mod cases;
mod classify;
mod closing;
mod fake;
mod interop;
mod outcomes;
mod ramp;
mod reads;
mod regressions;
mod resisting;
mod rules;
mod sockets;
mod stages;
mod streams;
mod support;
