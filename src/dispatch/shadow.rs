//! A read that is shadowed.
//!
//! The client's answer comes from the authority, streamed through; a tee keeps
//! references to its chunks. Once the head has said success, a task reads the
//! other side, waits for the tee's end, compares, and reads both again where
//! they differ. Nothing on the client's way waits for it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout_at},
};
use tower_service::Service;
use tracing::Instrument;

use super::{
    Ready, Settings,
    guard::{CatchPanic, Panicked},
};
use crate::{
    body::CaptureError,
    compare::{Diff, FailReason, InconclusiveReason, Mismatch, SkipReason, Verdict},
    flag::{End, Mark},
    observe::{Event, ShadowRead},
    protocol::{Dispatch, Seam},
    reconcile::{Keys, Observation},
    stage::{Role, Side, Stage},
};

/// What a shadow task starts from.
pub(super) struct Start<A, O, W, N> {
    pub(super) stage: Stage,
    pub(super) keys: Keys,
    pub(super) authority: Ready<A>,
    pub(super) other: Ready<O>,
    pub(super) request: W,
    pub(super) answer: N,
    pub(super) authority_took: Duration,
    /// Since before the authority was asked.
    pub(super) raced: Observation,
    /// On the other side, and on the authority for when it is read again.
    pub(super) marks: [Mark; 2],
    pub(super) slot: OwnedSemaphorePermit,
}

/// Reads the other side and compares, in a task of its own.
pub(super) fn start<P, A, O, Req>(
    settings: &Arc<Settings<P>>,
    start: Start<A, O, P::Watched, P::Pending>,
) where
    P: Seam<Req, A::Response>,
    A: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    O: Service<Req, Response = A::Response, Error = A::Error, Future: Send>
        + Clone
        + Send
        + 'static,
    Req: Send + 'static,
{
    let Start {
        stage,
        keys,
        authority,
        other,
        request,
        answer,
        authority_took,
        raced,
        marks,
        slot,
    } = start;
    let shadow = Shadow {
        settings: Arc::clone(settings),
        stage,
        keys,
        deadline: Instant::now() + settings.limits.shadow_deadline,
        authority_took,
        progress: Progress::default(),
    };
    let span = tracing::info_span!(
        target: "tower_migration",
        "migration_leg",
        migration = %settings.core.name(),
        side = %stage.authority().other(), role = %Role::Shadow, %stage
    );
    let task = async move {
        let [mut on_other, again] = marks;
        let (end, took) = shadow.run(authority, other, request, answer, raced).await;
        if let Some(took) = took {
            on_other.record(took);
        }
        on_other.set_end(end);
        again.unused();
        drop(slot);
    };
    tokio::spawn(task.instrument(span));
}

/// How far a shadow read has come; what a deadline means depends on it.
#[derive(Debug, Default)]
struct Progress {
    phase: AtomicU8,
    rereads: AtomicU32,
    /// In microseconds; 0: no head has come.
    other_took: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Request,
    Ready,
    Call,
    Answer,
    Again,
}

