//! What happens rarely enough to be counted in one place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    compare::{FailReason, InconclusiveReason, SkipReason, Verdict},
    flag::AlarmReason,
    reason::reasons,
    reconcile::{DEEDS, Deed, JobKind},
    stage::{Outcome, Side, Stage},
};

reasons! {
    /// Why the other leg of a dual write was not run.
    pub enum SkippedLeg {
        /// [`Limits::running_legs`](crate::Limits::running_legs) were running.
        RunningLegs = "running_legs",
        /// [`Limits::key_queue`](crate::Limits::key_queue) legs of the key were
        /// queued there.
        KeyQueue = "key_queue",
        /// [`WriteOrder::AuthorityFirst`](crate::WriteOrder::AuthorityFirst),
        /// and the authority did not apply the write.
        AuthorityDidNotApply = "authority_did_not_apply",
        /// The hook that builds the other leg's request gave none.
        HookDeclined = "hook_declined",
        /// That hook is set, and the authority's answer is over
        /// [`Limits::captured_body`](crate::Limits::captured_body) or broke
        /// off.
        AnswerTooLarge = "answer_too_large",
    }
}

reasons! {
    /// What went wrong with a leg, its answer aside.
    pub enum LegFault {
        /// Nobody waits for it any more; it goes on. It has not answered in
        /// time, or not read on in a request that is streamed.
        Timeout = "timeout",
        /// It was given up after [`Limits::abandon_after`](crate::Limits::abandon_after).
        Abandoned = "abandoned",
        /// The service panicked.
        Panicked = "panicked",
        /// The service was not ready within
        /// [`Limits::ready_timeout`](crate::Limits::ready_timeout).
        NotReady = "not_ready",
        /// The service answered with an error.
        Error = "error",
        /// The answer's body broke off.
        BodyFailed = "body_failed",
        /// The request's body broke off, or ended before its length, while the
        /// leg was reading it, whatever the leg has answered: see
        /// [`Streaming`](crate::body::Streaming).
        RequestBroken = "request_broken",
        /// The request was cut off for the other leg, which read it too slowly
        /// or had to wait for its turn: see [`SlowLeg`](crate::body::SlowLeg).
        CutOff = "cut_off",
        /// The layer closed the stream, since the flag has moved on.
        Closed = "closed",
        /// The runtime dropped it, for example while shutting down.
        Dropped = "dropped",
    }
}

reasons! {
    /// Why the layer answered a request itself.
    ///
    /// Over HTTP each is answered with a problem body (RFC 9457) whose `type` is
    /// the label with dashes, and with the status that the variant names; over
    /// gRPC with a status of its own kind (see `protocol::grpc`); by a plain
    /// service with the error that its closure makes of it.
    pub enum Refused {
        /// 413. The body is over [`Limits::body`](crate::Limits::body). Neither
        /// side has seen the request.
        BodyTooLarge = "body_too_large",
        /// 408. The body did not end within
        /// [`Limits::body_timeout`](crate::Limits::body_timeout). Neither side
        /// has seen the request.
        BodyTimeout = "body_timeout",
        /// 400. The body broke off while it was collected. Neither side has seen
        /// the request.
        BodyBroken = "body_broken",
        /// 503. [`Limits::buffered_bytes`](crate::Limits::buffered_bytes) are
        /// in use. Neither side has seen the request.
        BufferedBytes = "buffered_bytes",
        /// 503. `RequireBoth` is in force and there is no room for the other
        /// leg. Neither side has seen the request.
        Overloaded = "overloaded",
        /// 503. The [journal](crate::HandleBuilder) cannot note the write before its
        /// legs begin, and the flag's record cannot be told so. Neither side has seen
        /// the request.
        Journal = "journal",
        /// 503. `RequireBoth` is in force and the legs did not agree: one side
        /// may have the write. The keys are dirty.
        PartialWrite = "partial_write",
        /// 503. The write was still streaming a grace period after the flag had
        /// moved on, and the layer broke it off. It may have been applied in
        /// part: reconnect.
        StreamClosed = "stream_closed",
        /// 504. The authority did not answer in time, or stopped reading a
        /// request that is streamed. The write may still be applied.
        AuthorityTimeout = "authority_timeout",
        /// 503. The authority was not ready in time.
        AuthorityNotReady = "authority_not_ready",
        /// 500. The authority panicked. The write may have been applied.
        AuthorityPanicked = "authority_panicked",
    }
}

reasons! {
    /// How a [`Repair`](crate::reconcile::Repair)'s try at a key ended.
    pub enum RepairEnd {
        /// The key is clean.
        Healed = "healed",
        /// It was copied, and a write made it dirty again meanwhile.
        Again = "again",
        /// It could not be copied; it is tried again after a pause.
        Failed = "failed",
        /// It could not be copied so often that it is parked.
        Parked = "parked",
        /// It was not the moment: writes had to settle, or another process was there.
        Postponed = "postponed",
    }
}

reasons! {
    /// How a read of the authority against itself ended: see
    /// [`Noise`](crate::compare::Noise).
    pub enum NoiseRead {
        /// Both answers were the same.
        Same = "same",
        /// They differed.
        Differs = "differs",
        /// A write came in between, so it does not count.
        Raced = "raced",
        /// The authority failed it, or the deadline came.
        Failed = "failed",
    }
}

