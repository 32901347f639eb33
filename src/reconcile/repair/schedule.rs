//! Which dirty key is next.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    reconcile::{DirtySet, Key},
    stage::{RightSide, Side},
};

/// Keys whose turn came, and those that wait for another try. Knows a key for as long
/// as it is dirty.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Up to where the queues of the dirty set were walked: right on old, on new, in
    /// conflict.
    walked: [u64; 3],
    later: BTreeMap<(Instant, u64), Key>,
    next: u64,
    /// Being copied, or waiting in `later`.
    known: HashMap<Key, Known>,
}

#[derive(Debug)]
struct Known {
    /// Of the mark that was met.
    turn: u64,
    /// Its place in `later`; `None` while it is being copied.
    waits: Option<(Instant, u64)>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    Try(Key),
    /// Nothing before then.
    Until(Instant),
    /// Nothing at all.
    Idle,
}

const RIGHT: [RightSide; 3] =
    [RightSide::Is(Side::Old), RightSide::Is(Side::New), RightSide::Conflict];

impl Schedule {
    /// The next key. One that waits and is due comes before one that is new, but for a
    /// `probe`: else the same key would be tried again and again while a side is down.
    pub(super) fn next(&mut self, dirty: &DirtySet, conflicts: bool, probe: bool) -> Next {
        let due = self.later.first_key_value().map(|((due, _), _)| *due);
        let is_due = due.is_some_and(|due| due <= Instant::now());
        let new = if is_due && !probe { None } else { self.new_key(dirty, conflicts) };
        if let Some(key) = new {
            return Next::Try(key);
        }
        if is_due && let Some((_, key)) = self.later.pop_first() {
            if let Some(known) = self.known.get_mut(&key) {
                known.waits = None;
            }
            return Next::Try(key);
        }
        due.map_or(Next::Idle, Next::Until)
    }

    fn new_key(&mut self, dirty: &DirtySet, conflicts: bool) -> Option<Key> {
        let queues = if conflicts { 3 } else { 2 };
        for (right, walked) in RIGHT.into_iter().zip(&mut self.walked).take(queues) {
            while let Some((turn, key)) = dirty.next_after(right, *walked) {
                *walked = turn;
                let Some(known) = self.known.get_mut(&key) else {
                    self.known.insert(key.clone(), Known { turn, waits: None });
                    return Some(key);
                };
                // Mended by somebody else and dirty anew, or decided, or unparked:
                // what it waited for is of its former life.
                let anew = known.turn != turn;
                known.turn = turn;
                if anew && let Some(waits) = known.waits.take() {
                    self.later.remove(&waits);
                    return Some(key);
                }
            }
        }
        None
    }

    pub(super) fn again(&mut self, key: Key, pause: Duration) {
        self.next += 1;
        let waits = (Instant::now() + pause, self.next);
        if let Some(known) = self.known.get_mut(&key) {
            known.waits = Some(waits);
        }
        self.later.insert(waits, key);
    }

    /// The key is clean, as far as its copy knows.
    pub(super) fn done(&mut self, key: &Key) {
        self.known.remove(key);
    }

    /// All that wait come at once.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        for ((_, number), key) in std::mem::take(&mut self.later) {
            if let Some(known) = self.known.get_mut(&key) {
                known.waits = Some((now, number));
            }
            self.later.insert((now, number), key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_come_in_turn_and_those_that_failed_when_they_are_due() {
        let mut set = DirtySet::new(8);
        let mut schedule = Schedule::default();
        let next = |schedule: &mut Schedule, set: &DirtySet| match schedule.next(set, false, false)
        {
            Next::Try(key) => key.to_string(),
            Next::Until(due) => format!("in {} ms", (due - Instant::now()).as_millis()),
            Next::Idle => "idle".to_owned(),
        };
        set.mark(&"b".into(), Side::Old);
        set.mark(&"a".into(), Side::New);
        assert_eq!(next(&mut schedule, &set), "b");
        assert_eq!(next(&mut schedule, &set), "a");
        assert_eq!(next(&mut schedule, &set), "idle", "both are being copied");
        schedule.again("b".into(), Duration::from_millis(100));
        assert_eq!(next(&mut schedule, &set), "in 100 ms");
        set.mark(&"c".into(), Side::Old);
        assert_eq!(next(&mut schedule, &set), "c");
        tokio::time::advance(Duration::from_millis(100)).await;
        set.mark(&"d".into(), Side::Old);
        assert_eq!(next(&mut schedule, &set), "b");
        assert_eq!(next(&mut schedule, &set), "d");
        // Clean, and dirty again.
        let (_, marks) = set.get(&"a".into()).expect("dirty");
        set.clear(&"a".into(), marks);
        schedule.done(&"a".into());
        set.mark(&"a".into(), Side::Old);
        assert_eq!(next(&mut schedule, &set), "a");
    }
}
