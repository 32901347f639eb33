//! Whether to go back.

use std::time::Duration;

use super::{
    AlarmReason, AutoRollback,
    window::{Counts, Window},
};

/// A share that is over its threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) reason: AlarmReason,
    pub(super) measured: f64,
    pub(super) threshold: f64,
    pub(super) samples: u64,
}

/// What to do about what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    Nothing,
    /// Go back; said once, and again only if that could not be done.
    RollBack(Finding),
    /// Raise an alarm; said once.
    Alarm(Finding),
    /// The alarm is over.
    AllClear,
}

/// Goes back once.
///
/// Armed => Firing: a threshold is passed, and the flag may go back.
/// Firing => Fired: it has. Firing => Armed: it could not.
/// Fired => Armed: an operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latch {
    Armed,
    Firing,
    Fired,
}

/// An alarm that stands.
#[derive(Debug)]
struct Standing {
    reason: AlarmReason,
    /// Since when its share has been below half the threshold.
    calm_since: Option<Duration>,
}

/// Looks at new's counters once a second while it serves clients, and decides.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) config: AutoRollback,
    window: Window,
    latch: Latch,
    alarm: Option<Standing>,
}

impl Watch {
    pub(super) const fn new(config: AutoRollback) -> Self {
        let window = Window::new(config.window);
        Self { config, window, latch: Latch::Armed, alarm: None }
    }

    /// Another stage was entered at `at`, when `counts` had been counted.
    pub(super) fn enter(&mut self, at: Duration, counts: Counts) {
        self.window.clear();
        self.window.look(at, counts);
        if let Some(alarm) = &mut self.alarm {
            alarm.calm_since = None;
        }
    }

    /// New serves no client: there is nothing to judge, nor to be alarmed at.
    pub(super) fn idle(&mut self) -> Act {
        if self.alarm.take().is_some() { Act::AllClear } else { Act::Nothing }
    }

    /// New serves clients, and this has been counted in all.
    pub(super) fn look(&mut self, now: Duration, counts: Counts, may_roll_back: bool) -> Act {
        let seen = self.window.look(now, counts);
        if let Some(finding) = self.exceeded(seen) {
            if may_roll_back && self.latch == Latch::Armed {
                self.latch = Latch::Firing;
                return Act::RollBack(finding);
            }
            // While it fires, what happens next is known soon.
            let raised = self.latch != Latch::Firing && self.raise(finding);
            return if raised { Act::Alarm(finding) } else { Act::Nothing };
        }
        let Some(alarm) = &mut self.alarm else {
            return Act::Nothing;
        };
        if !is_calm(&self.config, alarm.reason, seen) {
            alarm.calm_since = None;
            return Act::Nothing;
        }
        let since = *alarm.calm_since.get_or_insert(now);
        if now.saturating_sub(since) < self.config.window {
            return Act::Nothing;
        }
        self.alarm = None;
        Act::AllClear
    }

    fn exceeded(&self, seen: Counts) -> Option<Finding> {
        AlarmReason::ALL.iter().find_map(|&reason| {
            let threshold = self.config.threshold(reason)?;
            let (hits, samples) = seen.share(reason);
            let measured = hits as f64 / samples as f64;
            (samples >= self.config.min_samples && measured > threshold).then_some(Finding {
                reason,
                measured,
                threshold,
                samples,
            })
        })
    }

    /// Answers whether it is news.
    fn raise(&mut self, finding: Finding) -> bool {
        match &mut self.alarm {
            Some(alarm) => {
                alarm.calm_since = None;
                false
            }
            None => {
                self.alarm = Some(Standing { reason: finding.reason, calm_since: None });
                true
            }
        }
    }

    /// The flag has gone back.
    pub(super) fn fired(&mut self) {
        self.latch = Latch::Fired;
        self.alarm = None;
    }

    /// The flag could not go back. Answers whether that is a new alarm.
    pub(super) fn misfired(&mut self, finding: Finding) -> bool {
        if self.latch != Latch::Firing {
            return false;
        }
        self.latch = Latch::Armed;
        self.raise(finding)
    }

    /// It may go back again, for what it sees from now on.
    pub(super) fn rearm(&mut self) {
        if self.latch == Latch::Fired {
            self.latch = Latch::Armed;
        }
        self.alarm = None;
        self.window.clear();
    }
}

/// Far enough below the threshold for an alarm to end, and enough of it.
fn is_calm(config: &AutoRollback, reason: AlarmReason, seen: Counts) -> bool {
    let (hits, samples) = seen.share(reason);
    let threshold = config.threshold(reason).unwrap_or(1.0);
    samples >= config.min_samples && (hits as f64) < samples as f64 * threshold / 2.0
}

#[cfg(test)]
mod tests;
