//! When a key may be copied, from where, and when the copy counts.

use super::{RightSide, Role, Side, Stage};

/// Whether a copy may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the answers of `copy_start`, all of them")]
pub enum CopyStart {
    /// It may.
    Go,
    /// A flip is under way: ask again once it is over.
    Wait,
    /// Nothing would keep the copy equal afterwards.
    OneSided,
    /// A write of an earlier epoch could still undo it.
    NotSettled,
    /// It was to come before the flag, which has moved on.
    Moved,
}

/// Whether a copy may start at `stage`, while a flip is under way or not (writes
/// are held, or an emergency exit is not on record: a crash would make its
/// target the authority), and with no write of an earlier epoch left (`settled`)
/// or some.
///
/// | stage | flipping | settled | answer |
/// |---|---|---|---|
/// | any | yes | any | wait |
/// | 0, 3 | no | any | one-sided |
/// | 1, 2 | no | no | not settled |
/// | 1, 2 | no | yes | go |
#[must_use]
pub const fn copy_start(stage: Stage, flipping: bool, settled: bool) -> CopyStart {
    if flipping {
        CopyStart::Wait
    } else if !stage.is_two_sided() {
        CopyStart::OneSided
    } else if settled {
        CopyStart::Go
    } else {
        CopyStart::NotSettled
    }
}

/// Whether a copy may start that is to come before the flag: in the one-sided stage,
/// from the side that is served, which alone is written. What clients write
/// meanwhile has to be copied once more when both sides are written, and settled:
/// so such a copy does not count.
///
/// | stage | flipping | answer |
/// |---|---|---|
/// | any | yes | wait |
/// | 1, 2 | no | moved |
/// | 0, from old; 3, from new | no | go |
/// | 0, from new; 3, from old | no | one-sided |
#[must_use]
pub const fn copy_ahead(stage: Stage, flipping: bool, from: Side) -> CopyStart {
    match (stage.authority(), from) {
        _ if flipping => CopyStart::Wait,
        _ if stage.is_two_sided() => CopyStart::Moved,
        (Side::Old, Side::Old) | (Side::New, Side::New) => CopyStart::Go,
        (Side::Old, Side::New) | (Side::New, Side::Old) => CopyStart::OneSided,
    }
}

/// Whether a key may be copied from the side that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the answers of `copy_way`, all of them")]
pub enum CopyWay {
    /// Nothing is known against it.
    Free,
    /// The key is dirty and right on this side: its good data would be
    /// overwritten.
    Wrong(Side),
    /// Nobody knows which side is right.
    Conflict,
    /// The side that was asked for may have holes, and no mark says that this
    /// key is right there: a hole would be copied over the only good row.
    Unsynced,
}

/// Whether a key with this dirty mark may be copied from `from`: only from the
/// side that the *mark* names, whoever the authority is by now; and without a
/// mark only from a side that is `synced`.
///
/// # Example
///
/// ```
/// use tower_migration::{Side, reconcile::RightSide, stage::{CopyWay, copy_way}};
///
/// // A write failed on old while new was the authority; then came a rollback.
/// let mark = Some(RightSide::Is(Side::New));
/// assert_eq!(copy_way(mark, Side::New, false), CopyWay::Free);
/// assert_eq!(copy_way(mark, Side::Old, true), CopyWay::Wrong(Side::New));
/// // The process died, and nobody remembers which keys old lacks.
/// assert_eq!(copy_way(None, Side::Old, false), CopyWay::Unsynced);
/// ```
#[must_use]
pub const fn copy_way(mark: Option<RightSide>, from: Side, synced: bool) -> CopyWay {
    match (mark, from) {
        (None, _) if !synced => CopyWay::Unsynced,
        (None, _)
        | (Some(RightSide::Is(Side::Old)), Side::Old)
        | (Some(RightSide::Is(Side::New)), Side::New) => CopyWay::Free,
        (Some(RightSide::Is(right)), _) => CopyWay::Wrong(right),
        (Some(RightSide::Conflict), _) => CopyWay::Conflict,
    }
}

/// Where a copy takes the key's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there are two sides")]
pub enum CopyPlaces {
    /// On the target only: clients of the authority never wait for it, and the
    /// copy is repeated if one of their writes came in between.
    Target,
    /// On both sides: the target is the authority, whose clients wait in any
    /// case. A write that began meanwhile would run on the source, be copied,
    /// and then be refused on the authority as done already, with its client
    /// listening.
    Both,
}

/// Where a copy from `from` that was admitted at `stage` takes the key's place.
#[must_use]
pub const fn copy_places(stage: Stage, from: Side) -> CopyPlaces {
    match (stage.authority(), from) {
        (Side::Old, Side::Old) | (Side::New, Side::New) => CopyPlaces::Target,
        (Side::Old, Side::New) | (Side::New, Side::Old) => CopyPlaces::Both,
    }
}

/// What the legs of a key do on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "both are needed to tell whether a leg came by")]
pub struct Activity {
    /// How many legs took a place so far.
    pub turns: u64,
    /// Whether one of them is there now.
    pub busy: bool,
}

