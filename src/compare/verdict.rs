//! What a shadow read found out.

use std::fmt;

use super::Diff;
use crate::reason::reasons;

reasons! {
    /// Why a difference says nothing about the data.
    pub enum InconclusiveReason {
        /// A write of the key ran while the two sides were read.
        Raced = "raced",
        /// The sides differed, and were equal when read again.
        Transient = "transient",
        /// The sides differed, and the deadline came before they could be read
        /// again, or before they were compared.
        Deadline = "deadline",
        /// Where they differ, the authority differs from itself: see
        /// [`Noise`](crate::compare::Noise).
        Noise = "noise",
        /// Where they differ, as far as that is listed, the authority differs from
        /// itself; and they differ at more places than are listed.
        Unlisted = "unlisted",
        /// The other side answered 304 to a request that the authority answered
        /// whole.
        NotModified = "not_modified",
    }
}

reasons! {
    /// Why a sampled read was not compared.
    pub enum SkipReason {
        /// [`Limits::shadow_tasks`](crate::Limits::shadow_tasks) were running.
        NoSlot = "no_slot",
        /// The authority failed (HTTP: 5xx), so there is nothing to compare with.
        AuthorityFailed = "authority_failed",
        /// The authority refused, or had no such thing (HTTP: 404 and other 4xx, 3xx),
        /// so there is nothing to compare with.
        AuthorityRefused = "authority_refused",
        /// The authority answered 304: the client has the answer, we have not.
        NotModified = "not_modified",
        /// The other side is not synced: differences are expected. It was read
        /// all the same, which shows whether it answers at all.
        Unsynced = "unsynced",
        /// The key is dirty: a difference is known already. It was read all
        /// the same.
        Dirty = "dirty",
        /// The request's body is over
        /// [`Limits::captured_body`](crate::Limits::captured_body).
        RequestTooLarge = "request_too_large",
        /// The authority answered without reading the whole request, so there
        /// is no copy of it.
        RequestUnread = "request_unread",
        /// An answer is over [`Limits::captured_body`](crate::Limits::captured_body).
        AnswerTooLarge = "answer_too_large",
        /// [`Limits::captured_bytes`](crate::Limits::captured_bytes) were in
        /// use.
        CapturedBytes = "captured_bytes",
        /// The client hung up before it had the whole answer.
        ClientGone = "client_gone",
        /// The client had not taken the whole answer before the deadline.
        ClientSlow = "client_slow",
        /// The authority's answer broke off.
        AnswerBroken = "answer_broken",
        /// A body is encoded in a way that cannot be read: `br`, `zstd`, or `gzip`
        /// without one of the features `json` and `grpc`.
        Encoding = "encoding",
        /// A body is over a limit of the comparer once it is decoded.
        TooLarge = "too_large",
        /// A document is nested too deeply for the comparer.
        TooDeep = "too_deep",
    }
}

reasons! {
    /// Why the other side gave nothing to compare.
    pub enum FailReason {
        /// It was not ready before the deadline.
        NotReady = "not_ready",
        /// It did not answer before the deadline.
        Deadline = "deadline",
        /// It answered with an error.
        Error = "error",
        /// Its answer's body broke off.
        BodyFailed = "body_failed",
        /// It panicked.
        Panicked = "panicked",
        /// The comparer panicked.
        ComparerPanicked = "comparer_panicked",
    }
}

/// Why two answers could not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unclear {
    /// That says nothing about the data.
    Inconclusive(InconclusiveReason),
    /// It was not tried.
    Skipped(SkipReason),
}

impl From<InconclusiveReason> for Unclear {
    fn from(reason: InconclusiveReason) -> Self {
        Self::Inconclusive(reason)
    }
}

impl From<SkipReason> for Unclear {
    fn from(reason: SkipReason) -> Self {
        Self::Skipped(reason)
    }
}

impl From<Unclear> for Verdict {
    fn from(unclear: Unclear) -> Self {
        match unclear {
            Unclear::Inconclusive(reason) => Self::Inconclusive(reason),
            Unclear::Skipped(reason) => Self::Skipped(reason),
        }
    }
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inconclusive(reason) => reason.fmt(f),
            Self::Skipped(reason) => reason.fmt(f),
        }
    }
}

/// What a shadow read found out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Both sides gave the same answer.
    Match,
    /// They differ, nothing raced them, and they still differed when read
    /// again. (Read again they are not where [`Limits::rereads`](crate::Limits::rereads)
    /// is 0, nor by a side that has failed its last 16 reads.)
    Mismatch(Diff),
    /// They differ, but that may be the moment's fault.
    Inconclusive(InconclusiveReason),
    /// Not compared.
    Skipped(SkipReason),
    /// The other side gave no answer.
    Failed(FailReason),
}

impl Verdict {
    /// `match`, `mismatch`, `inconclusive`, `skipped` or `failed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Mismatch(_) => "mismatch",
            Self::Inconclusive(_) => "inconclusive",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason's label, where there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Match | Self::Mismatch(_) => None,
            Self::Inconclusive(reason) => Some(reason.as_str()),
            Self::Skipped(reason) => Some(reason.as_str()),
            Self::Failed(reason) => Some(reason.as_str()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.reason()) {
            (Self::Mismatch(diff), _) => write!(f, "mismatch: {diff}"),
            (_, Some(reason)) => write!(f, "{} ({reason})", self.as_str()),
            (_, None) => f.write_str(self.as_str()),
        }
    }
}
