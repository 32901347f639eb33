//! Is anything to be had at all, or is a side down?

use std::time::Duration;

use tokio::time::Instant;

/// How many failures in a row, over all keys, mean that a side is down.
const IN_A_ROW: u32 = 8;
/// Between two tries then: the first pause, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row, whatever the key. (A circuit breaker: Nygard, *Release
/// It!*)
#[derive(Debug)]
pub(in crate::reconcile) struct Breaker {
    failures: u32,
    most: u32,
    pause: Duration,
    /// When one key may be tried again; `None`: all may.
    open_until: Option<Instant>,
    /// Since when.
    opened: Option<Instant>,
    probing: bool,
}

impl Breaker {
    pub(in crate::reconcile) fn new(concurrency: usize) -> Self {
        let most = u32::try_from(concurrency).unwrap_or(u32::MAX).saturating_mul(2).max(IN_A_ROW);
        Self { failures: 0, most, pause: FIRST, open_until: None, opened: None, probing: false }
    }

    /// Until when nothing is to be tried; `None`: a key may be.
    pub(in crate::reconcile) fn until(&self) -> Option<Instant> {
        match self.open_until {
            // Whoever probes tells how it went.
            Some(_) if self.probing => Some(Instant::now() + LONGEST),
            Some(until) if until > Instant::now() => Some(until),
            _ => None,
        }
    }

    pub(in crate::reconcile) const fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// For how long nothing was to be had by now.
    pub(in crate::reconcile) fn open_for(&self) -> Duration {
        self.opened.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A key is tried.
    pub(in crate::reconcile) const fn tries(&mut self) {
        self.probing = self.open_until.is_some();
    }

    pub(in crate::reconcile) fn healed(&mut self) {
        *self = Self { most: self.most, ..Self::new(0) };
    }

    /// Somebody says that it works again: one key may be tried now.
    pub(in crate::reconcile) fn hurry(&mut self) {
        if let Some(until) = &mut self.open_until {
            *until = Instant::now();
            self.pause = FIRST;
        }
    }

    /// It could not be tried at all.
    pub(in crate::reconcile) const fn postponed(&mut self) {
        self.probing = false;
    }

    pub(in crate::reconcile) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.probing = false;
        if self.failures >= self.most {
            let now = Instant::now();
            self.opened.get_or_insert(now);
            self.open_until = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_many_failures_one_at_a_time_is_tried_ever_more_seldom() {
        let mut breaker = Breaker::new(4);
        for _ in 1..IN_A_ROW {
            breaker.tries();
            breaker.failed();
            assert!(breaker.until().is_none());
        }
        breaker.failed();
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let until = breaker.until().expect("open");
            assert_eq!(until - Instant::now(), Duration::from_secs(pause));
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert!(breaker.until().is_none(), "one may be tried");
            breaker.tries();
            assert!(breaker.until().is_some(), "and no second one");
            breaker.failed();
        }
        breaker.hurry();
        assert!(breaker.is_open() && breaker.until().is_none(), "one may be tried at once");
        breaker.tries();
        breaker.hurry();
        assert!(breaker.until().is_some(), "still no second one");
        breaker.failed();
        let until = breaker.until().expect("open");
        assert_eq!(until - Instant::now(), FIRST);
        breaker.healed();
        assert!(!breaker.is_open() && breaker.until().is_none());
    }
}
