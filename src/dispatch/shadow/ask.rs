//! One side's answer, whole, and two of them compared.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{
    super::{
        Ready,
        guard::{Panicked, caught},
        inner::Inner,
    },
    Shadow,
    judge::{Found, failed, skipped},
    progress::Phase,
};
use crate::{
    body::{CaptureError, Room},
    compare::{Context, Diff, FailReason, InconclusiveReason, SkipReason, Verdict},
    protocol::Protocol,
    stage::{Outcome, Side},
    text::short,
};

/// An answer, and what it holds of its room: for as long as anybody looks at it.
pub(super) type Kept<C> = Arc<(C, Room)>;

/// What a side has answered.
pub(super) enum Seen<C> {
    Answer(Kept<C>),
    /// An error that the protocol takes for an answer: "no such row".
    Refusal(String),
}

impl<P: Send + Sync + 'static> Shadow<P> {
    /// One side's answer, whole.
    pub(super) fn ask<S, Req>(
        &self,
        mut service: Ready<S>,
        side: Side,
        whole: &P::Whole,
    ) -> impl Future<Output = Result<Seen<P::Captured>, Found>> + Send
    where
        P: Protocol<Req, S::Response, S::Error>,
        S: Inner<Req>,
        Req: Send,
    {
        async move {
            let protocol = &self.settings.protocol;
            let first = !self.progress.is(Phase::Again);
            if first {
                self.progress.enter(Phase::Ready);
            }
            let error = |error: S::Error| {
                Found::of(Verdict::Failed(FailReason::Error)).with_error(short(&error))
            };
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
                let failed = said == Outcome::Unknown;
                self.progress.set_down(self.settings.down.steadily(side, failed));
                self.progress.enter(Phase::Body);
            }
            // A block: what is left of the answer is not carried about.
            let capturing = {
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(refusal) if said == Outcome::Refused => {
                        return Ok(Seen::Refusal(short(&refusal)));
                    }
                    Err(failure) => return Err(error(failure)),
                };
                if side == self.stage.authority() {
                    protocol.comparable(&answer).map_err(skipped)?;
                }
                protocol.capture(whole, answer, self.settings.capturing())
            };
            match capturing.await {
                Ok((captured, room)) => {
                    self.settings.core.counters.captured(room.taken());
                    Ok(Seen::Answer(Arc::new((captured, room))))
                }
                Err(CaptureError::Gone | CaptureError::Broken) => {
                    Err(failed(FailReason::BodyFailed))
                }
                Err(error) => Err(skipped(lost(error))),
            }
        }
    }

    /// What differs between the authority's answer and the other side's.
    pub(super) async fn compare<Req, Res, E>(
        &self,
        whole: &Arc<P::Whole>,
        mine: &Kept<P::Captured>,
        theirs: &Seen<P::Captured>,
    ) -> Result<Diff, Found>
    where
        P: Protocol<Req, Res, E>,
        Req: 'static,
        Res: 'static,
        E: 'static,
    {
        match theirs {
            Seen::Answer(theirs) => self.differ(whole, mine, theirs, self.context()).await,
            Seen::Refusal(error) => Ok(Diff::of("answer", "an answer", error.clone())),
        }
    }

    /// Where two answers of the authority differ.
    pub(super) async fn compare_itself<Req, Res, E>(
        &self,
        whole: &Arc<P::Whole>,
        first: &Kept<P::Captured>,
        second: &Kept<P::Captured>,
    ) -> Result<Diff, Found>
    where
        P: Protocol<Req, Res, E>,
        Req: 'static,
        Res: 'static,
        E: 'static,
    {
        let context = self.context().itself();
        let diff = self.differ(whole, first, second, context).await?;
        if diff.differences().is_empty() {
            return Ok(diff);
        }
        // A comparer that finds fault with everything finds it here too.
        let always = self.differ(whole, first, first, context).await?;
        let always = always.differences();
        Ok(diff.only(|found| always.iter().all(|always| always.place != found.place)))
    }

    fn context(&self) -> Context {
        Context::new(self.stage.authority()).until(self.deadline)
    }

    async fn differ<Req, Res, E>(
        &self,
        whole: &Arc<P::Whole>,
        first: &Kept<P::Captured>,
        second: &Kept<P::Captured>,
        context: Context,
    ) -> Result<Diff, Found>
    where
        P: Protocol<Req, Res, E>,
        Req: 'static,
        Res: 'static,
        E: 'static,
    {
        let settings = &self.settings;
        let inline = settings.limits.compare_inline;
        // A comparer of the user's has a part in it.
        let long = || settings.protocol.compares_long(&first.0, &second.0, inline);
        let Ok(long) = caught(long) else { return Err(panicked()) };
        if !long {
            let compared =
                caught(|| settings.protocol.compare(whole, &first.0, &second.0, context).listed());
            return compared.map_err(|Panicked| panicked());
        }
        if !self.progress.is(Phase::Again) {
            self.progress.enter(Phase::Compare);
        }
        settings.core.counters.offloaded();
        let settings = Arc::clone(settings);
        let (whole, first, second) = (Arc::clone(whole), Arc::clone(first), Arc::clone(second));
        // The slot is taken for as long as the thread is, whoever waits for it.
        let slot = self.slot().take();
        let compared = tokio::task::spawn_blocking(move || {
            let compared =
                caught(|| settings.protocol.compare(&whole, &first.0, &second.0, context).listed());
            (compared, slot)
        });
        match compared.await {
            Ok((compared, slot)) => {
                *self.slot() = slot;
                compared.map_err(|Panicked| panicked())
            }
            // The runtime is ending.
            Err(_) => {
                let reason = InconclusiveReason::Deadline;
                Err(Found::of(Verdict::Inconclusive(reason)))
            }
        }
    }
}

fn panicked() -> Found {
    tracing::error!(target: "tower_migration", "a comparer panicked");
    failed(FailReason::ComparerPanicked)
}

pub(super) const fn lost(error: CaptureError) -> SkipReason {
    match error {
        CaptureError::TooLarge => SkipReason::AnswerTooLarge,
        CaptureError::NoRoom => SkipReason::CapturedBytes,
        CaptureError::Gone => SkipReason::ClientGone,
        CaptureError::Broken => SkipReason::AnswerBroken,
    }
}
