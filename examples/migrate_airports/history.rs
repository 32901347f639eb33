//! What the clients were told, and whether the data agrees with it.
//!
//! Every write puts a value of its own into the data (a name that no other
//! write uses), so whoever reads a value knows which write it came from. Time is
//! a counter that goes up by one at each event: enough to say what came strictly
//! after what, and nothing else is asked of it.
//!
//! A process that was killed does nothing any more, and both stores are inside of
//! it: what it had not written by then it never will. So each write belongs to a
//! *life* of the service, and one without a clear answer has ended when that has.
//!
//! The rule, for a read as for the data at the end: a value is *fresh* unless a
//! write that was acknowledged before the read began had itself begun after the
//! value's own write had ended. A write without a clear answer may land at any
//! time after its start, so while its life lasts, its value is never called stale.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// A moment: the number of events before it.
pub(crate) type Moment = u64;

/// What the client heard about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is done.
    Acked,
    /// It was rejected and changed nothing.
    Refused,
    /// An error, or no answer: it may be in the data or not.
    Unknown,
}

/// What a value says about the store that it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Fresh,
    /// An acknowledged write that came later is missing.
    Stale,
    /// It comes from a write that the client was told is not there.
    Refused,
    /// Nobody wrote it.
    Foreign,
}

/// A write under way; give it back to [`History::end`].
#[derive(Debug)]
pub(crate) struct Ticket {
    key: Arc<str>,
    nth: usize,
}

#[derive(Debug)]
struct Write {
    /// `None`: a deletion.
    value: Option<Arc<str>>,
    began: Moment,
    ended: Option<(Moment, Heard)>,
    /// In which life of the service it was sent.
    life: usize,
    /// Ran while the emergency exit was being repaired.
    in_repair: bool,
}

#[derive(Debug, Default)]
struct KeyHistory {
    writes: Vec<Write>,
    by_value: HashMap<Arc<str>, usize>,
    /// Deletions that run, or whose end nobody knows: how many, by life.
    open_deletions: BTreeMap<usize, usize>,
    /// When the latest acknowledged deletion ended. 0: there was none, but every
    /// key was absent before the first event.
    last_acked_deletion: Moment,
    /// For each acknowledged write, in the order of their ends: its end, and the
    /// latest start of all those up to it.
    acked: Vec<(Moment, Moment)>,
    /// It was named when a step made keys dirty.
    doubtful: bool,
}

impl KeyHistory {
    /// What came of a deletion is known.
    fn close_deletion(&mut self, life: usize) {
        if let Some(open) = self.open_deletions.get_mut(&life) {
            *open -= 1;
            if *open == 0 {
                self.open_deletions.remove(&life);
            }
        }
    }
}

/// Everything that was written, by key.
#[derive(Debug, Default)]
pub(crate) struct History {
    now: Moment,
    keys: HashMap<Arc<str>, KeyHistory>,
    /// Rows that were there before the first client.
    loaded: usize,
    repair: bool,
    /// When each life of the service ended, but for the present one.
    deaths: Vec<Moment>,
}

impl History {
    /// A history that starts with these keys and values in the store.
    pub(crate) fn starting_with<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut history = Self::default();
        for (key, value) in rows {
            let ticket = history.begin(key, Some(value));
            history.end(&ticket, Heard::Acked);
            history.loaded += 1;
        }
        history
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn key(&mut self, key: &str) -> (Arc<str>, &mut KeyHistory) {
        let name = match self.keys.get_key_value(key) {
            Some((name, _)) => Arc::clone(name),
            None => key.into(),
        };
        let entry = self.keys.entry(Arc::clone(&name));
        (name, entry.or_default())
    }

    /// A write is about to be sent: `value`, or `None` for a deletion.
    pub(crate) fn begin(&mut self, key: &str, value: Option<&str>) -> Ticket {
        let began = self.tick();
        let (in_repair, life) = (self.repair, self.deaths.len());
        let (name, known) = self.key(key);
        let nth = known.writes.len();
        let value: Option<Arc<str>> = value.map(Into::into);
        match &value {
            Some(value) => {
                known.by_value.insert(Arc::clone(value), nth);
            }
            None => *known.open_deletions.entry(life).or_default() += 1,
        }
        known.writes.push(Write { value, began, ended: None, life, in_repair });
        Ticket { key: name, nth }
    }

    /// The client has heard about a write, or has given up waiting.
    pub(crate) fn end(&mut self, ticket: &Ticket, heard: Heard) {
        let ended = self.tick();
        let repair = self.repair;
        let Some(known) = self.keys.get_mut(&ticket.key) else {
            return;
        };
        let write = &mut known.writes[ticket.nth];
        write.ended = Some((ended, heard));
        write.in_repair |= repair;
        let (began, life) = (write.began, write.life);
        if write.value.is_none() && heard != Heard::Unknown {
            known.close_deletion(life);
            if heard == Heard::Acked {
                known.last_acked_deletion = ended;
            }
        }
        if heard == Heard::Acked {
            let latest = known.acked.last().map_or(0, |(_, latest)| *latest);
            known.acked.push((ended, latest.max(began)));
        }
    }

