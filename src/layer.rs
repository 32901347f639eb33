//! The layer, and everything that can be set on it.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, Request, StatusCode};
use tokio::sync::Semaphore;
use tower_layer::Layer;

use crate::{
    Migration,
    compare::{Answer, Compare},
    dispatch::Settings,
    flag::{ConfigError, MigrationHandle},
    observe::Observer,
    protocol::{Classify, HasKeys, Head, Http, KeyFns, KeyOf},
    reconcile::{Key, Keys},
    stage::{FailurePolicy, WriteOrder},
};

/// What a layer may use at most. Every limit has a default and shows in a
/// metric when it is reached.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::Limits;
///
/// let limits = Limits::default().body(64 * 1024).leg_timeout(Duration::from_secs(5));
/// # let _ = limits;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Limits {
    pub(crate) body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) buffered_bytes: usize,
    pub(crate) ready_timeout: Duration,
    pub(crate) leg_timeout: Duration,
    pub(crate) abandon_after: Duration,
    pub(crate) running_legs: usize,
    pub(crate) key_queue: usize,
    pub(crate) shadow_tasks: usize,
    pub(crate) shadow_deadline: Duration,
    pub(crate) captured_body: usize,
    pub(crate) captured_bytes: usize,
    pub(crate) rereads: u32,
    pub(crate) reread_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            body_timeout: Duration::from_secs(30),
            buffered_bytes: 256 << 20,
            ready_timeout: Duration::from_secs(5),
            leg_timeout: Duration::from_secs(30),
            abandon_after: Duration::from_secs(300),
            running_legs: 1_024,
            key_queue: 64,
            shadow_tasks: 64,
            shadow_deadline: Duration::from_secs(5),
            captured_body: 1 << 20,
            captured_bytes: 64 << 20,
            rereads: 2,
            reread_pause: Duration::from_millis(50),
        }
    }
}

