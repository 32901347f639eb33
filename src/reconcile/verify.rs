//! Comparing everything.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Checkpoint, Deed, FailedKey, JobKind, Key, Listing, Progress, Rows, Sweep, SweepError,
    Uncounted,
    backfill::attest,
    copy::{How, Terms},
    listing::{Source, boxed},
    rows::said,
    sweep::{Item, Job, Pace, Run, Start, Trouble},
};
use crate::{
    BoxError,
    compare::Diff,
    flag::{ConfigError, MigrationHandle},
    stage::Side,
};

/// How many failed keys a report names.
const NAMED: usize = 100;
/// How many different names of what differs a report counts apart.
const FIELDS: usize = 256;

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
    handle: MigrationHandle,
    rows: Arc<R>,
    source: Option<Source>,
    sweep: Sweep,
    mends: bool,
    rereads: u32,
    reread_pause: Duration,
    kept: usize,
    beside_others: bool,
    progress: watch::Sender<Progress>,
}

/// A key whose two sides differ, and what does.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Differing {
    /// The key.
    pub key: Key,
    /// The authority's against the other side's.
    pub diff: Diff,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.diff)
    }
}

/// What a [`Verify`] found. `Display` is a page for a person.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// The side that is right.
    pub from: Side,
    /// Keys that are equal on both sides.
    pub equal: u64,
    /// Keys that differ.
    pub differ: u64,
    /// Keys that differed, and were copied from the side that is right.
    pub mended: u64,
    /// Keys that are dirty: not compared.
    pub dirty: u64,
    /// Keys that could not be compared.
    pub failed: u64,
    /// The first hundred of them.
    pub failures: Vec<FailedKey>,
    /// Of those that differ, and of those that were mended, as many as were to be
    /// [kept](Verify::keep); of the part that ran in this process.
    pub differing: Vec<Differing>,
    /// By what differs: in how many keys. At most 256 names; what goes over it counts as
    /// `(others)`.
    pub fields: BTreeMap<String, u64>,
    /// How long it took, in this process.
    pub took: Duration,
    /// Whether it went on from a checkpoint. Then the numbers of keys are those of the
    /// whole.
    pub resumed: bool,
    /// Whether the other side is synced now.
    pub synced: bool,
    /// If not, why.
    pub uncounted: Option<Uncounted>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, differ, mended, dirty, failed, .. } = self;
        write!(
            f,
            "{equal} equal, {differ} differ, {mended} mended, {dirty} dirty, {failed} failed in \
             {:.1?}: ",
            self.took
        )?;
        let to = self.from.other();
        match self.uncounted {
            None => write!(f, "{to} is synced")?,
            Some(why) => write!(f, "{to} is not synced by it, since {why}")?,
        }
        for (what, keys) in &self.fields {
            write!(f, "\n  {what}: in {keys} keys")?;
        }
        for differing in &self.differing {
            write!(f, "\n  {differing}")?;
        }
        Ok(())
    }
}

impl<R: Rows> Verify<R> {
    /// A comparison of all keys. It still has to be told which keys there are:
    /// [`listing`](Self::listing) or [`streams`](Self::streams).
    pub fn new(handle: &MigrationHandle, rows: R) -> Self {
        let sweep = Sweep::default();
        let progress = watch::Sender::new(Progress::start(sweep.concurrency));
        Self {
            handle: handle.clone(),
            rows: Arc::new(rows),
            source: None,
            sweep,
            mends: false,
            rereads: 2,
            reread_pause: Duration::from_millis(50),
            kept: 100,
            beside_others: false,
            progress,
        }
    }

    /// As [`Backfill::listing`](super::Backfill::listing).
    pub fn listing(mut self, listing: impl Listing) -> Self {
        self.source = Some(Source::Pages(Arc::new(listing)));
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
        self.source = Some(Source::Streams(Arc::new(move |side| boxed(streams(side)))));
        self
    }

    /// How it goes through the keys: concurrency, rate, checkpoints.
    pub fn sweep(mut self, sweep: Sweep) -> Self {
        self.progress.send_modify(|progress| progress.at_once = sweep.concurrency);
        self.sweep = sweep;
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
        self.beside_others = true;
        self
    }

