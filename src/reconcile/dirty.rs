//! Keys whose two sides may differ.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Key, StoredMark};
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
    /// How often a [`Repair`](super::Repair) has tried in vain to mend it.
    pub attempts: u32,
    /// What the last of them said.
    pub error: Option<Arc<str>>,
    /// Whether the repair has given it up but for a rare try.
    pub parked: bool,
}

#[derive(Clone, Debug)]
struct Mark {
    right: RightSide,
    first: Instant,
    since: SystemTime,
    marks: u64,
    /// Its place in the queue of its right side.
    turn: u64,
    attempts: u32,
    error: Option<Arc<str>>,
    parked: bool,
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

/// The set of dirty keys, bounded.
///
/// Nothing that is asked of it while requests run takes longer the more keys
/// there are, but for a list of them all.
#[derive(Debug)]
pub(crate) struct DirtySet {
    marks: BTreeMap<Key, Mark>,
    /// Keys by their right side, in the order in which they became dirty.
    queues: [BTreeMap<u64, Key>; 3],
    next: u64,
    parked: usize,
    limit: usize,
}

const fn queue_of(right: RightSide) -> usize {
    match right {
        RightSide::Is(Side::Old) => 0,
        RightSide::Is(Side::New) => 1,
        RightSide::Conflict => 2,
    }
}

impl DirtySet {
    pub(crate) const fn new(limit: usize) -> Self {
        let queues = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        Self { marks: BTreeMap::new(), queues, next: 0, parked: 0, limit }
    }

    pub(crate) fn mark(&mut self, key: &Key, right: Side) -> Marked {
        if let Some(mark) = self.marks.get_mut(key) {
            let merged = RightSide::merged(Some(mark.right), right);
            mark.marks += 1;
            let was = mark.right;
            if was == merged {
                return Marked::Again;
            }
            let turn = mark.turn;
            self.move_to(key, merged, turn);
            return Marked::Conflict;
        }
        let right = RightSide::merged(None, right);
        self.insert(key, StoredMark { right, marks: 1, since: SystemTime::now() })
    }

    /// Takes up what is on disk. A mark that is here too is merged with it.
    pub(crate) fn restore(&mut self, key: &Key, stored: StoredMark) -> Marked {
        match (self.marks.get_mut(key), stored.right) {
            (None, _) => self.insert(key, stored),
            (Some(_), RightSide::Is(right)) => self.mark(key, right),
            (Some(mark), RightSide::Conflict) => {
                mark.marks += 1;
                let turn = mark.turn;
                self.move_to(key, RightSide::Conflict, turn);
                Marked::Conflict
            }
        }
    }

    fn insert(&mut self, key: &Key, stored: StoredMark) -> Marked {
        if self.marks.len() >= self.limit {
            return Marked::Full;
        }
        let StoredMark { right, marks, since } = stored;
        let now = Instant::now();
        let age = since.elapsed().unwrap_or_default();
        let first = now.checked_sub(age).unwrap_or(now);
        let turn = self.take_turn();
        self.queues[queue_of(right)].insert(turn, key.clone());
        let mark =
            Mark { right, first, since, marks, turn, attempts: 0, error: None, parked: false };
        self.marks.insert(key.clone(), mark);
        Marked::New
    }

    const fn take_turn(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Another right side, and so another queue.
    fn move_to(&mut self, key: &Key, right: RightSide, turn: u64) {
        let Some(mark) = self.marks.get_mut(key) else {
            return;
        };
        self.queues[queue_of(mark.right)].remove(&mark.turn);
        self.queues[queue_of(right)].insert(turn, key.clone());
        (mark.right, mark.turn) = (right, turn);
        // Another side to copy from: whatever failed before need not fail again.
        mark.attempts = 0;
        self.parked -= usize::from(std::mem::take(&mut mark.parked));
    }

    fn remove(&mut self, key: &Key) {
        if let Some(mark) = self.marks.remove(key) {
            self.queues[queue_of(mark.right)].remove(&mark.turn);
            self.parked -= usize::from(mark.parked);
        }
    }

    /// The key's mark: its right side, and a number that changes with each new
    /// mark.
    pub(crate) fn get(&self, key: &Key) -> Option<(RightSide, u64)> {
        self.marks.get(key).map(|mark| (mark.right, mark.marks))
    }

    /// The key's mark as it is to be on disk.
    pub(crate) fn stored(&self, key: &Key) -> Option<StoredMark> {
        let mark = self.marks.get(key)?;
        Some(StoredMark { right: mark.right, marks: mark.marks, since: mark.since })
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
            self.remove(key);
        }
        unchanged
    }

