//! Why a run ended before its end.

use std::{error::Error, fmt, time::Duration};

use crate::{
    flag::{Blocked, ConfigError},
    reconcile::{CheckpointError, CopyError, Key},
    stage::{Side, Stage},
};

/// Why a [`Backfill`](crate::reconcile::Backfill) or a
/// [`Verify`](crate::reconcile::Verify) ended early. What it has done stays done,
/// and its checkpoint, if it keeps one, says how far it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SweepError {
    /// Something was set up that cannot work.
    Config(ConfigError),
    /// The keys could not be listed.
    Keys {
        /// Of which side; `None` for a stream.
        side: Option<Side>,
        /// What the listing said.
        says: String,
    },
    /// A listing is not in ascending order of its keys' bytes.
    Disorder {
        /// Of which side.
        side: Side,
        /// A key.
        after: Key,
        /// What came behind it, and should not have.
        key: Key,
    },
    /// The target was declared empty, and is not: this key is there.
    NotEmpty(Key),
    /// The flag has moved, and the run with this source has no point any more.
    Moved {
        /// The side that it copied from.
        from: Side,
        /// Where the flag is now.
        stage: Stage,
    },
    /// The run needs a two-sided stage.
    OneSided(Stage),
    /// A catch-up needs a finished run ahead of the flag, and knows of none that
    /// still counts.
    NoRunAhead,
    /// The side to copy from is itself not synced: it may lack what would be
    /// overwritten.
    Unsynced(Side),
    /// The flag's store failed, for longer than the run waits.
    Store(String),
    /// The checkpoint could not be read.
    Checkpoint(CheckpointError),
    /// Everything is copied or compared, but it could not be put on record that the
    /// side is synced.
    Blocked(Blocked),
    /// Nothing could be copied or compared any more, key after key, for as long as the
    /// run is [patient](super::Sweep::patience): a side seems to be down.
    Down {
        /// What the last key's try said.
        says: String,
    },
    /// A part of the run panicked.
    Panicked,
    /// The handle was shut down.
    ShutDown,
}

impl SweepError {
    /// What would lift it.
    #[must_use]
    pub const fn lifted_by(&self) -> &'static str {
        match self {
            Self::Config(_) => "ask for something that can be",
            Self::Keys { .. } => "mend the listing, then run it again: it goes on from there",
            Self::Disorder { .. } => {
                "list the keys in the order of their bytes (SQL: collate \"C\" or binary), or \
                 give them as streams"
            }
            Self::NotEmpty(_) => {
                "list both sides; or find the target empty at the one-sided stage, before the \
                 step to write-both"
            }
            Self::Moved { .. } => "run it again, in the stage that it is for",
            Self::OneSided(_) => "move to write-both or read-new first",
            Self::NoRunAhead => {
                "run a backfill at the one-sided stage first; or a full one now, without \
                 changed_since"
            }
            Self::Unsynced(_) => {
                "copy from the other side; or, if this one has everything, confirm_synced"
            }
            Self::Store(_) => "mend the flag's store, then run it again: it goes on from there",
            Self::Checkpoint(error) => error.lifted_by(),
            Self::Blocked(_) => "lift what the refusal names, then run it again",
            Self::Down { .. } => "mend the side, then run it again: it goes on from there",
            Self::Panicked => "look for the panic's message, then run it again",
            Self::ShutDown => "run it again in the next process: it goes on from there",
        }
    }
}

impl fmt::Display for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => fmt::Display::fmt(error, f),
            Self::Keys { side: Some(side), says } => {
                write!(f, "the keys of {side} cannot be listed: {says}")
            }
            Self::Keys { side: None, says } => write!(f, "the stream of keys broke off: {says}"),
            Self::Disorder { side, after, key } => {
                write!(f, "the keys of {side} are not in order: {key} comes behind {after}")
            }
            Self::NotEmpty(key) => write!(f, "the target is not empty: {key} is there"),
            Self::Moved { from, stage } => {
                write!(f, "the flag is at {stage} now, and {from} was to be copied from")
            }
            Self::OneSided(stage) => write!(f, "nothing keeps the sides equal at {stage}"),
            Self::NoRunAhead => f.write_str("no run ahead of the flag is known that still counts"),
            Self::Unsynced(side) => write!(f, "{side} is not synced itself"),
            Self::Store(says) => write!(f, "the flag's store fails: {says}"),
            Self::Checkpoint(error) => fmt::Display::fmt(error, f),
            Self::Blocked(blocked) => fmt::Display::fmt(blocked, f),
            Self::Down { says } => write!(f, "one key after the other has failed: {says}"),
            Self::Panicked => f.write_str("a part of the run panicked"),
            Self::ShutDown => f.write_str("the handle was shut down"),
        }
    }
}

impl Error for SweepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Checkpoint(error) => Some(error),
            Self::Blocked(blocked) => Some(blocked),
            _ => None,
        }
    }
}

impl From<ConfigError> for SweepError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<CheckpointError> for SweepError {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

/// Why a key is not done.
#[derive(Debug)]
pub(in crate::reconcile) enum Trouble {
    /// It has failed, and may be tried again.
    Failed(String),
    /// Nothing is wrong with the key: it is not the moment.
    NotNow(Wait),
    /// The key is dirty in another way than the run goes.
    Left,
    /// Nothing more can be done.
    Stop(SweepError),
}

/// What a run waits for.
#[derive(Debug)]
pub(in crate::reconcile) enum Wait {
    Settled,
    Alone,
    Store(String),
}

/// For how long a run waits for a store that fails.
pub(super) const STORE: Duration = Duration::from_secs(60);

impl Trouble {
    pub(in crate::reconcile) fn of<E: fmt::Display>(error: CopyError<E>, from: Side) -> Self {
        match error {
            CopyError::NotSettled => Self::NotNow(Wait::Settled),
            CopyError::Shared => Self::NotNow(Wait::Alone),
            CopyError::Store(says) => Self::NotNow(Wait::Store(says)),
            CopyError::WrongWay(_) | CopyError::Conflict => Self::Left,
            CopyError::OneSided(stage) | CopyError::Moved(stage) => {
                Self::Stop(SweepError::Moved { from, stage })
            }
            CopyError::Unsynced(side) => Self::Stop(SweepError::Unsynced(side)),
            CopyError::ShutDown => Self::Stop(SweepError::ShutDown),
            CopyError::Contended => {
                Self::Failed("writes of the key came in between all the time".to_owned())
            }
            CopyError::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}
