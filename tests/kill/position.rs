//! Where a flag stands, and how it may get there.

use std::{fmt, str::FromStr};

use tower_migration::{MigrationHandle, Stage, stage::Share};

/// What the service promises, and which steps it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `AwaitBoth`, every kind of step: nothing acknowledged is ever missing.
    Both,
    /// `AuthorityWins`, orderly steps: the same.
    Orderly,
    /// `AuthorityWins` and `rollback` from `ReadNew`: what is missing where
    /// reads look is on the other side, and the status says so.
    Hurried,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Orderly => "orderly",
            Self::Hurried => "hurried",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Both, Self::Orderly, Self::Hurried].into_iter().find(|mode| mode.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub stage: Stage,
    pub ramp: Share,
}

impl Position {
    pub const START: Self = Self { stage: Stage::OldOnly, ramp: Share::NONE };

    pub fn of(handle: &MigrationHandle) -> Self {
        let status = handle.status();
        Self { stage: status.stage, ramp: Share::new(status.ramp).unwrap() }
    }
}

impl From<Stage> for Position {
    fn from(stage: Stage) -> Self {
        Self { stage, ramp: Share::NONE }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.stage, self.ramp)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('+').and_then(|(stage, ramp)| {
            Some(Self { stage: stage.parse().ok()?, ramp: ramp.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?} is no position"))
    }
}
