//! The ledger in small: the crate's own protocol over a few cells, or that
//! protocol with one mistake in it.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64 as Plain, Ordering};

use crate::{
    atomic::{AtomicU64, increment, load, store},
    notify::{Notify, block_on},
    protocol::{self, Announced, Look, Stale},
};

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The protocol as it is.
    None,
    /// An admission does not read the gate again.
    NoSecondLook,
    /// An admission reads the gate again before it is counted.
    LooksThenCounts,
    /// An admission is not sequentially consistent.
    AcquireReleaseAdmit,
    /// The end of a mark is not.
    AcquireReleaseEnd,
    /// An admission that is taken back wakes nobody.
    SilentTakeBack,
    /// A mark looks for waiters before it is counted as ended.
    WakesThenEnds,
    /// A mark that is dropped by a panic counts no end.
    PanicLeaks,
    /// A handover ends before it begins.
    EndsThenBegins,
    /// A flip uses a slot again in which writes still run.
    ReusesSlot,
    /// A waiter reads `started` before `finished`.
    StartedFirst,
    /// A waiter announces itself once it has looked.
    AnnouncedLate,
    /// A waiter arms its wake-up once it has looked.
    ArmedLate,
}

const SLOTS: usize = 2;
const KINDS: usize = 2;
/// As in the crate's word: no slot was free, so the epoch has none to itself.
const SHARED: u64 = 1 << 1;

/// Epoch, and slot: what the crate's `Word` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    fn new(epoch: u64, slot: usize) -> Self {
        Self(epoch << 2 | slot as u64)
    }

    pub(crate) fn epoch(self) -> u64 {
        self.0 >> 2
    }

    fn slot(self) -> usize {
        (self.0 & 1) as usize
    }

    fn settling_slot(self) -> usize {
        if self.0 & SHARED == 0 { self.slot() } else { usize::MAX }
    }
}

struct Shard {
    started: [[AtomicU64; KINDS]; SLOTS],
    finished: [[AtomicU64; KINDS]; SLOTS],
}

impl Shard {
    fn new() -> Self {
        let cells = || std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
        Self { started: cells(), finished: cells() }
    }
}

pub(crate) struct Ledger {
    gate: AtomicU64,
    shards: Vec<Shard>,
    kinds: usize,
    waiting: AtomicU64,
    ended: Notify,
    /// What each write has done to its store. Relaxed, so that it is seen for
    /// sure only by those for whom the protocol says that the write has ended.
    landed: [Plain; 2],
    mistake: Mistake,
}

impl Ledger {
    /// Cells beyond the first are there where a test needs them: each doubles
    /// what there is to try.
    pub(crate) fn new(shards: usize, kinds: usize, mistake: Mistake) -> Self {
        Self {
            gate: AtomicU64::new(Word::new(1, 0).0),
            shards: (0..shards).map(|_| Shard::new()).collect(),
            kinds,
            waiting: AtomicU64::new(0),
            ended: Notify::new(),
            landed: [Plain::new(0), Plain::new(0)],
            mistake,
        }
    }

    pub(crate) fn word(&self) -> Word {
        Word(load(&self.gate))
    }

    // === requests ===

    /// As the crate's `Ledger::admit`.
    pub(crate) fn admit(self: &Arc<Self>, shard: usize, word: Word) -> Result<Mark, Word> {
        let started = &self.shards[shard].started[word.slot()][0];
        let gate = || self.word();
        let admitted = match self.mistake {
            Mistake::NoSecondLook => {
                protocol::begin(started);
                Ok(())
            }
            Mistake::LooksThenCounts => {
                let now = gate();
                protocol::begin(started);
                if now == word {
                    Ok(())
                } else {
                    Err(Stale { now, awaited: protocol::take_back(started, &self.waiting) })
                }
            }
            Mistake::AcquireReleaseAdmit => {
                started.fetch_add(1, Ordering::AcqRel);
                let now = Word(self.gate.load(Ordering::Acquire));
                if now == word {
                    Ok(())
                } else {
                    Err(Stale { now, awaited: protocol::take_back(started, &self.waiting) })
                }
            }
            _ => protocol::admit(started, &self.waiting, &word, gate),
        };
        match admitted {
            Ok(()) => Ok(Mark { ledger: Arc::clone(self), shard, slot: word.slot(), kind: 0 }),
            Err(Stale { now, awaited }) => {
                self.wake_if(awaited && self.mistake != Mistake::SilentTakeBack);
                Err(now)
            }
        }
    }

    /// As the crate's `Ledger::begin`: a mark that another one's check vouches
    /// for.
    fn begin(self: &Arc<Self>, shard: usize, word: Word) -> Mark {
        protocol::begin(&self.shards[shard].started[word.slot()][0]);
        Mark { ledger: Arc::clone(self), shard, slot: word.slot(), kind: 0 }
    }

