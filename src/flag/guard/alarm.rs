//! What was wrong with new.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{flag::gates::percent, reason::reasons, stage::Stage};

reasons! {
    /// What new was found to do too often.
    pub enum AlarmReason {
        /// Its legs failed: 5xx, errors, timeouts, panics.
        Errors = "errors",
        /// It answered too slowly.
        Latency = "latency",
        /// Clients hung up before it answered.
        HungUp = "hung_up",
    }
}

/// New was found to fail too many clients: what was measured, and where.
///
/// Its `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Alarm {
    /// What new did too often.
    pub reason: AlarmReason,
    /// The share that was measured, 0 to 1.
    pub measured: f64,
    /// The share that was allowed.
    pub threshold: f64,
    /// Of how many requests.
    pub samples: u64,
    /// Within how long.
    pub window: Duration,
    /// What counts as too slow, for [`AlarmReason::Latency`].
    pub slower_than: Option<Duration>,
    /// The stage that it happened in.
    pub stage: Stage,
    /// When, by the machine's clock.
    pub at: SystemTime,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, window, .. } = self;
        let share = percent(self.measured);
        match (self.reason, self.slower_than) {
            (AlarmReason::Errors, _) => write!(f, "new failed {share} of {samples} requests")?,
            (AlarmReason::Latency, bound) => {
                let bound = bound.unwrap_or_default();
                write!(f, "new took longer than {bound:?} for {share} of {samples} requests")?;
            }
            (AlarmReason::HungUp, _) => {
                write!(f, "clients hung up on {share} of {samples} requests to new")?;
            }
        }
        write!(f, " within {window:?}, {} is allowed", percent(self.threshold))
    }
}
