//! Services that are not HTTP: a repository, a storage trait, a queue.

mod guard;
mod seam;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::guard::asked;
use super::{Dispatch, HasKeys};
use crate::{
    compare::Diff,
    reconcile::Keys,
    stage::{Operation, Outcome},
    telemetry::Refused,
};

type Fun<T> = Option<Arc<T>>;
/// What an answer says. Cloned for each request of a one-sided stage.
type Judge<Res, E> = dyn Fn(Result<&Res, &E>) -> Outcome + Send + Sync;

/// The protocol of any `tower::Service<Req>` with `Req: Clone`: closures say
/// what its requests are and what its answers mean.
///
/// For teams that migrate below HTTP: the storage trait behind the handlers
/// becomes a service whose request is an enum of its methods.
///
/// | closure | called | default |
/// |---|---|---|
/// | `classify` | on every request, on every stage | – |
/// | `refuse` | when the layer itself has to answer | – |
/// | [`keys`](Self::keys) | two-sided stages: each write, and each sampled or covered read | no key |
/// | [`answer_keys`](Self::answer_keys) | two-sided stages, on each answer to a write that was applied | none |
/// | [`ramp_by`](Self::ramp_by) | while a ramp lasts | the keys |
/// | [`judge`](Self::judge) | on every answer, on every stage, perhaps twice | `Ok` applied, `Err` unknown |
/// | [`done_when`](Self::done_when) | two-sided stages, on each leg of a write | never |
/// | `observe` | once for each answer of a sampled read, the client's before it is handed on | clones the response |
/// | `compare` | in the shadow task | `==` |
/// | [`prepare`](Self::prepare) | two-sided stages, once for each write | nothing |
/// | [`name`](Self::name) | two-sided stages: each write and each shadowed read | the type's name |
/// | [`route`](Self::route) | each sampled read | `all` |
///
/// On a one-sided stage nothing is cloned but the `Arc` of `judge`, if it is
/// set, and nothing is allocated. A response that is still being made when it is
/// handed on (a stream of rows) is over for the layer: for such a service
/// implement [`Protocol`](super::Protocol).
///
/// There is no limit on a request's size, which is in memory already, nor on
/// what is observed: of answers that may be large, observe a digest. The
/// services' error must be `Display`, for logs.
///
/// # Panics
///
/// A panic of `classify`, `prepare`, the getter of [`dispatch`](Self::dispatch),
/// or of `keys` on a write reaches the client's task before any side has seen
/// the request; one of `refuse` reaches it instead of the answer. Any other
/// closure's is logged and costs what the closure was for: `judge` leaves the
/// outcome unknown, `done_when` leaves it to `judge`, `name` leaves the type's
/// name, `route` leaves `all`, the setter of `dispatch` leaves the request without its mark, `observe`
/// and `compare` make the comparison fail with
/// [`ComparerPanicked`](crate::compare::FailReason::ComparerPanicked).
///
/// # Example
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_migration::{MigrationHandle, MigrationLayer, Operation, Outcome, protocol::Plain};
///
/// #[derive(Clone)]
/// enum Op { Get(u32), Put(u32, String) }
/// #[derive(Debug, PartialEq)]
/// enum StoreError { Conflict, Unavailable }
/// # impl std::fmt::Display for StoreError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") }
/// # }
///
/// let protocol = Plain::new(
///     |op: &Op| if matches!(op, Op::Get(_)) { Operation::Read } else { Operation::Write },
///     |_| StoreError::Unavailable,
/// )
/// .keys(|op: &Op| match op { Op::Get(id) | Op::Put(id, _) => id.to_string() })
/// .judge(|answer: Result<&Option<String>, &StoreError>| match answer {
///     Ok(_) => Outcome::Applied,
///     Err(StoreError::Conflict) => Outcome::Refused,
///     Err(StoreError::Unavailable) => Outcome::Unknown,
/// });
/// # let old = service_fn(|op: Op| async move { Ok::<_, StoreError>(Some("old".to_owned())) });
/// # let new = service_fn(|op: Op| async move { Ok::<_, StoreError>(Some("new".to_owned())) });
/// let handle = MigrationHandle::new("rows");
/// let store = MigrationLayer::with_protocol(handle, new, protocol).layer(old);
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// assert_eq!(store.oneshot(Op::Get(7)).await, Ok(Some("old".to_owned())));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[expect(clippy::type_complexity, reason = "each closure is named by its field")]
pub struct Plain<Req, Res, E, Seen = Res> {
    classify: Arc<dyn Fn(&Req) -> Operation + Send + Sync>,
    refuse: Arc<dyn Fn(Refused) -> E + Send + Sync>,
    observe: Arc<dyn Fn(&Res) -> Seen + Send + Sync>,
    compare: Arc<dyn Fn(&Seen, &Seen) -> Diff + Send + Sync>,
    judge: Fun<Judge<Res, E>>,
    done_when: Fun<dyn Fn(&Req, Result<&Res, &E>) -> bool + Send + Sync>,
    keys: Fun<dyn Fn(&Req) -> Keys + Send + Sync>,
    answer_keys: Fun<dyn Fn(&Req, &Res) -> Keys + Send + Sync>,
    ramp_by: Fun<dyn Fn(&Req) -> Keys + Send + Sync>,
    name: Fun<dyn Fn(&Req) -> String + Send + Sync>,
    route: Fun<dyn Fn(&Req) -> &'static str + Send + Sync>,
    prepare: Fun<dyn Fn(&mut Req) + Send + Sync>,
    follow: Fun<dyn Fn(Req, &Res) -> Option<Req> + Send + Sync>,
    set_dispatch: Fun<dyn Fn(&mut Req, Dispatch) + Send + Sync>,
    get_dispatch: Fun<dyn Fn(&Req) -> Option<Dispatch> + Send + Sync>,
}

