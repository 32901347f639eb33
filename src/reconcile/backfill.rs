//! Copying everything that was there before.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::Stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Checkpoint, Deed, FailedKey, JobKind, Key, Listing, Progress, Rows, Sweep, SweepError,
    copy::{How, Terms},
    listing::{Source, boxed},
    rows::said,
    sweep::{Failed, Item, Job, LOOK, Listed, Pace, Run, Start, Tally, Trouble},
};
use crate::{
    BoxError,
    flag::{ConfigError, MigrationHandle, Reason},
    stage::Side,
};

/// How far the moment that [`changed_since`](Backfill::changed_since) is given lies
/// before the run's begin: clocks of two machines differ, and a database may stamp a
/// row with the begin of a transaction that ends later.
const CLOCKS: Duration = Duration::from_secs(60);

/// How many failed keys a report names.
const NAMED: usize = 100;

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
    handle: MigrationHandle,
    rows: Arc<R>,
    source: Option<Source>,
    sweep: Sweep,
    target_empty: bool,
    dry_run: bool,
    rereads: bool,
    beside_others: bool,
    progress: watch::Sender<Progress>,
}

/// What a [`Backfill`] did. `Display` is a line for a person.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BackfillReport {
    /// The side that was copied from.
    pub from: Side,
    /// Rows that were written to the other side; in a dry run, that would be.
    pub written: u64,
    /// Rows that were deleted there, or would be.
    pub deleted: u64,
    /// Keys that were equal already.
    pub unchanged: u64,
    /// Keys that are dirty and right on the other side, or in conflict: left for a
    /// [`Repair`](super::Repair) or for you.
    pub left: u64,
    /// Keys that could not be copied.
    pub failed: u64,
    /// The first hundred of them.
    pub failures: Vec<FailedKey>,
    /// How long it took, in this process.
    pub took: Duration,
    /// Whether it went on from a checkpoint. Then the counts are those of the whole.
    pub resumed: bool,
    /// Whether the other side is synced now.
    pub synced: bool,
    /// If not, why.
    pub uncounted: Option<Uncounted>,
}

/// Why a run that came to its end has not made its side synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Uncounted {
    /// It was a dry run.
    DryRun,
    /// It ran ahead of the flag. Step to `WriteBoth`, and run the one that counts.
    AheadOfFlag,
    /// Keys have failed. Run it again: with checkpoints, only those are visited.
    FailedKeys,
    /// Keys differ (a [`Verify`](super::Verify) that does not mend).
    Differences,
    /// Meanwhile a write went wrong on that side and left no dirty key, or the flag
    /// moved: nobody knows what was undone. Run it again.
    Voided,
    /// Another process obeys the same flag, so nothing can be put on record. Run it
    /// again, or a [`Verify`](super::Verify), when that one has ended.
    Shared,
}

impl Uncounted {
    const fn says(self) -> &'static str {
        match self {
            Self::DryRun => "it was a dry run",
            Self::AheadOfFlag => "it ran ahead of the flag",
            Self::FailedKeys => "keys have failed",
            Self::Differences => "keys differ",
            Self::Voided => "the flag moved, or a write failed without a key",
            Self::Shared => "another process obeys the same flag",
        }
    }
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.says())
    }
}

impl fmt::Display for BackfillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, deleted, unchanged, left, failed, .. } = self;
        write!(
            f,
            "{written} written, {deleted} deleted, {unchanged} equal already, {left} left, \
             {failed} failed in {:.1?}: ",
            self.took
        )?;
        let to = self.from.other();
        match self.uncounted {
            None => write!(f, "{to} is synced"),
            Some(why) => write!(f, "{to} is not synced by it, since {why}"),
        }
    }
}

impl<R: Rows> Backfill<R> {
    /// A backfill of all keys. It still has to be told which keys there are:
    /// [`listing`](Self::listing) or [`streams`](Self::streams).
    pub fn new(handle: &MigrationHandle, rows: R) -> Self {
        let sweep = Sweep::default();
        let progress = watch::Sender::new(Progress::start(sweep.concurrency));
        Self {
            handle: handle.clone(),
            rows: Arc::new(rows),
            source: None,
            sweep,
            target_empty: false,
            dry_run: false,
            rereads: true,
            beside_others: false,
            progress,
        }
    }

    /// The keys, page by page and in order: each is visited once, and the run can go
    /// on from a checkpoint.
    pub fn listing(mut self, listing: impl Listing) -> Self {
        self.source = Some(Source::Pages(Arc::new(listing)));
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
        self.source = Some(Source::Streams(Arc::new(move |side| boxed(streams(side)))));
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
        self.source = Some(Source::Changed(Arc::new(move |since| boxed(changed(since)))));
        self
    }

    /// How it goes through the keys: concurrency, rate, checkpoints.
    pub fn sweep(mut self, sweep: Sweep) -> Self {
        self.progress.send_modify(|progress| progress.at_once = sweep.concurrency);
        self.sweep = sweep;
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
        self.beside_others = true;
        self
    }

