//! Which step of the flag is legal, and what it needs.

use super::{RightSide, Share, Side, Stage};

/// What is known about one side's data.
///
/// Ordered: a later variant is worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SyncState {
    /// The side may have holes: it has not been copied to, or was not written
    /// for a while.
    Unsynced,
    /// It was synced, then a write without a key failed on it: one thing is
    /// wrong somewhere. Counts as unsynced, but for the emergency exit.
    Suspect,
    /// The side holds all data, dirty keys aside.
    Synced,
}

impl SyncState {
    /// Only [`Synced`](Self::Synced) is.
    #[must_use]
    pub const fn is_synced(self) -> bool {
        matches!(self, Self::Synced)
    }

    /// `unsynced`, `suspect` or `synced`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsynced => "unsynced",
            Self::Suspect => "suspect",
            Self::Synced => "synced",
        }
    }
}

/// The sync state of both sides, and how a change of stage changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SyncTable {
    /// Old's state.
    pub old: SyncState,
    /// New's state.
    pub new: SyncState,
}

impl SyncTable {
    /// Where a migration starts: old has everything, new nothing.
    #[must_use]
    pub const fn start() -> Self {
        Self { old: SyncState::Synced, new: SyncState::Unsynced }
    }

    /// The state of `side`.
    #[must_use]
    pub const fn get(self, side: Side) -> SyncState {
        match side {
            Side::Old => self.old,
            Side::New => self.new,
        }
    }

    /// The table with `side` set.
    #[must_use]
    pub const fn with(mut self, side: Side, state: SyncState) -> Self {
        match side {
            Side::Old => self.old = state,
            Side::New => self.new = state,
        }
        self
    }

    /// A one-sided stage un-syncs the side that it stops writing to, from its
    /// first request on.
    #[must_use]
    pub const fn entering(self, stage: Stage) -> Self {
        match stage {
            Stage::OldOnly => self.with(Side::New, SyncState::Unsynced),
            Stage::NewOnly => self.with(Side::Old, SyncState::Unsynced),
            Stage::WriteBoth | Stage::ReadNew => self,
        }
    }
}

/// How the flag gets from one stage to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the steps of four stages")]
pub enum Passage {
    /// The stage does not change.
    Stay,
    /// The flag flips under running requests.
    Flip,
    /// The authority changes: writes are held for a moment, so that a read
    /// after the flip sees every write acknowledged before it.
    Held,
    /// The authority changes at once, writes in flight or not.
    Emergency,
    /// Not a neighbour: only `force` does that.
    Jump,
}

/// Whether the caller can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "one can wait or one cannot")]
pub enum Urgency {
    /// `move_to`, `advance`.
    Orderly,
    /// `rollback`.
    Emergency,
}

/// The way from `from` to `to`.
#[must_use]
pub const fn passage(from: Stage, to: Stage, urgency: Urgency) -> Passage {
    use Stage::{NewOnly, OldOnly, ReadNew, WriteBoth};
    match (from, to) {
        (OldOnly, OldOnly) | (WriteBoth, WriteBoth) | (ReadNew, ReadNew) | (NewOnly, NewOnly) => {
            Passage::Stay
        }
        (OldOnly, WriteBoth) | (WriteBoth, OldOnly) | (ReadNew, NewOnly) | (NewOnly, ReadNew) => {
            Passage::Flip
        }
        (WriteBoth, ReadNew) => Passage::Held,
        (ReadNew, WriteBoth) => match urgency {
            Urgency::Orderly => Passage::Held,
            Urgency::Emergency => Passage::Emergency,
        },
        _ => Passage::Jump,
    }
}

/// What a step needs before it may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Permission {
    /// This side must be in this state, or a better one.
    pub synced: Option<(Side, SyncState)>,
    /// No key may be dirty whose right side is this one, since the step leaves
    /// that side behind.
    pub no_dirty_from: [bool; 2],
    /// No write of an earlier epoch may still be running.
    pub settled: bool,
    /// No copy to the authority may be running, whatever its epoch: after the
    /// step nothing keeps it in order with the authority's writes, and it would
    /// overwrite one of them.
    pub copies_ended: bool,
}

