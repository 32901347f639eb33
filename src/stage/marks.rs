//! Which side of a dirty key is right, and what becomes of its mark.

use super::{Side, Stage, SyncState, SyncTable};

/// Which side of a dirty key holds the data that is right.
///
/// # Example
///
/// ```
/// use tower_migration::{Side, reconcile::RightSide};
///
/// let mark = RightSide::merged(None, Side::New);
/// assert_eq!(mark.source(), Some(Side::New));
/// // A later failure that says the opposite: a person has to decide.
/// assert_eq!(RightSide::merged(Some(mark), Side::Old), RightSide::Conflict);
/// assert_eq!(RightSide::Conflict.source(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum RightSide {
    /// This side was the authority of every write that made the key dirty.
    Is(Side),
    /// Marks name both sides: a person has to decide, see
    /// [`MigrationHandle::resolve_conflict`](crate::MigrationHandle::resolve_conflict).
    Conflict,
}

impl RightSide {
    /// The mark of a key after a write whose authority was `right` has left its
    /// sides apart.
    #[must_use]
    pub const fn merged(mark: Option<Self>, right: Side) -> Self {
        match (mark, right) {
            (None | Some(Self::Is(Side::Old)), Side::Old) => Self::Is(Side::Old),
            (None | Some(Self::Is(Side::New)), Side::New) => Self::Is(Side::New),
            (Some(_), _) => Self::Conflict,
        }
    }

    /// The side that a repair copies from, whatever the stage is by then. `None`
    /// for a conflict, which no copy may overwrite.
    #[must_use]
    pub const fn source(self) -> Option<Side> {
        match self {
            Self::Is(side) => Some(side),
            Self::Conflict => None,
        }
    }

    /// What is left of the mark when the flag comes to `stage`.
    ///
    /// In a one-sided stage only the authority is written. Where it is right,
    /// the other side is stale as a whole, and single keys say nothing. Where
    /// the other side was right (a forced step), it will not be for long: a
    /// person has to decide.
    #[must_use]
    pub const fn entering(self, stage: Stage) -> Option<Self> {
        match (self, stage) {
            (mark, Stage::WriteBoth | Stage::ReadNew) => Some(mark),
            (Self::Is(Side::Old), Stage::OldOnly) | (Self::Is(Side::New), Stage::NewOnly) => None,
            (_, Stage::OldOnly | Stage::NewOnly) => Some(Self::Conflict),
        }
    }
}

/// Whether a write whose authority was `right` still makes its keys dirty when
/// it turns out at `stage` that its sides differ. Not where only `right` is
/// written by now: the other side is stale as a whole.
#[must_use]
pub const fn is_marked(stage: Stage, right: Side) -> bool {
    stage.is_two_sided()
        || !matches!((stage.authority(), right), (Side::Old, Side::Old) | (Side::New, Side::New))
}

impl SyncTable {
    /// What goes on record of the sides at `stage`. Dirty keys do not: where
    /// there are any, the side that they are wrong on is not synced after a
    /// restart. `right_on` says whether a key is dirty whose right side is old,
    /// or new; `conflict`, whether one is whose right side nobody knows.
    #[must_use]
    pub const fn recorded(self, stage: Stage, right_on: [bool; 2], conflict: bool) -> Self {
        let [right_on_old, right_on_new] = right_on;
        let mut table = self.entering(stage);
        if right_on_old || conflict {
            table = table.with(Side::New, SyncState::Unsynced);
        }
        if right_on_new || conflict {
            table = table.with(Side::Old, SyncState::Unsynced);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RightSide::{Conflict, Is};
    use Side::{New, Old};

    #[test]
    fn marks_for_both_sides_are_a_conflict() {
        let table = [
            (None, Old, Is(Old)),
            (None, New, Is(New)),
            (Some(Is(Old)), Old, Is(Old)),
            (Some(Is(Old)), New, Conflict),
            (Some(Is(New)), Old, Conflict),
            (Some(Is(New)), New, Is(New)),
            (Some(Conflict), Old, Conflict),
            (Some(Conflict), New, Conflict),
        ];
        for (mark, right, merged) in table {
            assert_eq!(RightSide::merged(mark, right), merged, "{mark:?} {right}");
        }
        assert_eq!(Is(Old).source(), Some(Old));
        assert_eq!(Is(New).source(), Some(New));
        assert_eq!(Conflict.source(), None);
    }

    #[test]
    fn a_one_sided_stage_forgets_what_it_knows_and_parks_the_rest() {
        for mark in [Is(Old), Is(New), Conflict] {
            assert_eq!(mark.entering(Stage::WriteBoth), Some(mark));
            assert_eq!(mark.entering(Stage::ReadNew), Some(mark));
        }
        assert_eq!(Is(Old).entering(Stage::OldOnly), None);
        assert_eq!(Is(New).entering(Stage::OldOnly), Some(Conflict));
        assert_eq!(Conflict.entering(Stage::OldOnly), Some(Conflict));
        assert_eq!(Is(Old).entering(Stage::NewOnly), Some(Conflict));
        assert_eq!(Is(New).entering(Stage::NewOnly), None);
        assert_eq!(Conflict.entering(Stage::NewOnly), Some(Conflict));
    }

    #[test]
    fn only_the_sole_writers_own_keys_are_not_marked() {
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            assert!(is_marked(stage, Old) && is_marked(stage, New), "{stage}");
        }
        assert!(!is_marked(Stage::OldOnly, Old) && is_marked(Stage::OldOnly, New));
        assert!(!is_marked(Stage::NewOnly, New) && is_marked(Stage::NewOnly, Old));
    }

    #[test]
    fn the_record_unsyncs_the_side_that_dirty_keys_are_wrong_on() {
        let both = SyncTable::start().with(New, SyncState::Synced);
        let expected = |old, new| {
            let state = |synced| if synced { SyncState::Synced } else { SyncState::Unsynced };
            both.with(Old, state(old)).with(New, state(new))
        };
        let table = [
            // right on (old, new), conflict, synced (old, new)
            ([false, false], false, (true, true)),
            ([true, false], false, (true, false)),
            ([false, true], false, (false, true)),
            ([true, true], false, (false, false)),
            ([false, false], true, (false, false)),
            ([true, false], true, (false, false)),
            ([false, true], true, (false, false)),
            ([true, true], true, (false, false)),
        ];
        for (right_on, conflict, (old, new)) in table {
            let recorded = both.recorded(Stage::WriteBoth, right_on, conflict);
            assert_eq!(recorded, expected(old, new), "{right_on:?} {conflict}");
        }
        let none = [false, false];
        assert_eq!(both.recorded(Stage::OldOnly, none, false), expected(true, false));
        assert_eq!(both.recorded(Stage::NewOnly, none, false), expected(false, true));
    }
}
