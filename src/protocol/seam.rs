//! What the dispatching code asks of a protocol.

use std::sync::{Arc, atomic::AtomicUsize};

use super::Dispatch;
use crate::{
    body::{Budget, CaptureError, KeptEnd, Lease},
    compare::Diff,
    flag::Mark,
    layer::Limits,
    reconcile::Keys,
    stage::{Operation, Outcome, Share, Side},
    telemetry::Refused,
};

/// The methods of [`Protocol`](super::Protocol), out of reach from outside.
pub trait Seam<Req, Res>: Send + Sync + 'static {
    /// What the layer answers.
    type Answer: Send + 'static;
    /// A request of which copies can be made.
    type Whole: Send + Sync + 'static;
    /// A request that is being read by the authority, of which copies can be
    /// made once it has been read.
    type Watched: Send + 'static;
    /// An answer that is whole.
    type Captured: Send + Sync + 'static;
    /// An answer that the client is still reading.
    type Pending: Send + 'static;
    /// An answer of which a part may have been read ahead.
    type Ahead: Send + 'static;

    // === what is this request? ===

    /// The mark of a layer that has seen the request before.
    fn dispatched(&self, request: &Req) -> Option<Dispatch>;
    /// Read or write. `None` goes to the authority alone.
    fn classify(&self, request: &Req) -> Option<Operation>;
    /// Counts a request that leaves the protocol (an upgrade) on `side`.
    fn leaves(&self, request: &mut Req, side: Side, counts: &Arc<[AtomicUsize; 2]>);
    /// Whether a ramp's share covers a read.
    fn partition(&self, request: &Req, share: Share, seed: u64) -> bool;
    /// Whether a ramp's share covers a write of these keys.
    fn partition_whole(&self, whole: &Self::Whole, keys: &Keys, share: Share, seed: u64) -> bool;
    /// The keys of a read.
    fn read_keys(&self, request: &Req) -> Keys;
    /// The keys of a write.
    fn keys(&self, whole: &Self::Whole) -> Keys;
    /// The keys that only the answer tells.
    fn late_keys(&self, whole: &Self::Whole, answer: &Res) -> Keys;
    /// The request in a few words, such as `PUT /airports/EDDF`, before it has
    /// been read.
    fn name(&self, request: &Req) -> Arc<str>;
    /// The same of one that has been read, as it was prepared.
    fn label(&self, whole: &Self::Whole) -> Arc<str>;

    // === copies ===

    /// Reads the whole request, under the limits.
    fn collect(
        &self,
        request: Req,
        limits: &Limits,
        budget: &Arc<Budget>,
    ) -> impl Future<Output = Result<Self::Whole, Refused>> + Send;
    /// A request again.
    fn copy(&self, whole: &Self::Whole, dispatch: Dispatch) -> Req;
    /// The other leg's request, out of the authority's answer. `None`: the hook
    /// gave none.
    fn copy_after(
        &self,
        whole: &Self::Whole,
        dispatch: Dispatch,
        answer: &Self::Captured,
    ) -> Option<Req>;
    /// Whether [`copy_after`](Self::copy_after) wants the authority's answer.
    fn follows(&self) -> bool;
    /// The request, watched while the authority reads it.
    fn watch(
        &self,
        request: Req,
        dispatch: Dispatch,
        limit: usize,
        lease: Lease,
    ) -> (Req, Self::Watched);
    /// The request, once it has been read.
    fn watched(
        &self,
        watched: Self::Watched,
    ) -> impl Future<Output = Result<Self::Whole, CaptureError>> + Send;
    /// The request, if it has been read by now.
    fn watched_now(&self, watched: Self::Watched) -> Option<Self::Whole>;

    // === answers ===

    /// What a write's answer says.
    fn judge(&self, whole: &Self::Whole, answer: &Res) -> Outcome;
    /// What any answer says, for counting and for reads.
    fn glance(answer: &Res) -> Outcome;
    /// Whether the answer says yes, with all that was asked for.
    fn is_success(answer: &Res) -> bool;
    /// Whether the answer says that the client has it already.
    fn is_not_modified(answer: &Res) -> bool;
    /// The answer's code.
    fn code(answer: &Res) -> u16;
    /// The answer, handed on.
    fn pass(answer: Res, mark: Option<Mark>) -> Self::Answer;
    /// The answer, to be read ahead.
    fn ahead(answer: Res) -> Self::Ahead;
    /// Reads ahead to the end, or until there is more than `limit`.
    fn read_ahead(
        ahead: &mut Self::Ahead,
        limit: usize,
    ) -> impl Future<Output = Option<Self::Captured>> + Send;
    /// The authority's answer to a dual write, handed on.
    fn keep(ahead: Self::Ahead, end: KeptEnd) -> Self::Answer;
    /// The answer, handed on and watched.
    fn tee(
        &self,
        watched: &Self::Watched,
        answer: Res,
        mark: Mark,
        limit: usize,
        lease: Lease,
    ) -> (Self::Answer, Self::Pending);
    /// The answer, once the client has read it.
    fn pending(
        pending: Self::Pending,
    ) -> impl Future<Output = Result<(Self::Captured, Lease), CaptureError>> + Send;
    /// A shadow's answer, whole.
    fn capture(
        &self,
        whole: &Self::Whole,
        answer: Res,
        limit: usize,
        lease: Lease,
    ) -> impl Future<Output = Result<(Self::Captured, Lease), CaptureError>> + Send;
    /// Reads an answer to its end and forgets it. Says whether it ended well.
    fn drain(answer: Res) -> impl Future<Output = bool> + Send;
    /// Marks an answer as the other side's.
    fn fell_back(answer: &mut Res, side: Side);
    /// What differs between two answers.
    fn compare(
        &self,
        whole: &Self::Whole,
        authority: &Self::Captured,
        other: &Self::Captured,
    ) -> Diff;
    /// The layer's own answer.
    fn refuse(&self, reason: Refused) -> Self::Answer;
}
