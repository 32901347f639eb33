//! What a user's own code can hear of.

#[cfg(feature = "json")]
mod ndjson;
mod queue;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

#[cfg(feature = "json")]
pub use self::ndjson::{NdjsonFile, NdjsonSink};
pub use self::queue::{EventQueue, OwnedEvent};
use crate::{
    compare::Verdict,
    reconcile::Keys,
    stage::{Agreement, Outcome, Side, Stage},
    telemetry::{LegFault, SkippedLeg},
};

/// Hears of every disagreement between the legs of a write, and of every
/// shadow read's verdict.
///
/// Any `Fn(&Event<'_>)` is one, and so is `()`, which does nothing.
///
/// | event | stage | when | where |
/// |---|---|---|---|
/// | [`Event::Disagreement`] | `WriteBoth`, `ReadNew` | both outcomes of a dual write are known, the keys are marked, and they do not agree (or both refused, differently) | on the task of the leg that ended last |
/// | [`Event::Shadow`] | `WriteBoth`, `ReadNew` | a sampled read has its verdict, whatever it is | on the shadow task, or, for one that was skipped before it began, on the request's |
///
/// It must return soon: with `AwaitBoth` and `RequireBoth` a client may be
/// waiting. For anything slow there is [`EventQueue`], which hands events to a task
/// of one's own; `NdjsonFile` (feature `json`) writes them to a file. A pair of
/// observers is one. A panic is caught and counted.
///
/// ```
/// use tower_migration::{Event, MigrationHandle, MigrationLayer};
/// # let new = tower::service_fn(|_: http::Request<http_body_util::Full<bytes::Bytes>>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
/// # });
///
/// let layer = MigrationLayer::new(MigrationHandle::new("airports"), new)
///     .observer(|event: &Event<'_>| match event {
///         Event::Disagreement(d) => eprintln!("{} left {} dirty", d.request, d.keys),
///         _ => {}
///     });
/// # let _ = layer;
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Hears of one event.
    fn observe(&self, event: &Event<'_>);

    /// How many events it has lost so far, for
    /// `tower_migration_observer_dropped_total`. Default: none.
    fn dropped(&self) -> u64 {
        0
    }
}

const _: fn(&dyn Observer) = |_| {};

impl Observer for () {
    fn observe(&self, _: &Event<'_>) {}
}

impl<F> Observer for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Both of them, one after the other; a panic of the first keeps nothing from the
/// second.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn observe(&self, event: &Event<'_>) {
        let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.0.observe(event);
        }));
        self.1.observe(event);
        if let Err(panic) = first {
            std::panic::resume_unwind(panic);
        }
    }

    fn dropped(&self) -> u64 {
        self.0.dropped() + self.1.dropped()
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }

    fn dropped(&self) -> u64 {
        (**self).dropped()
    }
}

/// Something that happened off the client's path.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The two legs of a write did not say the same.
    Disagreement(&'a Disagreement),
    /// A sampled read has its verdict.
    Shadow(&'a ShadowRead),
}

/// A dual write whose legs did not say the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Disagreement {
    /// The request, such as `PUT /airports/EDDF`.
    pub request: Arc<str>,
    /// Its keys, those learned late included. Empty: it has none.
    pub keys: Keys,
    /// The stage that it was admitted under.
    pub stage: Stage,
    /// The side that was the authority: the one that is right.
    pub authority: Side,
    /// What the authority's leg did.
    pub authority_leg: LegResult,
    /// What the other leg did.
    pub other_leg: LegResult,
    /// Whether the keys are dirty now. `Clean` if both legs refused, with
    /// different codes.
    pub agreement: Agreement,
}

/// What one leg did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LegResult {
    /// For the agreement table.
    pub outcome: Outcome,
    /// How that is known.
    pub detail: LegDetail,
    /// How long the leg took to its end, or to where the waiting ended.
    pub took: Duration,
}

/// How a leg's outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LegDetail {
    /// It answered with this code (HTTP: the status).
    Code(u16),
    /// Its service answered with an error.
    Error(String),
    /// It went wrong without an answer.
    Fault(LegFault),
    /// It was not run.
    Skipped(SkippedLeg),
    /// A copy of its key had applied it already.
    Absorbed,
}

impl fmt::Display for LegDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Error(error) => write!(f, "error: {error}"),
            Self::Fault(fault) => fmt::Display::fmt(fault, f),
            Self::Skipped(reason) => write!(f, "not run: {reason}"),
            Self::Absorbed => f.write_str("absorbed by a copy"),
        }
    }
}

/// A sampled read and what came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShadowRead {
    /// The request, such as `GET /airports/EDDF`. Empty if it was skipped
    /// before a copy of it was made.
    pub request: Arc<str>,
    /// What it is counted under in the [`Report`](crate::Report), such as
    /// `GET /airports/*`. Empty if there was no slot for it.
    pub route: Arc<str>,
    /// Its keys.
    pub keys: Keys,
    /// The stage that it was admitted under.
    pub stage: Stage,
    /// The side that answered the client.
    pub authority: Side,
    /// What was found out.
    pub verdict: Verdict,
    /// The error's text, for a read that failed with one.
    pub error: Option<String>,
    /// How often both sides were read again.
    pub rereads: u32,
    /// How long the authority took to its head, if it was compared.
    pub authority_took: Option<Duration>,
    /// How long the other side took to its head, if it came.
    pub other_took: Option<Duration>,
    /// When, by the machine's clock.
    pub at: SystemTime,
}
