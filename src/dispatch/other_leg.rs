//! The second leg of a dual write: a task of its own, to its own end.

use std::{
    fmt,
    future::pending,
    ops::ControlFlow::{Break, Continue},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    both_legs::Write,
    inner::Inner,
    leg::{LegEnd, Lent, late, leg, until},
    record::{Record, Report},
};
use crate::{
    flag::{BoxFuture, End, Mark, later},
    protocol::{Protocol, Said},
    reconcile::Place,
    stage::{Outcome, Role},
    telemetry::{LegFault, SkippedLeg},
};

/// What a leg keeps until it has ended, or lingered.
pub(super) struct Hold {
    pub(super) mark: Mark,
    pub(super) place: Place,
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// The authority's head is here. For the order of keys that is the leg's
    /// end: else a client that reads slowly would hold up everybody's writes of
    /// the key. The mark stays with the answer.
    pub(super) fn ended(self, outcome: Outcome) -> Mark {
        let Self { mut mark, .. } = self;
        mark.set_head(outcome.into());
        mark
    }

    /// The head is here, and the leg goes on: its answer's end will tell how it
    /// went, or its request still arrives. It keeps its place.
    pub(super) fn goes_on(mut self, said: Option<Outcome>) -> (Mark, Place) {
        self.mark.set_head(said.map_or(End::Dropped, End::from));
        (self.mark, self.place)
    }
}

/// What the client's future hears of the other leg.
pub(super) enum Told {
    Ended(Outcome),
    /// A copy brought what the authority made of the write.
    Absorbed,
}

/// The other leg, about to be run.
pub(super) struct OtherLeg<S, P: Send + Sync + 'static> {
    pub(super) service: Ready<S>,
    pub(super) hold: Hold,
    pub(super) report: Report<P>,
}

impl<P, Req, Res, E> Write<P, Req, Res, E>
where
    P: Protocol<Req, Res, E>,
    Req: Send + 'static,
    Res: Send + 'static,
    E: fmt::Display + Send + 'static,
{
    /// Runs the other leg in a task of its own, to its end. `given` is its request, if
    /// that is another than the authority's. Boxed: most have none.
    pub(super) fn start_other<O>(
        &self,
        other: OtherLeg<O, P>,
        given: Option<Box<Req>>,
    ) -> oneshot::Receiver<Told>
    where
        O: Inner<Req> + Service<Req, Response = Res, Error = E>,
    {
        let (tell, told) = oneshot::channel();
        let record = Arc::clone(&self.record);
        let whole = Arc::clone(&self.whole);
        let OtherLeg { service, mut hold, mut report } = other;
        let turn = hold.place.turn();
        let closing = self.closing(&hold.mark);
        let dispatch = self.dispatch(Role::Other);
        let task = async move {
            let settings = record.settings();
            let mut running = pin!(Some(async {
                // Made here, where no client waits for it.
                let copy = || settings.protocol.copy(&whole, dispatch);
                let ready_timeout = settings.limits.ready_timeout;
                let request = given.map_or_else(copy, |given| *given);
                let end = leg(service, request, turn, ready_timeout).await;
                OtherEnd::of(settings, &record, &*whole, end).await
            }));
            let mut running = Lent::new(running.as_mut());
            let ended = {
                let (record, whole) = (&record, &whole);
                // Let go before anybody outlives a leg: that may take minutes.
                until(&mut running, late(move || settings.other_given_up(record, whole, closing)))
                    .await
            };
            match ended {
                Some(end) => {
                    hold.mark.record(report.took());
                    let absorbed = matches!(end, OtherEnd::Absorbed);
                    let outcome = end.report(report);
                    hold.mark.set_end(outcome.into());
                    drop(hold);
                    // The client may not wait for it.
                    let _ = tell.send(if absorbed { Told::Absorbed } else { Told::Ended(outcome) });
                }
                None if record.is_closed() => {
                    let _ = tell.send(Told::Ended(report.failed(LegFault::Closed)));
                    Box::pin(abandon(settings, running, hold)).await;
                }
                // Boxed, here and above: few legs are given up.
                None => {
                    let _ = tell.send(Told::Ended(report.failed(LegFault::Timeout)));
                    Box::pin(outlive(settings, running, hold)).await;
                    record.other_ended();
                }
            }
        };
        // Boxed, since tokio copies a task whenever it hands it on.
        tokio::spawn(Box::pin(task).instrument(self.span(Role::Other)));
        told
    }
}

