//! Where the crate's promise ends: losses that it does not prevent, each with
//! the shortest way there. A rule that closes one of them fails its test here.

use tower_migration::Stage::{ReadNew, WriteBoth};

use crate::{
    check::breaks,
    flow::{
        Budget, Effect, Flow, World,
        properties::{EQUAL, KEPT, READS},
    },
};

#[test]
fn a_crash_between_an_exit_and_its_record_goes_back_to_new() {
    let world = World { dies_before_record: true, ..World::default() };
    let budget = Budget { writes: 1, steps: 1, faults: 1, crashes: 1, ..Budget::default() };
    breaks(&Flow { world, ..Flow::at(ReadNew, budget) }, READS);
}

#[test]
fn a_leg_that_lands_after_it_has_answered_undoes_its_repair() {
    let world = World { lands_after_failure: true, ..World::default() };
    let budget = Budget { writes: 1, copies: 1, faults: 1, ..Budget::default() };
    breaks(&Flow { world, ..Flow::at(WriteBoth, budget) }, EQUAL);
}

#[test]
fn a_copy_of_a_dead_process_lands_on_newer_data() {
    let world = World { copy_lands_after_death: true, ..World::default() };
    let budget = Budget { writes: 1, copies: 1, crashes: 1, ..Budget::default() };
    let flow = Flow { world, ..Flow::at(WriteBoth, budget) };
    breaks(&Flow { effect: Effect::Replaces, ..flow }, KEPT);
}

#[test]
fn an_unsynced_side_is_no_source_whatever_the_marks_say() {
    let world = World { trusts_unsynced: true, ..World::default() };
    let budget =
        Budget { writes: 1, steps: 1, copies: 1, faults: 0, crashes: 1, ..Budget::default() };
    breaks(&Flow { world, ..Flow::at(ReadNew, budget) }, KEPT);
}