    /// How far the run has come; also in the handle's [status](crate::Status::verify).
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
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
        self.sweep.check()?;
        let what = "where the keys come from (listing or streams)";
        let source = self.source.as_ref().ok_or(ConfigError::Missing { what })?;
        if matches!(source, Source::Streams(_)) && self.sweep.checkpoints.is_some() {
            let what = "an order of keys (checkpoints need a listing)";
            return Err(ConfigError::Missing { what }.into());
        }
        let core = &self.handle.core;
        let stage = self.handle.stage();
        if !stage.is_two_sided() {
            return Err(SweepError::OneSided(stage));
        }
        self.handle.settled().await;
        let from = stage.authority();
        let span = core.span(from.other());
        let mut checkpoint = Checkpoint::begin(JobKind::Verify, &self.handle, from, span);
        if let Some(store) = &self.sweep.checkpoints
            && let Some(found) = store.load().await?
            && found.goes_on(&checkpoint)
        {
            checkpoint = found;
        }
        let resumed = checkpoint.tally.sum() > 0;
        let findings = Arc::new(Mutex::new(Findings::default()));
        let job = CompareJob {
            handle: self.handle.clone(),
            rows: Arc::clone(&self.rows),
            from,
            mends: self.mends,
            rereads: self.rereads,
            pause: self.reread_pause,
            kept: self.kept,
            beside_others: self.beside_others,
            findings: Arc::clone(&findings),
        };
        let kept = self.sweep.checkpoints.is_some();
        let start = Start { checkpoint, both: true, kept };
        let run = Run::new(&self.handle, &self.sweep, job, start, self.progress.clone());
        let (tally, failed) = Arc::new(run).go(source).await?;
        let uncounted = if failed.count() > 0 {
            Some(Uncounted::FailedKeys)
        } else if tally.get(Deed::Differing) > 0 {
            Some(Uncounted::Differences)
        } else {
            attest(&self.handle, from.other(), span, self.beside_others).await?
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
            migration = %self.handle.name(), %from,
            "verify ended: {}", line.lines().next().unwrap_or_default()
        );
        Ok(report)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Findings {
    differing: Vec<Differing>,
    fields: BTreeMap<String, u64>,
}

impl Findings {
    fn add(&mut self, key: &Key, diff: Diff, kept: usize) {
        for difference in diff.differences() {
            let name = &difference.what;
            if self.fields.len() >= FIELDS && !self.fields.contains_key(name) {
                *self.fields.entry("(others)".to_owned()).or_default() += 1;
            } else {
                *self.fields.entry(name.clone()).or_default() += 1;
            }
        }
        if self.differing.len() < kept {
            self.differing.push(Differing { key: key.clone(), diff });
        }
    }
}

struct CompareJob<R> {
    handle: MigrationHandle,
    rows: Arc<R>,
    from: Side,
    mends: bool,
    rereads: u32,
    pause: Duration,
    kept: usize,
    beside_others: bool,
    findings: Arc<Mutex<Findings>>,
}

impl<R: Rows> CompareJob<R> {
    async fn compare(&self, key: &Key, pace: &Pace) -> Result<Diff, String> {
        let began = Instant::now();
        let row = self.rows.read(self.from, key).await.map_err(said)?;
        pace.took(began.elapsed());
        let there = self.rows.read(self.from.other(), key).await;
        let there = there.map_err(said)?;
        Ok(self.rows.differ(key, row.as_ref(), there.as_ref()))
    }

    /// With the key's place in hand: no write of it runs on either side.
    async fn compare_alone(&self, key: &Key, pace: &Pace) -> Result<Diff, Trouble> {
        let terms = Terms { ahead: false, beside_others: self.beside_others, looks: true };
        let found = Mutex::new(Diff::none());
        let looked = self.handle.run_copy(key, self.from, terms, || async {
            let diff = self.compare(key, pace).await?;
            *locked(&found) = diff;
            Ok(())
        });
        let looked: Result<_, super::CopyError<String>> = looked.await;
        looked.map_err(|error| Trouble::of(error, self.from))?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_dirty(&self, key: &Key) -> bool {
        self.handle.core.dirty().get(key).is_some()
    }

    async fn mend(&self, key: &Key, pace: &Pace) -> Result<Deed, Trouble> {
        let terms = Terms { ahead: false, beside_others: self.beside_others, looks: false };
        let how = How { terms, looks_first: false, rereads: true };
        let copied = self.handle.copy_row(&*self.rows, key, self.from, how, Some(pace));
        match copied.await {
            Ok(_) => Ok(Deed::Mended),
            Err(error) => Err(Trouble::of(error, self.from)),
        }
    }
}

impl<R: Rows> Job for CompareJob<R> {
    fn kind(&self) -> JobKind {
        JobKind::Verify
    }

    async fn one(&self, item: &Item, pace: &Pace) -> Result<Deed, Trouble> {
        let key = &item.key;
        let stage = self.handle.stage();
        if !stage.is_two_sided() || stage.authority() != self.from {
            return Err(Trouble::Stop(SweepError::Moved { from: self.from, stage }));
        }
        if self.is_dirty(key) {
            return Ok(Deed::Dirty);
        }
        // At the authority's pace first, in nobody's way. Equal is equal, whatever
        // raced it: a write that leaves the sides apart makes the key dirty.
        let mut diff = self.compare(key, pace).await.map_err(Trouble::Failed)?;
        let mut pause = self.pause;
        for _ in 0..=self.rereads {
            if diff.is_empty() {
                return Ok(Deed::Equal);
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2);
            diff = self.compare_alone(key, pace).await?;
        }
        if diff.is_empty() {
            return Ok(Deed::Equal);
        }
        if self.is_dirty(key) {
            return Ok(Deed::Dirty);
        }
        locked(&self.findings).add(key, diff, self.kept);
        if self.mends { self.mend(key, pace).await } else { Ok(Deed::Differing) }
    }
}

impl<R> fmt::Debug for Verify<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("handle", &self.handle)
            .field("source", &self.source)
            .field("sweep", &self.sweep)
            .field("mends", &self.mends)
            .finish_non_exhaustive()
    }
}
