//! The crate's own rules, each with a switch that replaces its answer.

use tower_migration::{
    FailurePolicy, Record, Role, Side, Stage,
    reconcile::RightSide,
    stage::{CopyStart, CopyWay, Passage, Permission, Urgency, copy_start, copy_way, passage},
};

/// One rule that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// The authority changes by a flip like any other.
    Hold,
    /// A copy starts while writes of an earlier epoch run.
    CopySettled,
    /// What is cut off or given up is forgotten at once.
    Linger,
    /// Any stage can be reached from any other.
    Steps,
    /// A copy leaves a row alone that is already there.
    Overwrite,
    /// A dirty key is mended by sending its request again.
    Copying,
    /// A dirty key is copied from today's authority.
    MarksSide,
    /// Any side may be copied from.
    SyncedSource,
    /// Legs wait by role.
    QueueBySide,
    /// A restart believes the record, however the process stopped.
    UncleanStop,
    /// A copy counts whatever ran on its source meanwhile.
    Repeating,
    /// Waiting legs run although a copy has their write.
    Absorbing,
    /// Nothing is dirty.
    Marking,
    /// An emergency exit does not mark the keys in flight.
    Tainting,
    /// A one-sided stage begins while a copy to its authority runs.
    CopiesEnded,
    /// A copy does not look again who the authority is.
    CopyLooksAgain,
    /// A split write is acknowledged before the emergency exit is on record.
    AcknowledgedOnRecord,
    /// A write under which the authority moved needs only wait for both.
    MovedRequires,
}

/// All rules, but for one perhaps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    pub off: Option<Off>,
}

impl Rules {
    pub const ALL_ON: Self = Self { off: None };

    pub const fn without(rule: Off) -> Self {
        Self { off: Some(rule) }
    }

    pub fn has(self, rule: Off) -> bool {
        self.off != Some(rule)
    }

    pub fn passage(self, from: Stage, to: Stage, urgency: Urgency) -> Passage {
        match passage(from, to, urgency) {
            Passage::Held if !self.has(Off::Hold) => Passage::Flip,
            Passage::Jump if !self.has(Off::Steps) => Passage::Flip,
            passage => passage,
        }
    }

    pub fn copy_start(self, stage: Stage, held: bool, settled: bool) -> CopyStart {
        match copy_start(stage, held, settled) {
            CopyStart::NotSettled if !self.has(Off::CopySettled) => CopyStart::Go,
            start => start,
        }
    }

    pub fn copy_way(self, mark: Option<RightSide>, from: Side, synced: bool) -> CopyWay {
        match copy_way(mark, from, synced) {
            CopyWay::Unsynced if !self.has(Off::SyncedSource) => CopyWay::Free,
            CopyWay::Wrong(_) if !self.has(Off::MarksSide) => CopyWay::Free,
            way => way,
        }
    }

    /// The side that a dirty key is copied from.
    pub fn repair_source(self, mark: RightSide, stage: Stage) -> Option<Side> {
        match mark.source() {
            Some(_) if !self.has(Off::MarksSide) => Some(stage.authority()),
            source => source,
        }
    }

    /// The queue that a leg waits in.
    pub fn queue(self, stage: Stage, role: Role) -> usize {
        if self.has(Off::QueueBySide) {
            stage.side_of(role) as usize
        } else {
            usize::from(role == Role::Other)
        }
    }

    /// The queue of what was admitted at `stage` and goes to `side`.
    pub fn queue_of(self, stage: Stage, side: Side) -> usize {
        let role = if side == stage.authority() { Role::Authority } else { Role::Other };
        self.queue(stage, role)
    }

    pub fn copies_ended(self, needs: Permission) -> bool {
        needs.copies_ended && self.has(Off::CopiesEnded)
    }

    /// The policy that a write ends with.
    pub fn policy(self, policy: FailurePolicy, raised: bool, moved: bool) -> FailurePolicy {
        match policy.effective(raised, moved) {
            FailurePolicy::RequireBoth if moved && !self.has(Off::MovedRequires) => {
                policy.effective(true, false)
            }
            policy => policy,
        }
    }

    pub fn after_restart(self, record: Record) -> Record {
        if self.has(Off::UncleanStop) { record.after_restart() } else { record }
    }
}
