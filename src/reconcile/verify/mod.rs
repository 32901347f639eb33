//! Comparing everything.

mod job;
mod report;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_core::Stream;
use tokio::{sync::watch, time::Instant};

use self::job::{CompareJob, Findings, locked};
pub use self::report::{Differing, VerifyReport};
use super::{
    Checkpoint, Deed, JobKind, Key, Listing, Progress, Rows, Sweep, SweepError, Uncounted,
    backfill::NAMED,
    sweep::{Run, Start, Walk},
};
use crate::{BoxError, flag::MigrationHandle, stage::Side};

/// Compares every key of both sides while clients go on, with
/// [`Rows::differ`].
///
/// A difference counts only once it was found again, after growing pauses, in moments
/// in which no write of the key ran on either side: there are no false alarms, however
/// busy the key is. A run that finds none makes its side synced, and lifts what makes
/// it [suspect](crate::stage::SyncState::Suspect).
///
/// Like a [`Backfill`](super::Backfill) it needs a two-sided stage, waits until earlier
/// writes have settled, and keeps checkpoints. Keys that are dirty are counted, not
/// compared: that they differ is known.
///
/// # Example
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
/// # runtime.block_on(async {
/// # use std::{collections::BTreeMap, convert::Infallible, ops::Bound, sync::{Arc, Mutex}};
/// # use tower_migration::{MigrationHandle, Side, reconcile::{Key, Listing, Rows, Verify}};
/// # #[derive(Default)]
/// # struct Tables([Mutex<BTreeMap<String, String>>; 2]);
/// # impl Rows for Tables {
/// #     type Row = String;
/// #     type Error = Infallible;
/// #     async fn read(&self, side: Side, key: &Key) -> Result<Option<String>, Infallible> {
/// #         Ok(self.0[side as usize].lock().unwrap().get(key.as_str()).cloned())
/// #     }
/// #     async fn write(&self, side: Side, key: &Key, row: Option<&String>) -> Result<(), Infallible> {
/// #         let mut table = self.0[side as usize].lock().unwrap();
/// #         match row {
/// #             Some(row) => table.insert(key.to_string(), row.clone()),
/// #             None => table.remove(key.as_str()),
/// #         };
/// #         Ok(())
/// #     }
/// # }
/// # impl Listing for Tables {
/// #     type Error = Infallible;
/// #     async fn page(&self, side: Side, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, Infallible> {
/// #         let table = self.0[side as usize].lock().unwrap();
/// #         let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
/// #         let rest = table.range::<str, _>((from, Bound::Unbounded));
/// #         Ok(rest.take(limit).map(|(key, _)| Key::from(&**key)).collect())
/// #     }
/// # }
/// // `Tables` is what it is in the example of `Backfill`.
/// let tables = Arc::new(Tables::default());
/// tables.0[0].lock().unwrap().insert("EDDF".into(), "Frankfurt".into());
///
/// let migration = MigrationHandle::new("airports");
/// migration.advance().await.unwrap();
/// let verify = Verify::new(&migration, Arc::clone(&tables)).listing(Arc::clone(&tables));
/// let report = verify.run().await.unwrap();
/// assert_eq!((report.differ, report.synced), (1, false));
/// assert_eq!(report.differing[0].to_string(), "EDDF: row: \"there\" against \"missing\"");
///
/// let report = verify.mend().run().await.unwrap();
/// assert_eq!((report.mended, report.synced), (1, true));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a verify does nothing until it is run"]
pub struct Verify<R> {
    walk: Walk,
    rows: Arc<R>,
    mends: bool,
    rereads: u32,
    reread_pause: Duration,
    kept: usize,
}

impl<R: Rows> Verify<R> {
    /// A comparison of all keys. It still has to be told which keys there are:
    /// [`listing`](Self::listing) or [`streams`](Self::streams).
    pub fn new(handle: &MigrationHandle, rows: R) -> Self {
        Self {
            walk: Walk::new(handle),
            rows: Arc::new(rows),
            mends: false,
            rereads: 2,
            reread_pause: Duration::from_millis(50),
            kept: 100,
        }
    }

    /// As [`Backfill::listing`](super::Backfill::listing).
    pub fn listing(mut self, listing: impl Listing) -> Self {
        self.walk.listing(listing);
        self
    }

