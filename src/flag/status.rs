//! What a handle shows of itself.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Alarm, OldestWrite, Standing, gates::GateVerdict};
use crate::{
    reconcile::{Key, Progress},
    stage::{Side, Stage, SyncState, SyncTable},
};

/// A step that was taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Moved {
    /// The stage before.
    pub from: Stage,
    /// The stage now.
    pub to: Stage,
    /// The share of the keys that reads new now although the stage is
    /// `WriteBoth`: see [`ramp`](crate::MigrationHandle::ramp).
    pub ramp: f64,
    /// The epoch that the step opened.
    pub epoch: u64,
    /// For how long writes were held; zero where the step holds none.
    pub held: Duration,
    /// After a step that flipped at once: the keys whose data is right on the
    /// side left behind only, since their writes failed on the new authority or
    /// were in flight there. They are dirty. Empty for orderly steps.
    pub tainted: Vec<Key>,
    /// What is known of the data of the side that answers now. `Suspect` after
    /// an emergency exit: a write without a key went wrong, so verify.
    pub sync: SyncState,
    /// Open upgraded connections that stay with the side they began on.
    pub upgraded: usize,
}

/// A stage that was forced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Forced {
    /// The stage before.
    pub from: Stage,
    /// The stage that was forced.
    pub to: Stage,
    /// What the operator said.
    pub reason: String,
    /// When, by the machine's clock.
    pub at: SystemTime,
}

/// What runs on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct InFlight {
    /// Reads of clients.
    pub reads: u64,
    /// Legs of writes.
    pub writes: u64,
    /// Shadow reads.
    pub shadows: u64,
}

/// The state of the journal of dirty keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct JournalStatus {
    /// Whether it notes writes before their legs begin.
    pub before_legs: bool,
    /// What has gone wrong, for good: dirty keys are in memory only since then.
    pub failure: Option<Arc<str>>,
}

