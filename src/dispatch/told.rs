//! What the client of a dual write is told, once the authority's outcome is
//! known.

use std::future::ready;

use tokio::{sync::oneshot, time::timeout};
use tower_service::Service;

use super::{
    both_legs::Write,
    guard::{CatchPanic, Detached, Panicked},
    inner::Inner,
    other_leg::{OtherLeg, Told},
    record::Report,
};
use crate::{
    body::Tail,
    flag::BoxFuture,
    protocol::{Drained, Protocol},
    stage::{FailurePolicy, Outcome, Reply, Role, acknowledged_on_record, reply},
    telemetry::{LegFault, Refused, SkippedLeg},
};

impl<P, Req, Res, E> Write<P, Req, Res, E>
where
    P: Protocol<Req, Res, E>,
    Req: Send + 'static,
    Res: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    /// The end of an answer has told the outcome, or will not tell it. What is
    /// to be done is done here; the future waits for what the policy wants.
    pub(super) fn conclude<O>(
        self,
        ended: Result<Drained, LegFault>,
        mine: Option<Report<P>>,
        other: Option<OtherLeg<O, P>>,
        mut told: Option<oneshot::Receiver<Told>>,
    ) -> BoxFuture<'static, Option<Refused>>
    where
        O: Inner<Req> + Service<Req, Response = Res, Error = E>,
    {
        let protocol = &self.settings().protocol;
        let fault = protocol.spoiled(&self.whole, Role::Authority);
        let closed = fault == Some(LegFault::Closed) || matches!(ended, Err(LegFault::Closed));
        if closed {
            self.closed();
        }
        let mine = mine.expect("a leg reports once");
        let outcome = match (fault, ended) {
            (Some(fault), _) | (None, Err(fault)) => mine.failed(fault),
            (None, Ok(drained)) => {
                self.learn(&drained);
                self.record.doubt_if_overlapped();
                match drained.said {
                    Some((outcome, code)) => mine.answered(outcome, code),
                    None => mine.failed(LegFault::BodyFailed),
                }
            }
        };
        if let Some(leg) = other {
            if !self.settings().order.starts_other(Some(outcome)) {
                leg.skip(SkippedLeg::AuthorityDidNotApply);
            } else if protocol.follows() {
                leg.skip(SkippedLeg::HookDeclined);
            } else {
                told = Some(self.start_other(leg, None));
            }
        }
        if closed {
            // What the handler has made of half a request is not the answer.
            return Box::pin(ready(Some(Refused::StreamClosed)));
        }
        Box::pin(Detached::new(async move { self.reply(outcome, told).await }))
    }

    /// Takes over the keys that the authority's answer has told.
    pub(super) fn learn(&self, drained: &Drained) {
        if matches!(drained.said, Some((Outcome::Applied, _))) {
            self.record.learn(Role::Authority, drained.keys.clone());
        }
    }

    /// Waits for what the policy wants the client to wait for. `Some`: the
    /// client must be told that instead of the authority's answer.
    pub(super) async fn reply(
        &self,
        outcome: Outcome,
        told: Option<oneshot::Receiver<Told>>,
    ) -> Option<Refused> {
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
        let core = &self.settings().core;
        let unrecorded = self.word.raises() && core.is_unrecorded();
        if outcome == Outcome::Applied && acknowledged_on_record(unrecorded, theirs) {
            // Boxed: only a first flip's writes may have to.
            Box::pin(core.wait_recorded()).await;
        }
        // Two answers that name different things agree in their outcomes only; in
        // a ramp that is not enough, since either side is read from.
        let apart = self.word.ramps() && self.record.is_dirty();
        let reply = reply(policy, self.synced || moved, outcome, theirs);
        let partial = apart || reply == Reply::PartialWrite;
        if partial {
            core.counters.refused(Refused::PartialWrite);
        }
        partial.then_some(Refused::PartialWrite)
    }

    /// What the client waits for as things stand, and whether a hurried flip has
    /// made the other side the authority meanwhile.
    fn policy(&self) -> (FailurePolicy, bool) {
        let stage = self.settings().core.word().stage();
        let moved = stage.authority() != self.stage.authority();
        (self.settings().policy_under(self.word).effective(self.word.raises(), moved), moved)
    }

    pub(super) fn refuse(&self, reason: Refused) -> Result<P::Answer, E> {
        if reason != Refused::PartialWrite {
            // That one has been counted where it was found.
            self.settings().core.counters.refused(reason);
        }
        self.settings().protocol.refuse(reason)
    }

    /// `AuthorityFirst`: starts the other leg if the authority has applied the
    /// write.
    pub(super) async fn follow<O>(
        &self,
        leg: OtherLeg<O, P>,
        outcome: Outcome,
        ahead: &mut Result<Result<(P::Ahead, Tail), E>, Refused>,
    ) -> Option<oneshot::Receiver<Told>>
    where
        O: Inner<Req> + Service<Req, Response = Res, Error = E>,
    {
        if !self.settings().order.starts_other(Some(outcome)) {
            leg.skip(SkippedLeg::AuthorityDidNotApply);
            return None;
        }
        let protocol = &self.settings().protocol;
        let dispatch = self.dispatch(Role::Other);
        // An error may mean that what was asked for is so already: there is no
        // answer then that a hook could look at.
        let ahead = match ahead {
            Ok(Ok((ahead, _))) if protocol.follows() => ahead,
            _ => return Some(self.start_other(leg, None)),
        };
        let limits = &self.settings().limits;
        // A protocol may do its work, and panic, when it is called.
        let built =
            async { protocol.copy_after(&self.whole, dispatch, ahead, limits.captured_body).await };
        match timeout(limits.leg_timeout, CatchPanic::new(built)).await {
            Ok(Ok(Ok(request))) => return Some(self.start_other(leg, Some(Box::new(request)))),
            Ok(Ok(Err(reason))) => leg.skip(reason),
            Ok(Err(Panicked)) => leg.skip(SkippedLeg::HookDeclined),
            Err(_) => leg.skip(SkippedLeg::AnswerTooLarge),
        }
        None
    }
}