    /// How far the run has come; also in the handle's
    /// [status](crate::Status::backfill).
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
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
        let stage = self.handle.stage();
        let from = stage.authority();
        if stage.is_two_sided() {
            return Err(SweepError::Moved { from, stage });
        }
        let span = self.handle.core.span(from.other());
        self.look_empty(from.other()).await?;
        self.handle.core.found_empty(from.other(), span);
        Ok(())
    }

    async fn look_empty(&self, side: Side) -> Result<(), SweepError> {
        match self.source()?.first(side).await? {
            None => Ok(()),
            Some(key) => Err(SweepError::NotEmpty(key)),
        }
    }

    fn source(&self) -> Result<&Source, ConfigError> {
        let what = "where the keys come from (listing, streams or changed_since)";
        self.source.as_ref().ok_or(ConfigError::Missing { what })
    }

    fn check(&self) -> Result<&Source, SweepError> {
        self.sweep.check()?;
        let source = self.source()?;
        match source {
            Source::Streams(_) if self.sweep.checkpoints.is_some() => {
                let what = "an order of keys (checkpoints need a listing)";
                Err(ConfigError::Missing { what }.into())
            }
            Source::Changed(_) if self.sweep.checkpoints.is_none() => {
                let what = "the checkpoint of the run ahead of the flag";
                Err(ConfigError::Missing { what }.into())
            }
            _ => Ok(source),
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
        let source = self.check()?;
        let core = &self.handle.core;
        let from = self.handle.stage().authority();
        let ahead = !self.handle.stage().is_two_sided();
        if !ahead && !self.dry_run {
            self.handle.settled().await;
        }
        // What has been copied from here on is still equal at the end, if this has
        // not changed by then.
        let span = core.span(from.other());
        let start = self.start(source, from, span, ahead).await?;
        if ahead && !self.dry_run {
            // What old deletes from now on stays there until the run that counts.
            core.forget_empty(from.other());
        }
        let (resumed, both) = (start.checkpoint.tally.sum() > 0, start.both);
        let terms = Terms { ahead, beside_others: self.beside_others, looks: false };
        let job = CopyJob {
            handle: self.handle.clone(),
            rows: Arc::clone(&self.rows),
            from,
            how: How { terms, looks_first: true, rereads: self.rereads },
            trusts_listing: both,
            empty: !both,
            dry_run: self.dry_run,
        };
        let run = Run::new(&self.handle, &self.sweep, job, start, self.progress.clone());
        let (tally, failed) = Arc::new(run).go(source).await?;
        let uncounted = if self.dry_run {
            Some(Uncounted::DryRun)
        } else if ahead {
            Some(Uncounted::AheadOfFlag)
        } else if failed.count() > 0 {
            Some(Uncounted::FailedKeys)
        } else {
            attest(&self.handle, from.other(), span, self.beside_others).await?
        };
        let report = report(from, tally, failed, began.elapsed(), resumed, uncounted);
        tracing::info!(
            target: "tower_migration",
            migration = %self.handle.name(), %from, "backfill ended: {report}"
        );
        Ok(report)
    }

    /// Where the run begins: at the start, or at its checkpoint if that still counts.
    async fn start(
        &self,
        source: &Source,
        from: Side,
        span: u64,
        ahead: bool,
    ) -> Result<Start, SweepError> {
        let core = &self.handle.core;
        let mut checkpoint = Checkpoint::begin(JobKind::Backfill, &self.handle, from, span);
        let store = self.sweep.checkpoints.as_ref().filter(|_| !self.dry_run);
        let found = match store {
            Some(store) => store.load().await?,
            None => None,
        };
        if let Source::Changed(_) = source {
            let ahead_of_flag = found.filter(|found| {
                found.is_of(&checkpoint)
                    && !found.stage.is_two_sided()
                    && found.is_complete()
                    && !ahead
            });
            let run = ahead_of_flag.ok_or(SweepError::NoRunAhead)?;
            checkpoint.began = run.began.checked_sub(CLOCKS).unwrap_or(SystemTime::UNIX_EPOCH);
            return Ok(Start { checkpoint, both: true, kept: false });
        }
        match found {
            Some(found) if found.goes_on(&checkpoint) => checkpoint = found,
            Some(found) if !found.is_complete() => tracing::warn!(
                target: "tower_migration",
                migration = %self.handle.name(), began = ?found.began,
                "a checkpoint does not count any more: the backfill begins anew"
            ),
            _ => {}
        }
        let kept = store.is_some();
        if !self.target_empty {
            return Ok(Start { checkpoint, both: true, kept });
        }
        if !checkpoint.target_empty && !core.was_found_empty(from.other(), span) {
            self.look_empty(from.other()).await?;
        }
        checkpoint.target_empty = true;
        Ok(Start { checkpoint, both: false, kept })
    }
}

