//! Counters of one thread.

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    ROWS,
    kind::{ENDS, KINDS},
    roster::Roster,
};
use crate::telemetry::BUCKETS;

/// One thread's counters, on cache lines of their own.
#[repr(align(128))]
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) started: [[AtomicU64; KINDS]; ROWS],
    pub(super) finished: [[[AtomicU64; ENDS]; KINDS]; ROWS],
    pub(super) durations: [[AtomicU64; BUCKETS]; KINDS],
    roster: Mutex<Roster>,
}

impl Shard {
    pub(super) const fn new() -> Self {
        Self {
            started: [const { [const { AtomicU64::new(0) }; KINDS] }; ROWS],
            finished: [const { [const { [const { AtomicU64::new(0) }; ENDS] }; KINDS] }; ROWS],
            durations: [const { [const { AtomicU64::new(0) }; BUCKETS] }; KINDS],
            roster: Mutex::new(Roster::new()),
        }
    }

    /// Its legs that have a name.
    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        // Whole after any panic: nothing of others is called under the lock.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.started
            .iter()
            .flatten()
            .chain(self.finished.iter().flatten().flatten())
            .chain(self.durations.iter().flatten())
    }
}

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// This thread's number, given out in order so that neighbours do not share.
#[inline]
pub(super) fn thread_index() -> usize {
    match INDEX.get() {
        usize::MAX => first_index(),
        index => index,
    }
}

#[cold]
#[inline(never)]
fn first_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    INDEX.set(index);
    index
}
