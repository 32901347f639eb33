//! Reading the other side, comparing, and reading again.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::Poll,
};

use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::{
    super::{Ready, guard::CatchPanic, inner::Inner},
    Shadow,
};
use crate::{
    body::{CaptureError, Room},
    compare::{Diff, FailReason, InconclusiveReason, SkipReason, Verdict},
    protocol::Protocol,
    reconcile::Observation,
    stage::{Outcome, Side},
};

/// How far a shadow read has come; what a deadline means depends on it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    phase: AtomicU8,
    pub(super) rereads: AtomicU32,
    /// In microseconds; 0: no head has come.
    pub(super) other_took: AtomicU32,
    /// What the other side's head said, an [`Outcome`].
    other_said: AtomicU8,
    /// The client has the whole of the authority's answer, and so has the layer.
    mine: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Request,
    Ready,
    Call,
    /// The other side's head is here, the rest of its answer is not.
    Body,
    Answer,
    Again,
}

impl Progress {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    pub(super) fn mine_has_ended(&self) -> bool {
        self.mine.load(Ordering::Relaxed)
    }

    /// What the other side's head said: `Applied` if none has come.
    pub(super) fn other_said(&self) -> Outcome {
        let said = usize::from(self.other_said.load(Ordering::Relaxed));
        Outcome::ALL.get(said).copied().unwrap_or(Outcome::Applied)
    }
}

/// What a side has answered.
enum Seen<C> {
    Answer(C),
    /// An error that the protocol takes for an answer: "no such row".
    Refusal(String),
}

/// A verdict, and an error's text.
pub(super) type Found = (Verdict, Option<String>);

pub(super) fn skipped(reason: SkipReason) -> Found {
    (Verdict::Skipped(reason), None)
}

pub(super) fn failed(reason: FailReason) -> Found {
    (Verdict::Failed(reason), None)
}

