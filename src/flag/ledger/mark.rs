//! One leg in flight.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{End, Kind, Ledger, protocol, roster::Entry, shard::Shard};
use crate::{
    flag::gate::Word,
    stage::{Outcome, Side, lingers},
    telemetry::bucket,
};

/// One leg in flight. Dropping it is its end.
///
/// A protocol keeps it with the answer of a request until the answer has ended,
/// and then calls [`ended`](Self::ended): a handler that streams may still be
/// writing.
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
    /// Its number in the shard's roster, if it has a name.
    listed: Option<NonZeroU32>,
}

/// Every request carries one or more.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Mark>() == 24);

impl Mark {
    /// Of a leg that has been counted.
    #[inline]
    pub(super) const fn new(
        ledger: &'static Ledger,
        shard: &'static Shard,
        row: usize,
        kind: Kind,
    ) -> Self {
        let row = row as u8;
        Self { ledger, shard, row, kind, end: End::Dropped, lingers: false, listed: None }
    }

    /// The answer has ended, with this outcome where only its end tells it.
    #[inline]
    pub fn ended(mut self, said: Option<Outcome>) {
        if let Some(outcome) = said {
            self.set_end(outcome.into());
        }
        self.answered();
    }

    /// Whether the answer has not said yet how the request went.
    pub(crate) fn is_open(&self) -> bool {
        self.end == End::Dropped
    }

    /// The ledger's slot that it was admitted in.
    pub(crate) fn slot(&self) -> usize {
        usize::from(self.row)
    }

    pub(crate) const fn side(&self) -> Side {
        self.kind.side()
    }

    pub(crate) const fn is_write(&self) -> bool {
        self.kind.is_write()
    }

    /// Gives a write a name, until the mark ends: whoever wonders what holds up
    /// a step is told it.
    pub(crate) fn list(&mut self, label: &Arc<str>, began: Instant) {
        if self.is_write() && self.listed.is_none() {
            let (slot, kind) = (self.row, self.kind);
            let label = Arc::clone(label);
            let entry = Entry { label, slot, kind, began, answered: false };
            self.listed = self.shard.roster().add(entry);
        }
    }

    /// Says how the leg ended, for the counters.
    #[inline]
    pub(crate) fn set_end(&mut self, end: End) {
        self.end = end;
    }

    /// The same of a leg whose answer's head is here.
    #[inline]
    pub(crate) fn set_head(&mut self, end: End) {
        self.end = end;
        if let Some(id) = self.listed {
            self.note_answered(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_answered(&self, id: NonZeroU32) {
        self.shard.roster().change(id, |entry| entry.answered = true);
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

    /// Counts the leg as one whose end nobody knows, since nobody waits for it
    /// any more. It runs on, and is in flight until the mark is dropped.
    pub(crate) fn timed_out(&mut self) {
        if self.end == End::Unused {
            return;
        }
        let (row, kind) = (usize::from(self.row), self.kind.index());
        let started = &self.shard.started[row][kind];
        let finished = &self.shard.finished[row][kind][End::Unknown as usize];
        // What is left of it starts before it ends: at no moment does it look as
        // if nothing ran.
        let awaited = protocol::hand_over(started, finished, &self.ledger.waiting);
        self.end = End::Unused;
        self.ledger.wake_if(awaited);
    }

    /// Ends the mark of a leg that was admitted and then not needed.
    pub(crate) fn unused(mut self) {
        self.end = End::Unused;
        self.lingers = false;
    }

    /// The answer has ended. A write that runs alone may still land if its
    /// answer said that nobody knows.
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.lingers &= lingers(self.end.outcome());
    }

    /// The same write's leg as one of another kind: for a write that learns
    /// late which side is its authority. There is no moment in which neither
    /// counts, so a flip that waits for the one waits for the other.
    ///
    /// The mark must have been checked against the gate: it vouches for what it
    /// becomes.
    pub(crate) fn exchange(mut self, word: Word, kind: Kind) -> Self {
        debug_assert!(self.kind.is_write() && kind.is_write(), "reads have no slot to stay in");
        debug_assert_eq!(usize::from(self.row), word.slot(), "a mark of that word");
        if self.kind == kind {
            return self;
        }
        let row = usize::from(self.row);
        let started = &self.shard.started[row][kind.index()];
        let finished = &self.shard.finished[row][self.kind.index()][End::Unused as usize];
        let roster = self.listed.map(|id| {
            let mut roster = self.shard.roster();
            roster.change(id, |entry| entry.kind = kind);
            roster
        });
        let awaited = protocol::hand_over(started, finished, &self.ledger.waiting);
        drop(roster);
        self.kind = kind;
        self.ledger.wake_if(awaited);
        self
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        if self.listed.is_some() || self.lingers {
            self.end_slowly();
        } else {
            self.ledger.wake_if(self.finish());
        }
    }
}

impl Mark {
    #[inline]
    fn finish(&self) -> bool {
        let of_kind = &self.shard.finished[usize::from(self.row)][self.kind.index()];
        protocol::finish(&of_kind[self.end as usize], &self.ledger.waiting)
    }

    /// The end of a mark that has left traces elsewhere. Apart, so that the many
    /// others do not carry it along.
    #[cold]
    #[inline(never)]
    fn end_slowly(&self) {
        if self.lingers {
            self.ledger.lingering.add(usize::from(self.row), self.kind.side());
        }
        // Under one lock, so that no one finds a write that has a name running
        // without it.
        let roster = self.listed.map(|id| {
            let mut roster = self.shard.roster();
            roster.remove(id);
            roster
        });
        let awaited = self.finish();
        drop(roster);
        self.ledger.wake_if(awaited);
    }
}