    /// The service's process is dead, and no other one was started yet.
    pub(crate) fn died(&mut self) {
        let now = self.tick();
        self.deaths.push(now);
    }

    /// A read is about to be sent.
    pub(crate) fn begin_read(&mut self) -> Moment {
        self.tick()
    }

    /// What to make of `value` (`None`: there is none) that a read found, if the
    /// read began at `began`.
    pub(crate) fn judge(&self, key: &str, value: Option<&str>, began: Moment) -> Seen {
        let Some(known) = self.keys.get(key) else {
            return match value {
                None => Seen::Fresh,
                Some(_) => Seen::Foreign,
            };
        };
        // The latest start of all writes acknowledged before the read.
        let before = known.acked.partition_point(|(ended, _)| *ended < began);
        let newest = match before {
            0 => 0,
            n => known.acked[n - 1].1,
        };
        let if_ended = |ended: Moment| match ended < newest {
            true => Seen::Stale,
            false => Seen::Fresh,
        };
        let Some(value) = value else {
            let last_open = known.open_deletions.last_key_value();
            return match last_open.map(|(life, _)| self.deaths.get(*life)) {
                None => if_ended(known.last_acked_deletion),
                Some(Some(died)) => if_ended(known.last_acked_deletion.max(*died)),
                Some(None) => Seen::Fresh,
            };
        };
        let Some(write) = known.by_value.get(value).map(|nth| &known.writes[*nth]) else {
            return Seen::Foreign;
        };
        match write.ended {
            None | Some((_, Heard::Unknown)) => match self.deaths.get(write.life) {
                Some(died) => if_ended(*died),
                None => Seen::Fresh,
            },
            Some((ended, Heard::Acked)) => if_ended(ended),
            Some((_, Heard::Refused)) => Seen::Refused,
        }
    }

    /// What to make of a value at the end, when nothing runs any more.
    pub(crate) fn judge_last(&self, key: &str, value: Option<&str>) -> Seen {
        self.judge(key, value, Moment::MAX)
    }

    /// Whether what is wrong with `value` is what the crate says may happen: the
    /// key was named as one whose sides may differ, and the emergency exit is
    /// being repaired, or was when the value was written.
    pub(crate) fn is_announced(&self, key: &str, value: Option<&str>) -> bool {
        self.keys.get(key).is_some_and(|known| {
            let written = value
                .and_then(|value| known.by_value.get(value))
                .is_some_and(|nth| known.writes[*nth].in_repair);
            known.doubtful && (self.repair || written)
        })
    }

    /// The key was named: its two sides may differ.
    pub(crate) fn doubt(&mut self, key: &str) {
        self.key(key).1.doubtful = true;
    }

    /// From an emergency exit until its dirty keys are mended.
    pub(crate) fn set_repair(&mut self, on: bool) {
        self.repair = on;
    }

    /// All keys that are or were in the data.
    pub(crate) fn keys(&self) -> BTreeSet<String> {
        self.keys.keys().map(|key| key.to_string()).collect()
    }

    /// How many writes were acknowledged, those at the start left out.
    pub(crate) fn acknowledged(&self) -> usize {
        let writes = self.keys.values().flat_map(|known| &known.writes);
        writes.filter(|write| matches!(write.ended, Some((_, Heard::Acked)))).count() - self.loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> History {
        History::starting_with([("EDDF", "Frankfurt")].into_iter())
    }

    fn write(history: &mut History, value: Option<&str>, heard: Heard) {
        let ticket = history.begin("EDDF", value);
        history.end(&ticket, heard);
    }

    #[test]
    fn the_data_at_the_start_is_fresh_and_nothing_else_is_known() {
        let history = start();
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Fresh);
        assert_eq!(history.judge_last("EDDF", None), Seen::Stale);
        assert_eq!(history.judge_last("EDDF", Some("Hahn")), Seen::Foreign);
        assert_eq!(history.judge_last("NONE", None), Seen::Fresh);
        assert_eq!(history.judge_last("NONE", Some("x")), Seen::Foreign);
    }

    #[test]
    fn what_an_acknowledged_write_overwrote_is_stale() {
        let mut history = start();
        let early = history.begin_read();
        write(&mut history, Some("a"), Heard::Acked);
        let late = history.begin_read();
        assert_eq!(
            history.judge("EDDF", Some("Frankfurt"), early),
            Seen::Fresh,
            "the read had begun before"
        );
        assert_eq!(history.judge("EDDF", Some("Frankfurt"), late), Seen::Stale);
        assert_eq!(history.judge("EDDF", Some("a"), late), Seen::Fresh);
    }