/// Whether what a copy has read may be out of date: a leg of the key was on the
/// source when it began, is there now, or came by in between.
#[must_use]
pub const fn copy_repeats(before: Activity, after: Activity) -> bool {
    before.busy || after.busy || before.turns != after.turns
}

/// Whether a leg may be told, instead of being run, that a copy has brought its
/// write already. Not if a client waits for its answer, and not if it has
/// several keys, which is more than a copy of one of them.
#[must_use]
pub const fn is_absorbable(role: Role, keys: usize) -> bool {
    matches!(role, Role::Other) && keys == 1
}

/// What a copy does to a leg that waits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the answers of `overtaken`, all of them")]
pub enum Overtaken {
    /// Its write was not on the source yet when the copy read: it runs.
    No,
    /// Its write is part of the copy: it must not run again, and need not.
    Absorbed,
    /// Its write is part of the copy and runs all the same, which is wrong for
    /// an increment: the key is dirty and must be copied once more.
    Again,
}

/// What a copy does to a leg that waits behind it, by whether the leg of the
/// same write on the source had ended when the copy began to read.
#[must_use]
pub const fn overtaken(source_leg_ended: bool, absorbable: bool) -> Overtaken {
    match (source_leg_ended, absorbable) {
        (false, _) => Overtaken::No,
        (true, true) => Overtaken::Absorbed,
        (true, false) => Overtaken::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_starts_in_a_settled_two_sided_stage() {
        for stage in Stage::ALL {
            for settled in [false, true] {
                assert_eq!(copy_start(stage, true, settled), CopyStart::Wait);
            }
        }
        for stage in [Stage::OldOnly, Stage::NewOnly] {
            for settled in [false, true] {
                assert_eq!(copy_start(stage, false, settled), CopyStart::OneSided);
            }
        }
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            assert_eq!(copy_start(stage, false, false), CopyStart::NotSettled);
            assert_eq!(copy_start(stage, false, true), CopyStart::Go);
        }
    }

    #[test]
    fn a_copy_ahead_of_the_flag_starts_from_the_side_that_is_served_alone() {
        for stage in Stage::ALL {
            for from in Side::ALL {
                assert_eq!(copy_ahead(stage, true, from), CopyStart::Wait);
            }
        }
        let table = [
            (Stage::OldOnly, Side::Old, CopyStart::Go),
            (Stage::OldOnly, Side::New, CopyStart::OneSided),
            (Stage::WriteBoth, Side::Old, CopyStart::Moved),
            (Stage::WriteBoth, Side::New, CopyStart::Moved),
            (Stage::ReadNew, Side::Old, CopyStart::Moved),
            (Stage::ReadNew, Side::New, CopyStart::Moved),
            (Stage::NewOnly, Side::Old, CopyStart::OneSided),
            (Stage::NewOnly, Side::New, CopyStart::Go),
        ];
        for (stage, from, start) in table {
            assert_eq!(copy_ahead(stage, false, from), start, "{stage} {from}");
        }
    }

    #[test]
    fn a_dirty_key_is_copied_from_the_side_of_its_mark() {
        for from in Side::ALL {
            assert_eq!(copy_way(None, from, true), CopyWay::Free);
            assert_eq!(copy_way(None, from, false), CopyWay::Unsynced);
            let other = from.other();
            for synced in [true, false] {
                let way = |mark| copy_way(Some(mark), from, synced);
                assert_eq!(way(RightSide::Is(from)), CopyWay::Free);
                assert_eq!(way(RightSide::Is(other)), CopyWay::Wrong(other));
                assert_eq!(way(RightSide::Conflict), CopyWay::Conflict);
            }
        }
    }

    #[test]
    fn only_a_copy_to_the_authority_takes_both_places() {
        for stage in Stage::ALL {
            let authority = stage.authority();
            assert_eq!(copy_places(stage, authority), CopyPlaces::Target);
            assert_eq!(copy_places(stage, authority.other()), CopyPlaces::Both);
        }
    }

    #[test]
    fn a_copy_counts_only_if_no_leg_was_near_its_source() {
        let at = |turns, busy| Activity { turns, busy };
        assert!(!copy_repeats(at(3, false), at(3, false)));
        assert!(copy_repeats(at(3, false), at(4, false)), "came and went");
        assert!(copy_repeats(at(3, false), at(4, true)), "came and is there");
        assert!(copy_repeats(at(3, true), at(3, true)), "was there all the time");
        assert!(copy_repeats(at(3, true), at(3, false)), "left meanwhile");
    }

    #[test]
    fn legs_behind_a_copy_cell_by_cell() {
        assert_eq!(overtaken(false, false), Overtaken::No);
        assert_eq!(overtaken(false, true), Overtaken::No);
        assert_eq!(overtaken(true, true), Overtaken::Absorbed);
        assert_eq!(overtaken(true, false), Overtaken::Again);
        for role in [Role::Authority, Role::Other, Role::Shadow] {
            for keys in 0..4 {
                let expected = role == Role::Other && keys == 1;
                assert_eq!(is_absorbable(role, keys), expected, "{role} {keys}");
            }
        }
    }
}
