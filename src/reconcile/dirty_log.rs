//! Where dirty keys are noted so that they outlive the process.
//!
//! Compiled without the feature `journal` too, so that the flag has one path.

use std::{any::Any, error::Error, fmt, sync::Arc, time::SystemTime};

use tokio::sync::watch;

use super::{Key, Keys, RightSide};
use crate::{
    flag::BoxFuture,
    stage::{Side, SyncState},
};

/// A dirty key, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredMark {
    pub(crate) right: RightSide,
    pub(crate) marks: u64,
    pub(crate) since: SystemTime,
}

impl StoredMark {
    /// One mark for two of the same key. Idempotent: to find a mark twice must
    /// change nothing.
    pub(crate) fn merged(self, other: Self) -> Self {
        let right = match other.right {
            RightSide::Is(side) => RightSide::merged(Some(self.right), side),
            RightSide::Conflict => RightSide::Conflict,
        };
        Self { right, marks: self.marks.max(other.marks), since: self.since.min(other.since) }
    }
}

/// What is known of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SideNote {
    pub(crate) state: SyncState,
    /// A number to keep; the greater one of two is kept.
    pub(crate) span: u64,
}

impl SideNote {
    /// The worse of both.
    pub(crate) fn merged(self, other: Self) -> Self {
        Self { state: self.state.min(other.state), span: self.span.max(other.span) }
    }
}

/// What dead processes have left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) marks: Vec<(Key, StoredMark)>,
    pub(crate) sides: [Option<SideNote>; 2],
    /// By wrong side: a write without a key had begun there, and not ended.
    pub(crate) nameless: [bool; 2],
    /// Which files were taken over, and which ones those had taken over: the
    /// newest 64, the newest last.
    pub(crate) ids: Vec<u64>,
    /// For [`DirtyLog::took_over`].
    pub(crate) round: u64,
}

/// How far the log has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The last commit that is durable.
    pub(crate) durable: u64,
    pub(crate) failed: Option<LogFailed>,
}

/// Whose heir takes over: what the flag's record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The journal that the record names.
    pub(crate) id: Option<u64>,
    /// Since when copies to each side count, old first.
    pub(crate) spans: [u64; 2],
}

/// The log cannot keep its promise.
#[derive(Clone, Debug)]
pub(crate) struct LogFailed {
    what: Arc<str>,
    hint: &'static str,
}

impl LogFailed {
    pub(crate) fn new(what: impl Into<Arc<str>>, hint: &'static str) -> Self {
        Self { what: what.into(), hint }
    }

    pub(crate) const fn what(&self) -> &Arc<str> {
        &self.what
    }

    /// What to do.
    pub(crate) const fn lifted_by(&self) -> &'static str {
        self.hint
    }
}

impl fmt::Display for LogFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for LogFailed {}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogStats {
    /// Commits, each with one fsync.
    pub(crate) commits: u64,
    /// Rows written or removed by them.
    pub(crate) rows: u64,
    /// Writes and flushes that wait for a commit.
    pub(crate) waiting: u64,
    /// Keys noted as begun: of running writes, and of those that have ended a
    /// moment ago.
    pub(crate) begun: u64,
}

/// Waits for a commit.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) commit: u64,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl Wait {
    pub(crate) async fn durable(mut self) -> Result<(), LogFailed> {
        let commit = self.commit;
        let come = |progress: &Progress| progress.durable >= commit || progress.failed.is_some();
        match self.progress.wait_for(come).await {
            // What was durable before the log failed is durable.
            Ok(progress) if progress.durable >= commit => Ok(()),
            Ok(progress) => progress.failed.clone().map_or(Ok(()), Err),
            Err(_) => Err(closed()),
        }
    }
}

/// What a log says that has been closed.
pub(crate) fn closed() -> LogFailed {
    LogFailed::new("the journal is closed", "open it again")
}

/// A write that has begun; it has ended when this is dropped.
pub(crate) struct Begun {
    state: BegunState,
    _running: Option<Box<dyn Any + Send + Sync>>,
}

enum BegunState {
    Durable,
    Waiting(Wait),
    Failed(LogFailed),
}

impl Begun {
    /// Nothing had to be noted.
    pub(crate) const fn unnoted() -> Self {
        Self { state: BegunState::Durable, _running: None }
    }

    pub(crate) const fn failed(why: LogFailed) -> Self {
        Self { state: BegunState::Failed(why), _running: None }
    }

    /// Noted, durably once there is nothing to wait for any more. `running` is
    /// dropped when the write ends.
    pub(crate) fn noted(wait: Option<Wait>, running: impl Any + Send + Sync) -> Self {
        let state = wait.map_or(BegunState::Durable, BegunState::Waiting);
        Self { state, _running: Some(Box::new(running)) }
    }

    /// Whether [`durable`](Self::durable) has nothing to wait for.
    pub(crate) const fn is_durable(&self) -> bool {
        matches!(self.state, BegunState::Durable)
    }

    /// Resolves when a crash would not lose the note.
    pub(crate) async fn durable(&self) -> Result<(), LogFailed> {
        match &self.state {
            BegunState::Durable => Ok(()),
            BegunState::Waiting(wait) => wait.clone().durable().await,
            BegunState::Failed(why) => Err(why.clone()),
        }
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("durable", &self.is_durable()).finish_non_exhaustive()
    }
}

/// Keeps dirty keys, and writes that have begun, over a crash of the process.
///
/// No call blocks. Changes are made durable in the order in which they were
/// queued; several of the same key may be made at once, of which the last one
/// counts. A log that has failed stays failed, and takes no changes any more.
pub(crate) trait DirtyLog: Send + Sync + fmt::Debug + 'static {
    /// Names what this process writes, for the flag's record.
    fn id(&self) -> u64;

    /// Whether writes must be noted before their legs start.
    fn marks_before(&self) -> bool;

    /// The key is dirty.
    fn put(&self, key: &Key, mark: StoredMark);

    /// The key is not dirty any more.
    fn remove(&self, key: &Key);

    /// What is known of a side.
    fn side(&self, side: Side, note: SideNote);

    /// A write begins whose authority is `right`. `nameless`: it may be about
    /// other keys too. Does nothing where
    /// [`marks_before`](Self::marks_before) says no.
    fn begin(&self, keys: &Keys, nameless: bool, right: Side) -> Begun;

    /// Resolves when all that was queued before is durable, and no write that
    /// had ended before is noted as begun.
    fn flush(&self) -> BoxFuture<'static, Result<(), LogFailed>>;

    /// Takes over what dead processes have left, and answers all that was taken
    /// over so far and not [noted](Self::took_over) as the flag's own.
    ///
    /// Files that are not of this lineage are those of followers: what they say of the
    /// sides, the flag has heard in another way, and a mark of theirs may be older than
    /// what was written since. It is a conflict then. `None`: all are.
    fn adopt(&self, lineage: Option<Lineage>) -> BoxFuture<'static, Result<Found, LogFailed>>;

    /// The flag has put each mark that it was given in this round, or knows
    /// better. Until then what was found is kept apart, so that a mark of this
    /// process does not replace one that the flag has not heard of.
    fn took_over(&self, round: u64);

    /// Why it is not durable any more, if so.
    fn failure(&self) -> Option<Arc<str>>;

    /// Numbers for metrics.
    fn stats(&self) -> LogStats;
}
