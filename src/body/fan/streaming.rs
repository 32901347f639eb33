//! What can be set about streaming.

use std::time::Duration;

use crate::flag::ConfigError;

/// How the body of a dual write is streamed to both sides at once, instead of
/// being collected first.
///
/// Each chunk goes to both sides as it arrives, without a copy. What the slower
/// side has not read yet is kept in memory, up to [`lag`](Self::lag) for each
/// request, and is paid for out of
/// [`Limits::buffered_bytes`](crate::Limits::buffered_bytes) for all of them;
/// a request that finds no room there is treated as if it had reached its own
/// limit.
///
/// | the slower side is | then |
/// |---|---|
/// | the authority | the other side waits for it, as long as it reads on at all |
/// | the other side | as [`slow_leg`](Self::slow_leg) says |
///
/// A side that takes nothing of what there is for it for
/// [`Limits::leg_timeout`](crate::Limits::leg_timeout) has failed, as one that
/// does not answer: nobody waits for it, and it is dropped after
/// [`abandon_after`](crate::Limits::abandon_after).
///
/// Both sides get the same content only if both read to the end. A side that
/// was cut off, or that stops reading, has got a part of it.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::body::{SlowLeg, Streaming};
///
/// let streaming = Streaming::new()
///     .lag(4 << 20)
///     .slow_leg(SlowLeg::Hold(Duration::from_secs(30)))
///     .above(64 << 10);
/// # let _ = streaming;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Streaming {
    pub(crate) lag: usize,
    pub(crate) slow_leg: SlowLeg,
    pub(crate) above: Option<usize>,
}

/// What happens when the other side has fallen behind the authority by
/// [`Streaming::lag`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowLeg {
    /// As the failure policy has it, the default. With `AuthorityWins` nothing on
    /// the other side may delay a client: [`CutOff`](Self::CutOff). With a policy
    /// that waits for the other side anyhow: [`Hold`](Self::Hold) for 10 s.
    #[default]
    ByPolicy,
    /// The authority gets no more of the body until the other side has read on.
    /// If it reads nothing for this long while the authority waits, it is cut
    /// off, even if it only waits for its turn behind another write of its key:
    /// that one is slow on the same side. Zero is the same as
    /// [`CutOff`](Self::CutOff).
    ///
    /// The two sides stay equal more often, at the price that a slow other side
    /// slows the upload.
    Hold(Duration),
    /// The other side is cut off at once: its body breaks off with
    /// [`BranchError::CutOff`](super::BranchError::CutOff), and the authority
    /// never waits.
    CutOff,
}

/// How long [`SlowLeg::ByPolicy`] holds the authority back, where it does.
const PATIENCE: Duration = Duration::from_secs(10);

impl Default for Streaming {
    fn default() -> Self {
        Self { lag: 1 << 20, slow_leg: SlowLeg::default(), above: None }
    }
}

impl Streaming {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the two sides may be apart, in bytes (default 1 MiB). It may be
    /// passed by one chunk, since nobody knows how long that will be; and it
    /// counts as reached when there are over a thousand chunks of less than
    /// 1 KiB on average, since each of them has a price too. Zero is refused.
    pub fn lag(mut self, bytes: usize) -> Self {
        self.lag = bytes;
        self
    }

    /// What happens when the other side is that far behind the authority
    /// (default [`SlowLeg::ByPolicy`]).
    pub fn slow_leg(mut self, slow_leg: SlowLeg) -> Self {
        self.slow_leg = slow_leg;
        self
    }

    /// Requests that are known to have at most this many bytes are collected as
    /// without streaming (default: as many as
    /// [`Limits::body`](crate::Limits::body)). Their sides see nothing of an
    /// upload that breaks off.
    pub fn above(mut self, bytes: usize) -> Self {
        self.above = Some(bytes);
        self
    }

    /// The same for one request, whose client waits for the other side or not.
    pub(crate) const fn for_client(mut self, waits: bool) -> Self {
        if matches!(self.slow_leg, SlowLeg::ByPolicy) {
            self.slow_leg = if waits { SlowLeg::Hold(PATIENCE) } else { SlowLeg::CutOff };
        }
        self
    }

    /// Whether this can work.
    pub(crate) fn check(self) -> Result<(), ConfigError> {
        if self.lag == 0 { Err(ConfigError::Zero { limit: "lag" }) } else { Ok(()) }
    }

    /// The most chunks that are kept for a side, whatever their length.
    pub(super) fn most_chunks(self) -> usize {
        (self.lag >> 10).max(1024)
    }
}
