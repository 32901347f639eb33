//! One leg in flight.

use std::{sync::atomic::Ordering, time::Duration};

use super::{End, Kind, Ledger, protocol, shard::Shard};
use crate::{flag::gate::Word, stage::Side, telemetry::bucket};

/// One leg in flight. Dropping it is its end.
#[must_use = "a mark that is dropped says that its leg has ended"]
#[derive(Debug)]
pub struct Mark {
    pub(super) ledger: &'static Ledger,
    /// Where it was admitted, and ends.
    pub(super) shard: &'static Shard,
    pub(super) row: u8,
    pub(super) kind: Kind,
    end: End,
    lingers: bool,
}

impl Mark {
    /// Of a leg that has been counted.
    #[inline]
    pub(super) const fn new(
        ledger: &'static Ledger,
        shard: &'static Shard,
        row: usize,
        kind: Kind,
    ) -> Self {
        Self { ledger, shard, row: row as u8, kind, end: End::Dropped, lingers: false }
    }

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
        self.lingers &= matches!(self.end, End::Unknown);
    }

    /// The same write's leg as one of another kind: for a write that learns
    /// late which side is its authority. There is no moment in which neither
    /// counts, so a flip that waits for the one waits for the other.
    ///
    /// The mark must have been checked against the gate: it vouches for what it
    /// becomes.
    #[cfg_attr(not(test), allow(dead_code, reason = "for writes whose key decides the authority"))]
    pub(crate) fn exchange(mut self, word: Word, kind: Kind) -> Self {
        debug_assert!(self.kind.is_write() && kind.is_write(), "reads have no slot to stay in");
        debug_assert_eq!(usize::from(self.row), word.slot(), "a mark of that word");
        if self.kind == kind {
            return self;
        }
        let row = usize::from(self.row);
        let started = &self.shard.started[row][kind.index()];
        let finished = &self.shard.finished[row][self.kind.index()][End::Unused as usize];
        let awaited = protocol::hand_over(started, finished, &self.ledger.waiting);
        self.kind = kind;
        self.ledger.wake_if(awaited);
        self
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        let row = usize::from(self.row);
        if self.lingers {
            self.ledger.lingering.add(row, self.kind.side());
        }
        let finished = &self.shard.finished[row][self.kind.index()][self.end as usize];
        self.ledger.wake_if(protocol::finish(finished, &self.ledger.waiting));
    }
}
