//! The same with more of everything: minutes, not seconds. Run them after a
//! change of a rule: `cargo test --release --test model -- --ignored`.

use tower_migration::Stage::{OldOnly, ReadNew, WriteBoth};

use crate::{
    check::holds,
    flow::{Budget, Effect, Flow},
};

/// Writes, steps, copies, faults, crashes.
fn budget(writes: u8, steps: u8, copies: u8, faults: u8, crashes: u8) -> Budget {
    Budget { writes, steps, copies, faults, crashes, ..Budget::default() }
}

#[test]
#[ignore = "minutes"]
fn forward_with_two_copies_and_two_faults() {
    holds(Flow::at(OldOnly, budget(2, 2, 2, 2, 0)), 500_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn an_exit_and_a_way_on_with_two_faults() {
    holds(Flow::at(ReadNew, budget(2, 2, 1, 2, 0)), 500_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn an_exit_with_two_copies() {
    holds(Flow::at(ReadNew, budget(2, 1, 2, 1, 0)), 300_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn a_crash_under_an_exit() {
    holds(Flow::at(ReadNew, budget(2, 2, 1, 1, 1)), 500_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn two_crashes_on_the_way() {
    holds(Flow::at(WriteBoth, budget(2, 2, 2, 0, 2)), 500_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn three_writes_under_an_exit() {
    holds(Flow::at(ReadNew, budget(3, 1, 1, 1, 0)), 500_000, &[]);
}

#[test]
#[ignore = "minutes"]
fn writes_that_replace_with_two_faults() {
    let flow = Flow::at(ReadNew, budget(2, 2, 1, 2, 0));
    holds(Flow { effect: Effect::Replaces, ..flow }, 500_000, &[]);
}