impl<P: Send + Sync + 'static> Settings<P> {
    /// Resolves when nobody is to wait for a dual write's other leg any longer.
    async fn other_given_up<Req, Res, E>(
        &self,
        record: &Record<P>,
        whole: &P::Whole,
        closing: Option<BoxFuture<'static, ()>>,
    ) where
        P: Protocol<Req, Res, E>,
    {
        let limit = self.limits.leg_timeout;
        let mut patience = pin!(async {
            // In a call that goes both ways, one that has answered may have
            // no use for more of the request, as long as the authority goes on.
            let talks = || record.other_has_answered() && !record.authority_has_said();
            if self.patience(whole, Role::Other, closing, talks).await {
                record.close();
                return pending().await;
            }
            // The rest of an answer may take as long as the authority's.
            if record.other_has_answered() {
                let said = record.authority_said().await;
                sleep_until(later_than(said, limit)).await;
            }
        });
        // One that was broken off has to come to its end. So has one whose
        // authority has ended a call that its client could still go on with.
        let closed = async {
            let over = async {
                let said = record.authority_said().await;
                if !self.protocol.answer_ends_request() {
                    return pending().await;
                }
                sleep_until(later_than(said, limit)).await;
                self.protocol.close(whole);
            };
            let _ = until(&mut pin!(record.closed()), over).await;
            sleep(self.core.linger()).await;
        };
        let _ = until(&mut patience, closed).await;
    }
}

pub(super) fn later_than(from: Instant, limit: Duration) -> Instant {
    from.checked_add(limit).unwrap_or_else(|| later(limit))
}

/// Waits for a leg that nobody else waits for any more, until it is given up.
/// What it holds, it holds until then, and through the linger.
pub(super) async fn outlive<P, F: Future>(settings: &Settings<P>, running: F, mut hold: Hold) {
    hold.mark.timed_out();
    let mut running = Box::pin(running);
    if timeout(settings.limits.abandon_after, &mut running).await.is_err() {
        abandon(settings, running, hold).await;
    }
}

/// Drops a leg, which may land all the same for a while.
pub(super) async fn abandon<P, F>(settings: &Settings<P>, running: F, mut hold: Hold) {
    drop(running);
    hold.mark.timed_out();
    settings.core.counters.fault(hold.mark.side(), LegFault::Abandoned);
    sleep(settings.core.linger()).await;
    drop(hold);
}

/// How the other leg ended, its answer read to the end and thrown away.
enum OtherEnd {
    Answered(Outcome, u16),
    Error(Outcome, String),
    Failed(LegFault),
    Absorbed,
}

impl OtherEnd {
    fn of<P, Req, Res, E>(
        settings: &Settings<P>,
        record: &Record<P>,
        whole: &P::Whole,
        end: LegEnd<Res, E>,
    ) -> impl Future<Output = Self>
    where
        P: Protocol<Req, Res, E>,
        E: fmt::Display,
    {
        let protocol = &settings.protocol;
        let spoiled = move || protocol.spoiled(whole, Role::Other);
        let ended = match end {
            LegEnd::Answer(answer) => {
                record.other_answers();
                let said = protocol.judge(whole, &answer);
                if matches!(said, Said::Now(Outcome::Applied, _)) {
                    record.learn_from(Role::Other, whole, &answer);
                }
                // A handler that streams may still be writing.
                Continue((protocol.drain(whole, answer), said))
            }
            LegEnd::Error(error) => Break(match spoiled() {
                Some(fault) => Self::Failed(fault),
                None => {
                    Self::Error(protocol.judge_error(whole, &error), crate::text::short(&error))
                }
            }),
            LegEnd::Panicked => Break(Self::Failed(LegFault::Panicked)),
            LegEnd::NotReady => Break(Self::Failed(LegFault::NotReady)),
            LegEnd::Absorbed => Break(Self::Absorbed),
        };
        async move {
            match ended {
                Break(ended) => ended,
                Continue((draining, said)) => {
                    let drained = draining.await;
                    // One that has answered may still be reading its request.
                    if !settings.is_given(whole, Role::Other) {
                        Box::pin(protocol.given(whole, Role::Other)).await;
                    }
                    let Ok(drained) = drained else {
                        return Self::Failed(spoiled().unwrap_or(LegFault::BodyFailed));
                    };
                    if let Some(fault) = spoiled() {
                        return Self::Failed(fault);
                    }
                    match (drained.said, said) {
                        (Some((outcome, code)), _) => {
                            if outcome == Outcome::Applied {
                                record.learn(Role::Other, drained.keys);
                            }
                            Self::Answered(outcome, code)
                        }
                        (None, Said::Now(outcome, code)) => {
                            if outcome == Outcome::Applied {
                                record.learn(Role::Other, drained.keys);
                            }
                            Self::Answered(outcome, code)
                        }
                        (None, Said::AtEnd) => Self::Failed(LegFault::BodyFailed),
                    }
                }
            }
        }
    }

    fn report<P: Send + Sync + 'static>(self, report: Report<P>) -> Outcome {
        match self {
            Self::Answered(outcome, code) => report.answered(outcome, code),
            Self::Error(outcome, error) => report.errored(outcome, &error),
            Self::Failed(fault) => report.failed(fault),
            Self::Absorbed => report.absorbed(),
        }
    }
}

impl<S, P: Send + Sync + 'static> OtherLeg<S, P> {
    /// The leg, if it has what it needs.
    pub(super) fn of(service: Ready<S>, rest: Option<(Hold, Report<P>)>) -> Option<Self> {
        rest.map(|(hold, report)| Self { service, hold, report })
    }

    pub(super) fn skip(self, reason: SkippedLeg) {
        self.report.skipped(reason);
        self.hold.mark.unused();
    }
}
