//! A write in a two-sided stage, from its body to its answer.

use std::{fmt, sync::Arc};

use tokio::{
    runtime,
    sync::oneshot,
    time::{Instant, timeout},
};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    guard::{Detached, guarded},
    leg::{LegEnd, leg},
    other_leg::{Hold, OtherLeg, Told, abandon, outlive},
    record::{Record, Report},
};
use crate::{
    body::KeptEnd,
    flag::{Admission, Mark, Word},
    protocol::{Dispatch, Seam},
    reconcile::{Keys, Place},
    stage::{
        FailurePolicy, Outcome, Reply, Role, Side, Stage, acknowledged_on_record, reply,
        stage_in_force,
    },
    telemetry::{LegFault, Refused, SkippedLeg},
};

/// Collects the request, takes the places of both legs, and runs them. From
/// the first leg's start on, dropping this future stops nothing.
pub(crate) async fn dual_write<P, Old, New, Req>(
    settings: Arc<Settings<P>>,
    mut admission: Admission,
    old: Ready<Old>,
    new: Ready<New>,
    request: Req,
) -> Result<P::Answer, Old::Error>
where
    P: Seam<Req, Old::Response>,
    Old: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    New: Service<Req, Response = Old::Response, Error = Old::Error, Future: Send>
        + Clone
        + Send
        + 'static,
    Req: Send + 'static,
{
    let core = &settings.core;
    let label = settings.protocol.name(&request);
    admission.list(&label, Instant::now());
    let collected = settings.protocol.collect(request, &settings.limits, &core.buffered).await;
    let whole = match collected {
        Ok(whole) => whole,
        Err(reason) => return Ok(settings.refuse_unseen(reason, admission)),
    };
    let keys = settings.protocol.keys(&whole);
    let word = admission.word;
    let covered = || {
        let covered =
            || settings.protocol.partition_whole(&whole, &keys, word.share(), core.seed());
        guarded(covered).unwrap_or(false)
    };
    let admission = match stage_in_force(word.stage(), word.share(), covered) {
        stage if stage == admission.stage => admission,
        _ => admission.turned(),
    };
    match admission.stage.authority() {
        Side::Old => two_legs(settings, admission, old, new, (whole, label, keys)).await,
        Side::New => two_legs(settings, admission, new, old, (whole, label, keys)).await,
    }
}

/// Runs both legs of a write that is here as a whole.
async fn two_legs<P, A, O, Req>(
    settings: Arc<Settings<P>>,
    admission: Admission,
    authority: Ready<A>,
    other: Ready<O>,
    (whole, label, keys): (P::Whole, Arc<str>, Keys),
) -> Result<P::Answer, A::Error>
where
    P: Seam<Req, A::Response>,
    A: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    O: Service<Req, Response = A::Response, Error = A::Error, Future: Send> + Send + 'static,
    Req: Send + 'static,
{
    let core = &settings.core;
    let Admission { word, stage, .. } = admission;
    let side = stage.authority();
    // A ramp began with new synced, and keeps the sides equal.
    let synced = word.ramps() || core.is_synced(side.other());
    let permit = Arc::clone(&settings.legs).try_acquire_owned().ok();
    let places = core.order.take(&keys, side, settings.limits.key_queue);
    let age = places.authority.id();
    let room = match (permit, places.other) {
        (None, _) => Err(SkippedLeg::RunningLegs),
        (Some(_), None) => Err(SkippedLeg::KeyQueue),
        (Some(permit), Some(place)) => Ok((permit, place)),
    };
    // Refused before either side has seen it, rather than split for certain.
    let policy = settings.policy_under(word);
    if room.is_err() && policy == FailurePolicy::RequireBoth && synced {
        return Ok(settings.refuse_unseen(Refused::Overloaded, admission));
    }

    let Admission { authority: mark, other: other_mark, .. } = admission;
    let other_mark = other_mark.expect("a dual write is admitted with two marks");
    let whole = Arc::new(whole);
    let (record, mine, theirs) = Record::new(Arc::clone(&settings), label, stage, age, keys);
    let write = Write {
        word,
        synced,
        stage,
        whole: Arc::clone(&whole),
        record: Arc::clone(&record),
        settings: Arc::clone(&settings),
    };
    let other_leg = match room {
        Ok((permit, place)) => Ok(OtherLeg {
            service: other,
            hold: Hold { mark: other_mark, place, _permit: Some(permit) },
            report: theirs,
        }),
        Err(reason) => {
            other_mark.unused();
            theirs.skipped(reason);
            Err(reason)
        }
    };
    Detached::new(write.run(authority, mark, places.authority, mine, other_leg.ok())).await
}

impl<P> Settings<P> {
    /// Answers a write that neither side has seen.
    fn refuse_unseen<Req, Res>(&self, reason: Refused, admission: Admission) -> P::Answer
    where
        P: Seam<Req, Res>,
    {
        self.core.counters.refused(reason);
        admission.authority.unused();
        admission.other.into_iter().for_each(Mark::unused);
        self.protocol.refuse(reason)
    }

    /// The policy of a write that was admitted under `word`: while a ramp lasts,
    /// reads of some keys go to the other side, so nothing is acknowledged that
    /// is not on both.
    const fn policy_under(&self, word: Word) -> FailurePolicy {
        if word.ramps() { FailurePolicy::RequireBoth } else { self.policy }
    }
}

/// What both legs of one write share.
pub(super) struct Write<P: Seam<Req, Res>, Req, Res> {
    pub(super) settings: Arc<Settings<P>>,
    pub(super) record: Arc<Record<P>>,
    pub(super) whole: Arc<P::Whole>,
    /// What the write was admitted under.
    word: Word,
    stage: Stage,
    /// Whether the other side was synced when the write began.
    synced: bool,
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

    async fn run<A, O, E>(
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
        if reply(policy, self.synced || moved, outcome, theirs) == Reply::PartialWrite {
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
