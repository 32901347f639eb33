//! With one rule off, the loss that it is there for is found.
//!
//! Each test starts where the loss is near and has just enough of everything.

use tower_migration::Stage::{OldOnly, ReadNew, WriteBoth};

use crate::{
    check::breaks,
    flow::{
        Budget, Effect, Flow,
        properties::{DIRTY, EQUAL, KEPT, NEIGHBOURS, READS, SETTLED},
    },
    rules::Off,
};

/// Writes, steps, copies, faults.
fn budget(writes: u8, steps: u8, copies: u8, faults: u8) -> Budget {
    Budget { writes, steps, copies, faults, ..Budget::default() }
}

#[test]
fn without_a_hold_a_read_at_new_misses_what_was_acknowledged_on_old() {
    breaks(&Flow::at(WriteBoth, budget(1, 1, 0, 0)).without(Off::Hold), READS);
}

#[test]
fn a_copy_before_settled_is_undone_by_a_write_that_knew_old_alone() {
    let flow = || Flow::at(OldOnly, budget(1, 1, 1, 0)).without(Off::CopySettled);
    breaks(&flow(), SETTLED);
    breaks(&flow(), EQUAL);
}

#[test]
fn without_a_linger_a_write_that_was_cut_off_lands_behind_the_copy() {
    let flow = || Flow::at(OldOnly, budget(1, 1, 1, 1)).without(Off::Linger);
    breaks(&flow(), SETTLED);
    breaks(&flow(), EQUAL);
}

#[test]
fn without_a_linger_a_leg_that_was_given_up_lands_behind_its_repair() {
    breaks(&Flow::at(WriteBoth, budget(1, 0, 1, 1)).without(Off::Linger), EQUAL);
}

#[test]
fn without_a_linger_a_copy_that_was_cut_off_lands_on_newer_data() {
    breaks(&Flow::at(WriteBoth, budget(1, 0, 2, 1)).without(Off::Linger), EQUAL);
}

#[test]
fn without_a_linger_the_write_of_a_dead_process_lands_behind_the_copy() {
    let budget = Budget { crashes: 1, ..budget(1, 0, 1, 0) };
    breaks(&Flow::at(WriteBoth, budget).without(Off::Linger), EQUAL);
}

#[test]
fn a_jump_by_two_loses_writes() {
    let flow = |stage| Flow::at(stage, budget(1, 1, 0, 0)).without(Off::Steps);
    breaks(&flow(OldOnly), NEIGHBOURS);
    breaks(&flow(WriteBoth), NEIGHBOURS);
    breaks(&flow(WriteBoth), READS);
}

#[test]
fn insert_if_absent_leaves_a_row_that_has_changed() {
    breaks(&Flow::at(WriteBoth, budget(1, 0, 1, 1)).without(Off::Overwrite), EQUAL);
}

#[test]
fn a_replay_overwrites_newer_data() {
    let flow = Flow::at(WriteBoth, budget(2, 1, 1, 1)).without(Off::Copying);
    let flow = || Flow { effect: Effect::Replaces, ..flow.clone() };
    breaks(&flow(), EQUAL);
    breaks(&flow(), READS);
}

#[test]
fn a_repair_from_todays_authority_overwrites_the_only_good_copy() {
    breaks(&Flow::at(ReadNew, budget(1, 1, 1, 1)).without(Off::MarksSide), KEPT);
}

#[test]
fn order_by_role_lets_writes_pass_a_copy_after_an_exit() {
    breaks(&Flow::at(ReadNew, budget(2, 1, 1, 1)).without(Off::QueueBySide), KEPT);
}

#[test]
fn a_record_that_is_believed_after_a_crash_calls_holes_synced() {
    let budget = Budget { crashes: 1, ..budget(1, 1, 0, 0) };
    let flow = || Flow::at(WriteBoth, budget).without(Off::UncleanStop);
    breaks(&flow(), EQUAL);
    // It is the authority next.
    breaks(&Flow { budget: Budget { writes: 2, ..budget }, ..flow() }, READS);
}

#[test]
fn a_copy_that_is_not_repeated_is_old_when_it_lands() {
    breaks(&Flow::at(WriteBoth, budget(1, 0, 1, 0)).without(Off::Repeating), EQUAL);
}

#[test]
fn an_increment_that_is_not_absorbed_is_counted_twice() {
    breaks(&Flow::at(WriteBoth, budget(1, 0, 1, 0)).without(Off::Absorbing), EQUAL);
}

#[test]
fn without_marks_a_failed_leg_is_forgotten() {
    let flow = || Flow::at(WriteBoth, budget(1, 0, 0, 1)).without(Off::Marking);
    breaks(&flow(), DIRTY);
    breaks(&flow(), EQUAL);
}

#[test]
fn an_exit_that_marks_nothing_hides_what_old_misses() {
    breaks(&Flow::at(ReadNew, budget(1, 1, 0, 0)).without(Off::Tainting), READS);
}

#[test]
fn a_copy_to_the_authority_that_outlives_its_stage_overwrites_a_write() {
    breaks(&Flow::at(ReadNew, budget(1, 1, 1, 0)).without(Off::CopiesEnded), READS);
}

#[test]
fn a_copy_whose_target_became_the_authority_applies_a_write_twice() {
    let budget = Budget { crashes: 1, ..budget(1, 1, 1, 1) };
    breaks(&Flow::at(ReadNew, budget).without(Off::CopyLooksAgain), READS);
}

#[test]
fn a_write_under_an_exit_is_not_promised_unless_old_has_it() {
    let budget = Budget { crashes: 1, ..budget(1, 1, 0, 1) };
    breaks(&Flow::at(ReadNew, budget).without(Off::MovedRequires), READS);
}

#[test]
fn a_copy_from_an_unsynced_side_destroys_what_the_other_one_has_alone() {
    let budget = Budget { crashes: 1, ..budget(1, 1, 1, 0) };
    breaks(&Flow::at(ReadNew, budget).without(Off::SyncedSource), KEPT);
}

#[test]
fn a_split_write_acknowledged_before_the_exit_is_on_record_is_lost_by_a_crash() {
    let budget = Budget { crashes: 1, ..budget(1, 1, 0, 1) };
    breaks(&Flow::at(ReadNew, budget).without(Off::AcknowledgedOnRecord), READS);
}
