//! The layer, and everything that can be set on it.

mod http;
mod limits;
mod routes;

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tower_layer::Layer;

pub use self::limits::Limits;
pub(crate) use self::routes::Routes;
use crate::{
    Migration,
    compare::Noise,
    dispatch::Settings,
    flag::{ConfigError, MigrationHandle},
    observe::Observer,
    protocol::{HasKeys, Http},
    stage::{FailurePolicy, WriteOrder},
};

/// Puts an old service and its replacement behind one flag.
///
/// `MigrationLayer::new(handle, new).layer(old)` is a [`Migration`]. Both
/// services must be `Clone` and share their response and error types; where
/// they do not, wrap one in tower's `MapResponse` or `MapErr`.
///
/// All services made by one layer, and by its clones, share its limits; all
/// layers made from one handle share the flag, the keys and the dirty set. So
/// `Router::layer`, which applies the layer once per route, is fine.
///
/// # Where it goes
///
/// Around whole routers, before routing: `Router::new().fallback_service(layer.layer(old_router))`.
///
/// **A trap:** inside `Router::layer` a request has been routed already, and
/// axum *appends* path parameters, so a whole router as the new side would see
/// each of them twice (500, "Expected 1 but got 2"). Use `Router::layer` and
/// `MethodRouter::layer` only with a new side that does no routing of its own,
/// such as a handler service.
///
/// # Example
///
/// ```
/// # async fn run() {
/// use axum::{Router, routing::get};
/// use tower_layer::Layer;
/// use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer};
///
/// let old = Router::new().route("/", get(|| async { "old" }));
/// let new = Router::new().route("/", get(|| async { "new" }));
/// let migration = MigrationHandle::new("hello");
/// let layer = MigrationLayer::new(migration, new).failure_policy(FailurePolicy::AwaitBoth);
/// let app: Router = Router::new().fallback_service(layer.layer(old));
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it is applied"]
pub struct MigrationLayer<New, P = Http> {
    new: New,
    settings: Arc<Settings<P>>,
}

impl<New> MigrationLayer<New> {
    /// A layer for HTTP, with the defaults: reads and writes by method, keys by
    /// path, both legs at once, the authority's answer at once, no shadow reads
    /// until [`set_shadow_rate`](MigrationHandle::set_shadow_rate).
    pub fn new(handle: MigrationHandle, new: New) -> Self {
        Self::with_protocol(handle, new, Http::default())
    }
}

impl<New, P> MigrationLayer<New, P> {
    /// A layer for another kind of service: [`Plain`](crate::protocol::Plain),
    /// `Grpc`, or a [`Protocol`](crate::protocol::Protocol) of one's own. What
    /// is special to the protocol is set up on it; the rest here.
    #[expect(clippy::needless_pass_by_value, reason = "the layer takes a handle of its own")]
    pub fn with_protocol(handle: MigrationHandle, new: New, protocol: P) -> Self {
        let limits = Limits::default();
        let settings = Settings {
            core: Arc::clone(&handle.core),
            protocol,
            policy: FailurePolicy::default(),
            order: WriteOrder::default(),
            legs: Arc::new(Semaphore::new(limits.running_legs)),
            shadows: Arc::new(Semaphore::new(limits.shadow_tasks)),
            limits,
            observer: Arc::new(()),
            observed: false,
            noise: Noise::default(),
            down: Arc::default(),
            read_fallback: None,
            durations: false,
            name_writes: false,
        };
        Self { new, settings: Arc::new(settings) }
    }
}

impl<New, P: Clone> MigrationLayer<New, P> {
    /// When the client of a dual write gets its answer. Default:
    /// [`FailurePolicy::AuthorityWins`].
    pub fn failure_policy(mut self, policy: FailurePolicy) -> Self {
        self.set().policy = policy;
        self
    }

    /// In which order the legs of a write run. Default:
    /// [`WriteOrder::Concurrent`].
    pub fn write_order(mut self, order: WriteOrder) -> Self {
        self.set().order = order;
        self
    }

    /// Limits other than the defaults. Give them once, before the layer is
    /// cloned or applied: what was made before keeps its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a limit is zero, or if one request's limit is above
    /// the limit of all together.
    pub fn limits(mut self, limits: Limits) -> Result<Self, ConfigError> {
        limits.check()?;
        let settings = self.set();
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        settings.legs = permits(limits.running_legs);
        settings.shadows = permits(limits.shadow_tasks);
        settings.limits = limits;
        Ok(self)
    }

    /// Who hears of disagreements and verdicts; see [`Observer`].
    pub fn observer(mut self, observer: impl Observer) -> Self {
        let observer: Arc<dyn Observer> = Arc::new(observer);
        let settings = self.set();
        settings.core.heed(&observer);
        settings.observer = observer;
        settings.observed = true;
        self
    }

    /// Which sampled reads are sent to the authority twice, to know where it differs
    /// from itself (default: one in twenty); see [`Noise`].
    pub fn noise(mut self, noise: Noise) -> Self {
        self.set().noise = noise;
        self
    }