    pub(crate) fn resolve(&mut self, key: &Key, right: Side) -> bool {
        match self.marks.get_mut(key) {
            Some(mark) if mark.right == RightSide::Conflict => {
                mark.marks += 1;
                // At the end of the queue, where a repair finds it.
                let turn = self.take_turn();
                self.move_to(key, RightSide::Is(right), turn);
                true
            }
            _ => false,
        }
    }

    /// The flag has come to a one-sided stage. Answers the keys whose marks have
    /// changed or are gone.
    pub(crate) fn one_sided(&mut self, stage: Stage) -> Vec<Key> {
        let changed: Vec<_> = self
            .marks
            .iter()
            .filter(|(_, mark)| mark.right.entering(stage) != Some(mark.right))
            .map(|(key, mark)| (key.clone(), mark.right.entering(stage), mark.turn))
            .collect();
        for (key, left, turn) in &changed {
            match left {
                Some(right) => {
                    self.move_to(key, *right, *turn);
                    if let Some(mark) = self.marks.get_mut(key) {
                        mark.marks += 1;
                    }
                }
                None => self.remove(key),
            }
        }
        changed.into_iter().map(|(key, ..)| key).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(crate) const fn parked(&self) -> usize {
        self.parked
    }

    /// Keys for which `right` is right, with the age of the oldest. (One whose
    /// conflict was decided counts from there.)
    pub(crate) fn count(&self, right: RightSide) -> (usize, Option<Duration>) {
        let queue = &self.queues[queue_of(right)];
        let oldest = queue.values().next().and_then(|key| self.marks.get(key));
        (queue.len(), oldest.map(|mark| mark.first.elapsed()))
    }

    /// The next key that `right` is right for, in the order of their turns, after
    /// this one.
    pub(crate) fn next_after(&self, right: RightSide, turn: u64) -> Option<(u64, Key)> {
        let after = (Bound::Excluded(turn), Bound::Unbounded);
        let next = self.queues[queue_of(right)].range(after).next();
        next.map(|(turn, key)| (*turn, key.clone()))
    }

    /// A repair has tried in vain. Answers how often by now.
    pub(crate) fn failed(&mut self, key: &Key, error: Arc<str>, park_after: u32) -> u32 {
        let Some(mark) = self.marks.get_mut(key) else {
            return 0;
        };
        mark.attempts = mark.attempts.saturating_add(1);
        mark.error = Some(error);
        if mark.attempts >= park_after && !mark.parked {
            mark.parked = true;
            self.parked += 1;
        }
        mark.attempts
    }

    /// Gives what was parked a fresh start. Answers how many keys that are.
    pub(crate) fn unpark(&mut self) -> usize {
        let parked: Vec<_> =
            self.marks.iter().filter(|(_, mark)| mark.parked).map(|(key, _)| key.clone()).collect();
        for key in &parked {
            let turn = self.take_turn();
            if let Some(right) = self.marks.get(key).map(|mark| mark.right) {
                self.move_to(key, right, turn);
            }
        }
        parked.len()
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
                attempts: mark.attempts,
                error: mark.error.clone(),
                parked: mark.parked,
            })
            .collect()
    }

