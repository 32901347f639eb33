//! Why a step was refused.

use std::{fmt, time::Duration};

use super::{Alarm, ConfigError, OldestWrite, StoreError};
use crate::stage::{Side, Stage, SyncState};

/// A step that was refused: from where to where, and every reason at once.
/// Nothing has changed.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use tower_migration::{MigrationHandle, Reason, Stage};
///
/// let migration = MigrationHandle::new("airports");
/// migration.advance().await.unwrap();
/// let blocked = migration.advance().await.unwrap_err();
/// assert_eq!(migration.stage(), Stage::WriteBoth);
/// assert!(matches!(blocked.reasons(), [Reason::NotSynced { .. }]));
/// assert!(blocked.to_string().contains("confirm_synced"));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Blocked {
    from: Stage,
    to: Option<Stage>,
    reasons: Vec<Reason>,
}

impl Blocked {
    pub(crate) fn new(from: Stage, to: Option<Stage>, reasons: Vec<Reason>) -> Self {
        Self { from, to, reasons }
    }

    /// The stage, which is the present one still.
    #[must_use]
    pub const fn from(&self) -> Stage {
        self.from
    }

    /// Where the step led, if there is such a stage.
    #[must_use]
    pub const fn to(&self) -> Option<Stage> {
        self.to
    }

    /// Why; never empty.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) if to != self.from => write!(f, "step {} to {to} refused", self.from)?,
            _ => write!(f, "refused at {}", self.from)?,
        }
        for (at, reason) in self.reasons.iter().enumerate() {
            let lead = if at == 0 { ": " } else { "; " };
            write!(f, "{lead}{reason} ({})", reason.lifted_by())?;
        }
        Ok(())
    }
}

impl std::error::Error for Blocked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reasons.iter().find_map(|reason| match reason {
            Reason::Store(error) => Some(error as _),
            Reason::Config(error) => Some(error as _),
            _ => None,
        })
    }
}

/// One reason why a step was refused. `Display` says what is wrong,
/// [`lifted_by`](Self::lifted_by) what to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The stage asked for is no neighbour of the present one.
    NotNeighbour,
    /// There is no stage in that direction.
    NoSuchStage,
    /// Another step is under way.
    Busy,
    /// Another step moved the flag while this one was waiting, such as a
    /// `rollback`.
    Overtaken,
    /// The side that would become (or is) the authority may have holes.
    NotSynced {
        /// Which side.
        side: Side,
        /// `Unsynced` or `Suspect`.
        state: SyncState,
    },
    /// Keys are dirty, and the step would leave the side that is right.
    DirtyKeys {
        /// The side that is right.
        right: Side,
        /// How many.
        count: usize,
        /// For how long the oldest has been.
        oldest: Duration,
    },
    /// Keys are dirty with both sides claimed to be right.
    Conflicts {
        /// How many.
        count: usize,
        /// For how long the oldest has been.
        oldest: Duration,
    },
    /// Writes of an earlier epoch are still running, or may still land.
    NotSettled {
        /// How many of their legs are running. 0: none runs, but one that was
        /// cut off may still land.
        writes: u64,
        /// How long the step waited for them.
        waited: Duration,
        /// The oldest of them. `None` if none runs.
        oldest: Option<OldestWrite>,
    },
    /// Writes did not end while new ones were held.
    HoldTooLong {
        /// How many of their legs were left, answers that are still being sent
        /// included.
        writes: u64,
        /// How long writes were held.
        held: Duration,
        /// The oldest of them. `None` if they ended just now.
        oldest: Option<OldestWrite>,
    },
    /// `confirm_synced` in a one-sided stage: the other side is not written,
    /// so it cannot stay synced.
    OneSided,
    /// A ramp lasts, and the step does not lead through it.
    Ramping,
    /// A ramp is for `WriteBoth` only.
    NoRamp,
    /// What was asked for makes no sense.
    Config(ConfigError),
    /// This process obeys another one that owns the flag.
    Follower,
    /// Another process obeys this one's flag and would miss the step.
    Shared,
    /// The record could not be written.
    Store(StoreError),
    /// A gate refuses the step.
    Gate {
        /// Its name.
        gate: String,
        /// Why.
        says: String,
    },
    /// The flag has gone back by itself, since new failed its clients, and
    /// nobody has re-armed it.
    RolledBack {
        /// What for.
        alarm: Alarm,
    },
    /// The handle was shut down.
    ShutDown,
}

