//! Which side serves what, at which value of the read-write flag.
//!
//! Pure functions only: no time, no I/O, no state. Everything else in the crate
//! asks these tables, and the tests go through them cell by cell.

mod agreement;
mod copying;
mod marks;
mod policy;
mod ramp;
mod step;

use std::{fmt, str::FromStr};

pub use self::agreement::{Agreement, FailurePolicy, Outcome, Reply, WriteOrder, agreement, reply};
pub use self::copying::{
    Activity, CopyPlaces, CopyStart, CopyWay, Overtaken, copy_ahead, copy_places, copy_repeats,
    copy_start, copy_way, is_absorbable, overtaken,
};
pub use self::marks::{RightSide, is_marked};
pub use self::policy::{acknowledged_on_record, lingers};
pub use self::ramp::{ParseShareError, Share, partition, stage_in_force};
pub use self::step::{
    Passage, Permission, SyncState, SyncTable, Urgency, passage, permission, ramp_passage,
    ramp_permission,
};

/// One of the two services that a [`Migration`](crate::Migration) wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[expect(clippy::exhaustive_enums, reason = "a migration has two sides, for ever")]
pub enum Side {
    /// What is being replaced: the service that the layer is applied to.
    Old,
    /// The replacement: the service given to
    /// [`MigrationLayer::new`](crate::MigrationLayer::new).
    New,
}

impl Side {
    /// Both sides, old first.
    pub const ALL: [Self; 2] = [Self::Old, Self::New];

    /// The side that this one is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// `old` or `new`, as in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request does to the data, as far as the migration cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[expect(clippy::exhaustive_enums, reason = "a request either may change data or may not")]
pub enum Operation {
    /// Changes nothing: served by the authority, perhaps shadowed.
    Read,
    /// May change data: goes to both sides in the two-sided stages.
    Write,
}

impl Operation {
    /// `read` or `write`, as in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one leg of a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Its answer is the client's.
    Authority,
    /// The second leg of a dual write.
    Other,
    /// A read that nobody waits for, made to compare.
    Shadow,
    /// A request that a copy has made: of a row, from one side to the other.
    Copy,
}

impl Role {
    /// `authority`, `other`, `shadow` or `copy`, as in logs, in
    /// [`Dispatch`](crate::Dispatch), and in metrics, which count no copies here.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Other => "other",
            Self::Shadow => "shadow",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The value of the read-write flag.
///
/// | stage | text | reads served by | shadow read may go to | writes go to | authority |
/// |---|---|---|---|---|---|
/// | `OldOnly` = 0 | `old-only` | old | – | old | old |
/// | `WriteBoth` = 1 | `write-both` | old | new | old and new | old |
/// | `ReadNew` = 2 | `read-new` | new | old | new and old | new |
/// | `NewOnly` = 3 | `new-only` | new | – | new | new |
///
/// The *authority* is the side whose answer the client gets, and whose data is
/// right when the two differ. The enum is exhaustive on purpose: code that
/// looks at the stage has to decide about all four.
///
/// # Example
///
/// ```
/// use tower_migration::{Side, Stage};
///
/// let stage: Stage = "write-both".parse()?;
/// assert_eq!(stage.authority(), Side::Old);
/// assert_eq!(stage.next(), Some(Stage::ReadNew));
/// assert_eq!(u8::from(stage), 1);
/// # Ok::<(), tower_migration::ParseStageError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[expect(
    clippy::exhaustive_enums,
    reason = "users must handle every stage; a fifth would be a breaking change"
)]
#[repr(u8)]
pub enum Stage {
    /// Old serves everything; new is not touched.
    OldOnly = 0,
    /// Writes go to both, old answers; reads come from old.
    WriteBoth = 1,
    /// Writes go to both, new answers; reads come from new.
    ReadNew = 2,
    /// New serves everything; old is not touched.
    NewOnly = 3,
}

impl Stage {
    /// The four stages, in order.
    pub const ALL: [Self; 4] = [Self::OldOnly, Self::WriteBoth, Self::ReadNew, Self::NewOnly];

    /// The side whose answer the client gets.
    #[must_use]
    pub const fn authority(self) -> Side {
        match self {
            Self::OldOnly | Self::WriteBoth => Side::Old,
            Self::ReadNew | Self::NewOnly => Side::New,
        }
    }

    /// Whether writes go to both sides.
    #[must_use]
    pub const fn is_two_sided(self) -> bool {
        matches!(self, Self::WriteBoth | Self::ReadNew)
    }

    /// The side that a leg with this role goes to, and in whose queue it waits:
    /// by side and not by role, or writes from before and after a change of the
    /// authority would run in different orders on the two sides.
    #[must_use]
    pub const fn side_of(self, role: Role) -> Side {
        match role {
            Role::Authority => self.authority(),
            // A copy has no side of its own; what it writes is the other one, but for
            // a key that is right there.
            Role::Other | Role::Shadow | Role::Copy => self.authority().other(),
        }
    }

    /// Whether requests of this kind reach `side` as more than a shadow.
    #[must_use]
    pub const fn reaches(self, operation: Operation, side: Side) -> bool {
        let authority =
            matches!((self.authority(), side), (Side::Old, Side::Old) | (Side::New, Side::New));
        authority || (self.is_two_sided() && matches!(operation, Operation::Write))
    }

    /// The side that reads may be shadowed to, if any.
    #[must_use]
    pub const fn shadow(self) -> Option<Side> {
        if self.is_two_sided() { Some(self.authority().other()) } else { None }
    }

    /// The next stage on the way to new, if any.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::OldOnly => Some(Self::WriteBoth),
            Self::WriteBoth => Some(Self::ReadNew),
            Self::ReadNew => Some(Self::NewOnly),
            Self::NewOnly => None,
        }
    }

    /// The stage before this one, if any.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self {
            Self::OldOnly => None,
            Self::WriteBoth => Some(Self::OldOnly),
            Self::ReadNew => Some(Self::WriteBoth),
            Self::NewOnly => Some(Self::ReadNew),
        }
    }

    /// The text form: `old-only`, `write-both`, `read-new` or `new-only`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OldOnly => "old-only",
            Self::WriteBoth => "write-both",
            Self::ReadNew => "read-new",
            Self::NewOnly => "new-only",
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0 => Self::OldOnly,
            1 => Self::WriteBoth,
            2 => Self::ReadNew,
            _ => Self::NewOnly,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Stage> for u8 {
    fn from(stage: Stage) -> Self {
        stage as Self
    }
}

impl TryFrom<u8> for Stage {
    type Error = ParseStageError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .ok_or_else(|| ParseStageError { input: number.to_string() })
    }
}

impl FromStr for Stage {
    type Err = ParseStageError;

    /// Takes the text form, or the number `0` to `3`. Case and surrounding
    /// white space matter: a flag is not the place for guesses.
    fn from_str(input: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|stage| {
                stage.as_str() == input
                    || matches!(input.as_bytes(), [d] if *d == b'0' + *stage as u8)
            })
            .ok_or_else(|| ParseStageError { input: input.chars().take(64).collect() })
    }
}

/// A text or number that names no [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseStageError {
    input: String,
}

impl fmt::Display for ParseStageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no stage: use old-only, write-both, read-new or new-only (or 0 to 3)",
            self.input
        )
    }
}

impl std::error::Error for ParseStageError {}

#[cfg(test)]
mod tests;
