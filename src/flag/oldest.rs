//! Which write keeps a step waiting.

use std::{fmt, sync::Arc, time::Duration};

use crate::stage::Side;

/// The oldest of the writes that a step waits for: the one to look for when a
/// step is refused.
///
/// In the two-sided stages every leg of a write is known by its route and age,
/// until its answer has been sent. In the one-sided stages that is so with
/// [`name_writes`](crate::MigrationLayer::name_writes); without it, a write is
/// known to be at least as old as the flip that it holds up.
///
/// ```
/// # use std::time::Duration;
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true)
/// #     .build()?;
/// # runtime.block_on(async {
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_migration::{MigrationHandle, MigrationLayer, Reason, Side, Stage};
///
/// let fine = service_fn(|_: Request<Full<bytes::Bytes>>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::default()))
/// });
/// let hangs = service_fn(|_: Request<Full<bytes::Bytes>>| std::future::pending());
/// let migration = MigrationHandle::new("airports");
/// let service = MigrationLayer::new(migration.clone(), hangs).layer(fine);
/// migration.move_to(Stage::WriteBoth).await.unwrap();
/// migration.confirm_synced(Side::New).await.unwrap();
///
/// let request = Request::put("/airports/EDDF").body(Full::default()).unwrap();
/// service.oneshot(request).await.unwrap();
/// let blocked = migration.move_to(Stage::ReadNew).await.unwrap_err();
/// let [Reason::NotSettled { oldest: Some(oldest), .. }] = blocked.reasons() else { panic!() };
/// assert_eq!(oldest.route.as_deref(), Some("PUT /airports/EDDF"));
/// assert_eq!(oldest.side, Some(Side::New));
/// assert_eq!(oldest.to_string(), "PUT /airports/EDDF on new for 10.0s");
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OldestWrite {
    /// For how long it has been in flight, from its admission on.
    pub age: Duration,
    /// Whether it may be older than that.
    pub at_least: bool,
    /// The request, such as `PUT /airports/EDDF`, or `copy /airports/EDDF` for
    /// a copy. `None` if nobody noted it.
    pub route: Option<Arc<str>>,
    /// Where it runs. `None` if there are several and any may be the oldest.
    pub side: Option<Side>,
    /// Whether its side has answered, so that what is left is the rest of the
    /// answer, on its way to a client that may be slow.
    pub answered: bool,
}

impl fmt::Display for OldestWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.route.as_deref().unwrap_or("an unnamed write"))?;
        if let Some(side) = self.side {
            write!(f, " on {side}")?;
        }
        let at_least = if self.at_least { "at least " } else { "" };
        write!(f, " for {at_least}{:.1?}", self.age)?;
        if self.answered {
            f.write_str(", its answer is still being sent")?;
        }
        if self.route.is_none() {
            f.write_str(" (name_writes tells its route)")?;
        }
        Ok(())
    }
}