    /// Off by default. With it, a read that the authority fails in a two-sided
    /// stage (5xx, an error, a panic, no head within `limit`) is answered by
    /// the other side, if that side is synced, the key is clean with no write
    /// of it running, and the answer is 2xx. The answer carries a
    /// [`FallbackRead`](crate::FallbackRead) in its extensions.
    ///
    /// A read with a body is covered once the authority has read all of it.
    ///
    /// The key decides what is clean. With the default, a list is known to lack
    /// a dirty row only if the row's path lies below the list's: for other lists
    /// give a key function, or none for those reads, which then are covered only
    /// while nothing at all is dirty or being written.
    ///
    /// Costs each read of a two-sided stage its head's copy and key, eight
    /// allocations, a time limit and two readings of the clock, whether it is
    /// sampled or not. Reads of one-sided stages pay nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use http::{Request, Response, StatusCode};
    /// # use http_body_util::Full;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// # use tower_migration::{FallbackRead, MigrationHandle, MigrationLayer, Side};
    /// # type Body = Full<bytes::Bytes>;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// # let answers = |status| service_fn(move |_: Request<Body>| async move {
    /// #     let mut answer = Response::new(Body::default());
    /// #     *answer.status_mut() = status;
    /// #     Ok::<_, std::convert::Infallible>(answer)
    /// # });
    /// # let migration = MigrationHandle::new("airports");
    /// # let (old, new) = (answers(StatusCode::SERVICE_UNAVAILABLE), answers(StatusCode::OK));
    /// let layer = MigrationLayer::new(migration.clone(), new)
    ///     .read_fallback(Duration::from_millis(500))?;
    /// let mut service = layer.layer(old);
    /// migration.advance().await.unwrap();
    /// migration.confirm_synced(Side::New).await.unwrap();
    /// // Old, which is read at this stage, answers 503: new answers instead.
    /// let read = Request::get("/airports/EDDF").body(Body::default()).unwrap();
    /// let answer = service.ready().await.unwrap().call(read).await.unwrap();
    /// assert_eq!(answer.status(), StatusCode::OK);
    /// assert!(answer.extensions().get::<FallbackRead>().is_some());
    /// # Ok::<(), tower_migration::ConfigError>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if `limit` is zero.
    pub fn read_fallback(mut self, limit: Duration) -> Result<Self, ConfigError> {
        if limit.is_zero() {
            return Err(ConfigError::Zero { limit: "read_fallback" });
        }
        self.set().read_fallback = Some(limit);
        Ok(self)
    }

    /// Whether requests of one-sided stages, and reads that are not shadowed,
    /// are timed too (default no). Costs two readings of the clock each.
    pub fn durations(mut self, on: bool) -> Self {
        self.set().durations = on;
        self
    }

    /// Whether writes of one-sided stages are known by their route too (default
    /// no), so that a step that waits for one of them can name it: see
    /// [`OldestWrite`](crate::OldestWrite). Those of the two-sided stages
    /// always are.
    ///
    /// Costs two allocations, a reading of the clock and two turns of a
    /// thread's own lock for each such write; reads cost nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true)
    /// #     .build()?;
    /// # runtime.block_on(async {
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// # let new = service_fn(|_: Request<Full<bytes::Bytes>>| async {
    /// #     Ok::<_, std::convert::Infallible>(Response::new(Full::<bytes::Bytes>::default()))
    /// # });
    /// # let hangs = service_fn(|_: Request<Full<bytes::Bytes>>| std::future::pending());
    /// # let migration = MigrationHandle::new("airports");
    /// let layer = MigrationLayer::new(migration.clone(), new).name_writes(true);
    /// # let request = Request::put("/airports/EDDF").body(Full::default()).unwrap();
    /// # let mut service = layer.layer(hangs);
    /// # let hanging = service.ready().await.unwrap().call(request);
    /// // While `PUT /airports/EDDF` hangs in old:
    /// migration.advance().await.unwrap();
    /// tokio::time::sleep(Duration::from_secs(3)).await;
    /// let oldest = migration.status().oldest_write.unwrap();
    /// assert_eq!(oldest.to_string(), "PUT /airports/EDDF on old for 3.0s");
    /// # drop(hanging);
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name_writes(mut self, on: bool) -> Self {
        self.set().name_writes = on;
        self
    }

    fn set(&mut self) -> &mut Settings<P> {
        Arc::make_mut(&mut self.settings)
    }
}

impl<Old, New: Clone, P: HasKeys> Layer<Old> for MigrationLayer<New, P> {
    type Service = Migration<Old, New, P>;

    fn layer(&self, old: Old) -> Self::Service {
        self.settings.core.ensure_published();
        if !self.settings.protocol.has_keys() {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.settings.core.name(),
                "writes have no keys: concurrent writes of the same thing may leave the sides \
                 different, and a failed leg makes the side suspect"
            );
        }
        Migration::new(old, self.new.clone(), Arc::clone(&self.settings))
    }
}

impl<New, P> fmt::Debug for MigrationLayer<New, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrationLayer").field("settings", &self.settings).finish_non_exhaustive()
    }
}
