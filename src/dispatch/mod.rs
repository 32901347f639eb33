//! Running a request: one leg, two legs, or one and a shadow.
//!
//! Written once for all protocols. One-sided requests, and reads that are not
//! sampled, never come here: [`ResponseFuture`](crate::future::ResponseFuture)
//! hands them straight to their side.

mod both_legs;
mod call;
mod closing;
mod guard;
mod inner;
mod leg;
mod other_leg;
mod read;
mod record;
mod shadow;
mod told;
mod write;

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{sync::Semaphore, time::Instant};
use tower_service::Service;

use crate::{
    compare::Noise,
    flag::{Core, Mark, Word},
    future::Alone,
    layer::Limits,
    observe::{Event, Observer},
    protocol::Protocol,
    stage::{FailurePolicy, Stage, WriteOrder, stage_in_force},
};

pub(crate) use self::closing::closable;
use self::guard::guarded;
pub(crate) use self::inner::Inner;
pub(crate) use self::read::{plain, watched_read};
use self::shadow::Down;
pub(crate) use self::write::dual_write;

/// What all services made by one layer share.
pub(crate) struct Settings<P> {
    pub(crate) core: Arc<Core>,
    pub(crate) protocol: P,
    pub(crate) policy: FailurePolicy,
    pub(crate) order: WriteOrder,
    pub(crate) limits: Limits,
    /// Permits of other legs.
    pub(crate) legs: Arc<Semaphore>,
    /// Permits of shadow tasks.
    pub(crate) shadows: Arc<Semaphore>,
    pub(crate) observer: Arc<dyn Observer>,
    /// Whether there is one: nothing is made for nobody.
    pub(crate) observed: bool,
    pub(crate) noise: Noise,
    pub(crate) down: Arc<Down>,
    pub(crate) read_fallback: Option<std::time::Duration>,
    pub(crate) durations: bool,
    pub(crate) name_writes: bool,
}

impl<P: Clone> Clone for Settings<P> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            protocol: self.protocol.clone(),
            policy: self.policy,
            order: self.order,
            limits: self.limits.clone(),
            legs: Arc::clone(&self.legs),
            shadows: Arc::clone(&self.shadows),
            observer: Arc::clone(&self.observer),
            observed: self.observed,
            noise: self.noise.clone(),
            down: Arc::clone(&self.down),
            read_fallback: self.read_fallback,
            durations: self.durations,
            name_writes: self.name_writes,
        }
    }
}

impl<P> fmt::Debug for Settings<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("core", &self.core)
            .field("policy", &self.policy)
            .field("order", &self.order)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<P> Settings<P> {
    /// The stage in force for a read.
    #[inline]
    pub(crate) fn stage_of_read<Req, Res, E>(&self, word: Word, request: &Req) -> Stage
    where
        P: Protocol<Req, Res, E>,
    {
        stage_in_force(word.stage(), word.share(), || {
            // A function of the user's that panics must not fail the read.
            guarded(|| self.protocol.ramp_keys(request).covered_by(word.share(), self.core.seed()))
                .unwrap_or(false)
        })
    }

    /// Gives a write that runs alone its name, if that is switched on.
    #[inline]
    pub(crate) fn name<Req, Res, E>(&self, request: &Req, mark: Option<&mut Mark>)
    where
        P: Protocol<Req, Res, E>,
    {
        if self.name_writes
            && let Some(mark) = mark
            && mark.is_write()
        {
            mark.list(&self.protocol.name(request), Instant::now());
        }
    }

    /// What goes with a leg that runs alone, and is about to begin.
    #[inline]
    pub(crate) fn alone<Req, Res, E>(&self, mark: impl Into<Option<Mark>>) -> Alone<P::Glance>
    where
        P: Protocol<Req, Res, E>,
    {
        let mut mark = mark.into();
        if let Some(mark) = &mut mark {
            // Dropped before its head, a write may still land.
            mark.set_lingers(true);
        }
        let began = if self.durations { Some(now()) } else { None };
        Alone { mark, began, glance: self.protocol.glancing() }
    }

    fn observe(&self, event: &Event<'_>) {
        let observer = &self.observer;
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            observer.observe(event);
        }));
        if seen.is_err() {
            self.core.counters.observer_panicked();
            tracing::error!(target: "tower_migration", "an observer panicked");
        }
    }
}

/// Apart: most requests are not timed.
#[cold]
#[inline(never)]
fn now() -> Instant {
    Instant::now()
}

/// A service, and whether it has been polled ready. The readiness is used by
/// one call and never cloned.
#[derive(Debug)]
pub(crate) struct Ready<S> {
    service: S,
    ready: bool,
}

impl<S: Clone> Ready<S> {
    /// Takes the service out of `slot` with its readiness, and leaves a clone
    /// that has none.
    pub(crate) fn take(slot: &mut S, ready: &mut bool) -> Self {
        let clone = slot.clone();
        Self { service: std::mem::replace(slot, clone), ready: std::mem::take(ready) }
    }

    /// A clone without readiness.
    pub(crate) fn clone_of(service: &S) -> Self {
        Self { service: service.clone(), ready: false }
    }

    /// A clone without readiness, for later calls.
    fn again(&self) -> Self {
        Self::clone_of(&self.service)
    }
}

impl<S> Ready<S> {
    /// Asks for readiness, unless it is there.
    fn poll_ready<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        if !self.ready {
            ready!(self.service.poll_ready(cx))?;
            self.ready = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for readiness, unless it is there.
    async fn ready<Req>(&mut self) -> Result<(), S::Error>
    where
        S: Service<Req>,
    {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Calls the service; it must be ready, and is called once.
    fn call<Req>(&mut self, request: Req) -> S::Future
    where
        S: Service<Req>,
    {
        debug_assert!(self.ready, "a service is called once it has been polled ready");
        self.service.call(request)
    }
}
