//! One test for each bug that was found after the rest was written.

mod copies;
mod futures;
mod protocols;
mod reads;
mod records;
mod requests;
mod steps;
mod uploads;

use crate::support::*;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt};
use tower_migration::{
    BoxFuture, Event, FailurePolicy, FileStore, FlagStore, Limits, MemoryStore, MigrationHandle,
    MigrationLayer, Reason, Record, Side, Stage, Standing, StoreError,
    compare::Verdict,
    protocol::Head,
    reconcile::{CopyError, Key},
};

fn post(path: &str, t: &'static str) -> Req {
    Request::post(path).body(body(t)).unwrap()
}
