//! Who is in flight: one mark per leg, counted without a shared cache line.
//!
//! # How it works
//!
//! Each thread counts in its own [`Shard`]. A leg adds one to `started` when it
//! is admitted and one to `finished` when its mark is dropped, in the shard it
//! was admitted on; what is running is the difference, summed over the shards.
//! The same cells, by outcome, are the crate's request counters, so a request
//! on a one-sided stage costs two atomic additions in all.
//!
//! Writes are counted by *slot*. A flip picks a slot in which nothing runs, so
//! the writes of an earlier epoch are those in all other slots. Reads cannot
//! lose data and have one row for all epochs.
//!
//! # Why it is right
//!
//! An admission adds to `started` and then reads the gate again; if the gate
//! has changed it takes the addition back and starts over. All of this is
//! sequentially consistent, so an addition that a flip's waiter did not see
//! came after the flip, sees the new gate, and is taken back. A waiter reads
//! every `finished` before it reads any `started`: `finished` only grows and
//! never passes `started`, so if the two sums are equal, nothing was running
//! when the first was read, and nothing can have begun in that slot since.
//!
//! A mark that ends adds to `finished` and then looks whether anybody waits; a
//! waiter announces itself before it counts. One of the two sees the other.
//!
//! # Why it is leaked
//!
//! A mark outlives whatever its request borrowed from, and an `Arc` clone per
//! request would double its cost. So ledgers are leaked and used again: a
//! process holds as many as it ever had migrations alive at once, each a few
//! kilobytes a core.

mod kind;
mod shard;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub(crate) use self::kind::{End, Kind};
use self::shard::{Shard, thread_index};
use super::gate::{Gate, Word};
use crate::{
    stage::{Role, Side, lingers},
    telemetry::{BUCKETS, bucket},
};

/// Epochs with unfinished writes that can be told apart.
pub(crate) const SLOTS: usize = 16;
/// The row of reads and shadow reads, which have no epoch.
const READS: usize = SLOTS;
const ROWS: usize = SLOTS + 1;

/// All counters of one migration.
#[derive(Debug)]
pub(crate) struct Ledger {
    shards: Box<[Shard]>,
    waiting: AtomicUsize,
    ended: Notify,
    linger: Mutex<Linger>,
}

/// By slot and side: until when writes may still land although nothing of them
/// is left here. Locked when a write is cut off, and by flips.
#[derive(Debug, Default)]
struct Linger {
    until: [[Option<Instant>; 2]; SLOTS],
    length: Duration,
}

static POOL: Mutex<Vec<&'static Ledger>> = Mutex::new(Vec::new());