    #[test]
    fn of_writes_that_overlap_either_may_be_the_last() {
        let mut history = start();
        let first = history.begin("EDDF", Some("a"));
        let second = history.begin("EDDF", Some("b"));
        history.end(&second, Heard::Acked);
        history.end(&first, Heard::Acked);
        for value in ["a", "b"] {
            assert_eq!(history.judge_last("EDDF", Some(value)), Seen::Fresh);
        }
        write(&mut history, Some("c"), Heard::Acked);
        for value in ["a", "b"] {
            assert_eq!(history.judge_last("EDDF", Some(value)), Seen::Stale);
        }
    }

    #[test]
    fn a_short_write_inside_a_long_one_does_not_hide_what_both_overwrote() {
        let mut history = start();
        let long = history.begin("EDDF", Some("long"));
        write(&mut history, Some("short"), Heard::Acked);
        history.end(&long, Heard::Acked);
        assert_eq!(history.judge_last("EDDF", Some("short")), Seen::Fresh);
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Stale);
    }

    #[test]
    fn a_write_without_a_clear_answer_may_land_at_any_time() {
        let mut history = start();
        write(&mut history, Some("lost?"), Heard::Unknown);
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Fresh);
        write(&mut history, Some("b"), Heard::Acked);
        assert_eq!(history.judge_last("EDDF", Some("lost?")), Seen::Fresh);
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Stale);
    }

    #[test]
    fn a_running_write_may_be_seen_and_a_refused_one_may_not() {
        let mut history = start();
        let ticket = history.begin("EDDF", Some("a"));
        let now = history.begin_read();
        assert_eq!(history.judge("EDDF", Some("a"), now), Seen::Fresh);
        history.end(&ticket, Heard::Refused);
        assert_eq!(history.judge("EDDF", Some("a"), now), Seen::Refused);
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Fresh);
    }

    #[test]
    fn a_deletion_is_a_write_of_nothing() {
        let mut history = start();
        let running = history.begin("EDDF", None);
        assert_eq!(history.judge_last("EDDF", None), Seen::Fresh);
        history.end(&running, Heard::Refused);
        assert_eq!(history.judge_last("EDDF", None), Seen::Stale);
        write(&mut history, None, Heard::Acked);
        assert_eq!(history.judge_last("EDDF", None), Seen::Fresh);
        assert_eq!(history.judge_last("EDDF", Some("Frankfurt")), Seen::Stale);
        write(&mut history, Some("b"), Heard::Acked);
        assert_eq!(history.judge_last("EDDF", None), Seen::Stale);
        write(&mut history, None, Heard::Unknown);
        assert_eq!(history.judge_last("EDDF", None), Seen::Fresh);
    }

    #[test]
    fn a_key_that_was_created_was_absent_before() {
        let mut history = start();
        let early = history.begin_read();
        let ticket = history.begin("NEW", Some("n"));
        history.end(&ticket, Heard::Acked);
        assert_eq!(history.judge("NEW", None, early), Seen::Fresh);
        assert_eq!(history.judge_last("NEW", None), Seen::Stale);
    }

    #[test]
    fn a_dead_process_writes_nothing_any_more() {
        let mut history = start();
        write(&mut history, Some("lost?"), Heard::Unknown);
        let running = history.begin("EDDF", Some("running"));
        history.died();
        for value in ["Frankfurt", "lost?", "running"] {
            assert_eq!(history.judge_last("EDDF", Some(value)), Seen::Fresh, "{value}");
        }
        // It hears of its end later than another one.
        write(&mut history, Some("b"), Heard::Acked);
        history.end(&running, Heard::Unknown);
        for value in ["Frankfurt", "lost?", "running"] {
            assert_eq!(history.judge_last("EDDF", Some(value)), Seen::Stale, "{value}");
        }
        assert_eq!(history.judge_last("EDDF", Some("b")), Seen::Fresh);
    }

    #[test]
    fn a_dead_process_deletes_nothing_any_more() {
        let mut history = start();
        write(&mut history, None, Heard::Unknown);
        write(&mut history, Some("b"), Heard::Acked);
        assert_eq!(history.judge_last("EDDF", None), Seen::Fresh, "it may be late");
        history.died();
        assert_eq!(history.judge_last("EDDF", None), Seen::Fresh, "it may have been late");
        write(&mut history, Some("c"), Heard::Acked);
        assert_eq!(history.judge_last("EDDF", None), Seen::Stale);
    }

    #[test]
    fn only_named_keys_are_excused_and_only_around_the_repair() {
        let mut history = start();
        history.doubt("EDDF");
        assert!(!history.is_announced("EDDF", Some("Frankfurt")));
        history.set_repair(true);
        assert!(history.is_announced("EDDF", Some("Frankfurt")));
        assert!(!history.is_announced("EDDM", None));
        write(&mut history, Some("a"), Heard::Refused);
        history.set_repair(false);
        assert!(history.is_announced("EDDF", Some("a")));
        assert!(!history.is_announced("EDDF", Some("Frankfurt")));
    }

    #[test]
    fn acknowledged_writes_are_counted() {
        let mut history = start();
        write(&mut history, Some("a"), Heard::Acked);
        write(&mut history, Some("b"), Heard::Refused);
        assert_eq!(history.acknowledged(), 1);
    }
}
