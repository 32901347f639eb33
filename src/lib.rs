#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod compare;
mod dispatch;
pub mod docs;
mod files;
mod flag;
pub mod future;
mod guard;
mod layer;
mod observe;
mod pattern;
pub mod protocol;
mod reason;
pub mod reconcile;
mod report;
mod service;
pub mod stage;
pub mod telemetry;
mod text;

pub use self::flag::gates;
pub use self::flag::{
    Alarm, AlarmReason, AutoRollback, Blocked, BoxFuture, Claim, ConfigError, FileStore, FlagStore,
    Forced, HandleBuilder, InFlight, JournalNote, JournalStatus, MemoryStore, MigrationHandle,
    Moved, OldestWrite, OpenError, Presence, Reason, Record, Spans, Standing, Status, StoreError,
    StoreErrorKind,
};
pub use self::layer::{Limits, MigrationLayer};
pub use self::observe::{
    Disagreement, Event, EventQueue, LegDetail, LegResult, Observer, OwnedEvent, ShadowRead,
};
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub use self::observe::{NdjsonFile, NdjsonSink};
pub use self::protocol::{Dispatch, FallbackRead, UpgradeToken};
pub use self::report::{
    Advice, Example, PlaceKind, PlaceReport, ReasonCount, Report, RouteReport, SideLatency,
};
pub use self::service::Migration;
pub use self::stage::{
    FailurePolicy, Operation, Outcome, ParseStageError, Role, Side, Stage, WriteOrder,
};

/// Any error, as tower and axum pass them around.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
