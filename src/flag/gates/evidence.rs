//! What the gates see.

use std::{fmt, time::Duration};

use super::Durations;
use crate::{
    report::PlaceReport,
    stage::{Side, Stage},
};

/// What the crate has counted since the present stage was entered (or since the
/// process began, if it was entered before that).
///
/// It comes from the crate's own counters, not from the metrics recorder. A leg
/// counts when it ends, in the stage that it ends in; a moment's difference
/// between two of the numbers is possible under load.
///
/// The fields are public, so that a gate of one's own can be tested:
///
/// ```
/// use std::time::Duration;
/// use tower_migration::{Side, Stage, gates::{Evidence, Gate, MaxSlowdown}};
///
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// evidence.old.reads.add(Duration::from_millis(10), 500);
/// evidence.new.reads.add(Duration::from_millis(30), 500);
/// assert_eq!(evidence.other(), Side::New);
/// assert!(evidence.quantile(Side::New, 0.99) > evidence.quantile(Side::Old, 0.99));
/// let gate = MaxSlowdown::new(2.0)?;
/// assert!(gate.check(&evidence).unwrap_err().contains("p99"));
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// The present stage.
    pub from: Stage,
    /// The stage that the step leads to. At `NewOnly`, which no step leaves
    /// towards new, the same as `from`.
    pub to: Stage,
    /// For how long the present stage has lasted.
    pub lasted: Duration,
    /// Verdicts of shadow reads.
    pub shadows: ShadowCounts,
    /// Where the answers of shadow reads differ, the worst first: see
    /// [`Report`](crate::Report).
    pub places: Vec<PlaceReport>,
    /// Legs of dual writes on the [other side](Self::other), by how they ended.
    pub other_writes: LegCounts,
    /// Shadow reads on the other side, by how they ended.
    pub other_shadows: LegCounts,
    /// How long old took.
    pub old: Timing,
    /// How long new took.
    pub new: Timing,
}

impl Evidence {
    /// No evidence at all, for the step from `from` to `to`.
    #[must_use]
    pub fn new(from: Stage, to: Stage) -> Self {
        Self {
            from,
            to,
            lasted: Duration::ZERO,
            shadows: ShadowCounts::default(),
            places: Vec::new(),
            other_writes: LegCounts::default(),
            other_shadows: LegCounts::default(),
            old: Timing::default(),
            new: Timing::default(),
        }
    }

    /// The side that is not the authority in the present stage: new before the
    /// step to `ReadNew`, old before the one to `NewOnly`.
    #[must_use]
    pub const fn other(&self) -> Side {
        self.from.authority().other()
    }

    /// How long `side` took.
    #[must_use]
    pub const fn timing(&self, side: Side) -> &Timing {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// The time within which `side` answered a share `q` of its *reads*, up to
    /// an eighth: see [`Durations::quantile`]. [`Timing`] says which reads.
    #[must_use]
    pub fn quantile(&self, side: Side, q: f64) -> Option<Duration> {
        self.timing(side).reads.quantile(q)
    }
}

/// One line for each kind of evidence, for a person.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.other();
        writeln!(f, "{} to {}, after {:.0?}", self.from, self.to, self.lasted)?;
        writeln!(
            f,
            "  shadow reads: {} match, {} mismatch, {} inconclusive, {} skipped, {} failed",
            self.shadows.matches,
            self.shadows.mismatches,
            self.shadows.inconclusive,
            self.shadows.skipped,
            self.shadows.failed
        )?;
        for (what, legs) in [("writes", self.other_writes), ("shadow reads", self.other_shadows)] {
            writeln!(
                f,
                "  {what} on {other}: {} applied, {} refused, {} unknown",
                legs.applied, legs.refused, legs.unknown
            )?;
        }
        for side in Side::ALL {
            let Timing { reads, writes } = self.timing(side);
            for (what, durations) in [("reads", reads), ("writes", writes)] {
                if let (Some(p50), Some(p99)) = (durations.quantile(0.5), durations.quantile(0.99))
                {
                    let count = durations.count();
                    writeln!(f, "  {side}: {count} {what} timed, p50 {p50:.1?}, p99 {p99:.1?}")?;
                }
            }
        }
        Ok(())
    }
}

/// Verdicts of shadow reads, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShadowCounts {
    /// Both sides gave the same answer.
    pub matches: u64,
    /// They differed, and still did when read again.
    pub mismatches: u64,
    /// They differed, which may have been the moment's fault.
    pub inconclusive: u64,
    /// Not compared: the other side is unsynced, the key dirty, and so on.
    pub skipped: u64,
    /// The other side gave no answer.
    pub failed: u64,
}

impl ShadowCounts {
    /// Reads that were compared, with a result: matches and mismatches.
    #[must_use]
    pub const fn compared(&self) -> u64 {
        self.matches + self.mismatches
    }
}

/// Legs, counted by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LegCounts {
    /// 2xx and most 3xx, for HTTP.
    pub applied: u64,
    /// 4xx, 304, 307 and 308, for HTTP: the side rejected the request, or sent it
    /// elsewhere.
    pub refused: u64,
    /// 5xx and 408, for HTTP, and errors, timeouts and panics.
    pub unknown: u64,
}

impl LegCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.applied + self.refused + self.unknown
    }
}

/// How long one side took.
///
/// Both sides of all dual writes and of all sampled reads are timed; the
/// authority's other reads only with
/// [`durations`](crate::MigrationLayer::durations) or a read fallback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// To the head of a read's answer: the authority's reads, the other side's
    /// shadow reads.
    pub reads: Durations,
    /// To the head of a write's answer on the authority; on the other side to
    /// the answer's end, waiting for earlier writes of the key included.
    pub writes: Durations,
}
