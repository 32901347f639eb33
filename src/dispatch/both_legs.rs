//! The two legs of a write, and what its client is told.

use std::{fmt, sync::Arc};

use tokio::{runtime, sync::oneshot, time::timeout};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    guard::guarded,
    leg::{LegEnd, leg},
    other_leg::{Hold, OtherLeg, Told, abandon, outlive},
    record::{Record, Report},
};
use crate::{
    body::KeptEnd,
    flag::{Mark, Word},
    protocol::{Dispatch, Seam},
    reconcile::Place,
    stage::{FailurePolicy, Outcome, Reply, Role, Stage, acknowledged_on_record, reply},
    telemetry::{LegFault, Refused, SkippedLeg},
};

/// What both legs of one write share.
pub(super) struct Write<P: Seam<Req, Res>, Req, Res> {
    pub(super) settings: Arc<Settings<P>>,
    pub(super) record: Arc<Record<P>>,
    pub(super) whole: Arc<P::Whole>,
    /// What the write was admitted under.
    pub(super) word: Word,
    pub(super) stage: Stage,
    /// Whether the other side was synced when the write began.
    pub(super) synced: bool,
}

type Answered<P, Req, A> =
    Result<<P as Seam<Req, <A as Service<Req>>::Response>>::Answer, <A as Service<Req>>::Error>;

