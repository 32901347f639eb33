//! Which writes run, by name: for the one who wonders what holds up a step.

use std::{
    iter::once,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{Kind, Ledger, SLOTS, protocol};
use crate::{
    flag::OldestWrite,
    stage::{Role, Side},
};

/// A leg that has a name.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) label: Arc<str>,
    pub(super) slot: u8,
    pub(super) kind: Kind,
    pub(super) began: Instant,
    /// Its side has answered; what is left is the answer's way to the client.
    pub(super) answered: bool,
}

impl Entry {
    /// Less is older. Of two legs of one write, the one that has not answered:
    /// the answer may be waiting for it. Else the authority's: the other leg
    /// may be.
    fn rank(&self) -> (Instant, bool, bool) {
        (self.began, self.answered, self.kind.role() == Role::Other)
    }
}

/// A shard's legs that have a name. Never locked for the others.
#[derive(Debug)]
pub(super) struct Roster {
    entries: Vec<Option<Entry>>,
    free: Vec<NonZeroU32>,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// `None`: there is no room, so the leg stays without a name.
    pub(super) fn add(&mut self, entry: Entry) -> Option<NonZeroU32> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = NonZeroU32::new(u32::try_from(self.entries.len() + 1).ok()?)?;
                self.entries.push(None);
                id
            }
        };
        *self.entry(id) = Some(entry);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: NonZeroU32) {
        *self.entry(id) = None;
        self.free.push(id);
    }

    pub(super) fn change(&mut self, id: NonZeroU32, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry(id) {
            change(entry);
        }
    }

    /// How many it has had at once.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, id: NonZeroU32) -> &mut Option<Entry> {
        &mut self.entries[id.get() as usize - 1]
    }
}

/// By slot: when it stopped being the current one. A write of that slot is at
/// least that old.
#[derive(Debug, Default)]
pub(super) struct Left(Mutex<[Option<Instant>; SLOTS]>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, [Option<Instant>; SLOTS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self) {
        *self.lock() = [None; SLOTS];
    }

    /// Called once the gate says so: then nothing is admitted in `before` any
    /// more.
    pub(super) fn moved(&self, before: usize, now: usize) {
        let mut left = self.lock();
        left[before] = Some(Instant::now());
        left[now] = None;
    }
}

impl Ledger {
    /// The oldest write in flight that was admitted in another slot than
    /// `current`.
    pub(crate) fn oldest_write(&self, current: usize) -> Option<OldestWrite> {
        let earlier = || (0..SLOTS).filter(|slot| *slot != current);
        let mut oldest = None::<Entry>;
        let mut unnamed = [[0_u64; 2]; SLOTS];
        for shard in &self.shards {
            // Legs with a name end under this lock, so none is taken for one
            // without.
            let roster = shard.roster();
            for slot in earlier() {
                for kind in Kind::all().filter(|kind| kind.is_write()) {
                    let finished = &shard.finished[slot][kind.index()];
                    let started = &shard.started[slot][kind.index()];
                    unnamed[slot][kind.side().index()] +=
                        protocol::in_flight(finished.iter(), once(started));
                }
            }
            let named = roster.entries.iter().flatten();
            for entry in named.filter(|entry| usize::from(entry.slot) != current) {
                let running = &mut unnamed[usize::from(entry.slot)][entry.kind.side().index()];
                *running = running.saturating_sub(1);
                if oldest.as_ref().is_none_or(|oldest| entry.rank() < oldest.rank()) {
                    oldest = Some(entry.clone());
                }
            }
        }
        let now = Instant::now();
        let left = *self.left.lock();
        let unnamed = earlier()
            .filter(|slot| unnamed[*slot] != [0, 0])
            .map(|slot| (left[slot].unwrap_or(now), unnamed[slot]))
            .min_by_key(|(since, _)| *since);
        match (oldest, unnamed) {
            (Some(Entry { label, kind, began, answered, .. }), unnamed)
                if unnamed.is_none_or(|(since, _)| began <= since) =>
            {
                Some(OldestWrite {
                    age: now.saturating_duration_since(began),
                    at_least: false,
                    route: Some(label),
                    side: Some(kind.side()),
                    answered,
                })
            }
            (_, Some((since, on))) => Some(OldestWrite {
                age: now.saturating_duration_since(since),
                at_least: true,
                route: None,
                side: match on {
                    [_, 0] => Some(Side::Old),
                    [0, _] => Some(Side::New),
                    _ => None,
                },
                answered: false,
            }),
            _ => None,
        }
    }
}
