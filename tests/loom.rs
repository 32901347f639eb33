//! Every interleaving of flips, admissions and drops: `settled` resolves
//! neither too early nor never.
//!
//! The code under test is the crate's own: `src/flag/ledger/protocol.rs` is
//! included here beside an `atomic` module made of loom's types, so this needs
//! no `--cfg loom`. Around it `loom/ledger.rs` does in small what the crate's
//! ledger does.
//!
//! Each scenario is tried as it is, and then with one mistake at a time, which
//! loom must find: a scenario that finds nothing proves nothing.

#![allow(clippy::unwrap_used, reason = "a test says what it is by its name")]

#[path = "loom/atomic.rs"]
mod atomic;
#[path = "loom/ledger.rs"]
mod ledger;
#[path = "loom/notify.rs"]
mod notify;
#[allow(dead_code, reason = "the pause of a linger is a matter of time, which loom has not")]
#[path = "../src/flag/ledger/protocol.rs"]
mod protocol;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use loom::{model::Builder, thread};

use crate::{
    atomic::UNWINDS,
    ledger::{Ledger, Mistake},
};

/// What threads do to one ledger.
struct Scenario {
    name: &'static str,
    shards: usize,
    kinds: usize,
    /// How often a thread may be interrupted where it could have gone on.
    /// `None`: as often as it likes.
    preemptions: Option<usize>,
    run: fn(&Arc<Ledger>),
}

impl Scenario {
    /// Tries every interleaving. Answers how many there were, or what went
    /// wrong in the first bad one.
    fn explore(&self, mistake: Mistake) -> Result<usize, String> {
        let tried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tried);
        let mut model = Builder::new();
        model.preemption_bound = self.preemptions;
        let Self { shards, kinds, run, .. } = *self;
        let found = catch_unwind(AssertUnwindSafe(|| {
            model.check(move || {
                count.fetch_add(1, Ordering::Relaxed);
                run(&Arc::new(Ledger::new(shards, kinds, mistake)));
            });
        }));
        let tried = tried.load(Ordering::Relaxed);
        println!("{}, {mistake:?}: {tried} executions", self.name);
        found.map(|()| tried).map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => {
                panic.downcast::<&str>().map_or_else(|_| "?".into(), |text| (*text).into())
            }
        })
    }

    fn holds(&self) {
        let tried = self.explore(Mistake::None).unwrap();
        assert!(tried > 10, "{} has only {tried} interleavings: nothing races", self.name);
    }

    fn finds(&self, mistake: Mistake, what: &str) {
        let found = self.explore(mistake).expect_err("loom finds the mistake");
        assert!(found.contains(what), "{found}");
    }
}

/// `settled` resolved while a write was running.
const TOO_EARLY: &str = "too early";
/// `settled` never resolves.
const NEVER: &str = "deadlock";

fn spawn<T: 'static>(
    ledger: &Arc<Ledger>,
    run: impl FnOnce(&Arc<Ledger>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let ledger = Arc::clone(ledger);
    thread::spawn(move || run(&ledger))
}

/// Flips, waits, and tells which writes it can see by then.
fn flip_and_settle(ledger: &Ledger) -> [bool; 2] {
    ledger.flip();
    ledger.settled();
    [0, 1].map(|shard| ledger.landed(shard))
}

// === a write races a flip ===

const ONE_FLIP: Scenario = Scenario {
    name: "a write and a flip",
    shards: 1,
    kinds: 1,
    preemptions: None,
    run: |ledger| {
        let write = spawn(ledger, |ledger| ledger.write(0, false));
        let [landed, _] = flip_and_settle(ledger);
        let word = write.join().unwrap();
        assert!(word.epoch() > 1 || landed, "settled too early");
    },
};

#[test]
fn a_write_that_races_a_flip_is_waited_for_or_belongs_to_the_next_epoch() {
    ONE_FLIP.holds();
}

#[test]
fn without_a_second_look_at_the_gate_a_write_is_missed() {
    ONE_FLIP.finds(Mistake::NoSecondLook, TOO_EARLY);
    ONE_FLIP.finds(Mistake::LooksThenCounts, TOO_EARLY);
}

#[test]
fn acquire_and_release_are_not_enough() {
    ONE_FLIP.finds(Mistake::AcquireReleaseAdmit, TOO_EARLY);
    ONE_FLIP.finds(Mistake::AcquireReleaseEnd, NEVER);
}

#[test]
fn a_wake_up_is_lost_if_either_side_looks_before_it_tells() {
    ONE_FLIP.finds(Mistake::WakesThenEnds, NEVER);
    ONE_FLIP.finds(Mistake::AnnouncedLate, NEVER);
    ONE_FLIP.finds(Mistake::ArmedLate, NEVER);
}

// === two flips ===

