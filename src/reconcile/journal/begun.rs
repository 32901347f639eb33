//! Writes that have begun: which keys are noted, and for how long.
//!
//! The note of a key outlasts its write by a while. A key that is written again
//! and again is noted once: its writes find the note there and wait for nothing.
//! Disk mirrors do the same with regions of a disk, in the activity log of DRBD
//! and the write-intent bitmap of Linux md.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Instant, row::About};
use crate::{
    reconcile::{Key, RightSide},
    stage::Side,
};

/// Notes that nobody needs are cleared early when there are more.
const IDLE: usize = 4096;

/// What a note is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Key(Key),
    /// Nobody knows which keys; the writes' authority.
    Nameless(Side),
}

impl Subject {
    pub(super) fn place(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => About::Begun(key).to_bytes(),
            Self::Nameless(right) => About::Nameless(*right).to_bytes(),
        }
    }
}

#[derive(Debug)]
struct Note {
    /// Running writes, by authority.
    running: [usize; 2],
    right: RightSide,
    /// The commit that writes it like this.
    commit: u64,
    /// Its place among the idle ones, if nothing runs.
    idle: Option<u64>,
}

/// The notes of this process.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: HashMap<Subject, Note>,
    /// The longest idle one first.
    idle: BTreeMap<u64, (Subject, Instant)>,
    /// Counts endings.
    ended: u64,
}

impl Notes {
    /// A write begins. Answers the commit that its note is durable with, and
    /// what `next`, the next one, has to write for it.
    pub(super) fn begin(
        &mut self,
        subject: &Subject,
        right: Side,
        next: u64,
    ) -> (u64, Option<RightSide>) {
        let Some(note) = self.notes.get_mut(subject) else {
            let is = RightSide::Is(right);
            let mut note = Note { running: [0, 0], right: is, commit: next, idle: None };
            note.running[right.index()] = 1;
            self.notes.insert(subject.clone(), note);
            return (next, Some(is));
        };
        // While one write says old and another new, nobody knows which was the
        // last. Once both have ended, the next one decides.
        let before = if let Some(place) = note.idle.take() {
            self.idle.remove(&place);
            None
        } else {
            Some(note.right)
        };
        note.running[right.index()] += 1;
        let merged = RightSide::merged(before, right);
        if merged == note.right {
            return (note.commit, None);
        }
        note.right = merged;
        note.commit = next;
        (next, Some(merged))
    }

    /// A write has ended.
    pub(super) fn end(&mut self, subject: &Subject, right: Side, now: Instant) {
        let Some(note) = self.notes.get_mut(subject) else { return };
        let running = &mut note.running[right.index()];
        *running = running.saturating_sub(1);
        if note.running == [0, 0] {
            self.ended += 1;
            note.idle = Some(self.ended);
            self.idle.insert(self.ended, (subject.clone(), now));
        }
    }

    /// Takes out the notes that have been idle for `keep`, and those that are
    /// too many; or all idle ones.
    pub(super) fn expired(&mut self, now: Instant, keep: Duration, all: bool) -> Vec<Subject> {
        let mut expired = Vec::new();
        while let Some(since) = self.oldest() {
            let over = now.saturating_duration_since(since) >= keep;
            if !(all || over || self.idle.len() > IDLE) {
                break;
            }
            if let Some((_, (subject, _))) = self.idle.pop_first() {
                self.notes.remove(&subject);
                expired.push(subject);
            }
        }
        expired
    }

    /// Since when the longest idle note is.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.idle.first_key_value().map(|(_, (_, since))| *since)
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }
}