impl<P: Send + Sync + 'static> Shadow<P> {
    pub(super) async fn read<A, O, Req>(
        &self,
        authority: Ready<A>,
        other: Ready<O>,
        watched: P::Watched,
        pending: P::Pending,
        raced: Observation,
        label: &mut Arc<str>,
    ) -> Found
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        let protocol = &self.settings.protocol;
        let core = &self.settings.core;
        let other_side = self.stage.authority().other();
        self.progress.enter(Phase::Request);
        let whole = match protocol.watched(watched).await {
            Ok(whole) => whole,
            Err(CaptureError::TooLarge) => return skipped(SkipReason::RequestTooLarge),
            Err(CaptureError::Gone) => return skipped(SkipReason::RequestUnread),
            Err(error) => return skipped(lost(error)),
        };
        *label = protocol.label(&whole);

        let other_again = other.again();
        let (theirs, mine) = {
            let mut mine = pin!(P::pending(pending));
            let mut mine_is = None;
            let mut theirs = pin!(self.ask(other, other_side, &whole));
            let theirs = poll_fn(|cx| {
                let theirs = theirs.as_mut().poll(cx);
                // After the other side: what broke on both sides breaks at once.
                if mine_is.is_none()
                    && let Poll::Ready(captured) = mine.as_mut().poll(cx)
                {
                    self.progress.mine.store(captured.is_ok(), Ordering::Relaxed);
                    mine_is = Some(captured);
                }
                match (theirs, &mine_is) {
                    // A body that broke off on both sides is not the other's fault.
                    (
                        Poll::Ready(Err((Verdict::Failed(FailReason::BodyFailed), _))),
                        Some(Err(error)),
                    ) => Poll::Ready(Err(skipped(lost(*error)))),
                    // There is nothing to compare with. The other side's head is
                    // here, and its body may be as endless as the authority's.
                    (Poll::Pending, Some(Err(error))) if self.progress.is(Phase::Body) => {
                        Poll::Ready(Err(skipped(lost(*error))))
                    }
                    (theirs, _) => theirs,
                }
            });
            let theirs = theirs.await;
            self.progress.enter(Phase::Answer);
            match (theirs, mine_is) {
                (Err(found), _) => return found,
                (Ok(theirs), Some(mine)) => (theirs, mine),
                (Ok(theirs), None) => (theirs, mine.await),
            }
        };
        let (mine, room) = match mine {
            Ok(captured) => captured,
            Err(error) => return skipped(lost(error)),
        };
        core.counters.captured(room.taken());
        if let Err(reason) = protocol.comparable_whole(&mine) {
            return skipped(reason);
        }
        // Only now: what was dirty or unsynced while the sides were read.
        if !core.is_synced(other_side) {
            return skipped(SkipReason::Unsynced);
        }
        if core.touches_dirty(&self.keys) {
            return skipped(SkipReason::Dirty);
        }
        let mut diff = match self.compare(&whole, &mine, &theirs) {
            Ok(diff) => diff,
            Err(found) => return found,
        };
        if diff.is_empty() {
            return (Verdict::Match, None);
        }
        if raced.raced() {
            return (Verdict::Inconclusive(InconclusiveReason::Raced), None);
        }
        drop((raced, mine, theirs, room));
        let mut pause = self.settings.limits.reread_pause;
        for _ in 0..self.settings.limits.rereads {
            self.progress.enter(Phase::Again);
            sleep(pause).await;
            pause = pause.saturating_mul(2);
            self.progress.rereads.fetch_add(1, Ordering::Relaxed);
            let raced = core.order.observe(&self.keys);
            let authority_side = other_side.other();
            // A panic of the authority says nothing about the other side.
            let asked = self.ask(authority.again(), authority_side, &whole);
            let asked = CatchPanic::new(asked).await;
            let Ok(Ok(Seen::Answer((mine, _room)))) = asked else {
                return skipped(SkipReason::AuthorityFailed);
            };
            if protocol.comparable_whole(&mine).is_err() {
                return skipped(SkipReason::AuthorityFailed);
            }
            let theirs = match self.ask(other_again.again(), other_side, &whole).await {
                Ok(theirs) => theirs,
                Err(found) => return found,
            };
            diff = match self.compare(&whole, &mine, &theirs) {
                Ok(diff) => diff,
                Err(found) => return found,
            };
            if diff.is_empty() {
                return (Verdict::Inconclusive(InconclusiveReason::Transient), None);
            }
            if raced.raced() {
                return (Verdict::Inconclusive(InconclusiveReason::Raced), None);
            }
            if core.touches_dirty(&self.keys) {
                return skipped(SkipReason::Dirty);
            }
            if !core.is_synced(other_side) {
                return skipped(SkipReason::Unsynced);
            }
        }
        (Verdict::Mismatch(diff), None)
    }

    /// One side's answer, whole.
    async fn ask<S, Req>(
        &self,
        mut service: Ready<S>,
        side: Side,
        whole: &P::Whole,
    ) -> Result<Seen<(P::Captured, Room)>, Found>
    where
        P: Protocol<Req, S::Response, S::Error>,
        S: Inner<Req>,
        Req: Send,
    {
        let protocol = &self.settings.protocol;
        let first = !self.progress.is(Phase::Again);
        if first {
            self.progress.enter(Phase::Ready);
        }
        let error = |error: S::Error| (Verdict::Failed(FailReason::Error), Some(error.to_string()));
        service.ready().await.map_err(error)?;
        if first {
            self.progress.enter(Phase::Call);
        }
        let began = Instant::now();
        let answer = service.call(protocol.copy(whole, self.dispatch(side))).await;
        let took = began.elapsed();
        let said = P::glance(&protocol.glancing(), answer.as_ref());
        let said = said.unwrap_or(Outcome::Applied);
        if first {
            self.progress.other_said.store(said as u8, Ordering::Relaxed);
            if answer.is_ok() || said == Outcome::Refused {
                let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
                self.progress.other_took.store(took, Ordering::Relaxed);
            }
            self.progress.enter(Phase::Body);
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) if said == Outcome::Refused => {
                return Ok(Seen::Refusal(refusal.to_string()));
            }
            Err(failure) => return Err(error(failure)),
        };
        if side == self.stage.authority() && protocol.comparable(&answer).is_err() {
            return Err(skipped(SkipReason::AuthorityFailed));
        }
        match protocol.capture(whole, answer, self.settings.capturing()).await {
            Ok((captured, room)) => {
                self.settings.core.counters.captured(room.taken());
                Ok(Seen::Answer((captured, room)))
            }
            Err(CaptureError::Gone | CaptureError::Broken) => Err(failed(FailReason::BodyFailed)),
            Err(error) => Err(skipped(lost(error))),
        }
    }

    fn compare<Req, Res, E>(
        &self,
        whole: &P::Whole,
        mine: &P::Captured,
        theirs: &Seen<(P::Captured, Room)>,
    ) -> Result<Diff, Found>
    where
        P: Protocol<Req, Res, E>,
    {
        let theirs = match theirs {
            Seen::Answer((theirs, _)) => theirs,
            Seen::Refusal(error) => {
                return Ok(Diff::of("answer", "an answer", error.clone()));
            }
        };
        let protocol = &self.settings.protocol;
        let compare = || protocol.compare(whole, mine, theirs);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).map_err(|_| {
            tracing::error!(target: "tower_migration", "a comparer panicked");
            failed(FailReason::ComparerPanicked)
        })
    }
}

const fn lost(error: CaptureError) -> SkipReason {
    match error {
        CaptureError::TooLarge => SkipReason::AnswerTooLarge,
        CaptureError::NoRoom => SkipReason::CapturedBytes,
        CaptureError::Gone => SkipReason::ClientGone,
        CaptureError::Broken => SkipReason::AnswerBroken,
    }
}