impl Reason {
    /// What would lift it.
    #[must_use]
    pub const fn lifted_by(&self) -> &'static str {
        match self {
            Self::NotNeighbour => "go one step at a time, or use force",
            Self::NoSuchStage => "nothing: this is the last stage in that direction",
            Self::Busy => "wait for the other step to end",
            Self::Overtaken => "ask again if it is still wanted",
            Self::NotSynced { .. } => {
                "run a Backfill or a Verify, or say confirm_synced if you know better; or use \
                 force and accept the holes"
            }
            Self::DirtyKeys { .. } => {
                "let a Repair copy the dirty keys, or copy_key each from the side that is right"
            }
            Self::Conflicts { .. } => "decide with resolve_conflict, then copy",
            Self::NotSettled { .. } => "wait for settled(), and look for hanging requests",
            Self::HoldTooLong { .. } => {
                "try again at quieter load, look for slow writes, or allow a longer hold"
            }
            Self::OneSided => "move to write-both or read-new first",
            Self::Ramping => "end the ramp with rollback, or complete it with advance",
            Self::NoRamp => "move to write-both first",
            Self::Config(_) => "ask for something that can be",
            Self::Follower => "ask the process that owns the flag, or wait until it has ended",
            Self::Shared => "end the other process first, or use force",
            Self::Store(error) => error.lifted_by(),
            Self::Gate { .. } => {
                "what it asks for; or another configuration; or force, which asks no gate"
            }
            Self::RolledBack { .. } => "find out what was wrong with new, then rearm()",
            Self::ShutDown => "start the process again",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeighbour => f.write_str("not a neighbouring stage"),
            Self::NoSuchStage => f.write_str("there is no stage in that direction"),
            Self::Busy => f.write_str("another step is under way"),
            Self::Overtaken => f.write_str("another step came in between"),
            Self::NotSynced { side, state } => write!(f, "{side} is {}", state.as_str()),
            Self::DirtyKeys { right, count, oldest } => write!(
                f,
                "{count} dirty keys are right on {right} only, the oldest for {oldest:.1?}"
            ),
            Self::Conflicts { count, oldest } => write!(
                f,
                "{count} dirty keys are claimed by both sides, the oldest for {oldest:.1?}"
            ),
            Self::NotSettled { writes: 0, waited, .. } => {
                write!(f, "a write that was cut off may still land, after {waited:.1?} of waiting")
            }
            Self::NotSettled { writes, waited, oldest } => {
                write!(
                    f,
                    "{writes} legs of earlier writes still run after {waited:.1?} of waiting{}",
                    Oldest(oldest.as_ref())
                )
            }
            Self::HoldTooLong { writes, held, oldest } => {
                write!(
                    f,
                    "{writes} legs of writes did not end while others were held for {held:.1?}{}",
                    Oldest(oldest.as_ref())
                )
            }
            Self::OneSided => f.write_str("the stage is one-sided"),
            Self::Ramping => f.write_str("a ramp lasts"),
            Self::NoRamp => f.write_str("a share of the keys can go ahead at write-both only"),
            Self::Config(error) => fmt::Display::fmt(error, f),
            Self::Follower => f.write_str("another process owns the flag"),
            Self::Shared => f.write_str("another process obeys this flag"),
            Self::Store(error) => fmt::Display::fmt(error, f),
            Self::Gate { gate, says } => write!(f, "gate {gate}: {says}"),
            Self::RolledBack { alarm } => write!(f, "the flag went back by itself: {alarm}"),
            Self::ShutDown => f.write_str("the handle was shut down"),
        }
    }
}

/// The end of a sentence.
struct Oldest<'a>(Option<&'a OldestWrite>);

impl fmt::Display for Oldest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |oldest| write!(f, ", the oldest: {oldest}"))
    }
}
