//! How long something took, many times.

use std::{fmt, time::Duration};

use crate::telemetry::{BUCKETS, bucket, middle};

/// A histogram of durations: the crate's own, a quarter of an octave a bucket,
/// from a microsecond to four hours.
///
/// What it says of a duration is off by at most an eighth of it, and what it
/// counts as slower than a bound is right for a bound that is off by no more.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::gates::Durations;
///
/// let mut durations = Durations::default();
/// durations.add(Duration::from_millis(10), 99);
/// durations.add(Duration::from_secs(2), 1);
/// assert_eq!(durations.count(), 100);
/// assert_eq!(durations.slower_than(Duration::from_secs(1)), 1);
/// let p99 = durations.quantile(0.99).unwrap().as_secs_f64();
/// assert!((0.00875..=0.01125).contains(&p99));
/// assert_eq!(Durations::default().quantile(0.99), None);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Durations {
    buckets: Box<[u64; BUCKETS]>,
}

impl Durations {
    pub(crate) fn of(buckets: [u64; BUCKETS]) -> Self {
        Self { buckets: Box::new(buckets) }
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.buckets.iter_mut().zip(&*earlier.buckets) {
            *count = count.saturating_sub(*before);
        }
        since
    }

    /// Both together.
    pub(crate) fn and(mut self, more: &Self) -> Self {
        for (count, further) in self.buckets.iter_mut().zip(&*more.buckets) {
            *count = count.saturating_add(*further);
        }
        self
    }

    /// Counts a duration, so many times.
    pub fn add(&mut self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.buckets[bucket(micros)];
        *count = count.saturating_add(times);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The duration that a share `q` of them does not exceed (`0.5`: the
    /// median), up to an eighth. `None` if there are none, or if `q` is not
    /// from 0 to 1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_secs_f64(middle(at) / 1e6))
    }

    /// How many took longer than `bound`, which is taken up to an eighth.
    #[must_use]
    pub fn slower_than(&self, bound: Duration) -> u64 {
        let micros = bound.as_secs_f64() * 1e6;
        let slow = |at: &usize| middle(*at) > micros;
        // The last bucket has no end, so a bound beyond it has nothing above.
        (0..BUCKETS).filter(slow).map(|at| self.buckets[at]).sum()
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self::of([0; BUCKETS])
    }
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durations")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn quantiles_are_off_by_an_eighth_at_most() {
        let mut durations = Durations::default();
        (1..=1_000).for_each(|n| durations.add(ms(n), 1));
        for (q, exact) in [(0.0, 1.0), (0.001, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let said = durations.quantile(q).map(|took| took.as_secs_f64() * 1e3);
            let off = said.map(|said| (said - exact).abs() / exact);
            assert!(off.is_some_and(|off| off <= 0.125), "{q}: {said:?} for {exact}");
        }
        for bad in [-0.1, 1.1, f64::NAN] {
            assert_eq!(durations.quantile(bad), None);
        }
    }

    #[test]
    fn slower_than_a_bound_is_right_for_a_bound_an_eighth_off() {
        for bound in [ms(1), ms(7), ms(100), ms(250), ms(1_000), ms(9_999)] {
            for (took, slow) in [(bound.mul_f64(0.87), 0), (bound.mul_f64(1.13), 1)] {
                let mut durations = Durations::default();
                durations.add(took, 1);
                assert_eq!(durations.slower_than(bound), slow, "{took:?} against {bound:?}");
            }
        }
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let mut before = Durations::default();
        before.add(ms(5), 3);
        let mut now = before.clone();
        now.add(ms(5), 2);
        now.add(ms(900), 1);
        assert_eq!(now.since(&before).count(), 3);
        assert_eq!(now.since(&before).slower_than(ms(100)), 1);
        assert_eq!(before.since(&now).count(), 0);
    }
}