impl Permission {
    /// The side that is not synced enough for the step, if one is not.
    #[must_use]
    pub const fn lacks(self, sync: SyncTable) -> Option<Side> {
        match self.synced {
            Some((side, at_least)) if (sync.get(side) as u8) < at_least as u8 => Some(side),
            _ => None,
        }
    }

    /// Whether a key with this dirty mark stands against the step. One whose
    /// right side nobody knows stands against every step that must not leave a
    /// right side behind.
    #[must_use]
    pub const fn forbids(self, mark: RightSide) -> bool {
        let [from_old, from_new] = self.no_dirty_from;
        match mark {
            RightSide::Is(Side::Old) => from_old,
            RightSide::Is(Side::New) => from_new,
            RightSide::Conflict => from_old || from_new,
        }
    }
}

/// What the step from `from` to `to` needs.
///
/// | step | synced | no dirty key whose right side is | settled | no copy to the authority |
/// |---|---|---|---|---|
/// | 0→1 | – | – | yes | – |
/// | 1→2 | new | old, new | yes | – |
/// | 2→3 | new | old | yes | yes |
/// | 3→2 | – | – | yes | – |
/// | 2→1 orderly | old | old, new | yes | – |
/// | 2→1 emergency | old, or suspect | – | no | – |
/// | 1→0 | old | new | yes | yes |
///
/// *Settled* before every orderly step keeps requests of stages two apart from
/// being alive at once. A dirty key's *right side* holds the only good copy:
/// a step to a stage where nobody looks at that side would lose it.
///
/// A *copy to the authority* is kept in order with the authority's writes by the
/// places of both, which writes of a one-sided stage do not take.
///
/// The emergency exit is open to a *suspect* side: new failing a write that has
/// no key is what makes old suspect, and is just when the exit is needed. Old
/// is wrong in one thing at most for each such write, not full of holes.
#[must_use]
pub const fn permission(from: Stage, to: Stage, urgency: Urgency) -> Permission {
    let passage = passage(from, to, urgency);
    let synced = match (from, to) {
        (Stage::WriteBoth, Stage::ReadNew) | (Stage::ReadNew, Stage::NewOnly) => {
            Some((Side::New, SyncState::Synced))
        }
        (Stage::WriteBoth, Stage::OldOnly) => Some((Side::Old, SyncState::Synced)),
        (Stage::ReadNew, Stage::WriteBoth) => match urgency {
            Urgency::Orderly => Some((Side::Old, SyncState::Synced)),
            Urgency::Emergency => Some((Side::Old, SyncState::Suspect)),
        },
        _ => None,
    };
    let no_dirty_from = match (passage, to) {
        (Passage::Held, _) => [true, true],
        (Passage::Flip, Stage::NewOnly) => [true, false],
        (Passage::Flip, Stage::OldOnly) => [false, true],
        _ => [false, false],
    };
    Permission {
        synced,
        no_dirty_from,
        settled: matches!(passage, Passage::Flip | Passage::Held),
        copies_ended: matches!(passage, Passage::Flip) && !to.is_two_sided(),
    }
}

/// The way from one share of the keys to another, within `WriteBoth`.
///
/// Each change is a held flip, since the authority of some keys changes; only
/// the end of a ramp may come at once.
#[must_use]
pub const fn ramp_passage(from: Share, to: Share, urgency: Urgency) -> Passage {
    if from.bits() == to.bits() {
        Passage::Stay
    } else {
        match urgency {
            Urgency::Orderly => Passage::Held,
            Urgency::Emergency => Passage::Emergency,
        }
    }
}

/// What a change of the share needs.
///
/// | change | synced | no dirty key whose right side is | settled |
/// |---|---|---|---|
/// | up | new | old, new | yes |
/// | down | – | old, new | yes |
/// | to nothing, at once | – | – | no |
///
/// At once is safe: while a ramp lasts, no write is acknowledged that is not on
/// both sides.
#[must_use]
pub const fn ramp_permission(from: Share, to: Share, urgency: Urgency) -> Permission {
    let orderly = matches!(urgency, Urgency::Orderly);
    let up = to.bits() > from.bits();
    let synced = if up { Some((Side::New, SyncState::Synced)) } else { None };
    Permission { synced, no_dirty_from: [orderly, orderly], settled: orderly, copies_ended: false }
}