/// The state of a migration at one moment, as data; its `Display` is a page
/// for a person.
///
/// ```
/// use tower_migration::{MigrationHandle, Stage};
///
/// let status = MigrationHandle::new("airports").status();
/// assert_eq!(status.stage, Stage::OldOnly);
/// assert!(status.to_string().contains("airports: old-only"));
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The handle's name.
    pub name: Arc<str>,
    /// The stage.
    pub stage: Stage,
    /// The share of the keys that reads new already, 0 to 1: see
    /// [`ramp`](crate::MigrationHandle::ramp).
    pub ramp: f64,
    /// The epoch.
    pub epoch: u64,
    /// Whether this process moves the flag or obeys another one that does.
    pub standing: Standing,
    /// The side whose answer the clients get.
    pub authority: Side,
    /// What is known about the sides' data.
    pub sync: SyncTable,
    /// Whether no write of an earlier epoch is left.
    pub settled: bool,
    /// Writes of earlier epochs still running.
    pub earlier_writes: u64,
    /// The oldest of them: what a step would wait for.
    pub oldest_write: Option<OldestWrite>,
    /// Whether writes are held for a flip right now.
    pub holding: bool,
    /// Whether a step is under way.
    pub stepping: bool,
    /// The share of reads that are shadowed, 0 to 1.
    pub shadow_rate: f64,
    /// What runs on old.
    pub on_old: InFlight,
    /// What runs on new.
    pub on_new: InFlight,
    /// Dirty keys whose data is right on old.
    pub dirty_right_on_old: usize,
    /// Dirty keys whose data is right on new.
    pub dirty_right_on_new: usize,
    /// Dirty keys claimed by both sides.
    pub conflicts: usize,
    /// Of the dirty keys, those that a [`Repair`](crate::reconcile::Repair) has tried
    /// in vain so often that it does rarely only.
    pub parked: usize,
    /// The journal of dirty keys, if there is one.
    pub journal: Option<JournalStatus>,
    /// The backfill that goes on, or the last one of this process.
    pub backfill: Option<Progress>,
    /// The same of a verify.
    pub verify: Option<Progress>,
    /// Writes after which old may differ, and which left no dirty key (they had
    /// none, or the set was full), since old was last confirmed. Not 0: verify before you
    /// confirm, since what was copied before the failure may differ.
    pub untracked_on_old: u64,
    /// The same on new.
    pub untracked_on_new: u64,
    /// Open upgraded connections on old that hold their token.
    pub upgraded_on_old: usize,
    /// Open upgraded connections on new that hold their token.
    pub upgraded_on_new: usize,
    /// Writes that have waited for a flip, ever.
    pub held_writes: u64,
    /// Stages that were forced, the newest last, at most 16.
    pub forced: Vec<Forced>,
    /// What the flag has gone back for by itself, until
    /// [`rearm`](crate::MigrationHandle::rearm): see [`AutoRollback`](crate::AutoRollback).
    pub auto_rollback: Option<Alarm>,
    /// New fails its clients, and the flag may not go back by itself.
    pub alarm: Option<Alarm>,
    /// What each gate says to the step that comes next, asked for this status.
    /// Empty at `NewOnly`.
    pub gates: Vec<GateVerdict>,
    /// Whether `shutdown` was called.
    pub shut_down: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} (stage {}, epoch {}), {} is the authority",
            self.name,
            self.stage,
            u8::from(self.stage),
            self.epoch,
            self.authority
        )?;
        if self.ramp > 0.0 {
            writeln!(f, "  ramp: {:.3} of the keys read new", self.ramp)?;
        }
        if self.standing == Standing::Follower {
            writeln!(f, "  follower: another process moves the flag")?;
        }
        writeln!(f, "  old is {}, new is {}", self.sync.old.as_str(), self.sync.new.as_str())?;
        if self.settled {
            writeln!(f, "  settled: no write of an earlier epoch is left")?;
        } else {
            writeln!(f, "  not settled: {} earlier writes may still land", self.earlier_writes)?;
            if let Some(oldest) = &self.oldest_write {
                writeln!(f, "    the oldest: {oldest}")?;
            }
        }
        if self.holding {
            writeln!(f, "  writes are being held for a flip")?;
        } else if self.stepping {
            writeln!(f, "  a step is under way")?;
        }
        writeln!(
            f,
            "  dirty keys: {} right on old, {} right on new, {} in conflict",
            self.dirty_right_on_old, self.dirty_right_on_new, self.conflicts
        )?;
        if self.parked > 0 {
            writeln!(f, "  {} of them are parked: dirty_keys() has their errors", self.parked)?;
        }
        if let Some(JournalStatus { before_legs, failure }) = &self.journal {
            let mode = if *before_legs { "before the legs begin" } else { "on failure" };
            match failure {
                None => writeln!(f, "  journal: keys are noted {mode}")?,
                Some(failure) => writeln!(f, "  THE JOURNAL HAS FAILED: {failure}")?,
            }
        }
        for (run, progress) in [("backfill", &self.backfill), ("verify", &self.verify)] {
            if let Some(progress) = progress {
                writeln!(f, "  {run}: {progress}")?;
            }
        }
        for (side, failed) in
            [(Side::Old, self.untracked_on_old), (Side::New, self.untracked_on_new)]
        {
            if failed > 0 {
                writeln!(f, "  {failed} writes failed on {side} without a dirty key: verify it")?;
            }
        }
        for (side, on) in [(Side::Old, self.on_old), (Side::New, self.on_new)] {
            writeln!(
                f,
                "  on {side}: {} reads, {} writes, {} shadow reads",
                on.reads, on.writes, on.shadows
            )?;
        }
        writeln!(f, "  shadow rate {}", self.shadow_rate)?;
        if self.upgraded_on_old + self.upgraded_on_new > 0 {
            writeln!(
                f,
                "  upgraded connections: {} on old, {} on new",
                self.upgraded_on_old, self.upgraded_on_new
            )?;
        }
        let ago = |alarm: &Alarm| alarm.at.elapsed().unwrap_or_default().as_secs();
        if let Some(alarm) = &self.auto_rollback {
            let (stage, ago) = (alarm.stage, ago(alarm));
            writeln!(f, "  ROLLED BACK BY ITSELF from {stage}, {ago} s ago: {alarm}; rearm()")?;
        }
        if let Some(alarm) = &self.alarm {
            writeln!(f, "  ALARM at {}, {} s ago: {alarm}", alarm.stage, ago(alarm))?;
        }
        for GateVerdict { gate, refuses } in &self.gates {
            match refuses {
                Some(says) => writeln!(f, "  gate {gate} refuses: {says}")?,
                None => writeln!(f, "  gate {gate} lets the next step pass")?,
            }
        }
        for forced in &self.forced {
            writeln!(f, "  FORCED {} to {}: {}", forced.from, forced.to, forced.reason)?;
        }
        if self.shut_down {
            writeln!(f, "  shut down")?;
        }
        Ok(())
    }
}
