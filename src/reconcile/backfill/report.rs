//! What a backfill did.

use std::{fmt, time::Duration};

use crate::{
    reconcile::{
        Deed, FailedKey,
        sweep::{Failed, Tally},
    },
    stage::Side,
};

/// How many failed keys a report names.
pub(in crate::reconcile) const NAMED: usize = 100;

/// What a [`Backfill`](super::Backfill) did. `Display` is a line for a person.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BackfillReport {
    /// The side that was copied from.
    pub from: Side,
    /// Rows that were written to the other side; in a dry run, that would be.
    pub written: u64,
    /// Rows that were deleted there, or would be.
    pub deleted: u64,
    /// Keys that were equal already.
    pub unchanged: u64,
    /// Keys that are dirty and right on the other side, or in conflict: left for a
    /// [`Repair`](crate::reconcile::Repair) or for you.
    pub left: u64,
    /// Keys that could not be copied.
    pub failed: u64,
    /// The first hundred of them.
    pub failures: Vec<FailedKey>,
    /// How long it took, in this process.
    pub took: Duration,
    /// Whether it went on from a checkpoint. Then the counts are those of the whole.
    pub resumed: bool,
    /// Whether the other side is synced now.
    pub synced: bool,
    /// If not, why.
    pub uncounted: Option<Uncounted>,
}

/// Why a run that came to its end has not made its side synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Uncounted {
    /// It was a dry run.
    DryRun,
    /// It ran ahead of the flag. Step to `WriteBoth`, and run the one that counts.
    AheadOfFlag,
    /// Keys have failed. Run it again: with checkpoints, only those are visited.
    FailedKeys,
    /// Keys differ (a [`Verify`](crate::reconcile::Verify) that does not mend).
    Differences,
    /// Meanwhile a write went wrong on that side and left no dirty key, or the flag
    /// moved: nobody knows what was undone. Run it again.
    Voided,
    /// Another process obeys the same flag, so nothing can be put on record. Run it
    /// again, or a [`Verify`](crate::reconcile::Verify), when that one has ended.
    Shared,
}

impl Uncounted {
    const fn says(self) -> &'static str {
        match self {
            Self::DryRun => "it was a dry run",
            Self::AheadOfFlag => "it ran ahead of the flag",
            Self::FailedKeys => "keys have failed",
            Self::Differences => "keys differ",
            Self::Voided => "the flag moved, or a write failed without a key",
            Self::Shared => "another process obeys the same flag",
        }
    }
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.says())
    }
}

impl fmt::Display for BackfillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, deleted, unchanged, left, failed, .. } = self;
        write!(
            f,
            "{written} written, {deleted} deleted, {unchanged} equal already, {left} left, \
             {failed} failed in {:.1?}: ",
            self.took
        )?;
        let to = self.from.other();
        match self.uncounted {
            None => write!(f, "{to} is synced"),
            Some(why) => write!(f, "{to} is not synced by it, since {why}"),
        }
    }
}

impl BackfillReport {
    pub(super) fn new(
        from: Side,
        tally: Tally,
        failed: Failed,
        took: Duration,
        resumed: bool,
        uncounted: Option<Uncounted>,
    ) -> Self {
        Self {
            from,
            written: tally.get(Deed::Written),
            deleted: tally.get(Deed::Deleted),
            unchanged: tally.get(Deed::Unchanged),
            left: tally.get(Deed::Left),
            failed: failed.count(),
            failures: failed.first(NAMED),
            took,
            resumed,
            synced: uncounted.is_none(),
            uncounted,
        }
    }
}
