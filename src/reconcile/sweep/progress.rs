//! How far a run has come.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::reason::reasons;

reasons! {
    /// What a run is doing.
    pub enum Phase {
        /// It has not begun to visit keys: it waits for earlier writes to settle, or
        /// reads its checkpoint.
        Starting = "starting",
        /// It visits keys.
        Running = "running",
        /// It waits: another process obeys the same flag, or writes of an earlier
        /// epoch have to settle.
        Waiting = "waiting",
        /// It tries again what has failed.
        Retrying = "retrying",
        /// It has ended, well or not.
        Ended = "ended",
    }
}

/// How far a [`Backfill`](crate::reconcile::Backfill) or a
/// [`Verify`](crate::reconcile::Verify) has come, for bars and pages.
///
/// `Display` is a line for a person: `12000 of 28298 keys, 3 failed, 8450/s, 2s left`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Keys that are done, those of the run that it resumes included.
    pub done: u64,
    /// Keys that have failed by now. They are tried again.
    pub failed: u64,
    /// How many keys there are about, if that is known.
    pub total: Option<u64>,
    /// Keys in a second, of late.
    pub rate: f64,
    /// How long the rest takes at that rate, if the total is known.
    pub left: Option<Duration>,
    /// How many keys are worked at at once, at the most: less than the run's
    /// concurrency while it makes way for clients.
    pub at_once: usize,
}

impl Progress {
    pub(in crate::reconcile) const fn start(at_once: usize) -> Self {
        Self {
            phase: Phase::Starting,
            done: 0,
            failed: 0,
            total: None,
            rate: 0.0,
            left: None,
            at_once,
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.done)?;
        if let Some(total) = self.total {
            write!(f, " of {total}")?;
        }
        f.write_str(" keys")?;
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        write!(f, ", {:.0}/s", self.rate)?;
        if let Some(left) = self.left {
            write!(f, ", {}s left", left.as_secs())?;
        }
        match self.phase {
            Phase::Running => Ok(()),
            phase => write!(f, " ({phase})"),
        }
    }
}

/// The rate of late: of about the last ten seconds, or of all of them while there are
/// fewer.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    at: Instant,
    done: u64,
    rate: f64,
}

/// Over how long the weight of a moment falls to a third, in seconds.
const MEMORY: f64 = 5.0;

impl Meter {
    pub(super) fn new(done: u64) -> Self {
        let now = Instant::now();
        Self { began: now, at: now, done, rate: 0.0 }
    }

    pub(super) fn rate(&mut self, done: u64) -> f64 {
        let passed = self.at.elapsed().as_secs_f64();
        if passed < 0.05 {
            return self.rate;
        }
        let now = done.saturating_sub(self.done) as f64 / passed;
        let so_far = passed / self.began.elapsed().as_secs_f64();
        let weight = (1.0 - (-passed / MEMORY).exp()).max(so_far);
        self.rate += weight * (now - self.rate);
        (self.at, self.done) = (Instant::now(), done);
        self.rate
    }
}