fn pool() -> MutexGuard<'static, Vec<&'static Ledger>> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A ledger in which nothing runs: a used one, or a new one.
    pub(crate) fn acquire(linger: Duration) -> &'static Self {
        let used = {
            let mut pool = pool();
            let idle = pool.iter().position(|ledger| ledger.is_idle());
            idle.map(|at| pool.swap_remove(at))
        };
        let ledger = used.unwrap_or_else(|| {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let shards = threads.next_power_of_two().clamp(2, 64);
            Box::leak(Box::new(Self {
                shards: (0..shards).map(|_| Shard::new()).collect(),
                waiting: AtomicUsize::new(0),
                ended: Notify::new(),
                linger: Mutex::default(),
            }))
        });
        for cell in ledger.shards.iter().flat_map(Shard::cells) {
            cell.store(0, Ordering::SeqCst);
        }
        *ledger.lock_linger() = Linger { until: [[None; 2]; SLOTS], length: linger };
        ledger
    }

    /// Gives the ledger back. Marks that are still out keep it from being used
    /// again until they end.
    pub(crate) fn release(&'static self) {
        pool().push(self);
    }

    fn is_idle(&self) -> bool {
        self.count(|_, _| true) == 0
    }

    fn shard(&'static self) -> &'static Shard {
        &self.shards[thread_index() & (self.shards.len() - 1)]
    }

    /// Admits one leg under the gate's present word.
    #[inline]
    pub(crate) fn admit(&'static self, gate: &Gate, word: Word, kind: Kind) -> Result<Mark, Word> {
        let mark = self.begin(word, kind);
        let now = gate.load();
        if now == word {
            Ok(mark)
        } else {
            mark.take_back();
            Err(now)
        }
    }

    /// A mark that is taken while another one of the same request, taken
    /// before it, has not been checked against the gate yet.
    #[inline]
    pub(crate) fn begin(&'static self, word: Word, kind: Kind) -> Mark {
        let row = if kind.is_write() { word.slot() } else { READS };
        let shard = self.shard();
        shard.started[row][kind.index()].fetch_add(1, Ordering::SeqCst);
        Mark { ledger: self, shard, row: row as u8, kind, end: End::Dropped, lingers: false }
    }

    /// Legs in flight, of the rows and kinds that `which` picks.
    fn count(&self, which: impl Fn(usize, Kind) -> bool) -> u64 {
        let picked = || {
            (0..ROWS)
                .flat_map(|row| Kind::all().map(move |kind| (row, kind)))
                .filter(|(row, kind)| which(*row, *kind))
        };
        // `finished` first: see the module's page.
        let mut finished = 0_u64;
        for shard in &self.shards {
            for (row, kind) in picked() {
                for cell in &shard.finished[row][kind.index()] {
                    finished = finished.wrapping_add(cell.load(Ordering::SeqCst));
                }
            }
        }
        let mut started = 0_u64;
        for shard in &self.shards {
            for (row, kind) in picked() {
                let cell = &shard.started[row][kind.index()];
                started = started.wrapping_add(cell.load(Ordering::SeqCst));
            }
        }
        started.saturating_sub(finished)
    }

    /// Writes in flight that were admitted in another slot than `current`.
    pub(crate) fn earlier_writes(&self, current: usize) -> u64 {
        self.count(|row, kind| kind.is_write() && row != current)
    }

    /// Writes in flight, whenever they were admitted.
    #[cfg(test)]
    fn writes(&self) -> u64 {
        self.count(|_, kind| kind.is_write())
    }

    /// Legs of this kind in flight.
    pub(crate) fn in_flight(&self, kind: Kind) -> u64 {
        self.count(|_, k| k == kind)
    }

    /// Everything in flight on `side`.
    pub(crate) fn on_side(&self, side: Side) -> u64 {
        self.count(|_, kind| kind.side() == side)
    }

    /// Dual writes' legs and shadow reads: what may run without a client.
    pub(crate) fn background(&self) -> u64 {
        self.count(|_, kind| kind.is_write() || kind.role() == Role::Shadow)
    }

    /// Legs of this kind that ended this way, ever.
    pub(crate) fn ended(&self, kind: Kind, end: End) -> u64 {
        self.shards
            .iter()
            .flat_map(|shard| shard.finished.iter())
            .map(|row| row[kind.index()][end as usize].load(Ordering::Relaxed))
            .sum()
    }

    /// The durations of this kind, by bucket.
    pub(crate) fn durations(&self, kind: Kind) -> [u64; BUCKETS] {
        let mut counts = [0; BUCKETS];
        for shard in &self.shards {
            for (count, cell) in counts.iter_mut().zip(&shard.durations[kind.index()]) {
                *count += cell.load(Ordering::Relaxed);
            }
        }
        counts
    }

    /// A slot other than `current` in which nothing runs or lingers.
    pub(crate) fn free_slot(&self, current: usize) -> Option<usize> {
        let now = Instant::now();
        (0..SLOTS).find(|slot| {
            *slot != current
                && self.count(|row, kind| kind.is_write() && row == *slot) == 0
                && self.lingers_until(|s, _| s == *slot).is_none_or(|until| until <= now)
        })
    }

    fn lock_linger(&self) -> MutexGuard<'_, Linger> {
        self.linger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn linger(&self, slot: usize, side: Side) {
        let mut linger = self.lock_linger();
        let until = later(linger.length);
        if let Some(cell) = linger.until.get_mut(slot).map(|sides| &mut sides[side.index()]) {
            *cell = (*cell).max(Some(until));
        }
    }

    /// Writes of a process that died may still land: its stores have them. Called
    /// before anything is admitted.
    pub(crate) fn linger_from_before(&self) {
        // The first epoch's slot is 0, so this one is an earlier epoch's.
        Side::ALL.into_iter().for_each(|side| self.linger(SLOTS - 1, side));
    }

    fn lingers_until(&self, which: impl Fn(usize, Side) -> bool) -> Option<Instant> {
        let linger = self.lock_linger();
        let all = (0..SLOTS).flat_map(|slot| Side::ALL.map(|side| (slot, side)));
        all.filter(|(slot, side)| which(*slot, *side))
            .filter_map(|(slot, side)| linger.until[slot][side.index()])
            .max()
    }

    /// Whether writes of earlier slots than `current` may still land although
    /// no mark of theirs is left.
    pub(crate) fn is_lingering(&self, current: usize) -> bool {
        self.lingers_until(|slot, _| slot != current).is_some_and(|until| until > Instant::now())
    }

    /// Waits until no write of an earlier epoch is running or lingering.
    /// `current` is asked again whenever something ended.
    pub(crate) async fn settled(&self, current: impl Fn() -> usize) {
        self.wait(|| {
            let current = current();
            (self.earlier_writes(current) == 0)
                .then(|| self.lingers_until(|slot, _| slot != current))
        })
        .await;
    }

    /// Waits until nothing runs on `side`, nor may still land there.
    pub(crate) async fn drained(&self, side: Side) {
        self.wait(|| (self.on_side(side) == 0).then(|| self.lingers_until(|_, s| s == side))).await;
    }

    /// Waits until no dual write's leg and no shadow read is left, and until
    /// what was cut off cannot land any more: the next process will not know.
    pub(crate) async fn quiet(&self) {
        self.wait(|| (self.background() == 0).then(|| self.lingers_until(|_, _| true))).await;
    }

    /// Waits until `done` is `Some`, then until the instant in it.
    async fn wait(&self, done: impl Fn() -> Option<Option<Instant>>) {
        let _announced = Announced::new(&self.waiting);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            match done() {
                Some(Some(until)) if until > Instant::now() => sleep_until(until).await,
                Some(_) => return,
                None => ended.await,
            }
        }
    }

    /// Tells waiters to look again: the gate has changed.
    pub(crate) fn look_again(&self) {
        self.ended.notify_waiters();
    }
}

