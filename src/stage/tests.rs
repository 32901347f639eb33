use super::*;

#[test]
fn every_stage_has_the_row_of_the_table() {
    use Operation::{Read, Write};
    let rows = [
        // stage, authority, shadow, read reaches (old, new), write reaches (old, new)
        (Stage::OldOnly, Side::Old, None, (true, false), (true, false)),
        (Stage::WriteBoth, Side::Old, Some(Side::New), (true, false), (true, true)),
        (Stage::ReadNew, Side::New, Some(Side::Old), (false, true), (true, true)),
        (Stage::NewOnly, Side::New, None, (false, true), (false, true)),
    ];
    for (stage, authority, shadow, read, write) in rows {
        assert_eq!(stage.authority(), authority, "{stage}");
        assert_eq!(stage.shadow(), shadow, "{stage}");
        assert_eq!(stage.side_of(Role::Authority), authority, "{stage}");
        assert_eq!(stage.side_of(Role::Other), authority.other(), "{stage}");
        assert_eq!(stage.side_of(Role::Shadow), authority.other(), "{stage}");
        for (operation, (old, new)) in [(Read, read), (Write, write)] {
            assert_eq!(stage.reaches(operation, Side::Old), old, "{stage} {operation}");
            assert_eq!(stage.reaches(operation, Side::New), new, "{stage} {operation}");
        }
    }
}

#[test]
fn text_and_numbers_round_trip_and_nothing_else_parses() {
    for (number, stage) in Stage::ALL.into_iter().enumerate() {
        assert_eq!(stage.to_string().parse::<Stage>(), Ok(stage));
        assert_eq!(number.to_string().parse::<Stage>(), Ok(stage));
        assert_eq!(Stage::try_from(u8::from(stage)), Ok(stage));
        assert_eq!(Stage::from_bits(number as u64), stage);
    }
    for bad in ["", "4", "00", "Old-Only", " old-only", "write_both", "-1"] {
        let error = bad.parse::<Stage>().unwrap_err();
        assert!(error.to_string().contains("old-only, write-both"), "{error}");
    }
    assert!(Stage::try_from(4).is_err());
}

#[test]
fn the_agreement_table_cell_by_cell() {
    use Agreement::{Clean, Dirty};
    let table = [
        [Clean, Dirty, Dirty, Dirty],
        [Dirty, Clean, Dirty, Clean],
        [Dirty, Dirty, Dirty, Dirty],
        [Dirty, Clean, Dirty, Clean],
    ];
    for (row, authority) in Outcome::ALL.into_iter().enumerate() {
        for (column, other) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(agreement(authority, other), table[row][column], "{authority} {other}");
        }
    }
}

#[test]
fn only_require_both_with_a_synced_other_side_hides_the_authoritys_answer() {
    for policy in
        [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth]
    {
        for synced in [false, true] {
            for authority in Outcome::ALL {
                for other in Outcome::ALL {
                    let hidden = policy == FailurePolicy::RequireBoth
                        && synced
                        && agreement(authority, other) == Agreement::Dirty;
                    let expected = if hidden { Reply::PartialWrite } else { Reply::Authority };
                    assert_eq!(reply(policy, synced, authority, other), expected);
                }
            }
        }
    }
}

#[test]
fn every_pair_of_stages_has_its_passage() {
    use Passage::{Flip, Held, Jump, Stay};
    let table = [
        [Stay, Flip, Jump, Jump],
        [Flip, Stay, Held, Jump],
        [Jump, Held, Stay, Flip],
        [Jump, Jump, Flip, Stay],
    ];
    for (row, from) in Stage::ALL.into_iter().enumerate() {
        for (column, to) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(passage(from, to, Urgency::Orderly), table[row][column], "{from} {to}");
            let hurried = passage(from, to, Urgency::Emergency);
            if (from, to) == (Stage::ReadNew, Stage::WriteBoth) {
                assert_eq!(hurried, Passage::Emergency);
            } else {
                assert_eq!(hurried, table[row][column]);
            }
        }
    }
}

