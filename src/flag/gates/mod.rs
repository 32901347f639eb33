//! Gates: what a step towards new must show before it is taken.
//!
//! [`advance`](crate::MigrationHandle::advance), and a
//! [`move_to`](crate::MigrationHandle::move_to) to a later stage, ask every gate
//! that the handle was [built with](crate::HandleBuilder::gate). Synced, settled
//! and without dirty keys are built in; what a gate says comes on top. Steps
//! back and [`force`](crate::MigrationHandle::force) ask nobody.
//!
//! | gate | refuses | judges |
//! |---|---|---|
//! | [`MinComparisons`] | too few shadow reads were compared | 1→2, 2→3 |
//! | [`MaxMismatchShare`] | too many of them differ, or too few were compared to rule that out | 1→2, 2→3 |
//! | [`NoRealDifference`] | there is a place at which they differ, and it is no noise | 1→2, 2→3 |
//! | [`MaxErrorShare`] | the other side fails too many of its legs, or has had too few to rule that out | 1→2, 2→3 |
//! | [`MaxSlowdown`] | new's p99 is too far above old's | 1→2, 2→3 |
//! | a closure | what you like | every step towards new |
//!
//! The ready-made ones let 0→1 pass: at `OldOnly` new is not touched, so there
//! is no evidence to judge.
//!
//! # Example
//!
//! ```
//! use tower_migration::{
//!     MigrationHandle,
//!     gates::{Evidence, MaxErrorShare, MaxMismatchShare, MaxSlowdown, MinComparisons, named},
//! };
//!
//! let migration = MigrationHandle::builder("airports")
//!     .gate(MinComparisons::new(10_000)?)
//!     .gate(MaxMismatchShare::new(0.001)?)
//!     .gate(MaxErrorShare::new(0.001)?)
//!     .gate(MaxSlowdown::new(1.5)?)
//!     .gate(named("a day in each stage", |seen: &Evidence| {
//!         if seen.lasted.as_secs() < 86_400 {
//!             return Err(format!("only {:?} so far", seen.lasted));
//!         }
//!         Ok(())
//!     }))
//!     .build()?;
//! assert!(migration.status().to_string().contains("gate a day in each stage refuses"));
//! # Ok::<(), tower_migration::ConfigError>(())
//! ```

mod ask;
mod comparisons;
mod durations;
mod errors;
mod evidence;
mod places;
mod slowdown;
mod tally;
mod wilson;

use std::borrow::Cow;

pub(super) use self::ask::Gates;
pub(crate) use self::comparisons::percent;
pub use self::comparisons::{MaxMismatchShare, MinComparisons};
pub use self::durations::Durations;
pub use self::errors::MaxErrorShare;
pub use self::evidence::{Evidence, LegCounts, ShadowCounts, Timing};
pub use self::places::NoRealDifference;
pub use self::slowdown::MaxSlowdown;
pub(super) use self::tally::{Entered, LegTally};
pub use self::wilson::Confidence;
pub(crate) use self::wilson::{lower, upper};

/// Decides whether a step towards new may be taken.
///
/// Any `Fn(&Evidence) -> Result<(), String>` is one; [`named`] gives it a name.
/// `()` lets everything pass.
///
/// # When it is called
///
/// | call | when | where |
/// |---|---|---|
/// | `advance`, `move_to` to a later stage | once: when the built-in conditions hold and earlier writes have ended, or, to report everything at once, when one does not hold. Never while writes are held | on the caller's task |
/// | [`status`](crate::MigrationHandle::status) | each time, for the step that comes next | on the caller's thread |
///
/// Never for a request, nor for a step back or a `force`.
///
/// # The implementor's contract
///
/// Answer soon: the step is under way meanwhile. Do not ask for the
/// [`status`](crate::MigrationHandle::status) of the same migration: it would
/// ask this gate. The same evidence may be shown any number of times. A panic
/// refuses the step.
///
/// # Example: a gate with a unit test
///
/// ```
/// use std::borrow::Cow;
/// use tower_migration::{Stage, gates::{Evidence, Gate}};
///
/// struct NoRefusals;
///
/// impl Gate for NoRefusals {
///     fn name(&self) -> Cow<'_, str> {
///         "no refusals".into()
///     }
///
///     fn check(&self, evidence: &Evidence) -> Result<(), String> {
///         match evidence.other_writes.refused {
///             0 => Ok(()),
///             n => Err(format!("{} refused {n} writes", evidence.other())),
///         }
///     }
/// }
///
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// assert_eq!(NoRefusals.check(&evidence), Ok(()));
/// evidence.other_writes.refused = 3;
/// assert_eq!(NoRefusals.check(&evidence), Err("new refused 3 writes".into()));
/// ```
pub trait Gate: Send + Sync + 'static {
    /// What it is called in a refusal and in the status. Default: the path of
    /// its type; for a closure, of the function that it stands in.
    fn name(&self) -> Cow<'_, str> {
        std::any::type_name::<Self>().into()
    }

    /// Lets the step pass, or says why not, in words for a person.
    ///
    /// # Errors
    ///
    /// The reason; the step is refused with
    /// [`Reason::Gate`](crate::Reason::Gate).
    fn check(&self, evidence: &Evidence) -> Result<(), String>;
}

const _: fn(&dyn Gate) = |_| {};

impl Gate for () {
    fn name(&self) -> Cow<'_, str> {
        "open".into()
    }

    fn check(&self, _: &Evidence) -> Result<(), String> {
        Ok(())
    }
}

impl<F> Gate for F
where
    F: Fn(&Evidence) -> Result<(), String> + Send + Sync + 'static,
{
    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        self(evidence)
    }
}

/// For lists of gates that are put together at runtime.
impl Gate for Box<dyn Gate> {
    fn name(&self) -> Cow<'_, str> {
        (**self).name()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        (**self).check(evidence)
    }
}

/// Gives a gate, such as a closure, a name.
///
/// ```
/// use tower_migration::gates::{Evidence, Gate, named};
///
/// let gate = named("office hours", |_: &Evidence| Err("it is Sunday".into()));
/// assert_eq!(gate.name(), "office hours");
/// ```
pub fn named(name: impl Into<Cow<'static, str>>, gate: impl Gate) -> impl Gate {
    Named { name: name.into(), gate }
}

struct Named<G> {
    name: Cow<'static, str>,
    gate: G,
}

impl<G: Gate> Gate for Named<G> {
    fn name(&self) -> Cow<'_, str> {
        self.name.as_ref().into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        self.gate.check(evidence)
    }
}

/// What a gate says to the step that comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GateVerdict {
    /// Its name.
    pub gate: String,
    /// Why it refuses; `None`: it lets the step pass.
    pub refuses: Option<String>,
}
