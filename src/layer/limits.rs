//! What a layer may use.

use std::time::Duration;

use crate::flag::ConfigError;

/// What a layer may use at most. Every limit has a default and shows in a
/// metric when it is reached.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::Limits;
///
/// let limits = Limits::default().body(64 * 1024).leg_timeout(Duration::from_secs(5));
/// # let _ = limits;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Limits {
    pub(crate) body: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) buffered_bytes: usize,
    pub(crate) ready_timeout: Duration,
    pub(crate) leg_timeout: Duration,
    pub(crate) abandon_after: Duration,
    pub(crate) running_legs: usize,
    pub(crate) key_queue: usize,
    pub(crate) shadow_tasks: usize,
    pub(crate) shadow_deadline: Duration,
    pub(crate) captured_body: usize,
    pub(crate) captured_bytes: usize,
    pub(crate) rereads: u32,
    pub(crate) reread_pause: Duration,
    pub(crate) compare_inline: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            body_timeout: Duration::from_secs(30),
            buffered_bytes: 256 << 20,
            ready_timeout: Duration::from_secs(5),
            leg_timeout: Duration::from_secs(30),
            abandon_after: Duration::from_secs(300),
            running_legs: 1_024,
            key_queue: 64,
            shadow_tasks: 64,
            shadow_deadline: Duration::from_secs(5),
            captured_body: 1 << 20,
            captured_bytes: 64 << 20,
            rereads: 2,
            reread_pause: Duration::from_millis(50),
            compare_inline: 32 << 10,
        }
    }
}

impl Limits {
    /// The largest body of a dual write, in bytes (default 2 MiB). Over it:
    /// 413, before either side has seen the request, unless it is
    /// [streamed](super::MigrationLayer::stream_bodies).
    pub fn body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// How long a dual write's body may take to arrive (default 30 s). Over it:
    /// 408, before either side has seen the request. Such a request is in
    /// flight, so this also bounds how long it can delay a flip. It does not
    /// apply to a request that is
    /// [streamed](super::MigrationLayer::stream_bodies).
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.body_timeout = limit;
        self
    }

    /// The bodies of all dual writes together, in bytes (default 256 MiB). Over
    /// it: 503, before either side has seen the request. One that is streamed is
    /// never refused: its sides may then be one chunk apart, beyond this limit.
    pub fn buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes;
        self
    }

    /// How long a leg of a dual write waits for its side to be ready (default
    /// 5 s). Over it the leg has failed.
    pub fn ready_timeout(mut self, limit: Duration) -> Self {
        self.ready_timeout = limit;
        self
    }

    /// How long anybody waits for a leg of a dual write (default 30 s),
    /// queueing for its key included. For a request that is streamed, from the
    /// end of its body on, or since the leg has stopped asking for more of it:
    /// see [`stream_bodies`](super::MigrationLayer::stream_bodies).
    /// The leg itself goes on: a database call
    /// cannot be stopped by looking away. The authority's client gets 504; its
    /// leg goes on if one of [`running_legs`](Self::running_legs) is free.
    pub fn leg_timeout(mut self, limit: Duration) -> Self {
        self.leg_timeout = limit;
        self
    }

    /// How long a leg that nobody waits for any more may go on before it is
    /// dropped (default 5 min, counted from there). Until then it holds its
    /// key and keeps the flag from settling. Also bounds how long the rest of
    /// an answer is read for a client that hung up.
    pub fn abandon_after(mut self, limit: Duration) -> Self {
        self.abandon_after = limit;
        self
    }

    /// How many other legs may be running or queued (default 1024). Over it
    /// the other leg is not run and the keys are dirty; with `RequireBoth`, once the
    /// other side is synced, the request is refused with 503 instead.
    pub fn running_legs(mut self, count: usize) -> Self {
        self.running_legs = count;
        self
    }

    /// How many legs may run and queue for one key on the other side (default
    /// 64). Over it: as [`running_legs`](Self::running_legs).
    pub fn key_queue(mut self, count: usize) -> Self {
        self.key_queue = count;
        self
    }

    /// How many shadow reads may be under way (default 64). Over it the read is
    /// not shadowed.
    pub fn shadow_tasks(mut self, count: usize) -> Self {
        self.shadow_tasks = count;
        self
    }

    /// How long a shadow read may take from the authority's head on, waiting
    /// and reading again included (default 5 s).
    pub fn shadow_deadline(mut self, limit: Duration) -> Self {
        self.shadow_deadline = limit;
        self
    }

    /// The largest body that is kept for comparing, in bytes (default 1 MiB).
    /// A larger one is not compared: never cut and compared.
    pub fn captured_body(mut self, bytes: usize) -> Self {
        self.captured_body = bytes;
        self
    }

    /// All bodies that are kept for comparing together, in bytes (default
    /// 64 MiB). What does not fit is not compared.
    pub fn captured_bytes(mut self, bytes: usize) -> Self {
        self.captured_bytes = bytes;
        self
    }

    /// How often both sides are read again before a difference counts as a
    /// mismatch (default 2). 0: the first difference counts. So it does where the other
    /// side has failed (HTTP: 5xx) the last 16 shadow reads, too, whatever they were: it is
    /// down, and reading again would be three times the work for it and the authority.
    pub fn rereads(mut self, count: u32) -> Self {
        self.rereads = count;
        self
    }

    /// The pause before the first reading again (default 50 ms); each further
    /// one is twice as long.
    pub fn reread_pause(mut self, pause: Duration) -> Self {
        self.reread_pause = pause;
        self
    }

    /// Up to which size, both bodies together and in bytes, answers that differ are
    /// compared on the async runtime (default 32 KiB). Larger ones, and compressed ones
    /// of any size, are compared on a thread of tokio's blocking pool; also those that do
    /// not differ, where the comparer
    /// [looks into them](crate::compare::Compare::looks_into_equal). All within
    /// [`shadow_deadline`](Self::shadow_deadline); the slot of the read is taken
    /// until that thread has ended. 0: all that differ are.
    pub fn compare_inline(mut self, bytes: usize) -> Self {
        self.compare_inline = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("body", self.body),
            ("buffered_bytes", self.buffered_bytes),
            ("running_legs", self.running_legs),
            ("key_queue", self.key_queue),
            ("shadow_tasks", self.shadow_tasks),
            ("captured_body", self.captured_body),
            ("captured_bytes", self.captured_bytes),
        ];
        let times = [
            ("body_timeout", self.body_timeout),
            ("ready_timeout", self.ready_timeout),
            ("leg_timeout", self.leg_timeout),
            ("abandon_after", self.abandon_after),
            ("shadow_deadline", self.shadow_deadline),
        ];
        let zero_count = counts.into_iter().find(|(_, count)| *count == 0).map(|(name, _)| name);
        let zero_time = times.into_iter().find(|(_, time)| time.is_zero()).map(|(name, _)| name);
        if let Some(limit) = zero_count.or(zero_time) {
            return Err(ConfigError::Zero { limit });
        }
        if self.body > self.buffered_bytes {
            return Err(ConfigError::TooSmall { limit: "buffered_bytes", than: "body" });
        }
        if self.captured_body > self.captured_bytes {
            return Err(ConfigError::TooSmall { limit: "captured_bytes", than: "captured_body" });
        }
        Ok(())
    }
}
