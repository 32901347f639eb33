//! Copying everything that was there before.

mod job;
mod report;
mod start;

use std::{fmt, sync::Arc, time::SystemTime};

use futures_core::Stream;
use tokio::{sync::watch, time::Instant};

use self::job::CopyJob;
pub(super) use self::report::NAMED;
pub use self::report::{BackfillReport, Uncounted};
use super::{
    Key, Listing, Progress, Rows, Sweep, SweepError,
    copy::{How, Terms},
    listing::{Source, boxed},
    sweep::{Run, Walk},
};
use crate::{BoxError, flag::MigrationHandle, stage::Side};

/// Copies every key from the authority to the other side while clients go on, with
/// [`copy_key`](MigrationHandle::copy_key)'s rules for each.
///
/// Run it at `WriteBoth`: it waits until earlier writes have settled, and when it ends
/// clean, new is synced and `ReadNew` is open. Run at `ReadNew` it copies new to old,
/// which opens the way back. Keys of *both* sides are visited, so a row that only the
/// target has is found and removed.
///
/// A row that is equal already is not written, so a second run changes nothing. What
/// fails is tried again at the end, and named in the report.
///
/// # Ahead of the flag
///
/// At `OldOnly` it copies too, but that run does not count: what clients write
/// meanwhile is missing on new. Then step to `WriteBoth`, and run a second one that
/// does: a full one, which compares all and copies what differs, or one over
/// [`changed_since`](Self::changed_since) the first.
///
/// # Stops and restarts
///
/// With [`Sweep::checkpoints`] a run that was stopped, or whose process was killed,
/// goes on where it was. A checkpoint counts for as long as everything copied before
/// it is still equal: not after the flag was at `OldOnly` in between, nor after an
/// unclean stop that no [journal](crate::reconcile) vouches for, nor after a write has
/// failed that left no dirty key. Then the run begins anew, and says so in the log.
///
/// # Example
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use std::{collections::BTreeMap, convert::Infallible, ops::Bound, sync::{Arc, Mutex}};
/// use tower_migration::{MigrationHandle, Side, Stage, reconcile::{Backfill, Key, Listing, Rows}};
///
/// #[derive(Default)]
/// struct Tables([Mutex<BTreeMap<String, String>>; 2]);
///
/// impl Rows for Tables {
///     type Row = String;
///     type Error = Infallible;
///
///     async fn read(&self, side: Side, key: &Key) -> Result<Option<String>, Infallible> {
///         Ok(self.0[side as usize].lock().unwrap().get(key.as_str()).cloned())
///     }
///
///     async fn write(&self, side: Side, key: &Key, row: Option<&String>) -> Result<(), Infallible> {
///         let mut table = self.0[side as usize].lock().unwrap();
///         match row {
///             Some(row) => table.insert(key.to_string(), row.clone()),
///             None => table.remove(key.as_str()),
///         };
///         Ok(())
///     }
/// }
///
/// impl Listing for Tables {
///     type Error = Infallible;
///
///     async fn page(&self, side: Side, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, Infallible> {
///         let table = self.0[side as usize].lock().unwrap();
///         let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
///         let rest = table.range::<str, _>((from, Bound::Unbounded));
///         Ok(rest.take(limit).map(|(key, _)| Key::from(&**key)).collect())
///     }
/// }
///
/// let tables = Arc::new(Tables::default());
/// tables.0[0].lock().unwrap().insert("EDDF".into(), "Frankfurt".into());
/// tables.0[1].lock().unwrap().insert("gone".into(), "deleted on old long ago".into());
///
/// let migration = MigrationHandle::new("airports");
/// migration.advance().await.unwrap(); // write-both
/// let backfill = Backfill::new(&migration, Arc::clone(&tables)).listing(Arc::clone(&tables));
/// let report = backfill.run().await.unwrap();
/// assert!(report.synced);
/// assert_eq!((report.written, report.deleted), (1, 1));
/// assert_eq!(migration.advance().await.unwrap().to, Stage::ReadNew);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a backfill does nothing until it is run"]
pub struct Backfill<R> {
    walk: Walk,
    rows: Arc<R>,
    target_empty: bool,
    dry_run: bool,
    rereads: bool,
}

impl<R: Rows> Backfill<R> {
    /// A backfill of all keys. It still has to be told which keys there are:
    /// [`listing`](Self::listing) or [`streams`](Self::streams).
    pub fn new(handle: &MigrationHandle, rows: R) -> Self {
        let (walk, rows) = (Walk::new(handle), Arc::new(rows));
        Self { walk, rows, target_empty: false, dry_run: false, rereads: true }
    }

    /// The keys, page by page and in order: each is visited once, and the run can go
    /// on from a checkpoint.
    pub fn listing(mut self, listing: impl Listing) -> Self {
        self.walk.listing(listing);
        self
    }

    /// The keys of each side as a stream, in any order. Those of the target that the
    /// source has too are read twice, and there are no checkpoints.
    pub fn streams<S, K, E>(mut self, streams: impl Fn(Side) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<K, E>> + Send + 'static,
        K: Into<Key> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.walk.streams(streams);
        self
    }