/// That long from now; for a length that no clock can add, in thirty years.
pub(crate) fn later(length: Duration) -> Instant {
    let now = Instant::now();
    let ages = Duration::from_secs(30 * 365 * 24 * 3_600);
    now.checked_add(length).unwrap_or_else(|| now + ages)
}

struct Announced<'a>(&'a AtomicUsize);

impl<'a> Announced<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One leg in flight. Dropping it is its end.
#[must_use = "a mark that is dropped says that its leg has ended"]
#[derive(Debug)]
pub struct Mark {
    ledger: &'static Ledger,
    shard: &'static Shard,
    row: u8,
    kind: Kind,
    end: End,
    lingers: bool,
}

impl Mark {
    pub(crate) const fn side(&self) -> Side {
        self.kind.side()
    }

    /// Says how the leg ended, for the counters.
    #[inline]
    pub(crate) fn set_end(&mut self, end: End) {
        self.end = end;
    }

    /// Says whether the leg may still land after the mark is gone: a write
    /// that was cut off may.
    #[inline]
    pub(crate) fn set_lingers(&mut self, lingers: bool) {
        self.lingers = lingers && self.kind.is_write();
    }

    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let kind = self.kind.index();
        self.shard.durations[kind][bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the mark of a leg that was admitted and then not needed.
    pub(crate) fn unused(mut self) {
        self.end = End::Unused;
        self.lingers = false;
    }

    /// Ends the mark of a leg whose service answered with an error. Whatever
    /// gave up in there, a write that runs alone may still land.
    pub(crate) fn failed(mut self) {
        self.end = End::Unknown;
    }

    /// The answer has ended. A write that runs alone may still land if its
    /// answer said that nobody knows.
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.lingers &= lingers(self.end.outcome());
    }

    /// Undoes an admission that raced a flip.
    fn take_back(self) {
        let this = std::mem::ManuallyDrop::new(self);
        this.shard.started[usize::from(this.row)][this.kind.index()].fetch_sub(1, Ordering::SeqCst);
        this.wake();
    }

    #[inline]
    fn wake(&self) {
        if self.ledger.waiting.load(Ordering::SeqCst) > 0 {
            self.ledger.ended.notify_waiters();
        }
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        if self.lingers {
            self.ledger.linger(usize::from(self.row), self.kind.side());
        }
        self.shard.finished[usize::from(self.row)][self.kind.index()][self.end as usize]
            .fetch_add(1, Ordering::SeqCst);
        self.wake();
    }
}

#[cfg(test)]
mod tests;
