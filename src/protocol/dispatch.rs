//! What a handler can know about its place in a migration.

use crate::stage::{Role, Side, Stage};

/// In the extensions of each request of a dual write and of each shadowed read:
/// which leg this is.
///
/// A handler with effects outside the data (mail, a queue, a counter) looks at
/// it and acts for the authority's leg only. Requests of one-sided stages, and
/// reads that are neither sampled nor covered by a fallback, do not have it: there is one leg, and the
/// request is handed on untouched.
///
/// ```
/// use tower_migration::{Dispatch, Role};
///
/// fn sends_mail(request: &http::Request<()>) -> bool {
///     request.extensions().get::<Dispatch>().is_none_or(|leg| leg.role == Role::Authority)
/// }
/// assert!(sends_mail(&http::Request::new(())));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dispatch {
    /// The stage that the request was admitted under. `ReadNew` for one whose keys
    /// a [`ramp`](crate::MigrationHandle::ramp) covers.
    pub stage: Stage,
    /// The side that this leg runs on.
    pub side: Side,
    /// What this leg is for.
    pub role: Role,
    /// Which migration marked it, so that two migrations may be nested.
    pub(crate) migration: u64,
}

/// In the extensions of an answer that came from the other side because the
/// authority failed: see
/// [`MigrationLayer::read_fallback`](crate::MigrationLayer::read_fallback).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackRead {
    /// The side that answered.
    pub side: Side,
}
