//! The rules of the flag, checked in every order of events instead of believed.
//!
//! The models call the crate's own rule functions. What a model adds is the
//! world around them: stores, clients, failures, and who moves next.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "a test says what it is by its name, and is nobody's interface"
)]

mod check;
mod fleet;
mod flow;
mod list;
mod rules;

mod all_rules;
mod broken_rules;
mod deep;
mod fleet_rules;
mod limits;
