//! What is kept of a flag.

use std::time::SystemTime;

use crate::{
    flag::{Forced, gate::LAST_EPOCH},
    stage::{Share, Side, Stage, SyncState, SyncTable},
};

/// What is kept of a flag: where it stands and what is known of the sides.
///
/// ```
/// use tower_migration::{Record, Side, Stage};
///
/// let mut record = Record::start();
/// assert_eq!(record.stage, Stage::OldOnly);
///
/// // A process that was killed at `write-both` may have left a write on one
/// // side alone.
/// record.stage = Stage::WriteBoth;
/// record.clean = false;
/// assert!(!record.after_restart().sync.get(Side::New).is_synced());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Record {
    /// The stage.
    pub stage: Stage,
    /// Grows with every record; the order in which they were made.
    pub epoch: u64,
    /// Which sides hold all data.
    pub sync: SyncTable,
    /// Whether the process that wrote it stopped in order. After an unclean
    /// stop in a two-sided stage a write may have landed on one side alone.
    pub clean: bool,
    /// The share of the keys that reads new already; not 0 at `WriteBoth` only.
    pub ramp: Share,
    /// Under which a ramp tells its keys from the others: see
    /// [`partition`](crate::stage::partition). Chosen once for each migration.
    pub seed: u64,
    /// Since when what was copied to each side counts.
    pub spans: Spans,
    /// Where the dirty keys are kept, if they are. The other fields say what holds
    /// without them.
    pub journal: Option<JournalNote>,
    /// Stages that were forced, the newest last, at most 16.
    pub forced: Vec<Forced>,
    /// When it was written, by the machine's clock. To the second; nothing
    /// depends on it.
    pub written: SystemTime,
}

/// Two numbers, one for each side: what has been copied to a side since its number
/// was drawn is still equal there, dirty keys aside. A new one is drawn when the
/// side stops being written, when the process dies in a two-sided stage with
/// nothing to vouch for its writes, and when a write goes wrong that leaves no
/// dirty key. A backfill's checkpoint names the number it was made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Spans {
    /// For copies to old.
    pub old: u64,
    /// For copies to new.
    pub new: u64,
}

/// What a record says of the journal of dirty keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct JournalNote {
    /// Which journal, by the number that it has drawn.
    pub id: u64,
    /// Whether every write since was noted there before its legs began: then it
    /// vouches for the sides after a crash too.
    pub before_legs: bool,
    /// What holds of the sides, the journal's dirty keys aside.
    pub sync: SyncTable,
    /// Since when what was copied counts. (Without the journal it does not, where keys
    /// were dirty: nobody would know which.)
    pub spans: Spans,
}

impl Spans {
    pub(crate) fn new() -> Self {
        let number = Self::after(0);
        Self { old: number, new: number }
    }

    /// A number that no span has had, after this one. They grow: of two that processes
    /// have drawn apart the greater one counts, and is neither's old one.
    pub(crate) fn after(number: u64) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or_default();
        now.max(number.saturating_add(1))
    }

    pub(crate) fn void_all(&mut self) {
        Side::ALL.into_iter().for_each(|side| self.void(side));
    }

    /// The number of `side`.
    #[must_use]
    pub const fn get(self, side: Side) -> u64 {
        match side {
            Side::Old => self.old,
            Side::New => self.new,
        }
    }

    pub(crate) fn void(&mut self, side: Side) {
        match side {
            Side::Old => self.old = Self::after(self.old),
            Side::New => self.new = Self::after(self.new),
        }
    }
}

impl Record {
    /// Where every migration starts: `OldOnly`, new unsynced.
    #[must_use]
    pub fn start() -> Self {
        Self::at(Stage::OldOnly)
    }

    /// A record for a flag that is known to stand at `stage`, with nothing known
    /// of the side that is not the authority. For a record that was lost.
    #[must_use]
    pub fn at(stage: Stage) -> Self {
        let unknown = SyncTable { old: SyncState::Unsynced, new: SyncState::Unsynced };
        Self {
            stage,
            epoch: 0,
            sync: unknown.with(stage.authority(), SyncState::Synced),
            clean: true,
            ramp: Share::NONE,
            seed: fastrand::u64(..),
            spans: Spans::new(),
            journal: None,
            forced: Vec::new(),
            written: SystemTime::now(),
        }
    }

    /// What holds after a restart: a two-sided stage that did not stop cleanly
    /// leaves its other side unsynced. (A ramp goes on: while it lasts both
    /// sides have every write that was acknowledged.)
    #[must_use]
    pub fn after_restart(mut self) -> Self {
        if self.stage.is_two_sided() && !self.clean {
            let other = self.stage.authority().other();
            self.sync = self.sync.with(other, SyncState::Unsynced);
            self.spans.void(other);
        }
        self
    }

    /// Whether it can be: an epoch that a flag can go on from, a ramp where
    /// there may be one.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.epoch > LAST_EPOCH / 2 {
            return Err("its epoch is greater than any that a flag reaches");
        }
        if !self.ramp.is_none() && self.stage != Stage::WriteBoth {
            return Err("it has a ramp at a stage other than write-both");
        }
        Ok(())
    }
}