impl Progress {
    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

struct Shadow<P> {
    settings: Arc<Settings<P>>,
    stage: Stage,
    keys: Keys,
    deadline: Instant,
    authority_took: Duration,
    progress: Progress,
}

/// A verdict, and an error's text.
type Found = (Verdict, Option<String>);

fn skipped(reason: SkipReason) -> Found {
    (Verdict::Skipped(reason), None)
}

fn failed(reason: FailReason) -> Found {
    (Verdict::Failed(reason), None)
}

impl<P: Send + Sync + 'static> Shadow<P> {
    /// Reads, compares, reports. Says how the other side's leg ended, and how
    /// long its head took if it came.
    async fn run<A, O, Req>(
        self,
        authority: Ready<A>,
        other: Ready<O>,
        watched: P::Watched,
        pending: P::Pending,
        raced: Observation,
    ) -> (End, Option<Duration>)
    where
        P: Seam<Req, A::Response>,
        A: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send>
            + Clone
            + Send
            + 'static,
        O: Service<Req, Response = A::Response, Error = A::Error, Future: Send>
            + Clone
            + Send
            + 'static,
        Req: Send + 'static,
    {
        let mut label = Arc::from("");
        let reading = self.read(authority, other, watched, pending, raced, &mut label);
        let found = timeout_at(self.deadline, CatchPanic::new(reading)).await;
        let (verdict, error) = match found {
            Ok(Ok(found)) => found,
            Ok(Err(Panicked)) => failed(FailReason::Panicked),
            Err(_) => self.too_late(),
        };
        let end = match &verdict {
            Verdict::Failed(FailReason::ComparerPanicked) => End::Applied,
            Verdict::Failed(_) => End::Unknown,
            Verdict::Match | Verdict::Mismatch(_) | Verdict::Inconclusive(_) => End::Applied,
            // The other side has not been asked.
            Verdict::Skipped(_) if self.progress.is(Phase::Request) => End::Unused,
            Verdict::Skipped(_) => End::Applied,
        };
        let rereads = self.progress.rereads.load(Ordering::Relaxed);
        let other_took = match self.progress.other_took.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        };
        if let Verdict::Mismatch(diff) = &verdict {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.settings.core.name(),
                request = %label,
                keys = %self.keys,
                differs = %differing(diff),
                rereads,
                "the two sides answer a read differently"
            );
            self.settings.core.remember(Mismatch {
                request: Arc::clone(&label),
                keys: self.keys.clone(),
                authority: self.stage.authority(),
                diff: diff.clone(),
                rereads,
                authority_took: self.authority_took,
                other_took: other_took.unwrap_or_default(),
                at: SystemTime::now(),
            });
        }
        self.settings.verdict(&ShadowRead {
            request: label,
            keys: self.keys,
            authority: self.stage.authority(),
            verdict,
            error,
            rereads,
        });
        (end, other_took)
    }

    /// What it means that the deadline has come.
    fn too_late(&self) -> Found {
        if self.progress.is(Phase::Ready) {
            failed(FailReason::NotReady)
        } else if self.progress.is(Phase::Call) {
            failed(FailReason::Deadline)
        } else if self.progress.is(Phase::Again) {
            (Verdict::Inconclusive(InconclusiveReason::Deadline), None)
        } else {
            skipped(SkipReason::ClientSlow)
        }
    }

    fn dispatch(&self, side: Side) -> Dispatch {
        let migration = self.settings.core.id();
        Dispatch { stage: self.stage, side, role: Role::Shadow, migration }
    }

    async fn read<A, O, Req>(
        &self,
        authority: Ready<A>,
        other: Ready<O>,
        watched: P::Watched,
        pending: P::Pending,
        raced: Observation,
        label: &mut Arc<str>,
    ) -> Found
    where
        P: Seam<Req, A::Response>,
        A: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send> + Clone + Send,
        O: Service<Req, Response = A::Response, Error = A::Error, Future: Send> + Clone + Send,
        Req: Send,
    {
        let protocol = &self.settings.protocol;
        let core = &self.settings.core;
        let other_side = self.stage.authority().other();
        self.progress.enter(Phase::Request);
        let whole = match protocol.watched(watched).await {
            Ok(whole) => whole,
            Err(CaptureError::TooLarge) => return skipped(SkipReason::RequestTooLarge),
            Err(error) => return skipped(lost(error)),
        };
        *label = protocol.label(&whole);

        let other_again = other.again();
        let theirs = match self.ask(other, other_side, &whole).await {
            Ok((answer, took)) => {
                let took = u32::try_from(took.as_micros());
                self.progress.other_took.store(took.unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
                answer
            }
            Err(found) => return found,
        };
        self.progress.enter(Phase::Answer);
        let (mine, lease) = match P::pending(pending).await {
            Ok(captured) => captured,
            Err(error) => return skipped(lost(error)),
        };
        core.counters.captured(lease.bytes());
        // Only now: what was dirty or unsynced while the sides were read.
        if !core.is_synced(other_side) {
            return skipped(SkipReason::Unsynced);
        }
        if core.touches_dirty(&self.keys) {
            return skipped(SkipReason::Dirty);
        }
        let mut diff = match self.compare(&whole, &mine, &theirs.0) {
            Ok(diff) => diff,
            Err(found) => return found,
        };
        if diff.is_empty() {
            return (Verdict::Match, None);
        }
        if raced.raced() {
            return (Verdict::Inconclusive(InconclusiveReason::Raced), None);
        }
        drop((raced, mine, theirs, lease));
        let mut pause = self.settings.limits.reread_pause;
        for _ in 0..self.settings.limits.rereads {
            self.progress.enter(Phase::Again);
            sleep(pause).await;
            pause = pause.saturating_mul(2);
            self.progress.rereads.fetch_add(1, Ordering::Relaxed);
            let raced = core.order.observe(&self.keys);
            let authority_side = other_side.other();
            let asked = self.ask(authority.again(), authority_side, &whole).await;
            let Ok((mine, _)) = asked else {
                return skipped(SkipReason::AuthorityFailed);
            };
            let theirs = match self.ask(other_again.again(), other_side, &whole).await {
                Ok((captured, _)) => captured,
                Err(found) => return found,
            };
            diff = match self.compare(&whole, &mine.0, &theirs.0) {
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
        }
        (Verdict::Mismatch(diff), None)
    }

    /// One side's answer, whole, and how long its head took.
    async fn ask<S, Req>(
        &self,
        mut service: Ready<S>,
        side: Side,
        whole: &P::Whole,
    ) -> Result<((P::Captured, crate::body::Lease), Duration), Found>
    where
        P: Seam<Req, S::Response>,
        S: Service<Req, Response: Send, Error: fmt::Display + Send, Future: Send> + Send,
        Req: Send,
    {
        let protocol = &self.settings.protocol;
        let limits = &self.settings.limits;
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
        let answer =
            service.call(protocol.copy(whole, self.dispatch(side))).await.map_err(error)?;
        let took = began.elapsed();
        let lease = Arc::clone(&self.settings.core.captured).lease(limits.captured_bytes);
        match protocol.capture(whole, answer, limits.captured_body, lease).await {
            Ok((captured, lease)) => {
                self.settings.core.counters.captured(lease.bytes());
                Ok(((captured, lease), took))
            }
            Err(CaptureError::Gone | CaptureError::Broken) => Err(failed(FailReason::BodyFailed)),
            Err(error) => Err(skipped(lost(error))),
        }
    }

    fn compare<Req, Res>(
        &self,
        whole: &P::Whole,
        mine: &P::Captured,
        theirs: &P::Captured,
    ) -> Result<Diff, Found>
    where
        P: Seam<Req, Res>,
    {
        let protocol = &self.settings.protocol;
        let compare = || protocol.compare(whole, mine, theirs);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).map_err(|_| {
            tracing::error!(target: "tower_migration", "a comparer panicked");
            failed(FailReason::ComparerPanicked)
        })
    }
}

