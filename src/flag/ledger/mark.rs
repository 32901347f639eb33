//! One leg in flight.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{End, Kind, Ledger, about::About, protocol, roster::Entry, shard::Shard};
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
    ledger: &'static Ledger,
    about: About,
}

/// Every request carries one or more, and hands it on: that is two registers.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Mark>>() == 16);

impl Mark {
    /// Of a leg that has been counted.
    #[inline]
    pub(super) const fn new(ledger: &'static Ledger, shard: usize, row: usize, kind: Kind) -> Self {
        Self { ledger, about: About::new(shard, row, kind) }
    }

    /// Where it was admitted, and ends.
    #[inline]
    fn shard(&self) -> &'static Shard {
        &self.ledger.shards[self.about.shard()]
    }

    #[inline]
    const fn kind(&self) -> Kind {
        self.about.kind()
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
        self.about.end() == End::Dropped
    }

    /// The ledger's slot that it was admitted in.
    pub(crate) fn slot(&self) -> usize {
        self.about.row()
    }

    pub(crate) const fn side(&self) -> Side {
        self.kind().side()
    }

    pub(crate) const fn is_write(&self) -> bool {
        self.kind().is_write()
    }

    /// Gives a write a name, until the mark ends: whoever wonders what holds up
    /// a step is told it.
    pub(crate) fn list(&mut self, label: &Arc<str>, began: Instant) {
        if self.is_write() && self.about.listed().is_none() {
            let entry = self.entry(label, began);
            self.about.set_listed(self.shard().roster().add(entry));
        }
    }

    /// The same for both legs of a write, which were admitted together.
    pub(crate) fn list_both(&mut self, other: &mut Self, label: &Arc<str>, began: Instant) {
        if self.about.shard() != other.about.shard() {
            self.list(label, began);
            other.list(label, began);
            return;
        }
        let mut roster = self.shard().roster();
        for mark in [self, other] {
            if mark.is_write() && mark.about.listed().is_none() {
                mark.about.set_listed(roster.add(mark.entry(label, began)));
            }
        }
    }

    fn entry(&self, label: &Arc<str>, began: Instant) -> Entry {
        let (slot, kind) = (self.about.row() as u8, self.kind());
        Entry { label: Arc::clone(label), slot, kind, began, answered: false }
    }

    /// Says how the leg ended, for the counters.
    #[inline]
    pub(crate) fn set_end(&mut self, end: End) {
        self.about.set_end(end);
    }

    /// The same of a leg whose answer's head is here.
    #[inline]
    pub(crate) fn set_head(&mut self, end: End) {
        self.about.set_end(end);
        if let Some(id) = self.about.listed() {
            self.note_answered(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_answered(&self, id: NonZeroU32) {
        self.shard().roster().change(id, |entry| entry.answered = true);
    }

    /// Says whether the leg may still land after the mark is gone: a write
    /// that was cut off may.
    #[inline]
    pub(crate) fn set_lingers(&mut self, lingers: bool) {
        self.about.set_lingers(lingers && self.is_write());
    }

    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let kind = self.kind().index();
        self.shard().durations[kind][bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the leg as one whose end nobody knows, since nobody waits for it
    /// any more. It runs on, and is in flight until the mark is dropped.
    pub(crate) fn timed_out(&mut self) {
        if self.about.end() == End::Unused {
            return;
        }
        let (row, kind) = (self.about.row(), self.kind().index());
        let started = &self.shard().started[row][kind];
        let finished = &self.shard().finished[row][kind][End::Unknown as usize];
        // What is left of it starts before it ends: at no moment does it look as
        // if nothing ran.
        let awaited = protocol::hand_over(started, finished, &self.ledger.waiting);
        self.about.set_end(End::Unused);
        self.ledger.wake_if(awaited);
    }

    /// Ends the mark of a leg that was admitted and then not needed.
    pub(crate) fn unused(mut self) {
        self.about.set_end(End::Unused);
        self.about.set_lingers(false);
    }

    /// The answer has ended. A write that runs alone may still land if its
    /// answer said that nobody knows.
    #[inline]
    pub(crate) fn answered(&mut self) {
        if self.about.lingers() && !lingers(self.about.end().outcome()) {
            self.about.set_lingers(false);
        }
    }

    /// The same write's leg as one of another kind: for a write that learns
    /// late which side is its authority. There is no moment in which neither
    /// counts, so a flip that waits for the one waits for the other.
    ///
    /// The mark must have been checked against the gate: it vouches for what it
    /// becomes.
    pub(crate) fn exchange(mut self, word: Word, kind: Kind) -> Self {
        debug_assert!(self.is_write() && kind.is_write(), "reads have no slot to stay in");
        debug_assert_eq!(self.about.row(), word.slot(), "a mark of that word");
        if self.kind() == kind {
            return self;
        }
        let row = self.about.row();
        let started = &self.shard().started[row][kind.index()];
        let finished = &self.shard().finished[row][self.kind().index()][End::Unused as usize];
        let roster = self.about.listed().map(|id| {
            let mut roster = self.shard().roster();
            roster.change(id, |entry| entry.kind = kind);
            roster
        });
        let awaited = protocol::hand_over(started, finished, &self.ledger.waiting);
        drop(roster);
        self.about.set_kind(kind);
        self.ledger.wake_if(awaited);
        self
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        if self.about.leaves_traces() {
            self.end_slowly();
        } else {
            self.ledger.wake_if(self.finish());
        }
    }
}

impl Mark {
    #[inline]
    fn finish(&self) -> bool {
        let of_kind = &self.shard().finished[self.about.row()][self.kind().index()];
        protocol::finish(&of_kind[self.about.end() as usize], &self.ledger.waiting)
    }

    /// The end of a mark that has left traces elsewhere. Apart, so that the many
    /// others do not carry it along.
    #[cold]
    #[inline(never)]
    fn end_slowly(&self) {
        if self.about.lingers() {
            self.ledger.lingering.add(self.about.row(), self.kind().side());
        }
        // Under one lock, so that no one finds a write that has a name running
        // without it.
        let roster = self.about.listed().map(|id| {
            let mut roster = self.shard().roster();
            roster.remove(id);
            roster
        });
        let awaited = self.finish();
        drop(roster);
        self.ledger.wake_if(awaited);
    }
}
