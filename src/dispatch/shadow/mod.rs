//! A read that is shadowed.
//!
//! The client's answer comes from the authority, streamed through; a tee keeps
//! references to its chunks. Once the head has said success, a task reads the
//! other side, waits for the tee's end, compares, and reads both again where
//! they differ. Nothing on the client's way waits for it.

mod ask;
mod down;
mod judge;
mod noise;
mod progress;
mod tell;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tower_service::Service;
use tracing::Instrument;

pub(crate) use self::down::Down;
pub(super) use self::tell::Skipped;
use self::{
    judge::{Found, Teed, failed, skipped},
    progress::{Phase, Progress},
    tell::not_compared,
};
use super::{
    Ready, Settings,
    guard::{CatchPanic, Panicked, guarded},
    inner::Inner,
    leg::within_until,
    other_leg::later_than,
};
use crate::{
    compare::{FailReason, InconclusiveReason, SkipReason, Verdict},
    flag::{End, Mark},
    protocol::{Dispatch, Protocol},
    reconcile::{Keys, Observation},
    report::Finding,
    stage::{Role, Side, Stage},
};

/// What a shadow task starts from.
pub(super) struct Start<A, O, W, N> {
    pub(super) stage: Stage,
    /// Of the report's count.
    pub(super) generation: u64,
    pub(super) keys: Keys,
    pub(super) authority: Ready<A>,
    pub(super) other: Ready<O>,
    pub(super) request: W,
    pub(super) answer: N,
    /// When the authority's head was here.
    pub(super) headed: Instant,
    pub(super) authority_took: Duration,
    /// Since before the authority was asked.
    pub(super) raced: Observation,
    /// On the other side, and on the authority for when it is read again.
    pub(super) marks: [Mark; 2],
    pub(super) slot: OwnedSemaphorePermit,
}

/// Reads the other side and compares, in a task of its own.
pub(super) fn start<P, A, O, Req>(
    settings: Arc<Settings<P>>,
    start: Start<A, O, P::Watched, P::Pending>,
) where
    P: Protocol<Req, A::Response, A::Error>,
    A: Inner<Req>,
    O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
    Req: Send + 'static,
{
    let Start {
        stage,
        generation,
        keys,
        authority,
        other,
        request,
        answer,
        headed,
        authority_took,
        raced,
        marks,
        slot,
    } = start;
    let deadline = later_than(headed, settings.limits.shadow_deadline);
    let span = tracing::info_span!(
        target: "tower_migration",
        "migration_leg",
        migration = %settings.core.name(),
        side = %stage.authority().other(), role = %Role::Shadow, %stage
    );
    // Lent, not given: each future on the way down would have room for it.
    let mut teed = Teed { request: Some(request), answer: Some(answer), raced: Some(raced) };
    let task = async move {
        let [mut on_other, again] = marks;
        let shadow = Shadow {
            // Here, where no client waits for it.
            route: settings.route_of(teed.request.as_ref().expect("not taken yet")),
            settings,
            stage,
            generation,
            keys,
            deadline,
            authority_took,
            slot: Mutex::new(Some(slot)),
            progress: Progress::default(),
        };
        let (end, took) = shadow.run(authority, other, &mut teed).await;
        if let Some(took) = took {
            on_other.record(took);
        }
        on_other.set_end(end);
        again.unused();
    };
    // Boxed here: the task is large, and tokio copies what it is given a few times.
    tokio::spawn(Box::pin(task).instrument(span));
}

struct Shadow<P> {
    settings: Arc<Settings<P>>,
    stage: Stage,
    generation: u64,
    keys: Keys,
    deadline: Instant,
    authority_took: Duration,
    route: Arc<str>,
    /// Held until the last thread that compares for this read has ended.
    slot: Mutex<Option<OwnedSemaphorePermit>>,
    progress: Progress,
}

