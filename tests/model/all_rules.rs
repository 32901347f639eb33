//! With all rules on, nothing is lost.
//!
//! The bounds are what a test run can afford. Each test starts at another stage
//! and is rich in something else; a write, a step, a copy or a fault more
//! multiplies the states by three to ten.

use std::collections::HashSet;

use stateright::Model;
use tower_migration::{
    FailurePolicy::{AwaitBoth, RequireBoth},
    Stage::{NewOnly, OldOnly, ReadNew, WriteBoth},
    WriteOrder,
};

use crate::{
    check::holds,
    flow::{Budget, Effect, Flow, State},
};

const HELD: &str = "a flip is held";
const EXIT: &str = "an emergency exit";
const LATE: &str = "a write lands late";
const REPEATED: &str = "a copy repeats";
const ABSORBED: &str = "a leg is absorbed";
const HEALED: &str = "a dirty key is healed";
const CRASHED: &str = "a restart after a crash";
const STOPPED: &str = "a clean restart";
const CONFIRMED: &str = "a side is confirmed";
const CONFLICT: &str = "a conflict";
const TWO: &str = "both sides equal after two writes";

/// Writes, steps, copies, faults.
fn budget(writes: u8, steps: u8, copies: u8, faults: u8) -> Budget {
    Budget { writes, steps, copies, faults, ..Budget::default() }
}

#[test]
fn forward_from_old_alone() {
    let reached = [HELD, LATE, REPEATED, ABSORBED, CONFIRMED, TWO];
    holds(Flow::at(OldOnly, budget(2, 2, 1, 1)), 15_000, &reached);
}

#[test]
fn from_end_to_end_and_back() {
    holds(Flow::at(OldOnly, budget(1, 5, 1, 1)), 8_000, &[HELD, CONFIRMED]);
    holds(Flow::at(NewOnly, budget(1, 5, 1, 1)), 8_000, &[HELD, CONFIRMED, EXIT]);
}

#[test]
fn an_exit_under_two_writes_and_a_copy() {
    let reached = [HELD, EXIT, LATE, REPEATED, ABSORBED, HEALED, CONFLICT, TWO];
    holds(Flow::at(ReadNew, budget(2, 1, 1, 1)), 80_000, &reached);
}

#[test]
fn an_exit_with_two_repairs() {
    holds(Flow::at(ReadNew, budget(1, 2, 2, 1)), 80_000, &[EXIT, HEALED]);
}

#[test]
fn writes_that_replace() {
    let flow = Flow::at(ReadNew, budget(2, 1, 1, 1));
    holds(
        Flow { effect: Effect::Replaces, ..flow },
        80_000,
        &[EXIT, LATE, REPEATED, ABSORBED, HEALED],
    );
}

#[test]
fn the_authority_first() {
    let flow = Flow::at(ReadNew, budget(2, 1, 1, 1));
    holds(
        Flow { order: WriteOrder::AuthorityFirst, ..flow },
        50_000,
        &[EXIT, LATE, ABSORBED, HEALED],
    );
}

#[test]
fn clients_that_wait_for_both() {
    for policy in [AwaitBoth, RequireBoth] {
        let flow = Flow::at(ReadNew, budget(2, 1, 0, 1));
        holds(Flow { policy, ..flow }, 4_000, &[EXIT, LATE, CONFLICT]);
    }
}

#[test]
fn three_writes_and_a_copy() {
    holds(Flow::at(WriteBoth, budget(3, 0, 1, 1)), 8_000, &[LATE, REPEATED, ABSORBED, HEALED, TWO]);
    holds(Flow::at(ReadNew, budget(3, 1, 1, 0)), 15_000, &[EXIT, REPEATED, ABSORBED, TWO]);
}

#[test]
fn a_read_that_is_slow() {
    let budget = Budget { reads: 1, ..budget(1, 2, 1, 1) };
    holds(Flow::at(ReadNew, budget), 80_000, &[HELD, EXIT, HEALED]);
}

#[test]
fn a_crash_at_every_stage() {
    let with = |faults| Budget { crashes: 1, ..budget(1, 2, 1, faults) };
    holds(Flow::at(OldOnly, with(1)), 5_000, &[CRASHED, CONFIRMED]);
    holds(Flow::at(WriteBoth, with(1)), 30_000, &[CRASHED, HELD, HEALED, LATE]);
    holds(Flow::at(ReadNew, with(1)), 40_000, &[CRASHED, EXIT, HEALED, LATE]);
    holds(Flow::at(NewOnly, with(1)), 5_000, &[CRASHED]);
}

#[test]
fn a_crash_under_two_writes() {
    let budget = Budget { crashes: 1, ..budget(2, 1, 1, 0) };
    holds(Flow::at(ReadNew, budget), 15_000, &[CRASHED, EXIT, LATE, ABSORBED]);
}

#[test]
fn two_crashes_and_a_clean_stop() {
    let budget = Budget { crashes: 2, stops: 1, ..budget(1, 1, 1, 0) };
    holds(Flow::at(WriteBoth, budget), 5_000, &[CRASHED, STOPPED, CONFIRMED]);
}

#[test]
fn a_clean_stop_with_dirty_keys() {
    let budget = Budget { stops: 1, ..budget(1, 2, 1, 1) };
    holds(Flow::at(ReadNew, budget), 50_000, &[STOPPED, EXIT, HEALED]);
}

/// Counted without the checker, so that its own end is checked as well.
#[test]
fn the_checker_leaves_no_state_out() {
    let flow = Flow::at(OldOnly, budget(1, 2, 1, 1));
    let mut seen: HashSet<State> = flow.init_states().into_iter().collect();
    let mut left: Vec<State> = seen.iter().cloned().collect();
    while let Some(state) = left.pop() {
        for next in flow.next_states(&state) {
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    assert_eq!(holds(flow, 1_000, &[]), seen.len());
}
