//! What processes that have ended leave to the one that takes over.

use std::collections::{BTreeMap, btree_map::Entry};

use super::row::{self, About};
use crate::{
    reconcile::{
        Key,
        dirty_log::{Found, SideNote, StoredMark},
    },
    stage::{RightSide, Side},
};

/// How many files' ids are kept.
const IDS: usize = 64;

/// The content of files, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) marks: BTreeMap<Key, StoredMark>,
    pub(super) sides: [Option<SideNote>; 2],
    /// By wrong side.
    pub(super) nameless: [bool; 2],
    /// The newest last.
    pub(super) ids: Vec<u64>,
}

impl Left {
    /// Takes in a row. `None`: no version has written that.
    pub(super) fn row(&mut self, about: &[u8], value: &[u8]) -> Option<()> {
        match About::from_bytes(about)? {
            // A write that has begun may have reached one side alone.
            About::Mark(key) | About::Begun(key) | About::FoundMark(key) => {
                self.mark(key, row::read_mark(value)?);
            }
            About::Nameless(right) => self.nameless[right.other().index()] = true,
            About::FoundNameless(wrong) => self.nameless[wrong.index()] = true,
            About::Side(side) | About::FoundSide(side) => {
                self.side(side.index(), row::read_side(value)?);
            }
            About::Ids => self.ids(&row::read_ids(value)?),
        }
        Some(())
    }

    fn mark(&mut self, key: Key, mark: StoredMark) {
        match self.marks.entry(key) {
            Entry::Vacant(place) => {
                place.insert(mark);
            }
            Entry::Occupied(mut place) => {
                let merged = place.get().merged(mark);
                place.insert(merged);
            }
        }
    }

    fn side(&mut self, side: usize, note: SideNote) {
        let known = &mut self.sides[side];
        *known = Some(known.map_or(note, |known| known.merged(note)));
    }

    /// Later ones count as newer.
    pub(super) fn ids(&mut self, ids: &[u64]) {
        for id in ids {
            self.ids.retain(|known| known != id);
            self.ids.push(*id);
        }
        self.ids.drain(..self.ids.len().saturating_sub(IDS));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (key, mark) in &other.marks {
            self.mark(key.clone(), *mark);
        }
        for (side, note) in other.sides.iter().enumerate() {
            if let Some(note) = note {
                self.side(side, *note);
            }
        }
        for (wrong, nameless) in other.nameless.iter().enumerate() {
            self.nameless[wrong] |= nameless;
        }
        self.ids(&other.ids);
    }

    /// What counts of a follower's file: its marks. They do so as they are if both sides
    /// are what they were then; else one may have been written alone since, and nobody
    /// knows which is right.
    pub(super) fn of_a_follower(&self, spans: [u64; 2]) -> Self {
        let same = |side: usize| self.sides[side].is_some_and(|note| note.span == spans[side]);
        let current = same(0) && same(1);
        let mut left = Self { ids: self.ids.clone(), marks: self.marks.clone(), ..Self::default() };
        for mark in left.marks.values_mut().filter(|_| !current) {
            mark.right = RightSide::Conflict;
        }
        left
    }

    pub(super) fn to_found(&self, round: u64) -> Found {
        Found {
            marks: self.marks.iter().map(|(key, mark)| (key.clone(), *mark)).collect(),
            sides: self.sides,
            nameless: self.nameless,
            ids: self.ids.clone(),
            round,
        }
    }

    /// What the file of the one that takes over says of it.
    pub(super) fn to_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        for (key, mark) in &self.marks {
            rows.push((About::FoundMark(key).to_bytes(), row::mark(*mark)));
        }
        for side in Side::ALL {
            if let Some(note) = self.sides[side.index()] {
                rows.push((About::FoundSide(side).to_bytes(), row::side(note)));
            }
            if self.nameless[side.index()] {
                rows.push((About::FoundNameless(side).to_bytes(), Vec::new()));
            }
        }
        if !self.ids.is_empty() {
            rows.push((About::Ids.to_bytes(), row::ids(&self.ids)));
        }
        rows
    }
}
