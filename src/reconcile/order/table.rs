//! The table behind the order: who stands where.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{Place, Standers, Turn, queue::Queue};
use crate::{
    reconcile::{Key, Keys},
    stage::Side,
};

/// All queues. Whoever has it has the lock, and runs no code of anybody else's.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) places: HashMap<u64, Waiting>,
    pub(super) next: u64,
    /// Legs that began, of any key or of none.
    pub(super) begun: u64,
    /// Begun legs of writes without a key.
    pub(super) begun_keyless: u64,
    /// Places taken now, by side.
    pub(super) running: [usize; 2],
    /// Places of running legs without a key, by age.
    pub(super) keyless: BTreeSet<u64>,
    /// Places of those that only look. They keep writes out and are none.
    pub(super) looking: BTreeSet<u64>,
    /// Running writes that have keys and may learn further ones, by age.
    pub(super) unsure: BTreeSet<u64>,
    /// Keys whose legs or copies ended while a leg without a key ran, or one that
    /// is unsure, with the age of that end: it may turn out to be about one of
    /// them.
    pub(super) touched: VecDeque<(u64, Key)>,
    /// What was touched up to this age was forgotten: it was too much.
    pub(super) forgotten: u64,
    /// How many wait for somebody to leave a place.
    pub(super) waiting: usize,
}

/// How many touched keys are remembered for legs that learn their key late.
const TOUCHED: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) queues: [Queue; 2],
    /// Legs that took a place, by side. What a reader compares to learn
    /// whether a write came in between.
    pub(super) turns: [u64; 2],
    pub(super) observers: usize,
}

impl Entry {
    pub(super) fn is_idle(&self) -> bool {
        self.observers == 0 && self.queues.iter().all(Queue::is_empty)
    }

    pub(super) fn has_legs(&self, looking: &BTreeSet<u64>) -> bool {
        self.queues.iter().flat_map(Queue::iter).any(|id| !looking.contains(&id))
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// In how many of its queues this place is not at the head yet.
    pub(super) behind: usize,
    pub(super) grant: Option<oneshot::Sender<Turn>>,
    pub(super) write: Arc<Standers>,
    /// Whether it may be told that its write is already there: a leg that a
    /// client waits for must run to have an answer, and one with several keys
    /// is more than a copy of one of them.
    pub(super) absorbable: bool,
}

/// How somebody stands in the queues of one side.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) side: Side,
    pub(super) absorbable: bool,
    pub(super) looks: bool,
}

impl Standing {
    /// With no leg on the other side.
    pub(super) const fn alone(side: Side, looks: bool) -> Self {
        Self { side, absorbable: false, looks }
    }
}

impl Table {
    /// Takes the places of one write, in this order, each after all that are there.
    pub(super) fn enqueue<const N: usize>(
        &mut self,
        write: &Arc<Standers>,
        standings: [Standing; N],
    ) -> [Place; N] {
        let keys = &write.keys;
        let first = self.next;
        let ids = || first..;
        for (id, Standing { side, looks, .. }) in ids().zip(standings) {
            if looks {
                self.looking.insert(id);
            } else {
                self.begun += 1;
            }
            self.running[side.index()] += 1;
            if keys.is_empty() {
                self.begun_keyless += 1;
                self.keyless.insert(id);
            }
            self.next = id + 1;
        }
        let mut behind = [0; N];
        for key in keys {
            let entry = self.entries.entry(key.clone()).or_default();
            for ((id, behind), Standing { side, looks, .. }) in
                ids().zip(&mut behind).zip(standings)
            {
                entry.turns[side.index()] += u64::from(!looks);
                let queue = &mut entry.queues[side.index()];
                *behind += usize::from(!queue.is_empty());
                queue.push_back(id);
            }
            // Nobody to be told but the key itself.
            if self.entries.len() == 1 {
                continue;
            }
            for above in key.ancestors() {
                if let Some(entry) = self.entries.get_mut(above) {
                    for Standing { side, looks, .. } in standings {
                        entry.turns[side.index()] += u64::from(!looks);
                    }
                }
            }
        }
        let mut ids = ids().zip(behind);
        standings.map(|Standing { side, absorbable, .. }| {
            let (id, behind) = ids.next().expect("one for each");
            let turn = (behind > 0).then(|| {
                let (grant, turn) = oneshot::channel();
                let grant = Some(grant);
                self.places
                    .insert(id, Waiting { behind, grant, write: Arc::clone(write), absorbable });
                turn
            });
            Place { id, side, turn, write: Arc::clone(write) }
        })
    }

    pub(super) fn touch(&mut self, key: &Key) {
        if self.keyless.is_empty() && self.unsure.is_empty() {
            return;
        }
        if self.touched.len() >= TOUCHED
            && let Some((age, _)) = self.touched.pop_front()
        {
            self.forgotten = age;
        }
        self.touched.push_back((self.next, key.clone()));
        self.next += 1;
    }

    /// Forgets what nobody may turn out to be about any more.
    pub(super) fn forget(&mut self) {
        let oldest = [&self.keyless, &self.unsure].into_iter().filter_map(BTreeSet::first).min();
        let oldest = oldest.copied().unwrap_or(u64::MAX);
        while self.touched.front().is_some_and(|(age, _)| *age <= oldest) {
            self.touched.pop_front();
        }
    }

    /// Answers those whose turn has come, to be told once the lock is free: who is
    /// woken is somebody else's.
    pub(super) fn leave(&mut self, id: u64, keys: &Keys, side: Side) -> Vec<oneshot::Sender<Turn>> {
        let mut turns = Vec::new();
        self.running[side.index()] -= 1;
        if keys.is_empty() {
            self.keyless.remove(&id);
            self.forget();
        }
        if !self.places.is_empty() {
            self.places.remove(&id);
        }
        let looked = self.looking.remove(&id);
        for key in keys {
            if !looked {
                self.touch(key);
            }
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            let queue = &mut entry.queues[side.index()];
            let was_head = queue.front() == Some(id);
            queue.remove(id);
            let next = if was_head { queue.front() } else { None };
            if entry.is_idle() {
                self.entries.remove(key);
            }
            let Some(waiting) = next.and_then(|next| self.places.get_mut(&next)) else {
                continue;
            };
            waiting.behind -= 1;
            if waiting.behind == 0 {
                turns.extend(waiting.grant.take());
                if let Some(next) = next {
                    self.places.remove(&next);
                }
            }
        }
        turns
    }
}