#[test]
fn one_sided_stages_unsync_the_side_they_leave() {
    let both = SyncTable::start().with(Side::New, SyncState::Synced);
    assert_eq!(both.entering(Stage::WriteBoth), both);
    assert_eq!(both.entering(Stage::ReadNew), both);
    assert_eq!(both.entering(Stage::OldOnly).new, SyncState::Unsynced);
    assert_eq!(both.entering(Stage::OldOnly).old, SyncState::Synced);
    assert_eq!(both.entering(Stage::NewOnly).old, SyncState::Unsynced);
    assert_eq!(both.entering(Stage::NewOnly).new, SyncState::Synced);
}

#[test]
fn steps_that_leave_a_side_need_its_dirty_keys_mended() {
    let p = |from, to| permission(from, to, Urgency::Orderly);
    assert_eq!(p(Stage::OldOnly, Stage::WriteBoth).synced, None);
    assert_eq!(p(Stage::WriteBoth, Stage::ReadNew).synced, Some((Side::New, SyncState::Synced)));
    assert_eq!(p(Stage::ReadNew, Stage::WriteBoth).synced, Some((Side::Old, SyncState::Synced)));
    assert_eq!(p(Stage::ReadNew, Stage::NewOnly).synced, Some((Side::New, SyncState::Synced)));
    assert_eq!(p(Stage::WriteBoth, Stage::ReadNew).no_dirty_from, [true, true]);
    assert_eq!(p(Stage::ReadNew, Stage::NewOnly).no_dirty_from, [true, false]);
    assert_eq!(p(Stage::WriteBoth, Stage::OldOnly).no_dirty_from, [false, true]);
    let exit = permission(Stage::ReadNew, Stage::WriteBoth, Urgency::Emergency);
    assert_eq!(exit.synced, Some((Side::Old, SyncState::Suspect)));
    assert_eq!(exit.no_dirty_from, [false, false]);
    assert!(!exit.settled);
    assert!(!exit.copies_ended);
}

#[test]
fn only_steps_to_a_one_sided_stage_wait_for_copies_to_the_authority() {
    for from in Stage::ALL {
        for to in Stage::ALL {
            let waits = permission(from, to, Urgency::Orderly).copies_ended;
            let to_one_sided =
                [(Stage::WriteBoth, Stage::OldOnly), (Stage::ReadNew, Stage::NewOnly)];
            assert_eq!(waits, to_one_sided.contains(&(from, to)), "{from} {to}");
        }
    }
}

#[test]
fn what_a_step_lacks_and_which_marks_stand_against_it() {
    use SyncState::{Suspect, Synced, Unsynced};
    let sync = |old, new| SyncTable::start().with(Side::Old, old).with(Side::New, new);
    for from in Stage::ALL {
        for to in Stage::ALL {
            for urgency in [Urgency::Orderly, Urgency::Emergency] {
                let needs = permission(from, to, urgency);
                for old in [Unsynced, Suspect, Synced] {
                    for new in [Unsynced, Suspect, Synced] {
                        let lacks = needs.synced.and_then(|(side, at_least)| {
                            (sync(old, new).get(side) < at_least).then_some(side)
                        });
                        assert_eq!(
                            needs.lacks(sync(old, new)),
                            lacks,
                            "{from} {to} {old:?} {new:?}"
                        );
                    }
                }
                let [from_old, from_new] = needs.no_dirty_from;
                assert_eq!(needs.forbids(RightSide::Is(Side::Old)), from_old, "{from} {to}");
                assert_eq!(needs.forbids(RightSide::Is(Side::New)), from_new, "{from} {to}");
                assert_eq!(needs.forbids(RightSide::Conflict), from_old || from_new, "{from} {to}");
            }
        }
    }
}
