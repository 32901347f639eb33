//! The two legs of a write, and what its client is told.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use tokio::{runtime, time::sleep};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    closing::Grace,
    inner::Inner,
    leg::{LegEnd, late, leg, until},
    other_leg::{Hold, OtherLeg, abandon, outlive},
    record::{Record, Report},
};
use crate::{
    body::{Ending, Tail, Then},
    flag::{BoxFuture, Word},
    protocol::{Closing, Dispatch, Protocol, Said},
    reconcile::Unsure,
    stage::{Outcome, Role, Stage},
    telemetry::{LegFault, Refused},
};

/// What both legs of one write share.
pub(super) struct Write<P: Protocol<Req, Res, E>, Req, Res, E> {
    pub(super) record: Arc<Record<P>>,
    pub(super) whole: Arc<P::Whole>,
    /// What the write was admitted under.
    pub(super) word: Word,
    pub(super) stage: Stage,
    /// Whether the other side was synced when the write began.
    pub(super) synced: bool,
    /// Kept while its answer may tell further keys: what is done to them
    /// meanwhile is remembered.
    pub(super) _unsure: Option<Unsure>,
    /// How long it may keep a step waiting, if it may not for ever.
    pub(super) grace: Option<Grace>,
}

impl<P: Protocol<Req, Res, E>, Req, Res, E> Write<P, Req, Res, E> {
    pub(super) fn settings(&self) -> &Arc<Settings<P>> {
        self.record.settings()
    }
}

type Answered<P, Req, A> = Result<
    <P as Protocol<Req, <A as Service<Req>>::Response, <A as Service<Req>>::Error>>::Answer,
    <A as Service<Req>>::Error,
>;

/// What the authority's leg has come to, once its head is here.
enum Headed<Ahead, E> {
    Answer(Ahead, Tail),
    /// The outcome will be told at the answer's end.
    Open(Ahead, Tail),
    Error(E),
    Refused(Refused),
}