    /// A write, admitted as `Core::admit` does it: with a second mark for the
    /// other leg if `dual`, again and again until the gate stands still.
    pub(crate) fn write(self: &Arc<Self>, shard: usize, dual: bool) -> Word {
        let mut word = self.word();
        loop {
            let other = dual.then(|| self.begin(shard, word));
            match self.admit(shard, word) {
                Ok(mark) => {
                    self.land(shard);
                    drop((mark, other));
                    return word;
                }
                Err(now) => word = now,
            }
        }
    }

    /// The test's one write on that shard lands.
    pub(crate) fn land(&self, shard: usize) {
        self.landed[shard].store(1, Ordering::Relaxed);
    }

    /// Whether the write on that shard is known to have landed.
    pub(crate) fn landed(&self, shard: usize) -> bool {
        self.landed[shard].load(Ordering::Relaxed) == 1
    }

    fn wake_if(&self, awaited: bool) {
        if awaited {
            self.ended.notify_waiters();
        }
    }

    // === flips and waiters ===

    /// Opens an epoch, as the crate's `Core::open_epoch`. One caller at a time.
    pub(crate) fn flip(&self) -> Word {
        let now = self.word();
        let other = 1 - now.slot();
        let free = self.in_flight(|slot| slot == other) == 0;
        let next = if free || self.mistake == Mistake::ReusesSlot {
            Word::new(now.epoch() + 1, other)
        } else {
            Word(Word::new(now.epoch() + 1, now.slot()).0 | SHARED)
        };
        store(&self.gate, next.0);
        self.ended.notify_waiters();
        next
    }

    fn in_flight(&self, which: impl Fn(usize) -> bool) -> u64 {
        let picked = || {
            self.shards.iter().flat_map(|shard| {
                (0..SLOTS)
                    .filter(|slot| which(*slot))
                    .flat_map(|slot| (0..self.kinds).map(move |kind| (slot, kind)))
                    .map(move |(slot, kind)| (shard, slot, kind))
            })
        };
        let finished = || picked().map(|(shard, slot, kind)| &shard.finished[slot][kind]);
        let started = || picked().map(|(shard, slot, kind)| &shard.started[slot][kind]);
        if self.mistake == Mistake::StartedFirst {
            let started: u64 = started().map(load).sum();
            return started.saturating_sub(finished().map(load).sum());
        }
        protocol::in_flight(finished(), started())
    }

    /// As the crate's `Ledger::settled`.
    pub(crate) fn settled(&self) {
        let arm = || self.ended.notified();
        let look = || {
            let current = self.word().settling_slot();
            match self.in_flight(|slot| slot != current) {
                0 => Look::<std::future::Ready<()>>::Done,
                _ => Look::Running,
            }
        };
        let done = || matches!(look(), Look::Done);
        block_on(async {
            match self.mistake {
                Mistake::AnnouncedLate => loop {
                    let ended = arm();
                    if done() {
                        return;
                    }
                    let _announced = Announced::new(&self.waiting);
                    ended.await;
                },
                Mistake::ArmedLate => {
                    let _announced = Announced::new(&self.waiting);
                    while !done() {
                        arm().await;
                    }
                }
                _ => protocol::wait(&self.waiting, arm, look).await,
            }
        });
    }
}

/// As the crate's `Mark`.
pub(crate) struct Mark {
    ledger: Arc<Ledger>,
    shard: usize,
    slot: usize,
    kind: usize,
}

impl Mark {
    /// As the crate's `Mark::exchange`.
    pub(crate) fn exchange(mut self, kind: usize) -> Self {
        let ledger = Arc::clone(&self.ledger);
        let Shard { started, finished } = &ledger.shards[self.shard];
        let started = &started[self.slot][kind];
        let finished = &finished[self.slot][self.kind];
        let awaited = if ledger.mistake == Mistake::EndsThenBegins {
            let awaited = protocol::finish(finished, &ledger.waiting);
            protocol::begin(started);
            awaited
        } else {
            protocol::hand_over(started, finished, &ledger.waiting)
        };
        self.kind = kind;
        ledger.wake_if(awaited);
        self
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let ledger = &self.ledger;
        if ledger.mistake == Mistake::PanicLeaks && std::thread::panicking() {
            return;
        }
        let finished = &ledger.shards[self.shard].finished[self.slot][self.kind];
        let awaited = match ledger.mistake {
            Mistake::WakesThenEnds => {
                let awaited = load(&ledger.waiting) > 0;
                increment(finished);
                awaited
            }
            Mistake::AcquireReleaseEnd => {
                finished.fetch_add(1, Ordering::AcqRel);
                ledger.waiting.load(Ordering::Acquire) > 0
            }
            _ => protocol::finish(finished, &ledger.waiting),
        };
        ledger.wake_if(awaited);
    }
}
