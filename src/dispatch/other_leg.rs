//! The second leg of a dual write: a task of its own, to its own end.

use std::{fmt, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{sleep, timeout},
};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    both_legs::Write,
    leg::{LegEnd, leg},
    record::{Record, Report},
};
use crate::{
    flag::Mark,
    protocol::Seam,
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

impl<P, Req, Res> Write<P, Req, Res>
where
    P: Seam<Req, Res>,
    Req: Send + 'static,
    Res: Send + 'static,
{
    /// Runs the other leg in a task of its own, to its end.
    pub(super) fn start_other<O, E>(
        &self,
        other: OtherLeg<O, P>,
        request: Req,
    ) -> oneshot::Receiver<Told>
    where
        O: Service<Req, Response = Res, Error = E, Future: Send> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let settings = Arc::clone(&self.settings);
        let record = Arc::clone(&self.record);
        let whole = Arc::clone(&self.whole);
        let OtherLeg { service, mut hold, report } = other;
        let turn = hold.place.turn();
        let run = {
            let (settings, record) = (Arc::clone(&settings), Arc::clone(&record));
            async move {
                let end = leg(service, request, turn, settings.limits.ready_timeout).await;
                OtherEnd::of::<P, Req, Res, E>(&settings, &record, &whole, end).await
            }
        };
        let task = async move {
            let mut running = Box::pin(run);
            match timeout(settings.limits.leg_timeout, &mut running).await {
                Ok(end) => {
                    hold.mark.record(report.took());
                    let absorbed = matches!(end, OtherEnd::Absorbed);
                    let outcome = end.report(report);
                    hold.mark.set_end(outcome.into());
                    record.other_ended();
                    drop(hold);
                    // The client may not wait for it.
                    let _ = tell.send(if absorbed { Told::Absorbed } else { Told::Ended(outcome) });
                }
                Err(_) => {
                    let _ = tell.send(Told::Ended(report.failed(LegFault::Timeout)));
                    outlive(&settings, running, hold).await;
                    record.other_ended();
                }
            }
        };
        tokio::spawn(task.instrument(self.span(Role::Other)));
        told
    }
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
    Error(String),
    Failed(LegFault),
    Absorbed,
}

impl OtherEnd {
    async fn of<P, Req, Res, E>(
        settings: &Settings<P>,
        record: &Record<P>,
        whole: &P::Whole,
        end: LegEnd<Res, E>,
    ) -> Self
    where
        P: Seam<Req, Res>,
        E: fmt::Display,
    {
        match end {
            LegEnd::Answer(answer) => {
                let protocol = &settings.protocol;
                let outcome = protocol.judge(whole, &answer);
                if outcome == Outcome::Applied {
                    record.learn_from::<Req, Res>(Role::Other, whole, &answer);
                }
                let code = P::code(&answer);
                // A handler that streams may still be writing.
                if P::drain(answer).await {
                    Self::Answered(outcome, code)
                } else {
                    Self::Failed(LegFault::BodyFailed)
                }
            }
            LegEnd::Error(error) => Self::Error(error.to_string()),
            LegEnd::Panicked => Self::Failed(LegFault::Panicked),
            LegEnd::NotReady => Self::Failed(LegFault::NotReady),
            LegEnd::Absorbed => Self::Absorbed,
        }
    }

    fn report<P: Send + Sync + 'static>(self, report: Report<P>) -> Outcome {
        match self {
            Self::Answered(outcome, code) => report.answered(outcome, code),
            Self::Error(error) => report.errored(&error),
            Self::Failed(fault) => report.failed(fault),
            Self::Absorbed => report.absorbed(),
        }
    }
}

impl<S, P: Send + Sync + 'static> OtherLeg<S, P> {
    pub(super) fn skip(self, reason: SkippedLeg) {
        self.report.skipped(reason);
        self.hold.mark.unused();
    }
}
