//! Were the two legs of a write equal, and what does the client hear?

use std::fmt;

/// What one leg of a write did, as far as its answer tells.
///
/// | outcome | HTTP answers that mean it |
/// |---|---|
/// | `Applied` | 2xx; 3xx but for the three below; 404 and 410 to a DELETE |
/// | `Refused` | 4xx but for 408; 304, 307, 308 |
/// | `Unknown` | 5xx, 408, 1xx; an error, a panic, a timeout, a side not ready in time |
/// | `NotRun` | the leg was never started |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The write is in that side's data.
    Applied,
    /// The request was rejected and nothing was written.
    Refused,
    /// It may or may not have been written, or may still be.
    Unknown,
    /// The leg was not started.
    NotRun,
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Refused, Self::Unknown, Self::NotRun];

    /// `applied`, `refused`, `unknown` or `not_run`, as in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::NotRun => "not_run",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the two sides can still be equal after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a key is clean or it is not")]
pub enum Agreement {
    /// Both sides hold the same.
    Clean,
    /// They may differ: the keys are marked dirty.
    Dirty,
}

/// The agreement table.
///
/// | authority \ other | applied | refused | unknown | not run |
/// |---|---|---|---|---|
/// | applied | clean | dirty | dirty | dirty |
/// | refused | dirty | clean | dirty | clean |
/// | unknown | dirty | dirty | dirty | dirty |
/// | not run | dirty | clean | dirty | clean |
///
/// The last row does not happen in this crate (an authority's leg that begins
/// is run); it is there so that the function is total.
#[must_use]
pub const fn agreement(authority: Outcome, other: Outcome) -> Agreement {
    use Outcome::{Applied, NotRun, Refused};
    match (authority, other) {
        (Applied, Applied) | (Refused | NotRun, Refused | NotRun) => Agreement::Clean,
        _ => Agreement::Dirty,
    }
}

/// When the client of a dual write gets its answer, and which.
///
/// Whatever the policy, both legs run to their end, and two outcomes that are not the
/// same make the keys dirty ([`agreement`]). The policy decides only what the *client* waits for; an
/// emergency exit under the write makes it [`RequireBoth`](Self::RequireBoth).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Answer as soon as the authority has; the other leg goes on by itself.
    /// The default: the other side can neither delay nor fail a request.
    #[default]
    AuthorityWins,
    /// Wait for both legs (at most the leg timeout), then answer the
    /// authority's answer, whatever the other leg did.
    AwaitBoth,
    /// Wait for both legs. If both applied it, or both refused it: the
    /// authority's answer. Anything else: 503 with a problem body of type
    /// `partial-write`. Until the other side is synced this acts as
    /// `AwaitBoth`, since new rightly refuses changes to rows it does not have
    /// yet.
    RequireBoth,
}

/// In which order the legs of a dual write run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteOrder {
    /// Both at once. The default.
    #[default]
    Concurrent,
    /// The other leg starts only after the authority has applied the write.
    AuthorityFirst,
}

/// What the client of a dual write is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the client hears the authority or that the write was partial"
)]
pub enum Reply {
    /// The authority's own answer.
    Authority,
    /// 503, problem type `partial-write`.
    PartialWrite,
}

/// What the client hears once `policy` lets it hear anything.
#[must_use]
pub const fn reply(
    policy: FailurePolicy,
    other_synced: bool,
    authority: Outcome,
    other: Outcome,
) -> Reply {
    match policy {
        FailurePolicy::AuthorityWins | FailurePolicy::AwaitBoth => Reply::Authority,
        FailurePolicy::RequireBoth if !other_synced => Reply::Authority,
        FailurePolicy::RequireBoth => match agreement(authority, other) {
            Agreement::Clean => Reply::Authority,
            Agreement::Dirty => Reply::PartialWrite,
        },
    }
}
