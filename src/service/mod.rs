//! The service: two inner services behind one flag.

mod route;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use crate::{
    dispatch::{Inner, Ready, Settings, closable, plain},
    flag::{BoxFuture, Kind, Mark},
    future::{ResponseFuture, State},
    protocol::{Class, Http, Protocol},
    stage::{Operation, Side},
};

/// Made by [`MigrationLayer`](crate::MigrationLayer): an old and a new service
/// behind one flag.
///
/// `Clone + Send + Sync` where its inner services are.
///
/// # Readiness
///
/// `poll_ready` follows the authority of the moment and polls no other side.
/// The other leg of a write and a shadow read wait for readiness inside their
/// own time limits. If the flag flips between `poll_ready` and `call`, the side
/// that is needed now is waited for inside the future. So is new for a request
/// that a [`ramp`](crate::MigrationHandle::ramp) sends there.
///
/// # Cancel safety
///
/// Dropping the future of a write in a two-sided stage stops nothing once the
/// first leg has begun: both run to their end in a task. Before that (while the
/// body is collected, or while writes are held for a flip) neither side sees
/// the request. In a one-sided stage the inner future is dropped, as without
/// the layer. A shadow read goes on by itself.
///
/// # Panics
///
/// In a two-sided stage, `call`'s future must be polled inside a tokio runtime
/// with its time driver on. Polled outside of one, a write panics before either side
/// has seen it.
/// A panic of either side is caught in a dual write, and the authority's in a read that
/// the other side may answer instead (`read_fallback`); elsewhere the authority's passes
/// through, as without the layer.
#[must_use = "a service does nothing until it is called"]
pub struct Migration<Old, New, P = Http> {
    old: Old,
    new: New,
    /// Which side has been polled ready and not called since.
    old_ready: bool,
    new_ready: bool,
    /// Calls while nobody publishes the counters, as there was no runtime to do it in.
    unpublished: u8,
    settings: Arc<Settings<P>>,
}

impl<Old, New, P> Migration<Old, New, P> {
    pub(crate) const fn new(old: Old, new: New, settings: Arc<Settings<P>>) -> Self {
        Self { old, new, old_ready: false, new_ready: false, unpublished: 0, settings }
    }

    /// The old service.
    pub const fn old(&self) -> &Old {
        &self.old
    }

    /// The new service.
    pub const fn new_side(&self) -> &New {
        &self.new
    }
}

/// By hand: a clone has not been polled ready, whatever this one has.
impl<Old: Clone, New: Clone, P> Clone for Migration<Old, New, P> {
    fn clone(&self) -> Self {
        Self::new(self.old.clone(), self.new.clone(), Arc::clone(&self.settings))
    }
}

impl<Old: Clone, New: Clone, P> Migration<Old, New, P> {
    fn take_old(&mut self) -> Ready<Old> {
        Ready::take(&mut self.old, &mut self.old_ready)
    }

    fn take_new(&mut self) -> Ready<New> {
        Ready::take(&mut self.new, &mut self.new_ready)
    }

    /// A side that was polled ready and is not needed after all holds something
    /// back (a permit, a slot): its clone does not.
    fn release_all_but(&mut self, side: Side) {
        match side {
            Side::Old if self.new_ready => drop(self.take_new()),
            Side::New if self.old_ready => drop(self.take_old()),
            _ => {}
        }
    }
}

/// The future of a dual write or a watched read.
type Both<Answer, Error> = BoxFuture<'static, Result<Answer, Error>>;

type GlanceOf<Old, P, Req> =
    <P as Protocol<Req, <Old as Service<Req>>::Response, <Old as Service<Req>>::Error>>::Glance;

type FutureOf<Old, New, P, Req> = ResponseFuture<
    <Old as Service<Req>>::Future,
    <New as Service<Req>>::Future,
    Both<
        <P as Protocol<Req, <Old as Service<Req>>::Response, <Old as Service<Req>>::Error>>::Answer,
        <Old as Service<Req>>::Error,
    >,
    P,
    Req,
    GlanceOf<Old, P, Req>,
>;

