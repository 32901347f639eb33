//! Were the two answers the same?
//!
//! A comparer looks at both answers of a shadow read, whole, and lists what
//! differs. Comparers compose: the default is
//! `Status.and(Headers::new([CONTENT_TYPE])).and(ExactBody)`, so leaving out a
//! part means spelling it without it.
//!
//! ```
//! use http::header::{CONTENT_TYPE, LOCATION};
//! use tower_migration::compare::{Answers, Compare, Diff, ExactBody, Headers, Status};
//!
//! // Status, two headers, the bytes of the body, and a rule of one's own.
//! let comparer = Status
//!     .and(Headers::new([CONTENT_TYPE, LOCATION]))
//!     .and(ExactBody)
//!     .and(|answers: &Answers<'_>| {
//!         Diff::when(answers.other.body.is_empty(), "body", "something", "nothing")
//!     });
//! # fn is<C: Compare>(_: C) {}
//! # is(comparer);
//! ```
//!
//! # When it is called
//!
//! In the shadow task, once both answers are complete, and again for each time
//! they are read again because they differed. Never on the request path. Bodies
//! that differ, and together exceed
//! [`Limits::compare_inline`](crate::Limits::compare_inline) or are compressed, are
//! compared on a thread of tokio's blocking pool, and so are long ones that do not
//! differ where the comparer [looks into them](Compare::looks_into_equal); all others
//! on the async runtime, so it must not block. A panic in it is caught and counted as
//! [`FailReason::ComparerPanicked`].

mod diff;
mod encoding;
#[cfg(any(feature = "grpc", feature = "json"))]
mod findings;
#[cfg(feature = "grpc")]
pub mod grpc;
mod headers;
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
pub mod json;
mod noise;
mod parts;
#[cfg(any(feature = "grpc", feature = "json"))]
pub mod rules;
mod verdict;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

pub use self::diff::{Diff, Difference};
pub use self::headers::Headers;
pub use self::noise::Noise;
pub use self::parts::{And, ExactBody, Normalised, Status};
pub use self::verdict::{FailReason, InconclusiveReason, SkipReason, Unclear, Verdict};
use crate::{reconcile::Keys, stage::Side};

/// One side's answer, whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty for an answer to HEAD.
    pub body: Bytes,
    /// The trailers, if there were any. None with an answer over HTTP whose length
    /// is known: it has ended with its last byte, on both sides.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// An answer without headers, for tests of comparers.
    #[must_use]
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into(), trailers: None }
    }
}

/// Both answers to one request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answers<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's URI.
    pub uri: &'a Uri,
    /// What the client got.
    pub authority: &'a Answer,
    /// What the other side said.
    pub other: &'a Answer,
    /// About the two of them.
    pub context: Context,
}

impl<'a> Answers<'a> {
    /// Two answers to `GET /`, old being the authority, for tests of comparers.
    #[must_use]
    pub fn of(authority: &'a Answer, other: &'a Answer) -> Self {
        static ROOT: std::sync::LazyLock<Uri> = std::sync::LazyLock::new(Uri::default);
        let context = Context::new(Side::Old);
        Self { method: &Method::GET, uri: &ROOT, authority, other, context }
    }
}

/// What a comparer may want to know besides the answers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The side that gave the first answer.
    pub authority: Side,
    /// The side that gave the second one. The same as `authority` where the
    /// authority is compared with itself, for its [`Noise`].
    pub other: Side,
    /// When the result is of no use any more.
    pub deadline: Option<Instant>,
}

impl Context {
    /// With the authority on this side, and no deadline.
    #[must_use]
    pub const fn new(authority: Side) -> Self {
        Self { authority, other: authority.other(), deadline: None }
    }

    /// Of an authority that is compared with itself.
    pub(crate) const fn itself(self) -> Self {
        Self { other: self.authority, ..self }
    }

    pub(crate) const fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Whether the deadline is over.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Lists what differs between two answers. See the [module's page](self) for
/// when it is called.
///
/// Any `Fn(&Answers<'_>) -> Diff` is one, and so is `()`, for which everything
/// is equal.
pub trait Compare: Send + Sync + 'static {
    /// What differs; an empty [`Diff`] where nothing does.
    fn compare(&self, answers: &Answers<'_>) -> Diff;

    /// Whether it takes long for bodies of the same bytes too, since it looks into
    /// those as well: long ones are compared on another thread then. Default: no.
    fn looks_into_equal(&self) -> bool {
        false
    }

    /// This comparer, then `next`: the differences of both.
    fn and<C: Compare>(self, next: C) -> And<Self, C>
    where
        Self: Sized,
    {
        And::new(self, next)
    }

    /// This comparer, on answers that were put into a common form first, by side: a
    /// header dropped, a status mapped, a body rewritten. For fields of JSON bodies
    /// and gRPC messages see `rules::Rules` (features `json` and `grpc`).
    ///
    /// ```
    /// use tower_migration::{Side, compare::{Answer, Compare, ExactBody, Status}};
    ///
    /// let comparer = Status.and(ExactBody).normalised(|side, answer: &mut Answer| {
    ///     if side == Side::New {
    ///         // New ends its texts with a newline.
    ///         answer.body = answer.body.trim_ascii_end().to_vec().into();
    ///     }
    /// });
    /// # let _ = comparer;
    /// ```
    fn normalised(
        self,
        normalise: impl Fn(Side, &mut Answer) + Send + Sync + 'static,
    ) -> Normalised<Self>
    where
        Self: Sized,
    {
        Normalised::new(self, normalise)
    }
}

const _: fn(&dyn Compare) = |_| {};

impl Compare for () {
    fn compare(&self, _: &Answers<'_>) -> Diff {
        Diff::none()
    }
}

impl<F> Compare for F
where
    F: Fn(&Answers<'_>) -> Diff + Send + Sync + 'static,
{
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        self(answers)
    }
}

impl<C: Compare + ?Sized> Compare for Arc<C> {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        (**self).compare(answers)
    }

    fn looks_into_equal(&self) -> bool {
        (**self).looks_into_equal()
    }
}

/// A confirmed difference between the two sides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mismatch {
    /// The request, such as `GET /airports/EDDF`.
    pub request: Arc<str>,
    /// What it is counted under in the [`Report`](crate::Report), such as
    /// `GET /airports/*`.
    pub route: Arc<str>,
    /// Its keys.
    pub keys: Keys,
    /// The side that answered the client.
    pub authority: Side,
    /// What differs.
    pub diff: Diff,
    /// How often both sides were read again before it counted.
    pub rereads: u32,
    /// How long the authority took to its head, at the first read.
    pub authority_took: Duration,
    /// How long the other side took to its head, at the first read.
    pub other_took: Duration,
    /// When, by the machine's clock.
    pub at: SystemTime,
}
