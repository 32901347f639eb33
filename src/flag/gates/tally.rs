//! The counters at a change of stage, so that what came since can be told.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Durations, Evidence, LegCounts, Timing};
use crate::{
    flag::{Core, End, Kind, core::locked},
    stage::{Side, Stage},
};

/// When the present stage was entered, and what had been counted by then.
#[derive(Debug)]
pub(in crate::flag) struct Entered {
    pub(in crate::flag) stage: Stage,
    /// The epoch that the flip opened: tells two stays in one stage apart.
    pub(in crate::flag) epoch: u64,
    pub(in crate::flag) at: Instant,
    legs: Arc<[(Kind, LegTally)]>,
}

/// How legs of one kind ended, and how long they took, ever.
#[derive(Clone, Debug, Default)]
pub(in crate::flag) struct LegTally {
    pub(in crate::flag) counts: LegCounts,
    pub(in crate::flag) dropped: u64,
    pub(in crate::flag) durations: Durations,
}

impl LegTally {
    /// Both together.
    fn and(mut self, more: &Self) -> Self {
        self.counts.applied += more.counts.applied;
        self.counts.refused += more.counts.refused;
        self.counts.unknown += more.counts.unknown;
        self.dropped += more.dropped;
        self.durations = self.durations.and(&more.durations);
        self
    }

    fn since(&self, earlier: &Self) -> Self {
        let LegCounts { applied, refused, unknown } = earlier.counts;
        Self {
            counts: LegCounts {
                applied: self.counts.applied.saturating_sub(applied),
                refused: self.counts.refused.saturating_sub(refused),
                unknown: self.counts.unknown.saturating_sub(unknown),
            },
            dropped: self.dropped.saturating_sub(earlier.dropped),
            durations: self.durations.since(&earlier.durations),
        }
    }
}

impl Entered {
    /// At the start of a process, before anything was counted.
    pub(in crate::flag) fn first(stage: Stage, epoch: u64) -> Self {
        Self { stage, epoch, at: Instant::now(), legs: [].into() }
    }

    /// What had been counted when the stage was entered.
    pub(in crate::flag) fn tally(&self, kind: Kind) -> LegTally {
        let found = self.legs.iter().find(|(k, _)| *k == kind);
        found.map(|(_, tally)| tally.clone()).unwrap_or_default()
    }
}

impl Core {
    /// What has been counted so far.
    pub(in crate::flag) fn tally(&self, kind: Kind) -> LegTally {
        let ended = |end| self.ledger.ended(kind, end);
        LegTally {
            counts: LegCounts {
                applied: ended(End::Applied),
                refused: ended(End::Refused),
                unknown: ended(End::Unknown),
            },
            dropped: ended(End::Dropped),
            durations: Durations::of(self.ledger.durations(kind)),
        }
    }

    /// Counts from here on. Called after a flip, when no write is held any
    /// more: it looks at every counter of every thread.
    pub(in crate::flag) fn count_anew(&self, stage: Stage, epoch: u64) {
        let entered = Entered {
            stage,
            epoch,
            at: Instant::now(),
            legs: Kind::all().map(|kind| (kind, self.tally(kind))).collect(),
        };
        *locked(&self.entered) = Arc::new(entered);
        self.report.reset();
    }

    /// What shadow reads show is counted from here on, without any step.
    pub(in crate::flag) fn count_reads_anew(&self) {
        self.report.reset();
    }

    pub(in crate::flag) fn entered(&self) -> Arc<Entered> {
        Arc::clone(&locked(&self.entered))
    }

    /// What has been seen since the present stage was entered.
    pub(in crate::flag) fn evidence(&self) -> Evidence {
        // Of one piece, also while the flag moves: the stage it was counted in.
        let entered = self.entered();
        let from = entered.stage;
        let other = from.authority().other();
        let since = |kind| self.tally(kind).since(&entered.tally(kind));
        // A side has both parts at once only in a ramp: new answers the clients
        // whose keys go ahead, and is the other side for the rest.
        let writes = |side| since(Kind::write(side)).and(&since(Kind::other_write(side)));
        let reads = |side| since(Kind::read(side)).and(&since(Kind::shadow(side)));
        let timing = |side| Timing { reads: reads(side).durations, writes: writes(side).durations };
        Evidence {
            from,
            to: from.next().unwrap_or(from),
            lasted: entered.at.elapsed(),
            shadows: self.report.verdicts(),
            places: self.report.places(),
            other_writes: writes(other).counts,
            other_shadows: reads(other).counts,
            old: timing(Side::Old),
            new: timing(Side::New),
        }
    }
}
