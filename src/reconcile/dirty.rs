//! Keys whose two sides may differ.

use std::{
    collections::BTreeMap,
    ops::Bound,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::Key;
use crate::stage::{RightSide, Side, Stage};

/// One dirty key.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DirtyKey {
    /// The key.
    pub key: Key,
    /// The side to copy from.
    pub right: RightSide,
    /// How long it has been dirty.
    pub age: Duration,
    /// When it became dirty, by the machine's clock.
    pub since: SystemTime,
    /// How many writes have made it dirty.
    pub marks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    right: RightSide,
    first: Instant,
    since: SystemTime,
    marks: u64,
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The key is dirty now, and was not.
    New,
    /// It was already dirty, for the same side.
    Again,
    /// It was dirty for the other side: parked.
    Conflict,
    /// The set is full. The caller must un-sync the side that is wrong.
    Full,
}

/// The in-memory set of dirty keys, bounded.
#[derive(Debug)]
pub(crate) struct DirtySet {
    marks: BTreeMap<Key, Mark>,
    limit: usize,
}

impl DirtySet {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { marks: BTreeMap::new(), limit }
    }

    pub(crate) fn mark(&mut self, key: &Key, right: Side) -> Marked {
        if let Some(mark) = self.marks.get_mut(key) {
            mark.marks += 1;
            let merged = RightSide::merged(Some(mark.right), right);
            let was = std::mem::replace(&mut mark.right, merged);
            return if was == merged { Marked::Again } else { Marked::Conflict };
        }
        if self.marks.len() >= self.limit {
            return Marked::Full;
        }
        self.marks.insert(
            key.clone(),
            Mark {
                right: RightSide::merged(None, right),
                first: Instant::now(),
                since: SystemTime::now(),
                marks: 1,
            },
        );
        Marked::New
    }

    /// The key's mark: its right side, and a number that changes with each new
    /// mark.
    pub(crate) fn get(&self, key: &Key) -> Option<(RightSide, u64)> {
        self.marks.get(key).map(|mark| (mark.right, mark.marks))
    }

    /// Whether this key or one below it is dirty.
    pub(crate) fn touches(&self, key: &Key) -> bool {
        if self.marks.is_empty() {
            return false;
        }
        if self.marks.contains_key(key) {
            return true;
        }
        let prefix = key.prefix_below();
        self.marks
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .next()
            .is_some_and(|(below, _)| below.as_str().starts_with(&prefix))
    }

    /// Clears the key unless it has been marked again since `marks` was read.
    pub(crate) fn clear(&mut self, key: &Key, marks: u64) -> bool {
        let unchanged = self.marks.get(key).is_some_and(|mark| mark.marks == marks);
        if unchanged {
            self.marks.remove(key);
        }
        unchanged
    }

    pub(crate) fn resolve(&mut self, key: &Key, right: Side) -> bool {
        match self.marks.get_mut(key) {
            Some(mark) if mark.right == RightSide::Conflict => {
                mark.right = RightSide::Is(right);
                mark.marks += 1;
                true
            }
            _ => false,
        }
    }

    /// The flag has come to a one-sided stage.
    pub(crate) fn one_sided(&mut self, stage: Stage) {
        self.marks.retain(|_, mark| {
            let left = mark.right.entering(stage);
            if let Some(right) = left {
                mark.right = right;
                mark.marks += 1;
            }
            left.is_some()
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Keys for which `right` is right (or, for `None`, conflicts), with the
    /// age of the oldest.
    pub(crate) fn count(&self, right: RightSide) -> (usize, Option<Duration>) {
        let mut oldest = None;
        let mut count = 0;
        for mark in self.marks.values().filter(|mark| mark.right == right) {
            count += 1;
            oldest = oldest.max(Some(mark.first.elapsed()));
        }
        (count, oldest)
    }

    pub(crate) fn list(&self) -> Vec<DirtyKey> {
        self.marks
            .iter()
            .map(|(key, mark)| DirtyKey {
                key: key.clone(),
                right: mark.right,
                age: mark.first.elapsed(),
                since: mark.since,
                marks: mark.marks,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_for_both_sides_are_a_conflict_until_resolved() {
        let mut set = DirtySet::new(2);
        let key = Key::from("/a");
        assert_eq!(set.mark(&key, Side::Old), Marked::New);
        assert_eq!(set.mark(&key, Side::Old), Marked::Again);
        assert_eq!(set.mark(&key, Side::New), Marked::Conflict);
        assert_eq!(set.mark(&key, Side::Old), Marked::Again);
        assert_eq!(set.count(RightSide::Conflict).0, 1);
        assert!(set.resolve(&key, Side::New));
        assert!(!set.resolve(&key, Side::New));
        assert_eq!(set.get(&key).map(|(right, _)| right), Some(RightSide::Is(Side::New)));
    }

    #[test]
    fn a_full_set_says_so_and_still_counts_known_keys() {
        let mut set = DirtySet::new(1);
        assert_eq!(set.mark(&"/a".into(), Side::Old), Marked::New);
        assert_eq!(set.mark(&"/b".into(), Side::Old), Marked::Full);
        assert_eq!(set.mark(&"/a".into(), Side::Old), Marked::Again);
    }

    #[test]
    fn a_mark_that_came_after_the_copy_began_survives_it() {
        let mut set = DirtySet::new(8);
        let key = Key::from("/a");
        set.mark(&key, Side::Old);
        let (_, before) = set.get(&key).expect("marked");
        set.mark(&key, Side::Old);
        assert!(!set.clear(&key, before));
        let (_, now) = set.get(&key).expect("still marked");
        assert!(set.clear(&key, now));
        assert!(set.is_empty());
    }

    #[test]
    fn a_list_is_touched_by_the_dirty_keys_below_it() {
        let mut set = DirtySet::new(8);
        set.mark(&"/airports/EDDF".into(), Side::Old);
        assert!(set.touches(&"/airports".into()));
        assert!(set.touches(&"/".into()));
        assert!(set.touches(&"/airports/EDDF".into()));
        assert!(!set.touches(&"/airports/EDDFX".into()));
        assert!(!set.touches(&"/airport".into()));
    }
}