/// One counter for each combination of two labels.
type Table<const A: usize, const B: usize> = [[AtomicU64; B]; A];

/// Counters that are written at most once per dual write or shadow read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) disagreements: Table<4, 4>,
    pub(super) skipped_legs: [AtomicU64; SkippedLeg::ALL.len()],
    pub(super) faults: Table<2, { LegFault::ALL.len() }>,
    pub(super) refused: [AtomicU64; Refused::ALL.len()],
    pub(super) marks: [AtomicU64; 4],
    pub(super) matches: AtomicU64,
    pub(super) mismatches: AtomicU64,
    pub(super) inconclusive: [AtomicU64; InconclusiveReason::ALL.len()],
    pub(super) skipped: [AtomicU64; SkipReason::ALL.len()],
    pub(super) failed: [AtomicU64; FailReason::ALL.len()],
    pub(super) fallbacks: [AtomicU64; 2],
    pub(super) upgrades: [AtomicU64; 2],
    pub(super) steps: Table<4, 4>,
    pub(super) ramped: AtomicU64,
    pub(super) blocked: AtomicU64,
    pub(super) auto_rollbacks: [AtomicU64; AlarmReason::ALL.len()],
    pub(super) held: AtomicU64,
    pub(super) closed_streams: AtomicU64,
    pub(super) unlisted: AtomicU64,
    pub(super) copies: [AtomicU64; 2],
    /// The last column is for keys that failed.
    pub(super) swept: Table<{ JobKind::ALL.len() }, { DEEDS + 1 }>,
    pub(super) repairs: [AtomicU64; RepairEnd::ALL.len()],
    pub(super) checkpoints_failed: AtomicU64,
    pub(super) captured: AtomicU64,
    pub(super) observer_panics: AtomicU64,
    pub(super) noise_reads: [AtomicU64; NoiseRead::ALL.len()],
    pub(super) offloaded: AtomicU64,
}

fn add(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn disagreement(&self, authority: Outcome, other: Outcome) {
        add(&self.disagreements[authority as usize][other as usize]);
    }

    pub(crate) fn leg_skipped(&self, reason: SkippedLeg) {
        add(&self.skipped_legs[reason as usize]);
    }

    pub(crate) fn fault(&self, side: Side, fault: LegFault) {
        add(&self.faults[side.index()][fault as usize]);
    }

    pub(crate) fn refused(&self, reason: Refused) {
        add(&self.refused[reason as usize]);
    }

    pub(crate) fn marked(&self, marked: crate::reconcile::Marked) {
        add(&self.marks[marked as usize]);
    }

    pub(crate) fn verdict(&self, verdict: &Verdict) {
        add(match verdict {
            Verdict::Match => &self.matches,
            Verdict::Mismatch(_) => &self.mismatches,
            Verdict::Inconclusive(reason) => &self.inconclusive[*reason as usize],
            Verdict::Skipped(reason) => &self.skipped[*reason as usize],
            Verdict::Failed(reason) => &self.failed[*reason as usize],
        });
    }

    pub(crate) fn fallback(&self, side: Side) {
        add(&self.fallbacks[side.index()]);
    }

    pub(crate) fn upgrade(&self, side: Side) {
        add(&self.upgrades[side.index()]);
    }

    pub(crate) fn step(&self, from: Stage, to: Stage) {
        add(&self.steps[from as usize][to as usize]);
    }

    pub(crate) fn ramped(&self) {
        add(&self.ramped);
    }

    pub(crate) fn blocked(&self) {
        add(&self.blocked);
    }

    pub(crate) fn auto_rolled_back(&self, reason: AlarmReason) {
        add(&self.auto_rollbacks[reason as usize]);
    }

    pub(crate) fn held(&self) {
        add(&self.held);
    }

    /// A request of which nobody has said what it is. The log says so once.
    #[cold]
    pub(crate) fn unlisted(&self, migration: &str) {
        if self.unlisted.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                target: "tower_migration",
                migration,
                "a request that is in no list is taken for a write: \
                 tower_migration_unlisted_total counts them"
            );
        }
    }

    pub(crate) fn closed_stream(&self) {
        add(&self.closed_streams);
    }

    pub(crate) fn copied(&self, ok: bool) {
        add(&self.copies[usize::from(!ok)]);
    }

    /// A backfill or a verify has done a key; `None`: it has failed.
    pub(crate) fn swept(&self, job: JobKind, deed: Option<Deed>) {
        let column = deed.map_or(DEEDS, |deed| deed as usize);
        add(&self.swept[job as usize][column]);
    }

    pub(crate) fn repaired(&self, end: RepairEnd) {
        add(&self.repairs[end as usize]);
    }

    pub(crate) fn repairs(&self, end: RepairEnd) -> u64 {
        self.repairs[end as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn checkpoint_failed(&self) {
        add(&self.checkpoints_failed);
    }

    pub(crate) fn captured(&self, bytes: usize) {
        self.captured.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn noise_read(&self, read: NoiseRead) {
        add(&self.noise_reads[read as usize]);
    }

    pub(crate) fn offloaded(&self) {
        add(&self.offloaded);
    }

    pub(crate) fn observer_panicked(&self) {
        add(&self.observer_panics);
    }

    pub(crate) fn held_writes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