impl Limits {
    /// The largest body of a dual write, in bytes (default 2 MiB). Over it:
    /// 413, before either side has seen the request.
    pub fn body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// How long a dual write's body may take to arrive (default 30 s). Over it:
    /// 408, before either side has seen the request. Such a request is in
    /// flight, so this also bounds how long it can delay a flip.
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.body_timeout = limit;
        self
    }

    /// The bodies of all dual writes together, in bytes (default 256 MiB). Over
    /// it: 503, before either side has seen the request.
    pub fn buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes;
        self
    }

    /// How long a leg of a dual write waits for its side to be ready (default
    /// 5 s). Over it the leg has failed.
    pub fn ready_timeout(mut self, limit: Duration) -> Self {
        self.ready_timeout = limit;
        self
    }

    /// How long anybody waits for a leg of a dual write (default 30 s),
    /// queueing for its key included. The leg itself goes on: a database call
    /// cannot be stopped by looking away. The authority's client gets 504; its
    /// leg goes on if one of [`running_legs`](Self::running_legs) is free.
    pub fn leg_timeout(mut self, limit: Duration) -> Self {
        self.leg_timeout = limit;
        self
    }

    /// How long a leg that nobody waits for any more may go on before it is
    /// dropped (default 5 min, counted from there). Until then it holds its
    /// key and keeps the flag from settling. Also bounds how long the rest of
    /// an answer is read for a client that hung up.
    pub fn abandon_after(mut self, limit: Duration) -> Self {
        self.abandon_after = limit;
        self
    }

    /// How many other legs may be running or queued (default 1024). Over it
    /// the other leg is not run and the keys are dirty; with `RequireBoth` the
    /// request is refused with 503 instead.
    pub fn running_legs(mut self, count: usize) -> Self {
        self.running_legs = count;
        self
    }

    /// How many legs may run and queue for one key on the other side (default
    /// 64). Over it: as [`running_legs`](Self::running_legs).
    pub fn key_queue(mut self, count: usize) -> Self {
        self.key_queue = count;
        self
    }

    /// How many shadow reads may be under way (default 64). Over it the read is
    /// not shadowed.
    pub fn shadow_tasks(mut self, count: usize) -> Self {
        self.shadow_tasks = count;
        self
    }

    /// How long a shadow read may take from the authority's head on, waiting
    /// and reading again included (default 5 s).
    pub fn shadow_deadline(mut self, limit: Duration) -> Self {
        self.shadow_deadline = limit;
        self
    }

    /// The largest body that is kept for comparing, in bytes (default 1 MiB).
    /// A larger one is not compared: never cut and compared.
    pub fn captured_body(mut self, bytes: usize) -> Self {
        self.captured_body = bytes;
        self
    }

    /// All bodies that are kept for comparing together, in bytes (default
    /// 64 MiB). What does not fit is not compared.
    pub fn captured_bytes(mut self, bytes: usize) -> Self {
        self.captured_bytes = bytes;
        self
    }

    /// How often both sides are read again before a difference counts as a
    /// mismatch (default 2). 0: the first difference counts.
    pub fn rereads(mut self, count: u32) -> Self {
        self.rereads = count;
        self
    }

    /// The pause before the first reading again (default 50 ms); each further
    /// one is twice as long.
    pub fn reread_pause(mut self, pause: Duration) -> Self {
        self.reread_pause = pause;
        self
    }

    fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("body", self.body),
            ("buffered_bytes", self.buffered_bytes),
            ("running_legs", self.running_legs),
            ("key_queue", self.key_queue),
            ("shadow_tasks", self.shadow_tasks),
            ("captured_body", self.captured_body),
            ("captured_bytes", self.captured_bytes),
        ];
        let times = [
            ("body_timeout", self.body_timeout),
            ("ready_timeout", self.ready_timeout),
            ("leg_timeout", self.leg_timeout),
            ("abandon_after", self.abandon_after),
            ("shadow_deadline", self.shadow_deadline),
        ];
        let zero_count = counts.into_iter().find(|(_, count)| *count == 0).map(|(name, _)| name);
        let zero_time = times.into_iter().find(|(_, time)| time.is_zero()).map(|(name, _)| name);
        if let Some(limit) = zero_count.or(zero_time) {
            return Err(ConfigError::Zero { limit });
        }
        if self.body > self.buffered_bytes {
            return Err(ConfigError::TooSmall { limit: "buffered_bytes", than: "body" });
        }
        if self.captured_body > self.captured_bytes {
            return Err(ConfigError::TooSmall { limit: "captured_bytes", than: "captured_body" });
        }
        Ok(())
    }
}

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
    /// A layer with the defaults: reads and writes by method, keys by path,
    /// both legs at once, the authority's answer at once, no shadow reads until
    /// [`set_shadow_rate`](MigrationHandle::set_shadow_rate).
    #[expect(clippy::needless_pass_by_value, reason = "the layer takes a handle of its own")]
    pub fn new(handle: MigrationHandle, new: New) -> Self {
        let limits = Limits::default();
        let settings = Settings {
            core: Arc::clone(&handle.core),
            protocol: Http::default(),
            policy: FailurePolicy::default(),
            order: WriteOrder::default(),
            legs: Arc::new(Semaphore::new(limits.running_legs)),
            shadows: Arc::new(Semaphore::new(limits.shadow_tasks)),
            limits,
            observer: Arc::new(()),
            read_fallback: None,
            durations: false,
            name_writes: false,
        };
        Self { new, settings: Arc::new(settings) }
    }

    /// Which requests are reads; see [`Classify`]. Default:
    /// [`ByMethod`](crate::protocol::ByMethod).
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer, Operation};
    /// use tower_migration::protocol::{ByMethod, Classify, Head};
    ///
    /// // `POST /search` is a read.
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .classify(|head: &Head<'_>| match head.uri.path() {
    ///         "/search" => Operation::Read,
    ///         _ => ByMethod.classify(head),
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.http().classify = Arc::new(classify);
        self
    }

    /// What requests are about; see [`KeyOf`]. Default:
    /// [`HttpKeys`](crate::protocol::HttpKeys).
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// use bytes::Bytes;
    /// use tower_migration::protocol::Head;
    ///
    /// // Everything under /tenants/7 is one thing.
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .keys(|head: &Head<'_>, _: &Bytes| {
    ///         head.uri.path().split('/').nth(2).map(str::to_owned)
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn keys(mut self, keys: impl KeyOf) -> Self {
        self.http().keys = Some(Arc::new(keys));
        self
    }

    /// As [`keys`](Self::keys), with a second closure for the keys that only
    /// the answer to a write tells, such as the id of what was created.
    pub fn keys_with_answer<K, L>(
        self,
        of_request: impl Fn(&Head<'_>, &Bytes) -> K + Send + Sync + 'static,
        of_answer: impl Fn(&Head<'_>, StatusCode, &HeaderMap) -> L + Send + Sync + 'static,
    ) -> Self
    where
        K: Into<Keys> + 'static,
        L: Into<Keys> + 'static,
    {
        self.keys(KeyFns { of_request, of_answer })
    }

    /// No keys at all. Concurrent writes of the same thing may then land in
    /// opposite orders on the two sides, and one failed leg makes the whole
    /// side suspect; the log says so when the layer is applied.
    pub fn without_keys(mut self) -> Self {
        self.http().keys = None;
        self
    }

    /// What a [`ramp`](MigrationHandle::ramp) goes by, instead of the request's
    /// keys: a tenant, a user. Requests of the same text go the same way; `None`
    /// stays at `WriteBoth`. Called while a ramp lasts, once for each request.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// use tower_migration::protocol::Head;
    ///
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .ramp_by(|head: &Head<'_>| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned));
    /// # let _ = layer;
    /// ```
    pub fn ramp_by<K: Into<Key>>(
        mut self,
        by: impl Fn(&Head<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.http().ramp_by = Some(Arc::new(move |head| by(head).map(Into::into)));
        self
    }

    /// Runs over each dual write once, when its body is here and before it is
    /// copied: the place to stamp ids and times, so that both sides get the
    /// same. Not called in one-sided stages. `content-length` is put right
    /// afterwards.
    pub fn prepare(
        mut self,
        prepare: impl Fn(&mut Request<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        self.http().prepare = Some(Arc::new(prepare));
        self
    }

    /// Builds the other leg's request out of the authority's answer, for
    /// [`WriteOrder::AuthorityFirst`] (which this sets): to give the other side
    /// the id that the authority assigned, for example. `None`: the other leg
    /// is not run and the keys are dirty.
    ///
    /// The hook gets the whole answer, so it is read (up to
    /// [`Limits::captured_body`]) before it is released to the client.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .other_leg(|mut request, answer| {
    ///         // POST /things -> PUT /things/17
    ///         let location = answer.headers.get("location")?.to_str().ok()?;
    ///         *request.uri_mut() = location.parse().ok()?;
    ///         *request.method_mut() = http::Method::PUT;
    ///         Some(request)
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn other_leg(
        mut self,
        build: impl Fn(Request<Bytes>, &Answer) -> Option<Request<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.http().follow = Some(Arc::new(build));
        self.write_order(WriteOrder::AuthorityFirst)
    }

    /// Removes `T` from the extensions of copies. hyper's `OnUpgrade` is always
    /// removed.
    pub fn strip_extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.http().strip.push(|extensions: &mut Extensions| {
            extensions.remove::<T>();
        });
        self
    }

    /// Writes each [`Dispatch`](crate::Dispatch) into this header too, as
    /// `write-both; new; other`, for sides that are proxies to other machines.
    /// Off by default.
    pub fn dispatch_header(mut self, name: HeaderName) -> Self {
        self.http().dispatch_header = Some(name);
        self
    }

    /// How the answers of shadow reads are compared. Default: status,
    /// `content-type`, and the exact body; see [`compare`](crate::compare).
    pub fn compare(mut self, comparer: impl Compare) -> Self {
        self.http().compare = Arc::new(comparer);
        self
    }

    fn http(&mut self) -> &mut Http {
        &mut self.set().protocol
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
        self.set().observer = Arc::new(observer);
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