impl<P: Send + Sync + 'static> Shadow<P> {
    /// Reads, compares, reports. Says how the other side's leg ended, and how
    /// long its head took if it came.
    async fn run<A, O, Req>(
        &self,
        mut authority: Ready<A>,
        other: Ready<O>,
        teed: &mut Teed<P::Watched, P::Pending>,
    ) -> (End, Option<Duration>)
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        // Blocks: what is done with is not carried on.
        let (told, noisy) = {
            let mut asked = None;
            let found = {
                // Two boxes, this and the task's: an allocator has a kilobyte at hand, and
                // has to look for two.
                let reading = Box::pin(self.read(&mut authority, other, teed, &mut asked));
                within_until(self.deadline, CatchPanic::new(reading)).await
            };
            let (found, last) = match found {
                Some(Ok(found)) => found,
                Some(Err(Panicked)) => (failed(FailReason::Panicked), None),
                None => (self.too_late(), None),
            };
            let path = last.as_ref().map(|last| self.settings.protocol.noise_path(&last.whole));
            let is_measured = path.is_some_and(|path| self.settings.noise.may(path));
            let wants_noise = path.is_some_and(|path| self.wants_noise(&found.verdict, path));
            (self.report(found, asked.as_ref(), is_measured), last.filter(|_| wants_noise))
        };
        if let Some(last) = noisy {
            // Boxed, as all that is rare: each shadow has room for what it may do.
            Box::pin(self.measure_noise(&mut authority, last)).await;
        }
        told
    }

    /// Counts what came of the read, and tells everybody who wants to know.
    fn report<Req, Res, E>(
        &self,
        found: Found,
        asked: Option<&Arc<P::Whole>>,
        is_measured: bool,
    ) -> (End, Option<Duration>)
    where
        P: Protocol<Req, Res, E>,
    {
        // Made when somebody wants it, and once: it may be a function of the user's.
        let named = OnceLock::new();
        let label = || {
            let label = |whole: &Arc<P::Whole>| guarded(|| self.settings.protocol.label(whole));
            let name = || asked.and_then(label).unwrap_or_default();
            Arc::clone(named.get_or_init(name))
        };
        let end = match &found.verdict {
            // The other side has not been asked.
            Verdict::Skipped(_) if self.progress.is(Phase::Request) => End::Unused,
            Verdict::Failed(FailReason::ComparerPanicked)
            | Verdict::Match
            | Verdict::Mismatch(_)
            | Verdict::Inconclusive(_)
            | Verdict::Skipped(_) => self.progress.other_said().into(),
            Verdict::Failed(_) => End::Unknown,
        };
        let other_took = match self.progress.other_took.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        };
        let unresolved = match &found.verdict {
            Verdict::Match
            | Verdict::Mismatch(_)
            | Verdict::Inconclusive(
                InconclusiveReason::Transient
                | InconclusiveReason::Noise
                | InconclusiveReason::NotModified,
            ) => false,
            Verdict::Inconclusive(_) | Verdict::Skipped(_) | Verdict::Failed(_) => {
                self.progress.differed()
            }
        };
        // Not made for nobody, nor by a function of the user's under the report's lock.
        let request = (!found.differs.is_empty()).then(label);
        self.settings.core.report.count(&Finding {
            generation: self.generation,
            route: &self.route,
            request,
            authority: self.stage.authority(),
            verdict: &found.verdict,
            differs: &found.differs,
            contradicted: &found.contradicted,
            unresolved,
            authority_took: Some(self.authority_took),
            other_took,
            is_measured,
        });
        self.tell(found, label, other_took);
        (end, other_took)
    }

    /// What it means that the deadline has come.
    fn too_late(&self) -> Found {
        if self.progress.is(Phase::Ready) {
            failed(FailReason::NotReady)
        } else if self.progress.is(Phase::Call)
            || (self.progress.is(Phase::Body) && self.progress.mine_has_ended())
        {
            failed(FailReason::Deadline)
        } else if self.progress.is(Phase::Again) || self.progress.is(Phase::Compare) {
            Found::of(Verdict::Inconclusive(InconclusiveReason::Deadline))
        } else {
            skipped(SkipReason::ClientSlow)
        }
    }

    /// The slot, to be lent to a thread.
    fn slot(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, side: Side) -> Dispatch {
        let migration = self.settings.core.id();
        Dispatch { stage: self.stage, side, role: Role::Shadow, migration }
    }
}

impl<P> Settings<P> {
    /// What a read is counted under. A function of the user's that panics must not
    /// fail the read.
    pub(super) fn route_of<Req, Res, E>(&self, watched: &P::Watched) -> Arc<str>
    where
        P: Protocol<Req, Res, E>,
    {
        guarded(|| self.protocol.route_of(watched)).unwrap_or_else(|| "all".into())
    }

    /// Whether to shadow this read. One for which there is no slot is given up
    /// here, before anything is copied; one that loses its slot to another read
    /// meanwhile, after the authority's head.
    #[inline]
    pub(crate) fn samples(&self, stage: Stage) -> bool {
        if !self.core.samples() {
            return false;
        }
        let free = self.shadows.available_permits() > 0;
        if !free {
            self.no_slot(stage);
        }
        free
    }

    /// Apart: it is no part of a read that is not sampled.
    #[cold]
    #[inline(never)]
    fn no_slot(&self, stage: Stage) {
        self.core.report.no_slot();
        self.tell(&not_compared(Arc::default(), Keys::none(), stage, SkipReason::NoSlot));
    }
}