    /// As [`Backfill::streams`](super::Backfill::streams). Keys that both sides have are
    /// compared twice.
    pub fn streams<S, K, E>(mut self, streams: impl Fn(Side) -> S + Send + Sync + 'static) -> Self
    where
        S: Stream<Item = Result<K, E>> + Send + 'static,
        K: Into<Key> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.walk.streams(streams);
        self
    }

    /// How it goes through the keys: concurrency, rate, checkpoints.
    pub fn sweep(mut self, sweep: Sweep) -> Self {
        self.walk.sweep(sweep);
        self
    }

    /// Copies what differs from the authority to the other side (default: only says
    /// so).
    pub const fn mend(mut self) -> Self {
        self.mends = true;
        self
    }

    /// How often both sides are read again before a difference counts (default 2), and
    /// the pause before the first time (default 50 ms); each further one is twice as
    /// long.
    pub const fn rereads(mut self, count: u32, pause: Duration) -> Self {
        self.rereads = count;
        self.reread_pause = pause;
        self
    }

    /// How many differing keys the report lists (default 100). All are counted.
    pub const fn keep(mut self, keys: usize) -> Self {
        self.kept = keys;
        self
    }

    /// As [`Backfill::beside_other_processes`](super::Backfill::beside_other_processes).
    /// A write of another process may then look like a difference.
    pub const fn beside_other_processes(mut self) -> Self {
        self.walk.beside_others = true;
        self
    }

    /// How far the run has come; also in the handle's [status](crate::Status::verify).
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.walk.progress.subscribe()
    }

    /// Compares everything.
    ///
    /// # Errors
    ///
    /// [`SweepError`], if the run cannot go on. Keys that differ, or cannot be read, are
    /// no such error: they are in the report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the run; with checkpoints the next one goes on from
    /// the last.
    pub async fn run(&self) -> Result<VerifyReport, SweepError> {
        let began = Instant::now();
        let source = self.walk.check()?;
        let handle = &self.walk.handle;
        let core = &handle.core;
        let stage = handle.stage();
        if !stage.is_two_sided() {
            return Err(SweepError::OneSided(stage));
        }
        self.walk.settled().await?;
        let from = stage.authority();
        let span = core.span(from.other());
        let mut checkpoint = Checkpoint::begin(JobKind::Verify, handle, from, span);
        if let Some(store) = &self.walk.sweep.checkpoints
            && let Some(found) = store.load().await?
            && found.goes_on(&checkpoint)
        {
            checkpoint = found;
        }
        let resumed = checkpoint.tally.sum() > 0;
        let findings = Arc::new(Mutex::new(Findings::default()));
        let job = CompareJob {
            handle: handle.clone(),
            rows: Arc::clone(&self.rows),
            from,
            mends: self.mends,
            rereads: self.rereads,
            pause: self.reread_pause,
            kept: self.kept,
            beside_others: self.walk.beside_others,
            findings: Arc::clone(&findings),
        };
        let kept = self.walk.sweep.checkpoints.is_some();
        let start = Start { checkpoint, both: true, kept };
        let run = Run::new(handle, &self.walk.sweep, job, start, self.walk.progress.clone());
        let (tally, failed) = Arc::new(run).go(source).await?;
        let uncounted = if failed.count() > 0 {
            Some(Uncounted::FailedKeys)
        } else if tally.get(Deed::Differing) > 0 {
            Some(Uncounted::Differences)
        } else {
            self.walk.attest(from.other(), span).await?
        };
        let Findings { differing, fields } = std::mem::take(&mut *locked(&findings));
        let report = VerifyReport {
            from,
            equal: tally.get(Deed::Equal),
            differ: tally.get(Deed::Differing),
            mended: tally.get(Deed::Mended),
            dirty: tally.get(Deed::Dirty) + tally.get(Deed::Left),
            failed: failed.count(),
            failures: failed.first(NAMED),
            differing,
            fields,
            took: began.elapsed(),
            resumed,
            synced: uncounted.is_none(),
            uncounted,
        };
        let line = report.to_string();
        tracing::info!(
            target: "tower_migration",
            migration = %handle.name(), %from,
            "verify ended: {}", line.lines().next().unwrap_or_default()
        );
        Ok(report)
    }
}

impl<R> fmt::Debug for Verify<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("walk", &self.walk)
            .field("mends", &self.mends)
            .field("rereads", &self.rereads)
            .finish_non_exhaustive()
    }
}