impl<Req, Res, E> Plain<Req, Res, E>
where
    Res: Clone + PartialEq + fmt::Debug + 'static,
{
    /// Responses are compared with `==`. `classify` tells reads from writes;
    /// `refuse` makes an error of what the layer itself has to answer.
    pub fn new(
        classify: impl Fn(&Req) -> Operation + Send + Sync + 'static,
        refuse: impl Fn(Refused) -> E + Send + Sync + 'static,
    ) -> Self {
        Self::observing(classify, refuse, Res::clone)
    }
}

impl<Req, Res, E, Seen> Plain<Req, Res, E, Seen>
where
    Seen: PartialEq + fmt::Debug,
{
    /// What `observe` takes out of a response is compared with `==`. It is
    /// called before the client of a sampled read gets the response: keep it
    /// short.
    pub fn observing(
        classify: impl Fn(&Req) -> Operation + Send + Sync + 'static,
        refuse: impl Fn(Refused) -> E + Send + Sync + 'static,
        observe: impl Fn(&Res) -> Seen + Send + Sync + 'static,
    ) -> Self {
        Self::comparing(classify, refuse, observe, |mine: &Seen, theirs: &Seen| {
            if mine == theirs {
                return Diff::none();
            }
            Diff::of("response", format!("{mine:?}"), format!("{theirs:?}"))
        })
    }
}

impl<Req, Res, E, Seen> Plain<Req, Res, E, Seen> {
    /// What `observe` takes out of a response is compared by `compare`: the
    /// authority's first.
    pub fn comparing(
        classify: impl Fn(&Req) -> Operation + Send + Sync + 'static,
        refuse: impl Fn(Refused) -> E + Send + Sync + 'static,
        observe: impl Fn(&Res) -> Seen + Send + Sync + 'static,
        compare: impl Fn(&Seen, &Seen) -> Diff + Send + Sync + 'static,
    ) -> Self {
        Self {
            classify: Arc::new(classify),
            refuse: Arc::new(refuse),
            observe: Arc::new(observe),
            compare: Arc::new(compare),
            judge: None,
            done_when: None,
            keys: None,
            answer_keys: None,
            ramp_by: None,
            name: None,
            route: None,
            prepare: None,
            follow: None,
            set_dispatch: None,
            get_dispatch: None,
        }
    }

    /// What a request is about. Reads and writes of the same thing must give the
    /// same key.
    #[must_use]
    pub fn keys<K: Into<Keys>>(mut self, keys: impl Fn(&Req) -> K + Send + Sync + 'static) -> Self {
        self.keys = Some(Arc::new(move |request| keys(request).into()));
        self
    }

    /// The keys that only a write's answer tells, such as the id of what was
    /// created. Called on both sides' answers: keys that differ are dirty.
    #[must_use]
    pub fn answer_keys<K: Into<Keys>>(
        mut self,
        keys: impl Fn(&Req, &Res) -> K + Send + Sync + 'static,
    ) -> Self {
        self.answer_keys = Some(Arc::new(move |request, answer| keys(request, answer).into()));
        self
    }

    /// What a [`ramp`](crate::MigrationHandle::ramp) goes by, instead of the
    /// keys.
    #[must_use]
    pub fn ramp_by<K: Into<Keys>>(
        mut self,
        by: impl Fn(&Req) -> K + Send + Sync + 'static,
    ) -> Self {
        self.ramp_by = Some(Arc::new(move |request| by(request).into()));
        self
    }

