//! What keeps the two sides equal: keys and their order, dirty keys, copying.
//!
//! One primitive does it all: *copying a key*, which reads its present state on the
//! side that is right and makes the other equal to it, deletion included, while
//! clients go on writing both.
//!
//! | what | is | made with |
//! |---|---|---|
//! | [`copy_key`](crate::MigrationHandle::copy_key) | one key | a closure |
//! | [`Repair`] | copying dirty keys, in the background | [`Rows`] |
//! | [`Backfill`] | copying all keys | [`Rows`] and a [`Listing`] |
//! | [`Verify`] | comparing all keys, copying what differs if asked to | [`Rows`] and a [`Listing`] |
//!
//! [`Rest`] is `Rows` for HTTP resources. The page [`docs::equal`](crate::docs::equal)
//! has the order of things; [`HandleBuilder::journal`](crate::HandleBuilder) keeps dirty
//! keys over a restart.

mod backfill;
mod breaker;
mod checkpoint;
mod copy;
mod dirty;
#[cfg_attr(not(feature = "journal"), allow(dead_code, reason = "only a journal makes one"))]
mod dirty_log;
#[cfg(feature = "journal")]
mod journal;
mod key;
mod listing;
mod order;
mod repair;
mod rest;
mod rows;
mod stopping;
mod sweep;
mod verify;

pub use self::backfill::{Backfill, BackfillReport, Uncounted};
pub use self::checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, FileCheckpoints, JobKind,
};
pub use self::copy::{Copied, CopyError};
pub use self::dirty::DirtyKey;
pub(crate) use self::dirty::{DirtySet, Marked};
pub(crate) use self::dirty_log::{Begun, DirtyLog, Found, Lineage, LogStats, SideNote, StoredMark};
#[cfg(test)]
pub(crate) use self::dirty_log::{LogFailed, Progress as LogProgress, Wait};
#[cfg(feature = "journal")]
pub use self::journal::{Journal, JournalError, JournalErrorKind, JournalMode};
pub use self::key::{Key, Keys};
pub use self::listing::Listing;
pub(crate) use self::order::{KeyOrder, Observation, Place, Turn, Turning, Unsure};
pub use self::repair::{Conflicts, Repair, RepairCounts, Repairing};
pub use self::rest::{Rest, RestError, RestRow};
pub use self::rows::Rows;
pub(crate) use self::sweep::DEEDS;
pub use self::sweep::{Deed, FailedKey, Phase, Progress, SlowDown, Sweep, SweepError};
pub use self::verify::{Differing, Verify, VerifyReport};
pub use crate::stage::RightSide;