impl<P, Req, Res, E> Write<P, Req, Res, E>
where
    P: Protocol<Req, Res, E>,
    Req: Send + 'static,
    Res: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    pub(super) fn dispatch(&self, role: Role) -> Dispatch {
        Dispatch {
            stage: self.stage,
            side: self.stage.side_of(role),
            role,
            migration: self.settings().core.id(),
        }
    }

    pub(super) fn span(&self, role: Role) -> tracing::Span {
        let Dispatch { stage, side, .. } = self.dispatch(role);
        tracing::info_span!(
            target: "tower_migration",
            "migration_leg",
            migration = %self.settings().core.name(),
            %side, %role, %stage
        )
    }

    /// Runs both, as long as anybody has to wait for them.
    ///
    /// No `async fn`, here and below: that would hold its arguments twice.
    pub(super) fn run<A, O>(
        self,
        authority: Ready<A>,
        hold: Hold,
        mine: Report<P>,
        mut other: Option<OtherLeg<O, P>>,
    ) -> impl Future<Output = Answered<P, Req, A>> + Send
    where
        A: Inner<Req> + Service<Req, Response = Res, Error = E>,
        O: Inner<Req> + Service<Req, Response = Res, Error = E>,
    {
        async move {
            let mut told = None;
            if self.settings().order.starts_other(None)
                && let Some(leg) = other.take()
            {
                told = Some(self.start_other(leg, None));
            }
            let mut mine = Some(mine);
            let [closing, alone] = [self.closing(&hold.mark), self.closing(&hold.mark)];
            // A block, so that only what is left of it is carried about.
            let (outcome, mut ahead) = {
                let (outcome, headed) = self.lead(authority, hold, &mut mine).await;
                let ahead = match headed {
                    Headed::Open(ahead, tail) => {
                        let (whole, settings) =
                            (Arc::clone(&self.whole), Arc::clone(self.settings()));
                        let then = |ended| self.conclude(ended, mine, other, told);
                        let mut ending = settings.ending(tail, Then::Awaited(Box::new(then)));
                        // Its own, should its client leave.
                        ending.closing = alone;
                        let answer = settings.protocol.keep(&whole, ahead, ending);
                        return Ok(match closing {
                            // The write's end counts it.
                            Some(closing) => {
                                settings.protocol.close_when(answer, Closing::new(closing, || ()))
                            }
                            None => answer,
                        });
                    }
                    Headed::Answer(ahead, tail) => Ok(Ok((ahead, tail))),
                    Headed::Error(error) => Ok(Err(error)),
                    Headed::Refused(reason) => Err(reason),
                };
                (outcome, ahead)
            };
            if let Some(leg) = other {
                // Boxed: most writes do not follow.
                told = Box::pin(self.follow(leg, outcome, &mut ahead)).await;
            }
            if matches!(ahead, Err(Refused::StreamClosed)) {
                return self.refuse(Refused::StreamClosed);
            }
            let refused = self.reply(outcome, told).await;
            let answer = ahead.map(|answer| {
                answer.map(|(ahead, tail)| {
                    let record = Arc::clone(&self.record);
                    let broken = Then::Known(Box::new(move || record.answer_broke()));
                    let mut ending = self.settings().ending(tail, broken);
                    ending.closing = alone;
                    let answer = self.settings().protocol.keep(&self.whole, ahead, ending);
                    let Some(closing) = closing else {
                        return answer;
                    };
                    let core = Arc::clone(&self.settings().core);
                    let closing = Closing::new(closing, move || core.counters.closed_stream());
                    self.settings().protocol.close_when(answer, closing)
                })
            });
            match (refused, answer) {
                // Dropped, the authority's answer is read to its end by a task.
                (Some(reason), _) | (None, Err(reason)) => self.refuse(reason),
                (None, Ok(answer)) => answer,
            }
        }
    }

    /// Resolves when nobody is to wait for the authority's leg any longer, and says
    /// whether it was broken off.
    async fn given_up(&self, closing: Option<BoxFuture<'static, ()>>, broken_off: &AtomicBool) {
        let patience = self.settings().patience(&self.whole, Role::Authority, closing, || false);
        let closed = patience.await;
        broken_off.store(closed, Ordering::Relaxed);
        if closed {
            // One that gets nothing more has to come to its end.
            sleep(self.settings().core.linger()).await;
        }
    }

    /// The authority's leg, to its head. `mine` is left where the outcome is not
    /// known yet.
    fn lead<A>(
        &self,
        mut authority: Ready<A>,
        mut hold: Hold,
        mine: &mut Option<Report<P>>,
    ) -> impl Future<Output = (Outcome, Headed<P::Ahead, E>)> + Send
    where
        A: Inner<Req> + Service<Req, Response = Res, Error = E>,
    {
        async move {
            let limits = &self.settings().limits;
            let protocol = &self.settings().protocol;
            let request = protocol.copy(&self.whole, self.dispatch(Role::Authority));
            // What was reserved by being ready (a permit, a slot) may be what the
            // one ahead is waiting for.
            if hold.place.waits() {
                authority = authority.again();
            }
            let turn = hold.place.turn();
            // The span is around the box: a future is copied when it is wrapped.
            let mut running = Box::pin(leg(authority, request, turn, limits.ready_timeout))
                .instrument(self.span(Role::Authority));
            let closing = self.closing(&hold.mark);
            let broken_off = AtomicBool::new(false);
            let ended = {
                let broken_off = &broken_off;
                until(&mut running, late(move || self.given_up(closing, broken_off))).await
            };
            let broken_off = broken_off.load(Ordering::Relaxed);
            let mut report = mine.take().expect("a leg reports once");
            hold.mark.record(report.took());
            let spoiled = protocol.spoiled(&self.whole, Role::Authority);
            match ended {
                Some(LegEnd::Answer(_)) if spoiled == Some(LegFault::Closed) => {
                    self.closed();
                    let outcome = report.failed(LegFault::Closed);
                    drop(hold.ended(outcome));
                    (outcome, Headed::Refused(Refused::StreamClosed))
                }
                Some(LegEnd::Answer(answer)) => {
                    let said = protocol.judge(&self.whole, &answer);
                    if spoiled.is_none() && matches!(said, Said::Now(Outcome::Applied, _)) {
                        self.record.learn_from(Role::Authority, &*self.whole, &answer);
                    }
                    let mut ahead = P::ahead(answer);
                    let said = match said {
                        Said::Now(outcome, code) => Some((outcome, code)),
                        Said::AtEnd => {
                            protocol.ahead_said(&self.whole, &mut ahead).and_then(|drained| {
                                self.learn(&drained);
                                drained.said
                            })
                        }
                    };
                    let outcome = match (spoiled, said) {
                        (None, Some((outcome, code))) => report.answered(outcome, code),
                        (Some(fault), Some(_)) => report.failed(fault),
                        (_, None) => {
                            report.goes_on();
                            *mine = Some(report);
                            let tail = self.tail(hold, None);
                            return (Outcome::Unknown, Headed::Open(ahead, tail));
                        }
                    };
                    let tail = self.tail(hold, Some(outcome));
                    (outcome, Headed::Answer(ahead, tail))
                }
                Some(LegEnd::Error(error)) => {
                    let outcome = match spoiled {
                        Some(fault) => report.failed(fault),
                        None => report.errored(protocol.judge_error(&self.whole, &error), &error),
                    };
                    drop(hold.ended(outcome));
                    (outcome, Headed::Error(error))
                }
                Some(LegEnd::Panicked) => {
                    let outcome = report.failed(LegFault::Panicked);
                    drop(hold.ended(outcome));
                    (outcome, Headed::Refused(Refused::AuthorityPanicked))
                }
                Some(LegEnd::NotReady) => {
                    let outcome = report.failed(LegFault::NotReady);
                    drop(hold.ended(outcome));
                    (outcome, Headed::Refused(Refused::AuthorityNotReady))
                }
                Some(LegEnd::Absorbed) => {
                    unreachable!("only the other leg's place may be absorbed")
                }
                None => {
                    // The waiting has ended; the leg has not.
                    let settings = Arc::clone(self.settings());
                    // Pays for the body until the leg has ended.
                    let whole = Arc::clone(&self.whole);
                    let permit = Arc::clone(&settings.legs).try_acquire_owned();
                    // Nor is one waited for that was closed.
                    let permit = permit.ok().filter(|_| !broken_off);
                    if broken_off {
                        self.closed();
                    }
                    let late = {
                        let settings = Arc::clone(&settings);
                        async move {
                            if let LegEnd::Answer(answer) = running.await {
                                let _ = settings.protocol.drain(&whole, answer).await;
                            }
                        }
                    };
                    tokio::spawn(async move {
                        // Over the bound of running legs it is given up at once.
                        match permit {
                            Some(_permit) => outlive(&settings, late, hold).await,
                            None => abandon(&settings, late, hold).await,
                        }
                    });
                    let (fault, reason) = if broken_off {
                        (LegFault::Closed, Refused::StreamClosed)
                    } else {
                        (LegFault::Timeout, Refused::AuthorityTimeout)
                    };
                    (report.failed(fault), Headed::Refused(reason))
                }
            }
        }
    }
}