    /// As [`list`](Self::list), of those that `right` is right for.
    pub(crate) fn keys(&self, right: RightSide) -> Vec<Key> {
        self.queues[queue_of(right)].values().cloned().collect()
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

    #[test]
    fn the_oldest_of_each_side_and_their_number_are_known() {
        let mut set = DirtySet::new(8);
        let (old, new) = (RightSide::Is(Side::Old), RightSide::Is(Side::New));
        for key in ["/a", "/b", "/c"] {
            set.mark(&key.into(), Side::Old);
        }
        assert_eq!((set.count(old).0, set.count(new).0), (3, 0));
        assert_eq!(set.count(new).1, None);
        set.mark(&"/a".into(), Side::New);
        assert_eq!((set.count(old).0, set.count(RightSide::Conflict).0), (2, 1));
        assert!(set.resolve(&"/a".into(), Side::New));
        assert_eq!((set.count(new).0, set.count(RightSide::Conflict).0), (1, 0));
        assert_eq!(set.one_sided(Stage::NewOnly).len(), 3);
        assert_eq!(
            (set.count(old).0, set.count(new).0, set.count(RightSide::Conflict).0),
            (0, 0, 2)
        );
    }

    #[test]
    fn a_walk_meets_every_key_once_and_those_that_were_decided_or_unparked_again() {
        let mut set = DirtySet::new(8);
        let old = RightSide::Is(Side::Old);
        for key in ["/b", "/a"] {
            set.mark(&key.into(), Side::Old);
        }
        let mut at = 0;
        let mut walk = |set: &DirtySet| {
            let mut met = Vec::new();
            while let Some((turn, key)) = set.next_after(old, at) {
                at = turn;
                met.push(key.to_string());
            }
            met
        };
        assert_eq!(walk(&set), ["/b", "/a"], "in the order in which they became dirty");
        set.mark(&"/c".into(), Side::Old);
        set.mark(&"/a".into(), Side::Old);
        assert_eq!(walk(&set), ["/c"]);
        set.mark(&"/b".into(), Side::New);
        assert!(set.resolve(&"/b".into(), Side::Old));
        assert_eq!(walk(&set), ["/b"]);
        assert_eq!(set.failed(&"/a".into(), "no".into(), 2), 1);
        assert_eq!((set.parked(), set.unpark()), (0, 0));
        assert_eq!(set.failed(&"/a".into(), "no".into(), 2), 2);
        assert_eq!(set.parked(), 1);
        let parked = set.list().into_iter().find(|dirty| dirty.parked).expect("one is parked");
        assert_eq!(
            (parked.key.as_str(), parked.attempts, parked.error.as_deref()),
            ("/a", 2, Some("no"))
        );
        assert_eq!((set.unpark(), set.parked()), (1, 0));
        assert_eq!(walk(&set), ["/a"]);
    }

    #[test]
    fn what_is_on_disk_is_taken_up_with_its_age_and_merged_with_what_is_known() {
        let mut set = DirtySet::new(2);
        let hour = Duration::from_secs(3_600);
        let stored = |right| StoredMark { right, marks: 3, since: SystemTime::now() - hour };
        assert_eq!(set.restore(&"/a".into(), stored(RightSide::Is(Side::New))), Marked::New);
        let mark = &set.list()[0];
        assert!(mark.age >= hour || mark.age.is_zero(), "{:?}", mark.age);
        assert_eq!((mark.marks, mark.right), (3, RightSide::Is(Side::New)));
        assert_eq!(set.stored(&"/a".into()).map(|mark| mark.marks), Some(3));
        set.mark(&"/b".into(), Side::Old);
        assert_eq!(set.restore(&"/b".into(), stored(RightSide::Is(Side::Old))), Marked::Again);
        assert_eq!(set.restore(&"/b".into(), stored(RightSide::Conflict)), Marked::Conflict);
        assert_eq!(set.count(RightSide::Conflict).0, 1);
        assert_eq!(set.restore(&"/c".into(), stored(RightSide::Conflict)), Marked::Full);
    }
}