const TWO_FLIPS: Scenario = Scenario {
    name: "a write and two flips",
    shards: 1,
    kinds: 1,
    preemptions: Some(3),
    run: |ledger| {
        let write = spawn(ledger, |ledger| ledger.write(0, false));
        // Waits for whatever was earlier when it began, while the flag moves on.
        let waiter = spawn(ledger, |ledger| {
            let word = ledger.word();
            ledger.settled();
            (word, ledger.landed(0))
        });
        ledger.flip();
        let last = ledger.flip();
        ledger.settled();
        let landed = ledger.landed(0);
        let word = write.join().unwrap();
        assert!(word.epoch() == last.epoch() || landed, "settled too early");
        let (at, landed) = waiter.join().unwrap();
        assert!(word.epoch() >= at.epoch() || landed, "settled too early");
    },
};

#[test]
fn with_two_flips_each_waiter_gets_what_it_asked_for() {
    TWO_FLIPS.holds();
}

#[test]
fn two_flips_find_also_a_slot_that_is_used_again_too_soon() {
    TWO_FLIPS.finds(Mistake::NoSecondLook, TOO_EARLY);
    TWO_FLIPS.finds(Mistake::ReusesSlot, TOO_EARLY);
    TWO_FLIPS.finds(Mistake::AnnouncedLate, NEVER);
}

// === two shards ===

const TWO_SHARDS: Scenario = Scenario {
    name: "a drop and a dual write on two shards",
    shards: 2,
    kinds: 1,
    preemptions: Some(3),
    run: |ledger| {
        // Admitted here, and dropped by another thread.
        let early = ledger.word();
        let mark = ledger.admit(0, early).ok().unwrap();
        let running = spawn(ledger, move |ledger| {
            ledger.land(0);
            drop(mark);
        });
        let dual = spawn(ledger, |ledger| ledger.write(1, true));
        let landed = flip_and_settle(ledger);
        running.join().unwrap();
        let word = dual.join().unwrap();
        assert!(landed[0] && (word != early || landed[1]), "settled too early");
    },
};

#[test]
fn a_drop_and_an_admission_on_another_shard_do_not_hide_each_other() {
    TWO_SHARDS.holds();
}

#[test]
fn started_read_before_finished_hides_a_write_behind_another() {
    TWO_SHARDS.finds(Mistake::StartedFirst, TOO_EARLY);
}

// === an admission that is taken back ===

const TAKE_BACK: Scenario = Scenario {
    name: "an admission that is taken back",
    shards: 1,
    kinds: 1,
    preemptions: None,
    run: |ledger| {
        // Tries once: nothing else of it could wake the waiter.
        let stale = spawn(ledger, |ledger| {
            let word = ledger.word();
            ledger.admit(0, word).map(drop).is_ok()
        });
        flip_and_settle(ledger);
        stale.join().unwrap();
    },
};

#[test]
fn a_waiter_that_counted_an_admission_hears_that_it_is_taken_back() {
    TAKE_BACK.holds();
}

#[test]
fn a_silent_take_back_leaves_the_waiter_waiting() {
    TAKE_BACK.finds(Mistake::SilentTakeBack, NEVER);
}

// === a mark that is handed over ===

const HANDOVER: Scenario = Scenario {
    name: "a handover",
    shards: 1,
    kinds: 2,
    preemptions: None,
    run: |ledger| {
        let write = spawn(ledger, |ledger| {
            let word = ledger.word();
            let mark = ledger.admit(0, word).ok()?.exchange(1);
            ledger.land(0);
            drop(mark);
            Some(word)
        });
        let [landed, _] = flip_and_settle(ledger);
        let admitted = write.join().unwrap();
        assert!(admitted.is_none_or(|word| word.epoch() > 1) || landed, "settled too early");
    },
};

#[test]
fn a_mark_that_is_handed_over_is_counted_all_the_while() {
    HANDOVER.holds();
}

#[test]
fn a_handover_is_missed_if_it_ends_first_or_is_counted_backwards() {
    HANDOVER.finds(Mistake::EndsThenBegins, TOO_EARLY);
    HANDOVER.finds(Mistake::StartedFirst, TOO_EARLY);
}

// === a mark that is dropped on the way ===

const CUT_OFF: Scenario = Scenario {
    name: "a panic and a cancelled request",
    shards: 1,
    kinds: 1,
    preemptions: Some(3),
    run: |ledger| {
        let panics = spawn(ledger, |ledger| {
            let word = ledger.word();
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _mark = ledger.admit(0, word);
                UNWINDS.set(true);
                resume_unwind(Box::new("on purpose"));
            }));
            UNWINDS.set(false);
            assert!(unwound.is_err());
        });
        let cancelled = spawn(ledger, |ledger| {
            let word = ledger.word();
            let request = async {
                let _mark = ledger.admit(0, word);
                std::future::pending::<()>().await;
            };
            notify::poll_once_and_drop(request);
        });
        flip_and_settle(ledger);
        panics.join().unwrap();
        cancelled.join().unwrap();
    },
};

#[test]
fn a_mark_that_is_dropped_by_a_panic_or_a_cancelled_request_has_ended() {
    CUT_OFF.holds();
}

#[test]
fn a_mark_that_a_panic_leaks_is_waited_for_for_ever() {
    CUT_OFF.finds(Mistake::PanicLeaks, NEVER);
}
