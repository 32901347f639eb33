//! When new has failed too many clients.

use std::time::Duration;

use super::AlarmReason;
use crate::flag::options::{ConfigError, check_share};

/// Lets the flag go back from `ReadNew` to `WriteBoth` by itself when new fails
/// its clients. Off unless
/// [`HandleBuilder::auto_rollback`](crate::HandleBuilder::auto_rollback) is
/// given one.
///
/// # What is watched
///
/// New's legs as the authority, reads and writes, over a sliding window. A
/// share is compared with its threshold once the window holds
/// [`min_samples`](Self::min_samples):
///
/// | threshold | share of | among |
/// |---|---|---|
/// | [`error_share`](Self::error_share) | 5xx, errors, timeouts, panics | requests that new answered or failed |
/// | [`slow_share`](Self::slow_share) | heads slower than a bound | requests that are timed: dual writes, sampled reads, and with [`durations`](crate::MigrationLayer::durations) all others |
/// | [`hang_up_share`](Self::hang_up_share) | clients that left before the head | all requests to new |
///
/// Without a limit on how long new may take, a new that hangs makes neither
/// errors nor durations: its clients hang up. Put a time limit between the layer
/// and new (then it is an error), or watch the hang-ups.
///
/// A request counts when it ends: one whose answer is streamed, at the answer's
/// end. The window is looked at once a second by the task that publishes the
/// counters, so nothing is added to a request; a share that is passed for less
/// than a second in all may go unseen.
///
/// # What happens
///
/// | when a threshold is passed | then |
/// |---|---|
/// | in `ReadNew`, old not unsynced | the same emergency exit as [`rollback`](crate::MigrationHandle::rollback), once |
/// | in `ReadNew`, old unsynced | an alarm: old would serve data with holes |
/// | in `NewOnly` | an alarm: old has missed writes, and going back would lose them |
/// | after it has gone back once | an alarm, until [`rearm`](crate::MigrationHandle::rearm) |
/// | while another process obeys the flag, or owns it | an alarm: two processes do not step back by themselves |
/// | at `WriteBoth`, while a [`ramp`](crate::MigrationHandle::ramp) lasts | the ramp ends, at once |
/// | where the step is refused | an alarm, with the reason |
///
/// A rollback and an alarm are both in the [`Status`](crate::Status), in the log
/// (once, as an error) and in the metrics. After a rollback every orderly step
/// from `WriteBoth` to `ReadNew` is refused with
/// [`Reason::RolledBack`](crate::Reason::RolledBack) until
/// [`rearm`](crate::MigrationHandle::rearm), so that automation cannot send the
/// clients to and fro. `force` is not refused.
///
/// An alarm ends when the share has stayed below *half* its threshold, over
/// [`min_samples`](Self::min_samples), for a whole window; when new serves no
/// client any more; or with `rearm`. The window starts anew at each change of
/// stage.
///
/// # Limits
///
/// It sees this process only, and a restart forgets that it has gone back.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_migration::{AutoRollback, MigrationHandle};
///
/// let migration = MigrationHandle::builder("airports")
///     .auto_rollback(
///         AutoRollback::new()
///             .error_share(0.05)
///             .slow_share(Duration::from_millis(500), 0.2)
///             .window(Duration::from_secs(10)),
///     )
///     .build()?;
/// assert!(migration.status().auto_rollback.is_none());
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it watches nothing until a handle is built with it"]
pub struct AutoRollback {
    errors: Option<f64>,
    slow: Option<(Duration, f64)>,
    hung_up: Option<f64>,
    pub(super) window: Duration,
    pub(super) min_samples: u64,
}

impl AutoRollback {
    /// No threshold yet (at least one is needed), a window of 30 s, and at
    /// least 100 samples in it.
    pub const fn new() -> Self {
        Self {
            errors: None,
            slow: None,
            hung_up: None,
            window: Duration::from_secs(30),
            min_samples: 100,
        }
    }

    /// More than this share of new's requests may not fail, between 0 and 1.
    pub const fn error_share(mut self, share: f64) -> Self {
        self.errors = Some(share);
        self
    }

    /// More than this share of new's requests, between 0 and 1, may not take
    /// longer than `bound`, which is taken up to an eighth.
    pub const fn slow_share(mut self, bound: Duration, share: f64) -> Self {
        self.slow = Some((bound, share));
        self
    }

    /// More than this share of new's clients, between 0 and 1, may not hang up
    /// before they have an answer. Some always do: take one that your service
    /// does not reach on a bad day.
    pub const fn hang_up_share(mut self, share: f64) -> Self {
        self.hung_up = Some(share);
        self
    }

    /// How far back it looks (default 30 s), from a second to an hour.
    pub const fn window(mut self, length: Duration) -> Self {
        self.window = length;
        self
    }

    /// How many requests the window must hold before a share says anything
    /// (default 100).
    pub const fn min_samples(mut self, samples: u64) -> Self {
        self.min_samples = samples;
        self
    }

    pub(in crate::flag) fn check(&self) -> Result<(), ConfigError> {
        let zero = |limit| Err(ConfigError::Zero { limit });
        if self.window.is_zero() {
            return zero("auto_rollback.window");
        }
        if !(1..=3_600).contains(&self.window.as_secs()) {
            return Err(ConfigError::OutOfRange {
                what: "auto_rollback.window",
                given: self.window.as_secs_f64(),
                range: "from 1 to 3600 seconds",
            });
        }
        if self.min_samples == 0 {
            return zero("auto_rollback.min_samples");
        }
        for (what, share) in [
            ("auto_rollback.error_share", self.errors),
            ("auto_rollback.slow_share", self.slow.map(|(_, share)| share)),
            ("auto_rollback.hang_up_share", self.hung_up),
        ] {
            share.map(|share| check_share(what, share)).transpose()?;
        }
        if self.slow_bound().is_some_and(|bound| bound.is_zero()) {
            return zero("auto_rollback.slow_share");
        }
        if self.errors.is_none() && self.slow.is_none() && self.hung_up.is_none() {
            return Err(ConfigError::Missing { what: "a threshold of auto_rollback" });
        }
        Ok(())
    }

    pub(super) const fn threshold(&self, reason: AlarmReason) -> Option<f64> {
        match reason {
            AlarmReason::Errors => self.errors,
            AlarmReason::Latency => match self.slow {
                Some((_, share)) => Some(share),
                None => None,
            },
            AlarmReason::HungUp => self.hung_up,
        }
    }

    pub(super) fn slow_bound(&self) -> Option<Duration> {
        self.slow.map(|(bound, _)| bound)
    }
}

impl Default for AutoRollback {
    fn default() -> Self {
        Self::new()
    }
}
