//! What the dispatching code asks of a protocol.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Closing, Dispatch, Ending, UpgradeToken};
use crate::{
    body::{CaptureError, Room},
    compare::{Context, Diff, SkipReason},
    flag::Mark,
    reconcile::Keys,
    stage::{Operation, Outcome, Role, Side},
    telemetry::{LegFault, Refused, SkippedLeg},
};

/// What kind of request this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Changes nothing: served by the authority, perhaps shadowed.
    Read,
    /// May change data: goes to both sides in the two-sided stages.
    Write,
    /// As `Write`, and counted: nobody has said what it is.
    Unlisted,
    /// About the service and not about its data (a health check): goes to the
    /// authority alone, is never shadowed, and delays no flip.
    Aside,
    /// Leaves the protocol (CONNECT, a WebSocket): as `Aside`, and counted for
    /// as long as its [`UpgradeToken`] lives.
    Upgrade,
}

impl Drained {
    /// An answer whose end has told the outcome, and the protocol's code for it.
    #[must_use]
    pub fn said(outcome: Outcome, code: u16) -> Self {
        Self { said: Some((outcome, code)), keys: Keys::none() }
    }
}

impl From<Operation> for Class {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Read => Self::Read,
            Operation::Write => Self::Write,
        }
    }
}

/// Breaks a request off that is being read.
pub type BreakOff = Box<dyn FnOnce() + Send>;

/// What the head of an answer says about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a head tells, or the end will")]
pub enum Said {
    /// All there is to know: the outcome, and the protocol's code for it.
    Now(Outcome, u16),
    /// Only the answer's end will tell: see [`Ending`].
    AtEnd,
}

/// How the rest of an answer went that nobody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// What its end said, if that is where it is said. `None`: the head's word
    /// counts.
    pub said: Option<(Outcome, u16)>,
    /// Keys that only the rest told, as of a create. The authority's count only if
    /// its end has `said` that the write was applied.
    pub keys: Keys,
}

