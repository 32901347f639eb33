//! What is counted apart.

use crate::stage::{Operation, Outcome, Role, Side};

/// Kinds of legs.
pub(super) const KINDS: usize = 8;
/// Ways in which they end.
pub(super) const ENDS: usize = 5;

/// What a leg is, for counting: its side, and what it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    pub(crate) const fn read(side: Side) -> Self {
        Self(side as u8 * 4)
    }

    pub(crate) const fn write(side: Side) -> Self {
        Self(side as u8 * 4 + 1)
    }

    /// The second leg of a dual write.
    pub(crate) const fn other_write(side: Side) -> Self {
        Self(side as u8 * 4 + 2)
    }

    pub(crate) const fn shadow(side: Side) -> Self {
        Self(side as u8 * 4 + 3)
    }

    pub(crate) const fn authority(operation: Operation, side: Side) -> Self {
        match operation {
            Operation::Read => Self::read(side),
            Operation::Write => Self::write(side),
        }
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..KINDS as u8).map(Self)
    }

    pub(crate) const fn side(self) -> Side {
        if self.0 < 4 { Side::Old } else { Side::New }
    }

    pub(crate) const fn operation(self) -> Operation {
        if self.is_write() { Operation::Write } else { Operation::Read }
    }

    pub(crate) const fn role(self) -> Role {
        match self.0 % 4 {
            0 | 1 => Role::Authority,
            2 => Role::Other,
            _ => Role::Shadow,
        }
    }

    pub(super) const fn is_write(self) -> bool {
        matches!(self.0 % 4, 1 | 2)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The kind of this [`index`](Self::index).
    pub(super) const fn of_index(index: u8) -> Self {
        Self(index)
    }
}

/// How a leg ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Applied,
    Refused,
    Unknown,
    /// The client went away before the answer's head.
    Dropped,
    /// The leg was admitted and then not needed. Not published.
    Unused,
}

impl End {
    pub(crate) const PUBLISHED: [(Self, &'static str); 4] = [
        (Self::Applied, "applied"),
        (Self::Refused, "refused"),
        (Self::Unknown, "unknown"),
        (Self::Dropped, "dropped"),
    ];

    /// The end of this number.
    #[inline]
    pub(super) const fn of_index(index: u8) -> Self {
        match index {
            0 => Self::Applied,
            1 => Self::Refused,
            2 => Self::Unknown,
            3 => Self::Dropped,
            _ => Self::Unused,
        }
    }

    /// What the answer said, if there was one.
    pub(super) const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Applied => Some(Outcome::Applied),
            Self::Refused => Some(Outcome::Refused),
            Self::Unknown => Some(Outcome::Unknown),
            Self::Unused => Some(Outcome::NotRun),
            Self::Dropped => None,
        }
    }
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Refused => Self::Refused,
            Outcome::Unknown => Self::Unknown,
            Outcome::NotRun => Self::Unused,
        }
    }
}