impl<P, Req, Res> Write<P, Req, Res>
where
    P: Seam<Req, Res>,
    Req: Send + 'static,
    Res: Send + 'static,
{
    fn dispatch(&self, role: Role) -> Dispatch {
        Dispatch {
            stage: self.stage,
            side: self.stage.side_of(role),
            role,
            migration: self.settings.core.id(),
        }
    }

    pub(super) fn span(&self, role: Role) -> tracing::Span {
        let Dispatch { stage, side, .. } = self.dispatch(role);
        tracing::info_span!(
            target: "tower_migration",
            "migration_leg",
            migration = %self.settings.core.name(),
            %side, %role, %stage
        )
    }

    pub(super) async fn run<A, O, E>(
        self,
        mut authority: Ready<A>,
        mark: Mark,
        place: Place,
        mine: Report<P>,
        mut other: Option<OtherLeg<O, P>>,
    ) -> Answered<P, Req, A>
    where
        A: Service<Req, Response = Res, Error = E, Future: Send> + Clone + Send + 'static,
        O: Service<Req, Response = Res, Error = E, Future: Send> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let limits = &self.settings.limits;
        let protocol = &self.settings.protocol;
        let mut told = None;
        if self.settings.order.starts_other(None)
            && let Some(leg) = other.take()
        {
            let request = protocol.copy(&self.whole, self.dispatch(Role::Other));
            told = Some(self.start_other(leg, request));
        }

        let request = protocol.copy(&self.whole, self.dispatch(Role::Authority));
        let mut hold = Hold { mark, place, _permit: None };
        // What was reserved by being ready (a permit, a slot) may be what the
        // one ahead is waiting for.
        if hold.place.waits() {
            authority = authority.again();
        }
        let turn = hold.place.turn();
        let mut running = Box::pin(
            leg(authority, request, turn, limits.ready_timeout)
                .instrument(self.span(Role::Authority)),
        );
        let ended = timeout(limits.leg_timeout, &mut running).await;
        hold.mark.record(mine.took());
        let (outcome, answer) = match ended {
            Ok(LegEnd::Answer(answer)) => {
                let outcome = protocol.judge(&self.whole, &answer);
                if outcome == Outcome::Applied {
                    self.record.learn_from::<Req, Res>(Role::Authority, &self.whole, &answer);
                }
                let outcome = mine.answered(outcome, P::code(&answer));
                (outcome, Ok(Ok((answer, hold.ended(outcome)))))
            }
            Ok(LegEnd::Error(error)) => {
                let outcome = mine.errored(&error);
                drop(hold.ended(outcome));
                (outcome, Ok(Err(error)))
            }
            Ok(LegEnd::Panicked) => {
                let outcome = mine.failed(LegFault::Panicked);
                drop(hold.ended(outcome));
                (outcome, Err(Refused::AuthorityPanicked))
            }
            Ok(LegEnd::NotReady) => {
                let outcome = mine.failed(LegFault::NotReady);
                drop(hold.ended(outcome));
                (outcome, Err(Refused::AuthorityNotReady))
            }
            Ok(LegEnd::Absorbed) => unreachable!("only the other leg's place may be absorbed"),
            Err(_) => {
                // The waiting has ended; the leg has not.
                let settings = Arc::clone(&self.settings);
                // Pays for the body until the leg has ended.
                let whole = Arc::clone(&self.whole);
                let permit = Arc::clone(&settings.legs).try_acquire_owned();
                let late = async move {
                    let _whole = whole;
                    if let LegEnd::Answer(answer) = running.await {
                        P::drain(answer).await;
                    }
                };
                tokio::spawn(async move {
                    // Over the bound of running legs it is given up at once.
                    match permit {
                        Ok(_permit) => outlive(&settings, late, hold).await,
                        Err(_) => abandon(&settings, late, hold).await,
                    }
                });
                (mine.failed(LegFault::Timeout), Err(Refused::AuthorityTimeout))
            }
        };

        let mut ahead = answer.map(|answer| answer.map(|(answer, mark)| (P::ahead(answer), mark)));
        if let Some(leg) = other {
            told = self.follow(leg, outcome, &mut ahead).await;
        }
        let (mut policy, mut moved) = self.policy();
        let theirs = match told.filter(|_| policy.awaits_other()) {
            None => Outcome::NotRun,
            Some(told) => {
                let theirs = match told.await {
                    Ok(Told::Ended(theirs)) => theirs,
                    Ok(Told::Absorbed) => outcome,
                    Err(_) => Outcome::Unknown,
                };
                // The flag may have moved during that wait.
                (policy, moved) = self.policy();
                theirs
            }
        };
        let core = &self.settings.core;
        let unrecorded = self.word.raises() && core.is_unrecorded();
        if outcome == Outcome::Applied && acknowledged_on_record(unrecorded, theirs) {
            core.wait_recorded().await;
        }
        let answer =
            ahead.map(|answer| answer.map(|(ahead, mark)| P::keep(ahead, self.kept_end(mark))));
        // Two answers that name different things agree in their outcomes only; in
        // a ramp that is not enough, since either side is read from.
        let apart = self.word.ramps() && self.record.is_dirty();
        let reply = reply(policy, self.synced || moved, outcome, theirs);
        if apart || reply == Reply::PartialWrite {
            return Ok(self.refuse(Refused::PartialWrite));
        }
        match answer {
            Ok(answer) => answer,
            Err(reason) => Ok(self.refuse(reason)),
        }
    }

    /// What the client waits for as things stand, and whether a hurried flip has
    /// made the other side the authority meanwhile.
    fn policy(&self) -> (FailurePolicy, bool) {
        let stage = self.settings.core.word().stage();
        let moved = stage.authority() != self.stage.authority();
        (self.settings.policy_under(self.word).effective(self.word.raises(), moved), moved)
    }

    fn refuse(&self, reason: Refused) -> P::Answer {
        self.settings.core.counters.refused(reason);
        self.settings.protocol.refuse(reason)
    }

    fn kept_end(&self, mark: Mark) -> KeptEnd {
        let record = Arc::clone(&self.record);
        KeptEnd {
            mark,
            limit: self.settings.limits.abandon_after,
            runtime: runtime::Handle::current(),
            broken: Box::new(move || record.answer_broke()),
        }
    }

    /// `AuthorityFirst`: starts the other leg if the authority has applied the
    /// write.
    async fn follow<O, E>(
        &self,
        leg: OtherLeg<O, P>,
        outcome: Outcome,
        ahead: &mut Result<Result<(P::Ahead, Mark), E>, Refused>,
    ) -> Option<oneshot::Receiver<Told>>
    where
        O: Service<Req, Response = Res, Error = E, Future: Send> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let starts = self.settings.order.starts_other(Some(outcome));
        let (true, Ok(Ok((ahead, _)))) = (starts, ahead) else {
            leg.skip(SkippedLeg::AuthorityDidNotApply);
            return None;
        };
        let protocol = &self.settings.protocol;
        let dispatch = self.dispatch(Role::Other);
        let request = if protocol.follows() {
            let limits = &self.settings.limits;
            let reading = P::read_ahead(ahead, limits.captured_body);
            let Ok(Some(answer)) = timeout(limits.leg_timeout, reading).await else {
                leg.skip(SkippedLeg::AnswerTooLarge);
                return None;
            };
            let built = guarded(|| protocol.copy_after(&self.whole, dispatch, &answer));
            match built.flatten() {
                Some(request) => request,
                None => {
                    leg.skip(SkippedLeg::HookDeclined);
                    return None;
                }
            }
        } else {
            protocol.copy(&self.whole, dispatch)
        };
        Some(self.start_other(leg, request))
    }
}