    /// Only the keys that have changed since a finished run
    /// [ahead of the flag](Self#ahead-of-the-flag): the catch-up after it. The same
    /// [checkpoints](Sweep::checkpoints) tell when that was; the moment that the closure
    /// is given lies a minute before it.
    ///
    /// *Everything* that old has changed since then must be in the stream, deletions
    /// included; else new lacks it, and counts as synced all the same. Where you are
    /// not sure, leave this out: a full run compares all keys.
    pub fn changed_since<S, K, E>(
        mut self,
        changed: impl Fn(SystemTime) -> S + Send + Sync + 'static,
    ) -> Self
    where
        S: Stream<Item = Result<K, E>> + Send + 'static,
        K: Into<Key> + 'static,
        E: Into<BoxError> + 'static,
    {
        let changed = move |since| boxed(changed(since));
        self.walk.source = Some(Source::Changed(Arc::new(changed)));
        self
    }

    /// How it goes through the keys: concurrency, rate, checkpoints.
    pub fn sweep(mut self, sweep: Sweep) -> Self {
        self.walk.sweep(sweep);
        self
    }

    /// The target has no rows of its own, so its keys need not be listed. The run
    /// makes sure: it must be empty now, or have been found so by
    /// [`find_empty`](Self::find_empty) before both sides were written.
    pub const fn target_empty(mut self) -> Self {
        self.target_empty = true;
        self
    }

    /// Writes nothing: says what would be done. At any stage; counts for nothing.
    pub const fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Whether the source is read again after its row was written, and the row
    /// written again if it has moved (default yes). That covers programs which write
    /// the source past the layer, and costs one read for each row; switch it off where
    /// there are none.
    pub const fn reread(mut self, on: bool) -> Self {
        self.rereads = on;
        self
    }

    /// Copies even while another process obeys the same flag (default no: the run
    /// waits until it has gone). That process must write with
    /// [`AuthorityFirst`](crate::WriteOrder::AuthorityFirst), and rows as a whole: then
    /// the copy's reading again covers it. Increments it does not cover; only a
    /// version that the stores check does. The side counts as synced only once that
    /// process has ended: [`Uncounted::Shared`].
    pub const fn beside_other_processes(mut self) -> Self {
        self.walk.beside_others = true;
        self
    }

    /// How far the run has come; also in the handle's
    /// [status](crate::Status::backfill).
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.walk.progress.subscribe()
    }

    /// At a one-sided stage: looks whether the side that is not served is empty, so
    /// that the run which counts need not list it. Say it before the step to
    /// `WriteBoth`; forgotten with the process.
    ///
    /// # Errors
    ///
    /// [`SweepError::NotEmpty`]; [`SweepError::Moved`] in a two-sided stage;
    /// [`SweepError::Config`] if the keys are not given by side.
    pub async fn find_empty(&self) -> Result<(), SweepError> {
        let stage = self.walk.handle.stage();
        let from = stage.authority();
        if stage.is_two_sided() {
            return Err(SweepError::Moved { from, stage });
        }
        let span = self.walk.handle.core.span(from.other());
        self.look_empty(from.other()).await?;
        self.walk.handle.core.found_empty(from.other(), span);
        Ok(())
    }

    async fn look_empty(&self, side: Side) -> Result<(), SweepError> {
        match self.walk.source()?.first(side).await? {
            None => Ok(()),
            Some(key) => Err(SweepError::NotEmpty(key)),
        }
    }

    /// Copies everything. Returns when every key was visited, and those that failed
    /// were tried again.
    ///
    /// # Errors
    ///
    /// [`SweepError`], if the run cannot go on. Keys that fail are no such error: they
    /// are in the report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the run. Keys that are being copied become dirty;
    /// with checkpoints the next run goes on from the last one.
    pub async fn run(&self) -> Result<BackfillReport, SweepError> {
        let began = Instant::now();
        let source = self.walk.check()?;
        let handle = &self.walk.handle;
        let core = &handle.core;
        let from = handle.stage().authority();
        let ahead = !handle.stage().is_two_sided();
        if !ahead && !self.dry_run {
            self.walk.settled().await?;
        }
        // What has been copied from here on is still equal at the end, if this has
        // not changed by then.
        let span = core.span(from.other());
        let start = self.start(source, from, span, ahead).await?;
        if ahead && !self.dry_run {
            // What old deletes from now on stays there until the run that counts.
            core.forget_empty(from.other());
        }
        let resumed = start.checkpoint.tally.sum() > 0;
        let terms = Terms { ahead, beside_others: self.walk.beside_others, looks: false };
        let job = CopyJob {
            handle: handle.clone(),
            rows: Arc::clone(&self.rows),
            from,
            how: How { terms, looks_first: true, rereads: self.rereads },
            dry_run: self.dry_run,
        };
        let run = Run::new(handle, &self.walk.sweep, job, start, self.walk.progress.clone());
        let (tally, failed) = Arc::new(run).go(source).await?;
        let uncounted = if self.dry_run {
            Some(Uncounted::DryRun)
        } else if ahead {
            Some(Uncounted::AheadOfFlag)
        } else if failed.count() > 0 {
            Some(Uncounted::FailedKeys)
        } else {
            self.walk.attest(from.other(), span).await?
        };
        let took = began.elapsed();
        let report = BackfillReport::new(from, tally, failed, took, resumed, uncounted);
        tracing::info!(
            target: "tower_migration",
            migration = %handle.name(), %from, "backfill ended: {report}"
        );
        Ok(report)
    }
}

impl<R> fmt::Debug for Backfill<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backfill")
            .field("walk", &self.walk)
            .field("target_empty", &self.target_empty)
            .field("dry_run", &self.dry_run)
            .field("reread", &self.rereads)
            .finish_non_exhaustive()
    }
}