/// What differs, without the values: those may be nobody's business in a log.
fn differing(diff: &Diff) -> String {
    let what: Vec<_> = diff.differences().iter().map(|d| d.what.as_str()).collect();
    what.join(", ")
}

const fn lost(error: CaptureError) -> SkipReason {
    match error {
        CaptureError::TooLarge => SkipReason::AnswerTooLarge,
        CaptureError::NoRoom => SkipReason::CapturedBytes,
        CaptureError::Gone => SkipReason::ClientGone,
        CaptureError::Broken => SkipReason::AnswerBroken,
    }
}

impl<P> Settings<P> {
    /// A sampled read that is not compared, known before its task began.
    pub(super) fn skipped(&self, keys: Keys, authority: Side, reason: SkipReason) {
        self.verdict(&ShadowRead {
            request: "".into(),
            keys,
            authority,
            verdict: Verdict::Skipped(reason),
            error: None,
            rereads: 0,
        });
    }

    fn verdict(&self, read: &ShadowRead) {
        self.core.counters.verdict(&read.verdict);
        tracing::debug!(
            target: "tower_migration",
            migration = %self.core.name(),
            request = %read.request,
            verdict = read.verdict.as_str(),
            reason = read.verdict.reason(),
            error = read.error,
            "shadow read"
        );
        self.observe(&Event::Shadow(read));
    }
}