impl<P, Req, Res, E> Write<P, Req, Res, E>
where
    P: Protocol<Req, Res, E>,
    Req: Send + 'static,
    Res: Send + 'static,
    E: Send + 'static,
{
    /// What the authority's leg keeps to its answer's end. As far as the order of
    /// keys goes it is over with its head: a client that reads slowly, or talks for
    /// hours, must not hold up everybody's writes of the key. If its end will tell
    /// how it went, or its request still arrives, it may yet do things: then its
    /// keys are watched. Without a key it is in nobody's way, and stays.
    fn tail(&self, hold: Hold, said: Option<Outcome>) -> Tail {
        let runtime = runtime::Handle::current();
        let is_given = self.settings().is_given(&self.whole, Role::Authority);
        if let (Some(outcome), true) = (said, is_given) {
            return Tail::new(hold.ended(outcome), None, runtime);
        }
        let watched = self.record.watch_keys();
        let (mark, place) = hold.goes_on(said);
        let place = if watched { None } else { Some(place) };
        if is_given && place.is_none() {
            return Tail::new(mark, None, runtime);
        }
        let (settings, whole) = (Arc::clone(self.settings()), Arc::clone(&self.whole));
        let record = Arc::clone(&self.record);
        let before = settings.protocol.spoiled(&whole, Role::Authority);
        let rest = async move {
            let _place = place;
            if is_given {
                return;
            }
            let spoiled = || settings.protocol.spoiled(&whole, Role::Authority);
            // What has been reported already.
            let before = if said.is_some() { before } else { spoiled() };
            settings.protocol.given(&whole, Role::Authority).await;
            if before.is_none()
                && let Some(fault) = spoiled()
            {
                record.came_to_harm(fault);
            }
            record.mark_if_overlapped();
        };
        Tail::new(mark, Some(Box::pin(rest)), runtime)
    }
}

impl<P> Settings<P> {
    /// Whether a leg has been given its whole request by now. Most have, and nothing
    /// is made to wait for it.
    pub(super) fn is_given<Req, Res, E>(&self, whole: &P::Whole, role: Role) -> bool
    where
        P: Protocol<Req, Res, E>,
    {
        let given = pin!(self.protocol.given(whole, role));
        given.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn ending(&self, tail: Tail, then: Then) -> Ending {
        Ending { tail, patience: self.limits.abandon_after, closing: None, then }
    }
}