    /// What an answer says about a write: `Refused` only if nothing was written
    /// for certain. Also decides what counts as a failure of a side, for reads
    /// too.
    #[must_use]
    pub fn judge(
        mut self,
        judge: impl Fn(Result<&Res, &E>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    /// Answers to writes which mean that what was asked for is so already, such
    /// as a delete that finds nothing: they count as applied, whatever `judge`
    /// says.
    #[must_use]
    pub fn done_when(
        mut self,
        done: impl Fn(&Req, Result<&Res, &E>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.done_when = Some(Arc::new(done));
        self
    }

    /// The request in a few words, for logs and refused steps. Default: the
    /// name of its type, path included.
    #[must_use]
    pub fn name(mut self, name: impl Fn(&Req) -> String + Send + Sync + 'static) -> Self {
        self.name = Some(Arc::new(name));
        self
    }

    /// What a shadowed read is counted under in the [`Report`](crate::Report): its
    /// method, say. Default: `all`.
    #[must_use]
    pub fn route(mut self, route: impl Fn(&Req) -> &'static str + Send + Sync + 'static) -> Self {
        self.route = Some(Arc::new(route));
        self
    }

    /// Runs over each dual write once, before it is copied: the place to stamp
    /// ids and times.
    #[must_use]
    pub fn prepare(mut self, prepare: impl Fn(&mut Req) + Send + Sync + 'static) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }

    /// Builds the other leg's request out of the authority's answer; `None`: it
    /// is not run and the keys are dirty. Takes effect with
    /// [`WriteOrder::AuthorityFirst`](crate::WriteOrder::AuthorityFirst).
    #[must_use]
    pub fn other_leg(
        mut self,
        build: impl Fn(Req, &Res) -> Option<Req> + Send + Sync + 'static,
    ) -> Self {
        self.follow = Some(Arc::new(build));
        self
    }

    /// Where a request keeps its [`Dispatch`]: `set` puts it there, `get` finds
    /// it. With it a service knows which leg it runs, and the layer may be
    /// applied twice.
    #[must_use]
    pub fn dispatch(
        mut self,
        set: impl Fn(&mut Req, Dispatch) + Send + Sync + 'static,
        get: impl Fn(&Req) -> Option<Dispatch> + Send + Sync + 'static,
    ) -> Self {
        self.set_dispatch = Some(Arc::new(set));
        self.get_dispatch = Some(Arc::new(get));
        self
    }

    fn keys_of(&self, request: &Req) -> Keys {
        self.keys.as_ref().map_or_else(Keys::none, |keys| keys(request))
    }

    fn stamped(&self, mut request: Req, dispatch: Dispatch) -> Req {
        if let Some(set) = &self.set_dispatch {
            // Both sides can do without the mark: a request goes on as it is.
            asked("dispatch", || set(&mut request, dispatch));
        }
        request
    }
}

/// A request of which copies can be made. Behind a lock, so that a request need
/// not be `Sync`.
pub struct WholePlain<Req>(Mutex<Req>);

impl<Req> WholePlain<Req> {
    fn lock(&self) -> MutexGuard<'_, Req> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Req> fmt::Debug for WholePlain<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WholePlain").finish_non_exhaustive()
    }
}

impl<Req, Res, E, Seen> HasKeys for Plain<Req, Res, E, Seen> {
    fn has_keys(&self) -> bool {
        self.keys.is_some()
    }
}

/// By hand: a derive would want its parameters to be `Clone`.
impl<Req, Res, E, Seen> Clone for Plain<Req, Res, E, Seen> {
    fn clone(&self) -> Self {
        Self {
            classify: self.classify.clone(),
            refuse: self.refuse.clone(),
            observe: self.observe.clone(),
            compare: self.compare.clone(),
            judge: self.judge.clone(),
            done_when: self.done_when.clone(),
            keys: self.keys.clone(),
            answer_keys: self.answer_keys.clone(),
            ramp_by: self.ramp_by.clone(),
            name: self.name.clone(),
            route: self.route.clone(),
            prepare: self.prepare.clone(),
            follow: self.follow.clone(),
            set_dispatch: self.set_dispatch.clone(),
            get_dispatch: self.get_dispatch.clone(),
        }
    }
}

impl<Req, Res, E, Seen> fmt::Debug for Plain<Req, Res, E, Seen> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("keys", &self.keys.is_some()).finish_non_exhaustive()
    }
}
