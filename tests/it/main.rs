//! Behaviour, through the public API only.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    clippy::needless_pass_by_value,
    reason = "a test says what it is by its name, and shares one set of tools"
)]

mod support;

mod adversity;
mod auto_rollback;
mod axum_app;
mod bodies;
mod config;
mod copy_after;
mod copying;
mod created;
mod file_store;
mod flips;
mod followers;
mod gates;
mod grpc_compare;
mod handle;
mod hangups;
mod matrix;
mod oldest;
mod order;
mod plain;
mod ramp;
mod readiness;
mod reconcile;
mod regressions;
mod reports;
mod shadow;
mod shadow_ends;
mod sized;
mod sockets;
mod streaming;
mod telemetry;
mod travels;
mod writes;
