//! The gate over where reads differ.

use std::borrow::Cow;

use super::{Evidence, Gate};
use crate::report::PlaceKind;

/// No place is known at which the two sides differ more often than the authority
/// differs from itself, and none is undecided: see [`Report`](crate::Report).
///
/// Unlike [`MaxMismatchShare`](super::MaxMismatchShare) it says where they differ. It
/// does not say how many reads must be compared: use it together with
/// [`MinComparisons`](super::MinComparisons). Lets 0→1 pass.
///
/// ```
/// use tower_migration::{MigrationHandle, gates::{MinComparisons, NoRealDifference}};
///
/// let migration = MigrationHandle::builder("airports")
///     .gate(MinComparisons::new(10_000)?)
///     .gate(NoRealDifference::new().ignoring_undecided())
///     .build()?;
/// # let _ = migration;
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRealDifference {
    lets_undecided_pass: bool,
}

impl NoRealDifference {
    /// A gate that wants all places to be noise.
    #[must_use]
    pub const fn new() -> Self {
        Self { lets_undecided_pass: false }
    }

    /// Only places that are certain are in the way.
    #[must_use]
    pub const fn ignoring_undecided(mut self) -> Self {
        self.lets_undecided_pass = true;
        self
    }
}

impl Gate for NoRealDifference {
    fn name(&self) -> Cow<'_, str> {
        "no real difference".into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        if !evidence.from.is_two_sided() {
            return Ok(());
        }
        let counts = |kind: PlaceKind| {
            kind == PlaceKind::Real || (kind == PlaceKind::Undecided && !self.lets_undecided_pass)
        };
        let mut places = evidence.places.iter().filter(|place| counts(place.kind));
        let Some(first) = places.next() else { return Ok(()) };
        let more = places.count();
        let more = if more > 0 { format!(", and {more} more places") } else { String::new() };
        Err(format!(
            "{} differs at {} in {} of {} reads ({}){more}",
            first.route, first.place, first.differ, first.compared, first.kind
        ))
    }
}