/// One kind of service: everything that the layer needs to know of it.
///
/// Three come with the crate: [`Http`](super::Http), `Grpc` (feature `grpc`)
/// and [`Plain`](super::Plain), which takes closures and fits every service
/// whose requests can be cloned. Implement this trait for a fourth kind: one
/// whose answer is still being made when it is handed on (a stream of rows),
/// or whose requests need more than a clone to be had twice. The page
/// [`docs::protocol`](crate::docs::protocol) has a whole one.
///
/// `Req`, `Res` and `E` are the request, the response and the error of the inner
/// services.
///
/// # A write
///
/// `classify` → in a one-sided stage the request goes to its side as it
/// is, and [`pass`](Self::pass) hands the answer on. In a two-sided stage:
/// [`collect`](Self::collect) → [`keys`](Self::keys) → [`copy`](Self::copy) for
/// each leg → [`judge`](Self::judge) for each answer. The authority's goes to
/// the client through [`keep`](Self::keep), the other's to
/// [`drain`](Self::drain).
///
/// # A sampled read
///
/// [`watch`](Self::watch) → [`read_keys`](Self::read_keys) → the authority →
/// [`comparable`](Self::comparable) → [`tee`](Self::tee), which the client
/// reads. In a task: [`watched`](Self::watched) → [`copy`](Self::copy) → the
/// other side → [`capture`](Self::capture), [`pending`](Self::pending) →
/// [`compare`](Self::compare).
///
/// # Panics
///
/// A panic in `classify`, `name`, `dispatched`, `collect` or `keys` reaches the
/// client's task before either side has seen the request. In `late_keys`,
/// `read_keys`, `ramp_keys`, `copy_after`, `capture` and `compare` it costs what
/// the method was for: a write whose keys are unknown, a read that is not
/// compared. The others must not panic: `judge` and `glance` would fail a client
/// whose request has been served, and leave a write's key dirty.
pub trait Protocol<Req, Res, E>: Send + Sync + 'static {
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
    /// What it takes to look at an answer without the protocol at hand: `()`,
    /// or a clone of a function. Made for each request of a one-sided stage, so
    /// it must cost nothing.
    type Glance: Send + 'static;

    // === what is this request? ===

    /// The mark that [`copy`](Self::copy) and [`watch`](Self::watch) have left,
    /// for a request that has been through another layer of the same migration.
    /// Default: none.
    fn dispatched(&self, request: &Req) -> Option<Dispatch> {
        let _ = request;
        None
    }
    /// Read or write. On every request, on every stage: keep it cheap.
    fn classify(&self, request: &Req) -> Class;
    /// Leaves the token with a request of [`Class::Upgrade`].
    fn upgrading(&self, request: &mut Req, token: UpgradeToken) {
        let _ = (request, token);
    }
    /// The request in a few words, such as `PUT /airports/EDDF`, for logs and
    /// for whoever waits for it.
    fn name(&self, request: &Req) -> Arc<str>;
    /// The same of one that has been read.
    fn label(&self, whole: &Self::Whole) -> Arc<str>;
    /// The keys of a read that is watched.
    fn read_keys(&self, watched: &Self::Watched) -> Keys;
    /// The keys of a write.
    fn keys(&self, whole: &Self::Whole) -> Keys;
    /// The keys that only the head of a write's answer tells.
    fn late_keys(&self, whole: &Self::Whole, answer: &Res) -> Keys {
        let _ = (whole, answer);
        Keys::none()
    }
    /// Whether the answer to a write that has keys may tell further ones.
    /// Default: no.
    fn learns(&self, whole: &Self::Whole) -> bool {
        let _ = whole;
        false
    }
    /// What a ramp goes by for a read, asked before anything of it has been
    /// read. Default: `Keys::none()`, which no ramp covers.
    fn ramp_keys(&self, request: &Req) -> Keys {
        let _ = request;
        Keys::none()
    }
    /// What a ramp goes by for a write: `None` (the default) for its keys.
    fn ramp_keys_of(&self, whole: &Self::Whole) -> Option<Keys> {
        let _ = whole;
        None
    }

    // === copies ===

    /// Takes the request in, so that it can be had twice: all of it, of at most
    /// [`Room::limit`] bytes paid for from its lease; or, if
    /// [`Room::may_stream`], as much as is needed to tell its keys. Runs
    /// under [`Limits::body_timeout`](crate::Limits::body_timeout).
    ///
    /// # Errors
    ///
    /// Why neither side shall see the request.
    fn collect(
        &self,
        request: Req,
        room: Room,
    ) -> impl Future<Output = Result<Self::Whole, Refused>> + Send;
    /// A request again. Called once for each leg of a write, and once for each
    /// reading of a side by a shadow.
    fn copy(&self, whole: &Self::Whole, dispatch: Dispatch) -> Req;
    /// Resolves once a leg has been given the whole request. Default: at once.
    /// The time limit of a leg runs from then on.
    fn given(&self, whole: &Self::Whole, role: Role) -> impl Future<Output = ()> + Send {
        let _ = (whole, role);
        std::future::ready(())
    }
    /// Since when a leg has not asked for more of a request that it is still
    /// being given. `None`, the default: it waits for more to come, which is
    /// nothing to blame it for. Over the time limit of a leg nobody waits for it
    /// any longer.
    fn idle(&self, whole: &Self::Whole, role: Role) -> Option<Instant> {
        let _ = (whole, role);
        None
    }
    /// What was wrong with the request as a leg was given it, once it has
    /// answered: its outcome is unknown then. Default: nothing.
    fn spoiled(&self, whole: &Self::Whole, role: Role) -> Option<LegFault> {
        let _ = (whole, role);
        None
    }
    /// The client of a request that is still being given to its legs has left:
    /// what could be a mere end of its connection is no end of the request.
    fn left(&self, whole: &Self::Whole) {
        let _ = whole;
    }
    /// Breaks off a request that is still being given to its legs.
    fn close(&self, whole: &Self::Whole) {
        let _ = whole;
    }
    /// A leg will not be run, so its [`copy`](Self::copy) will not be asked for.
    fn unneeded(&self, whole: &Self::Whole, role: Role) {
        let _ = (whole, role);
    }
    /// Whether [`copy_after`](Self::copy_after) is to be asked. Default: no.
    fn follows(&self) -> bool {
        false
    }
    /// The other leg's request, out of the authority's answer, for
    /// [`WriteOrder::AuthorityFirst`](crate::WriteOrder::AuthorityFirst).
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn copy_after(
        &self,
        whole: &Self::Whole,
        dispatch: Dispatch,
        ahead: &mut Self::Ahead,
        limit: usize,
    ) -> impl Future<Output = Result<Req, SkippedLeg>> + Send {
        let _ = (whole, dispatch, ahead, limit);
        async { Err(SkippedLeg::HookDeclined) }
    }
    /// The request, watched while the authority reads it. May read as much of it
    /// as is needed to tell its keys: as much as the authority needs as well.
    fn watch(
        &self,
        request: Req,
        dispatch: Dispatch,
        room: Room,
    ) -> impl Future<Output = (Req, Self::Watched)> + Send;
    /// The request, once it has been read.
    fn watched(
        &self,
        watched: Self::Watched,
    ) -> impl Future<Output = Result<Self::Whole, CaptureError>> + Send;
    /// The request, if it has been read by now.
    fn watched_now(&self, watched: Self::Watched) -> Option<Self::Whole>;

    // === answers ===

    /// What [`glance`](Self::glance) needs.
    fn glancing(&self) -> Self::Glance;
    /// What an answer says, for counting, and for whether a read has failed.
    /// `None`: only its end will tell.
    fn glance(glance: &Self::Glance, answer: Result<&Res, &E>) -> Option<Outcome>;
    /// What the head of a write's answer says.
    fn judge(&self, whole: &Self::Whole, answer: &Res) -> Said;
    /// What an error says about a write. Default: nobody knows.
    fn judge_error(&self, whole: &Self::Whole, error: &E) -> Outcome {
        let _ = (whole, error);
        Outcome::Unknown
    }
    /// Whether the authority's answer to a read is one to compare with, as far
    /// as its head tells.
    ///
    /// # Errors
    ///
    /// Why not.
    fn comparable(&self, answer: &Res) -> Result<(), SkipReason>;
    /// The same, as far as its end tells. Default: it is.
    ///
    /// # Errors
    ///
    /// Why not.
    fn comparable_whole(&self, answer: &Self::Captured) -> Result<(), SkipReason> {
        let _ = answer;
        Ok(())
    }
    /// Whether the other side may answer such a read if the authority fails it:
    /// see [`read_fallback`](crate::MigrationLayer::read_fallback). Default: yes.
    fn covers(&self, watched: &Self::Watched) -> bool {
        let _ = watched;
        true
    }
    /// Whether a client sends nothing more once it has the end of its answer, so
    /// that the other leg need not wait for the rest of the request. Default: no.
    fn answer_ends_request(&self) -> bool {
        false
    }
    /// The answer, handed on. The mark is dropped when the answer has ended.
    fn pass(answer: Res, mark: Option<Mark>) -> Self::Answer;
    /// After which grace period this write is broken off if it keeps a step
    /// waiting: it was admitted before the flag moved, or before a step began to
    /// wait for it. `None`, the default: never.
    fn closes(&self, request: &Req) -> Option<Duration> {
        let _ = request;
        None
    }
    /// The request of such a write that runs alone, and what breaks it off: its
    /// side must get nothing more of it once the step goes on. Default: it
    /// cannot be broken off.
    fn breakable(&self, request: Req, room: Room) -> (Req, Option<BreakOff>) {
        drop(room);
        (request, None)
    }
    /// The answer to such a write, to be ended by the layer when `closing`
    /// says so, whether it is being read or not. Default: it goes on.
    fn close_when(&self, answer: Self::Answer, closing: Closing) -> Self::Answer {
        drop(closing);
        answer
    }
    /// The answer, to be read ahead.
    fn ahead(answer: Res) -> Self::Ahead;
    /// What the end of an answer says, if it is here already: asked where the
    /// head has said [`Said::AtEnd`]. Must not wait. Most answers that are not
    /// streams are here as a whole, and then are as those of which the head
    /// tells. Default: nothing.
    fn ahead_said(&self, whole: &Self::Whole, ahead: &mut Self::Ahead) -> Option<Drained> {
        let _ = (whole, ahead);
        None
    }
    /// The authority's answer to a dual write, handed on. `ending` must be told
    /// of its end.
    fn keep(&self, whole: &Self::Whole, ahead: Self::Ahead, ending: Ending) -> Self::Answer;
    /// The authority's answer to a read, handed on and watched.
    fn tee(
        &self,
        watched: &Self::Watched,
        answer: Res,
        mark: Mark,
        room: Room,
    ) -> (Self::Answer, Self::Pending);
    /// The answer, once the client has read it, and what it holds of its room.
    fn pending(
        pending: Self::Pending,
    ) -> impl Future<Output = Result<(Self::Captured, Room), CaptureError>> + Send;
    /// A shadow's answer, whole, and what it holds of its room.
    fn capture(
        &self,
        whole: &Self::Whole,
        answer: Res,
        room: Room,
    ) -> impl Future<Output = Result<(Self::Captured, Room), CaptureError>> + Send;
    /// Reads an answer to its end and forgets it: a handler may still be
    /// writing.
    ///
    /// # Errors
    ///
    /// It broke off.
    fn drain(
        &self,
        whole: &Self::Whole,
        answer: Res,
    ) -> impl Future<Output = Result<Drained, CaptureError>> + Send;
    /// Marks an answer as the other side's. Default: it is not marked.
    fn fell_back(&self, answer: &mut Res, side: Side) {
        let _ = (answer, side);
    }
    /// What differs between two answers to one read. `other` is the authority's too
    /// where that is compared with itself, and `context` says so.
    fn compare(
        &self,
        whole: &Self::Whole,
        authority: &Self::Captured,
        other: &Self::Captured,
        context: Context,
    ) -> Diff;
    /// Whether comparing these two may take so long that it should not be done on
    /// the async runtime; `inline` is
    /// [`Limits::compare_inline`](crate::Limits::compare_inline). Default: never.
    fn compares_long(
        &self,
        authority: &Self::Captured,
        other: &Self::Captured,
        inline: usize,
    ) -> bool {
        let _ = (authority, other, inline);
        false
    }
    /// What a read is counted under in the [`Report`](crate::Report): one of a few
    /// texts, whatever the requests. Default: `all`.
    fn route(&self, whole: &Self::Whole) -> Arc<str> {
        let _ = whole;
        "all".into()
    }
    /// The same of a read that has not been copied. Default: `all`.
    fn route_of(&self, watched: &Self::Watched) -> Arc<str> {
        let _ = watched;
        "all".into()
    }
    /// The path by which [`Noise`](crate::compare::Noise) leaves requests out.
    /// Default: none.
    fn noise_path<'a>(&self, whole: &'a Self::Whole) -> &'a str {
        let _ = whole;
        ""
    }
    /// The layer's own answer.
    ///
    /// # Errors
    ///
    /// Where it is an error.
    fn refuse(&self, reason: Refused) -> Result<Self::Answer, E>;
}

/// What the layer asks of a protocol before it knows any request.
pub trait HasKeys {
    /// Whether writes have keys at all. If not, the log warns when the layer is
    /// applied. Default: yes.
    fn has_keys(&self) -> bool {
        true
    }
}