impl Checkpoint {
    /// Of the same kind of run, and what it has copied is still equal.
    pub(super) fn is_of(&self, now: &Self) -> bool {
        self.job == now.job
            && self.migration == now.migration
            && self.from == now.from
            && self.span == now.span
    }

    pub(super) fn is_complete(&self) -> bool {
        self.finished && self.again.is_empty() && self.again_lost == 0
    }

    /// Whether a run that begins now goes on from here.
    pub(super) fn goes_on(&self, now: &Self) -> bool {
        // One that ran ahead of the flag does not count once both sides are written.
        self.is_of(now) && self.stage == now.stage && !self.is_complete() && self.again_lost == 0
    }
}

impl Source {
    /// A key of this side, if there is any.
    async fn first(&self, side: Side) -> Result<Option<Key>, SweepError> {
        let failed = |says| SweepError::Keys { side: Some(side), says };
        match self {
            Self::Pages(pages) => {
                Ok(pages.page(side, None, 1).await.map_err(failed)?.into_iter().next())
            }
            Self::Streams(streams) => {
                let mut stream = streams(side);
                let first = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await;
                first.transpose().map_err(failed)
            }
            Self::Changed(_) => {
                Err(ConfigError::Missing { what: "a listing of the target" }.into())
            }
        }
    }
}

/// Puts on record that a side is synced, or says why not. Waits for other processes to
/// go, unless the run does not mind them.
pub(super) async fn attest(
    handle: &MigrationHandle,
    side: Side,
    span: u64,
    beside_others: bool,
) -> Result<Option<Uncounted>, SweepError> {
    loop {
        match handle.core.attest(side, span).await {
            Ok(synced) => return Ok((!synced).then_some(Uncounted::Voided)),
            Err(blocked) => match blocked.reasons() {
                [Reason::Shared | Reason::Follower] if beside_others => {
                    return Ok(Some(Uncounted::Shared));
                }
                [Reason::Shared | Reason::Follower] => sleep(LOOK).await,
                [Reason::ShutDown] => return Err(SweepError::ShutDown),
                _ => return Err(SweepError::Blocked(blocked)),
            },
        }
    }
}

fn report(
    from: Side,
    tally: Tally,
    failed: Failed,
    took: Duration,
    resumed: bool,
    uncounted: Option<Uncounted>,
) -> BackfillReport {
    BackfillReport {
        from,
        written: tally.get(Deed::Written),
        deleted: tally.get(Deed::Deleted),
        unchanged: tally.get(Deed::Unchanged),
        left: tally.get(Deed::Left),
        failed: failed.count(),
        failures: failed.first(NAMED),
        took,
        resumed,
        synced: uncounted.is_none(),
        uncounted,
    }
}

struct CopyJob<R> {
    handle: MigrationHandle,
    rows: Arc<R>,
    from: Side,
    how: How,
    /// A key that the target did not list is not there, as far as anybody knows.
    trusts_listing: bool,
    /// The target has nothing of its own.
    empty: bool,
    dry_run: bool,
}

impl<R: Rows> CopyJob<R> {
    async fn would(&self, item: &Item) -> Result<Deed, String> {
        let read = async |side| self.rows.read(side, &item.key).await.map_err(said);
        let (row, there) = (read(self.from).await?, read(self.from.other()).await?);
        Ok(match row {
            row if row == there => Deed::Unchanged,
            Some(_) => Deed::Written,
            None => Deed::Deleted,
        })
    }
}

impl<R: Rows> Job for CopyJob<R> {
    fn kind(&self) -> JobKind {
        JobKind::Backfill
    }

    async fn one(&self, item: &Item, pace: &Pace) -> Result<Deed, Trouble> {
        if self.dry_run {
            return self.would(item).await.map_err(Trouble::Failed);
        }
        let stage = self.handle.stage();
        if stage.authority() != self.from || self.how.terms.ahead == stage.is_two_sided() {
            return Err(Trouble::Stop(SweepError::Moved { from: self.from, stage }));
        }
        if item.listed == Listed::Leftover {
            // All that the source has was copied before.
            let read = self.rows.read(self.from, &item.key).await;
            if read.map_err(|error| Trouble::Failed(said(error)))?.is_some() {
                return Ok(Deed::Unchanged);
            }
        }
        let absent = match item.listed {
            Listed::SourceAlone => self.trusts_listing || self.empty,
            _ => false,
        };
        let how = How { looks_first: !absent, ..self.how };
        let copied = self.handle.copy_row(&*self.rows, &item.key, self.from, how, Some(pace));
        match copied.await {
            Ok((_, deed)) => Ok(deed),
            Err(error) => Err(Trouble::of(error, self.from)),
        }
    }
}

impl<R> fmt::Debug for Backfill<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backfill")
            .field("handle", &self.handle)
            .field("source", &self.source)
            .field("sweep", &self.sweep)
            .field("target_empty", &self.target_empty)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}