impl<Old, New, P, Req> Service<Req> for Migration<Old, New, P>
where
    Old: Service<Req, Response: Send + 'static, Error: fmt::Display + Send + 'static, Future: Send>
        + Clone
        + Send
        + 'static,
    New: Service<Req, Response = Old::Response, Error = Old::Error, Future: Send>
        + Clone
        + Send
        + 'static,
    P: Protocol<Req, Old::Response, Old::Error>,
    Req: Send + 'static,
{
    type Response = P::Answer;
    type Error = Old::Error;
    type Future = FutureOf<Old, New, P, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Old::Error>> {
        match self.settings.core.word().stage().authority() {
            Side::Old => {
                if !self.old_ready {
                    ready!(self.old.poll_ready(cx))?;
                    self.old_ready = true;
                }
            }
            Side::New => {
                if !self.new_ready {
                    ready!(self.new.poll_ready(cx))?;
                    self.new_ready = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A request and an answer are a few hundred bytes each, and handing one on by
    /// value through a function copies it, which costs more than everything else
    /// here. So all is decided by looking at the request, and it is moved once.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if !self.settings.core.is_published() {
            self.look_for_a_runtime();
        }
        match self.way(&request) {
            Way::Old(mark) => {
                self.old_ready = false;
                let alone = self.settings.alone(mark);
                let future = self.old.call(request);
                ResponseFuture::with(State::Old { future }, alone)
            }
            Way::New(mark) => {
                self.new_ready = false;
                let alone = self.settings.alone(mark);
                let future = self.new.call(request);
                ResponseFuture::with(State::New { future }, alone)
            }
            Way::Slow(side, mark) => self.serve(side, request, mark),
            Way::More(class, sampled) => self.route(class, sampled, request),
        }
    }
}

impl<Old, New, P> Migration<Old, New, P> {
    /// Now and then only: where there is none, there will be none at the next call.
    #[cold]
    fn look_for_a_runtime(&mut self) {
        if self.unpublished.is_multiple_of(64) {
            self.settings.core.ensure_published();
        }
        self.unpublished = self.unpublished.wrapping_add(1);
    }
}

/// Where a request goes.
enum Way {
    /// To a side that is ready, and nowhere else.
    Old(Mark),
    New(Mark),
    /// To one side, about which something is special.
    Slow(Side, Option<Mark>),
    /// To both sides, perhaps.
    More(Class, bool),
}

impl<Old: Clone, New: Clone, P> Migration<Old, New, P> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is half of `call`")]
    fn way<Req>(&self, request: &Req) -> Way
    where
        Old: Inner<Req>,
        P: Protocol<Req, Old::Response, Old::Error>,
    {
        let settings = &*self.settings;
        let (core, protocol) = (&settings.core, &settings.protocol);
        if let Some(dispatch) = protocol.dispatched(request)
            && dispatch.migration == core.id()
        {
            // Another layer of this migration has decided, and counts.
            return Way::Slow(dispatch.side, None);
        }
        let class = match protocol.classify(request) {
            Class::Unlisted => {
                core.counters.unlisted(core.name());
                Class::Write
            }
            class => class,
        };
        let word = core.word();
        let side = word.stage().authority();
        // Decided before anything is copied or spawned.
        let mut sampled = false;
        let alone = match class {
            Class::Unlisted | Class::Upgrade => None,
            Class::Aside => Some(Operation::Read),
            Class::Read if !word.stage().is_two_sided() => Some(Operation::Read),
            Class::Write if !word.stage().is_two_sided() => Some(Operation::Write),
            Class::Write => None,
            Class::Read if word.ramps() => None,
            Class::Read => {
                sampled = settings.samples(word.stage());
                let covered = settings.read_fallback.is_some();
                (!sampled && !covered).then_some(Operation::Read)
            }
        };
        // Most requests need one leg and have it at once.
        if let Some(operation) = alone
            && (operation == Operation::Read || !word.holds())
            && let Ok(mark) = core.admit_leg(word, Kind::authority(operation, side))
        {
            let special = settings.name_writes || protocol.closes(request).is_some();
            return match (side, self.old_ready, self.new_ready) {
                (Side::Old, true, false) if !special => Way::Old(mark),
                (Side::New, false, true) if !special => Way::New(mark),
                _ => Way::Slow(side, Some(mark)),
            };
        }
        Way::More(class, sampled)
    }

    /// One leg, on `side`: a write that has a name or may be broken off, or on a
    /// side that was not polled ready, or not it alone.
    #[inline(never)]
    fn serve<Req>(
        &mut self,
        side: Side,
        request: Req,
        mut mark: Option<Mark>,
    ) -> FutureOf<Old, New, P, Req>
    where
        Old: Inner<Req>,
        New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
        P: Protocol<Req, Old::Response, Old::Error>,
        Req: Send + 'static,
    {
        self.release_all_but(side);
        self.settings.name(&request, mark.as_mut());
        let ready = match side {
            Side::Old => std::mem::take(&mut self.old_ready),
            Side::New => std::mem::take(&mut self.new_ready),
        };
        let glance = self.settings.protocol.glancing();
        if let Some(grace) = self.settings.protocol.closes(&request)
            && let Some(mark) = mark.take_if(|mark| mark.is_write())
        {
            let settings = Arc::clone(&self.settings);
            let future: Both<_, _> = match side {
                Side::Old => {
                    let old = Ready::take(&mut self.old, &mut { ready });
                    Box::pin(closable(settings, old, request, mark, grace))
                }
                Side::New => {
                    let new = Ready::take(&mut self.new, &mut { ready });
                    Box::pin(closable(settings, new, request, mark, grace))
                }
            };
            return ResponseFuture::both(future, glance);
        }
        if !ready {
            let again = self.settings.protocol.glancing();
            let future: Both<_, _> = match side {
                Side::Old => Box::pin(plain::<P, _, _>(again, self.take_old(), request, mark)),
                Side::New => Box::pin(plain::<P, _, _>(again, self.take_new(), request, mark)),
            };
            return ResponseFuture::both(future, glance);
        }
        let alone = self.settings.alone(mark);
        match side {
            Side::Old => ResponseFuture::with(State::Old { future: self.old.call(request) }, alone),
            Side::New => ResponseFuture::with(State::New { future: self.new.call(request) }, alone),
        }
    }
}

impl<Old: fmt::Debug, New: fmt::Debug, P> fmt::Debug for Migration<Old, New, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("old", &self.old)
            .field("new", &self.new)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
