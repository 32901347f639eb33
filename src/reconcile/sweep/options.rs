//! How a run goes through its keys.

use std::{fmt, sync::Arc, time::Duration};

use super::SlowDown;
use crate::{flag::ConfigError, reconcile::CheckpointStore};

/// How a [`Backfill`](crate::reconcile::Backfill) or a
/// [`Verify`](crate::reconcile::Verify) goes through its keys: how many at once, how
/// fast, and what it remembers.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::reconcile::{FileCheckpoints, SlowDown, Sweep};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("airports.backfill");
/// let sweep = Sweep::new()
///     .concurrency(8)
///     .rate(2_000.0)
///     .slow_down(SlowDown::new().factor(2.0))
///     .checkpoints(FileCheckpoints::at(path)?);
/// # let _ = sweep;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Sweep {
    pub(in crate::reconcile) concurrency: usize,
    pub(in crate::reconcile) rate: Option<f64>,
    pub(in crate::reconcile) slow_down: Option<SlowDown>,
    pub(in crate::reconcile) key_timeout: Duration,
    pub(in crate::reconcile) attempts: u32,
    pub(in crate::reconcile) retry_pause: Duration,
    pub(in crate::reconcile) failures: usize,
    pub(in crate::reconcile) patience: Duration,
    pub(in crate::reconcile) checkpoints: Option<Arc<dyn CheckpointStore>>,
    pub(in crate::reconcile) checkpoint_every: Duration,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            concurrency: 16,
            rate: None,
            slow_down: Some(SlowDown::default()),
            key_timeout: Duration::from_secs(30),
            attempts: 5,
            retry_pause: Duration::from_millis(500),
            failures: 10_000,
            patience: Duration::from_secs(600),
            checkpoints: None,
            checkpoint_every: Duration::from_secs(1),
        }
    }
}

impl Sweep {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys are worked at at once, at the most (default 16).
    pub const fn concurrency(mut self, keys: usize) -> Self {
        self.concurrency = keys;
        self
    }

    /// How many keys are begun in a second, at the most (default: no limit).
    pub const fn rate(mut self, keys_per_second: f64) -> Self {
        self.rate = Some(keys_per_second);
        self
    }

    /// When to make way for clients. Default: [`SlowDown::new`].
    pub const fn slow_down(mut self, slow_down: SlowDown) -> Self {
        self.slow_down = Some(slow_down);
        self
    }

    /// Never makes way.
    pub const fn no_slow_down(mut self) -> Self {
        self.slow_down = None;
        self
    }

    /// How long one key may take, waiting for its place included, before it counts
    /// as failed for now (default 30 s).
    pub const fn key_timeout(mut self, limit: Duration) -> Self {
        self.key_timeout = limit;
        self
    }

    /// How often a key is tried before the run ends without it (default 5). Tries
    /// come after all other keys.
    pub const fn attempts(mut self, count: u32) -> Self {
        self.attempts = count;
        self
    }

    /// The pause before failed keys are tried again (default 500 ms); each further
    /// one is twice as long.
    pub const fn retry_pause(mut self, pause: Duration) -> Self {
        self.retry_pause = pause;
        self
    }

    /// How many failed keys are remembered, to be tried again (default 10 000).
    /// What goes over it is counted, and makes the next run begin from the start.
    pub const fn failures(mut self, count: usize) -> Self {
        self.failures = count;
        self
    }

    /// How long the run waits while one key after the other fails, since a side is down
    /// (default 10 min). One key is tried now and then meanwhile, at most every 30 s; then
    /// the run ends with [`SweepError::Down`](super::SweepError::Down).
    pub const fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Where the run notes how far it has come, so that the next one goes on from
    /// there, after a kill too (default: nowhere).
    pub fn checkpoints(mut self, store: impl CheckpointStore) -> Self {
        self.checkpoints = Some(Arc::new(store));
        self
    }

    /// How often it does (default once a second).
    pub const fn checkpoint_every(mut self, period: Duration) -> Self {
        self.checkpoint_every = period;
        self
    }

    pub(in crate::reconcile) fn check(&self) -> Result<(), ConfigError> {
        let zero = |limit| Err(ConfigError::Zero { limit });
        if self.concurrency == 0 {
            return zero("concurrency");
        }
        if self.key_timeout.is_zero() {
            return zero("key_timeout");
        }
        if self.attempts == 0 {
            return zero("attempts");
        }
        if let Some(given) = self.rate
            && !(given > 0.0 && given.is_finite() && 1.0 / given < 1e9)
        {
            return Err(ConfigError::OutOfRange { what: "rate", given, range: "more than 0" });
        }
        if let Some(SlowDown { factor: given, .. }) = self.slow_down
            && (given <= 1.0 || !given.is_finite())
        {
            let range = "more than 1";
            return Err(ConfigError::OutOfRange { what: "slow_down factor", given, range });
        }
        Ok(())
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep")
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            .field("slow_down", &self.slow_down)
            .field("key_timeout", &self.key_timeout)
            .field("attempts", &self.attempts)
            .field("checkpoints", &self.checkpoints.is_some())
            .finish_non_exhaustive()
    }
}
