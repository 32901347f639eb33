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
//! The order in which the cells are written and read is all that makes it right:
//! see [`protocol`].
//!
//! # Why it is leaked
//!
//! A mark outlives whatever its request borrowed from, and an `Arc` clone per
//! request would double its cost. So ledgers are leaked and used again: a
//! process holds as many as it ever had migrations alive at once, each a few
//! kilobytes a core.

mod about;
mod atomic;
mod kind;
mod linger;
mod mark;
mod protocol;
mod roster;
mod shard;

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub(crate) use self::kind::{End, Kind};
pub(crate) use self::linger::later;
pub use self::mark::Mark;
use self::{
    atomic::AtomicU64,
    linger::Lingering,
    protocol::{Look, Stale},
    roster::Left,
    shard::{Shard, thread_index},
};
use super::gate::{Gate, Word};
use crate::{
    stage::{Role, Side},
    telemetry::BUCKETS,
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
    waiting: AtomicU64,
    ended: Notify,
    lingering: Lingering,
    left: Left,
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
                waiting: AtomicU64::new(0),
                ended: Notify::new(),
                lingering: Lingering::default(),
                left: Left::default(),
            }))
        });
        for cell in ledger.shards.iter().flat_map(Shard::cells) {
            cell.store(0, Ordering::SeqCst);
        }
        ledger.lingering.reset(linger);
        ledger.left.reset();
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

    #[inline]
    fn shard_index(&self) -> usize {
        thread_index() & (self.shards.len() - 1)
    }

    /// Admits one leg under the gate's present word.
    #[inline]
    pub(crate) fn admit(&'static self, gate: &Gate, word: Word, kind: Kind) -> Result<Mark, Word> {
        let (shard, row) = (self.shard_index(), row(word, kind));
        let started = &self.shards[shard].started[row][kind.index()];
        match protocol::admit(started, &self.waiting, &word, || gate.load()) {
            Ok(()) => Ok(Mark::new(self, shard, row, kind)),
            Err(Stale { now, awaited }) => {
                self.wake_if(awaited);
                Err(now)
            }
        }
    }

    /// A mark that is taken while another one of the same request, taken
    /// before it, has not been checked against the gate yet.
    #[inline]
    pub(crate) fn begin(&'static self, word: Word, kind: Kind) -> Mark {
        let (shard, row) = (self.shard_index(), row(word, kind));
        protocol::begin(&self.shards[shard].started[row][kind.index()]);
        Mark::new(self, shard, row, kind)
    }

    /// Legs in flight, of the rows and kinds that `which` picks.
    fn count(&self, which: impl Fn(usize, Kind) -> bool) -> u64 {
        let picked = || {
            self.shards.iter().flat_map(|shard| {
                (0..ROWS)
                    .flat_map(|row| Kind::all().map(move |kind| (row, kind)))
                    .filter(|(row, kind)| which(*row, *kind))
                    .map(move |(row, kind)| (shard, row, kind.index()))
            })
        };
        protocol::in_flight(
            picked().flat_map(|(shard, row, kind)| &shard.finished[row][kind]),
            picked().map(|(shard, row, kind)| &shard.started[row][kind]),
        )
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
                && self.lingering.until(|s, _| s == *slot).is_none_or(|until| until <= now)
        })
    }

    /// Whether writes of earlier slots than `current` may still land although
    /// no mark of theirs is left.
    pub(crate) fn is_lingering(&self, current: usize) -> bool {
        self.lingering.until(|slot, _| slot != current).is_some_and(|until| until > Instant::now())
    }

    /// Waits until no write of an earlier epoch is running or lingering.
    /// `current` is asked again whenever something ended.
    pub(crate) async fn settled(&self, current: impl Fn() -> usize) {
        self.wait(|| {
            let current = current();
            (self.earlier_writes(current) == 0)
                .then(|| self.lingering.until(|slot, _| slot != current))
        })
        .await;
    }

    /// Waits until nothing runs on `side`, nor may still land there.
    pub(crate) async fn drained(&self, side: Side) {
        self.wait(|| (self.on_side(side) == 0).then(|| self.lingering.until(|_, s| s == side)))
            .await;
    }

    /// Writes of a process that died may still land: its stores have them.
    /// `current` is this one's slot.
    pub(crate) fn linger_of_the_dead(&self, current: usize) {
        // Any other slot is an earlier epoch's.
        let slot = (current + 1) % SLOTS;
        Side::ALL.into_iter().for_each(|side| self.lingering.add(slot, side));
    }

    /// Waits until no dual write's leg and no shadow read is left, and until
    /// what was cut off cannot land any more: the next process will not know.
    pub(crate) async fn quiet(&self) {
        self.wait(|| (self.background() == 0).then(|| self.lingering.until(|_, _| true))).await;
    }

    /// Waits until `done` is `Some`, then until the instant in it.
    async fn wait(&self, done: impl Fn() -> Option<Option<Instant>>) {
        let look = || match done() {
            Some(Some(until)) if until > Instant::now() => Look::Pause(sleep_until(until)),
            Some(_) => Look::Done,
            None => Look::Running,
        };
        // A `Notified` gets every `notify_waiters` from its creation on.
        protocol::wait(&self.waiting, || self.ended.notified(), look).await;
    }

    #[inline]
    fn wake_if(&self, awaited: bool) {
        if awaited {
            self.wake();
        }
    }

    /// Apart, so that the many ends that nobody waits for do not carry it along.
    #[cold]
    #[inline(never)]
    fn wake(&self) {
        self.ended.notify_waiters();
    }

    /// The gate has changed: waiters look again.
    pub(crate) fn moved(&self, before: Word, now: Word) {
        self.left.moved(before.slot(), now.slot());
        self.ended.notify_waiters();
    }
}

/// The row in which a leg is counted.
#[inline]
const fn row(word: Word, kind: Kind) -> usize {
    if kind.is_write() { word.slot() } else { READS }
}

#[cfg(test)]
mod tests;
