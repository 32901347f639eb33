//! Did a write race this read?

use std::{ops::Bound, sync::Arc};

use super::{KeyOrder, Queue, Table};
use crate::reconcile::{Key, Keys};

/// A read's watch over its keys: did a write's leg run in between?
#[derive(Debug)]
pub(crate) struct Observation {
    order: Arc<KeyOrder>,
    keys: Keys,
    begun: u64,
    begun_keyless: u64,
    turns: Vec<[u64; 2]>,
    raced: bool,
}

impl Observation {
    /// Whether a leg that could have changed the answer ran since the start,
    /// or was running then.
    pub(crate) fn raced(&self) -> bool {
        if self.raced {
            return true;
        }
        let table = self.order.lock();
        if self.keys.is_empty() {
            return table.begun != self.begun;
        }
        table.begun_keyless != self.begun_keyless
            || self.keys.iter().zip(&self.turns).any(|(key, turns)| {
                table.entries.get(key).is_none_or(|entry| entry.turns != *turns)
            })
    }
}

impl Observation {
    /// Whether a leg or a copy of one of the keys themselves has taken a place
    /// since the start.
    pub(crate) fn turned(&self) -> bool {
        let table = self.order.lock();
        self.keys
            .iter()
            .zip(&self.turns)
            .any(|(key, turns)| table.entries.get(key).is_none_or(|entry| entry.turns != *turns))
    }

    /// Whether more legs and copies of one of the keys have places than these
    /// many on each side.
    pub(crate) fn crowded(&self, own: [usize; 2]) -> bool {
        let table = self.order.lock();
        let more = |queues: &[Queue; 2]| queues[0].len() > own[0] || queues[1].len() > own[1];
        self.keys.iter().filter_map(|key| table.entries.get(key)).any(|entry| more(&entry.queues))
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut table = self.order.lock();
        for key in &self.keys {
            if let Some(entry) = table.entries.get_mut(key) {
                entry.observers -= 1;
                if entry.is_idle() {
                    table.entries.remove(key);
                }
            }
        }
    }
}

impl KeyOrder {
    /// Begins to watch `keys` for writes that race a read. No key watches all.
    pub(crate) fn observe(self: &Arc<Self>, keys: &Keys) -> Observation {
        let mut table = self.lock();
        let mut raced = !table.keyless.is_empty();
        let mut turns = Vec::with_capacity(keys.len());
        if keys.is_empty() {
            raced |= table.running.iter().sum::<usize>() > table.looking.len();
        }
        for key in keys {
            let table = &mut *table;
            let entry = table.entries.entry(key.clone()).or_default();
            entry.observers += 1;
            raced |= entry.has_legs(&table.looking);
            turns.push(entry.turns);
            raced |= table.legs_below(key);
        }
        Observation {
            begun: table.begun,
            begun_keyless: table.begun_keyless,
            order: Arc::clone(self),
            keys: keys.clone(),
            turns,
            raced,
        }
    }
}

impl Table {
    /// Whether a leg runs under a key below this one.
    fn legs_below(&self, key: &Key) -> bool {
        // Mostly there is none, and no text is made to look for it.
        let after = self.entries.range::<str, _>((Bound::Excluded(key.as_str()), Bound::Unbounded));
        if after.take(1).all(|(next, _)| !next.as_str().starts_with(key.as_str())) {
            return false;
        }
        let prefix = key.prefix_below();
        self.entries
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(|(below, _)| below.as_str().starts_with(&prefix))
            .any(|(_, entry)| entry.has_legs(&self.looking))
    }
}
