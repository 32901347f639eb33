//! Where the crate's promise ends: losses that it does not prevent, each with
//! the shortest way there. A rule that closes one of them fails its test here.

use tower_migration::Stage::WriteBoth;

use crate::{
    check::breaks,
    flow::{
        Budget, Effect, Flow, World,
        properties::{EQUAL, KEPT},
    },
};

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
