//! What shadow reads have shown, for whoever has to decide.

mod advice;
mod failing;
mod place;
mod route;
mod table;
mod text;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(crate) use self::advice::{Standing, advise};
pub use self::place::{Example, PlaceKind, PlaceReport};
use self::route::Route;
pub use self::route::{ReasonCount, RouteReport, SideLatency};
pub(crate) use self::table::{Finding, Need, Table};
use crate::stage::Stage;

/// What shadow reads have shown since the present stage was entered: is new right,
/// where is it not, and is it safe to go on.
///
/// From [`MigrationHandle::report`](crate::MigrationHandle::report). As data with the
/// feature `serde`; its `Display` is a page for a person:
///
/// ```
/// use tower_migration::{Advice, MigrationHandle};
///
/// let report = MigrationHandle::new("airports").report();
/// assert_eq!(report.advice, Advice::Safe);
/// println!("{report}");
/// // airports: SAFE TO ADVANCE to write-both: nothing is compared at old-only
/// ```
///
/// # When a place is a real difference
///
/// A *place* is where answers differ: `status`, `/airports/*/name`. It is counted when the
/// two sides still differed there after both were read again (but for a side that has
/// failed its last 16 reads: it is not read again), no write came in between, and the
/// authority did not contradict itself meanwhile. Its rate among the reads that were
/// compared, together with that of the reads in which the authority did contradict itself,
/// is set against the rate at which the authority differs *from itself* there when it is
/// asked twice, its [noise](crate::compare::Noise):
///
/// | kind | |
/// |---|---|
/// | [`Real`](PlaceKind::Real) | the first rate is higher: the lower end of Wilson's score interval (1927) for it is above the upper end for the noise, both at 99 %, with at least 20 reads on either side |
/// | [`Noise`](PlaceKind::Noise) | the noise explains at least half of it (lower end, 95 %), or no read that counts differed there |
/// | [`Undecided`](PlaceKind::Undecided) | neither |
///
/// Where a route's noise is not measured, it counts as none. A place is looked at anew
/// for each report. Looks are chances to be wrong: in simulations of 100 000 reads of a
/// place that is nothing but noise, with a look after each 25, it was real in some look
/// in 0 to 7 % of the runs, and most of those before the first hundred reads.
///
/// So a rare defect takes many reads to be told from noise. Seen in one read in 10 000
/// and never in the authority's own answers, it is real after some 190 000 reads that
/// are compared, half of which the authority answers twice; a twentieth of them, and it
/// takes 1.3 million. Until then it is listed as undecided, with its example, and the
/// advice is to wait. Where something is undecided, the share of reads that are sent to
/// the authority twice grows by itself, up to ten times, never above one half.
///
/// # Limits
///
/// [`report_routes`](crate::HandleBuilder::report_routes) and
/// [`report_places`](crate::HandleBuilder::report_places): what is beyond is counted
/// as one, and by `tower_migration_report_overflow_total`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The handle's name.
    pub name: Arc<str>,
    /// The stage.
    pub stage: Stage,
    /// Since when reads are counted: the entry into this stage, the start of this
    /// process, or the last
    /// [`restart_report`](crate::MigrationHandle::restart_report).
    pub since: SystemTime,
    /// How long that is.
    pub lasted: Duration,
    /// Whether it is safe to go on.
    pub advice: Advice,
    /// Why, the most important first. Never empty.
    pub reasons: Vec<String>,
    /// By route or method, the busiest first.
    pub routes: Vec<RouteReport>,
    /// Sampled reads that were given up before anything was known of them, since no
    /// slot was free.
    pub no_slot: u64,
}

/// Whether the next step can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Advice {
    /// The reads agree, and nothing stands against the step.
    Safe,
    /// Something is missing: time, reads, a backfill, a repair.
    NotYet,
    /// Something is wrong.
    No,
}

impl Advice {
    /// `safe to advance`, `not yet` or `no`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe to advance",
            Self::NotYet => "not yet",
            Self::No => "no",
        }
    }
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Report {
    /// The advice and its first reason, in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        let more = self.reasons.len().saturating_sub(1);
        let first = self.reasons.first().map_or("", String::as_str);
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        format!("{}: {first}{more}", self.advice)
    }

    /// The places at which answers differ, of all routes, the worst first.
    pub fn places(&self) -> impl Iterator<Item = &PlaceReport> {
        let mut places: Vec<_> = self.routes.iter().flat_map(|route| &route.places).collect();
        places.sort_by_key(|place| (place.kind, std::cmp::Reverse(place.differ)));
        places.into_iter()
    }

    /// Reads that were compared, with a result.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.routes.iter().map(|route| route.compared).sum()
    }
}
