//! The gate over how slow new is.

use std::{borrow::Cow, time::Duration};

use super::{Evidence, Gate};
use crate::{
    flag::options::{ConfigError, check_share},
    stage::Side,
};

/// New's p99 of reads is at most so many times old's.
///
/// Each side needs a minimum of timed reads (default 100): sampled reads are
/// timed on both sides, other reads only with
/// [`durations`](crate::MigrationLayer::durations). Quantiles come from a
/// histogram and are off by at most an eighth, so two equal sides may seem to
/// differ by a factor of up to 1.3: a ratio below 1.5 means little. Lets 0→1
/// pass.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::{Stage, gates::{Evidence, Gate, MaxSlowdown}};
///
/// let gate = MaxSlowdown::new(2.0)?.quantile(0.95)?.min_samples(1_000)?;
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// evidence.old.reads.add(Duration::from_millis(20), 1_000);
/// evidence.new.reads.add(Duration::from_millis(30), 999);
/// assert!(gate.check(&evidence).unwrap_err().contains("999 reads of new were timed"));
/// evidence.new.reads.add(Duration::from_millis(30), 1);
/// assert!(gate.check(&evidence).is_ok());
/// evidence.new.reads.add(Duration::from_millis(90), 100);
/// assert!(gate.check(&evidence).unwrap_err().contains("p95"));
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaxSlowdown {
    ratio: f64,
    quantile: f64,
    min_samples: u64,
}

impl MaxSlowdown {
    /// A gate that lets new's p99 be `ratio` times old's.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] unless it is a finite number above 0.
    pub fn new(ratio: f64) -> Result<Self, ConfigError> {
        if !(ratio.is_finite() && ratio > 0.0) {
            return Err(ConfigError::OutOfRange {
                what: "MaxSlowdown",
                given: ratio,
                range: "a finite number above 0",
            });
        }
        Ok(Self { ratio, quantile: 0.99, min_samples: 100 })
    }

    /// Which quantile (default 0.99), between 0 and 1.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`].
    pub fn quantile(mut self, quantile: f64) -> Result<Self, ConfigError> {
        self.quantile = check_share("MaxSlowdown::quantile", quantile)?;
        Ok(self)
    }

    /// How many timed reads each side needs (default 100). Fewer than the
    /// quantile can be told from, such as 1 000 for p99.9, count as that many.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`].
    pub const fn min_samples(mut self, samples: u64) -> Result<Self, ConfigError> {
        if samples == 0 {
            return Err(ConfigError::Zero { limit: "MaxSlowdown::min_samples" });
        }
        self.min_samples = samples;
        Ok(self)
    }

    fn needed(&self) -> u64 {
        // Rounded first: 1 - 0.99 is a little more than 0.01.
        let least = (1.0 / (1.0 - self.quantile) * 1e6).round() / 1e6;
        self.min_samples.max(least.ceil() as u64)
    }
}

impl Gate for MaxSlowdown {
    fn name(&self) -> Cow<'_, str> {
        "slowdown".into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        if !evidence.from.is_two_sided() {
            return Ok(());
        }
        let needed = self.needed();
        let mut took = [Duration::ZERO; 2];
        for side in Side::ALL {
            let reads = &evidence.timing(side).reads;
            let count = reads.count();
            match reads.quantile(self.quantile) {
                Some(quantile) if count >= needed => took[side.index()] = quantile,
                _ => {
                    return Err(format!("{count} reads of {side} were timed, {needed} are needed"));
                }
            }
        }
        let [old, new] = took;
        // A side that answers from memory takes no time that could be measured.
        let limit = old.max(Duration::from_micros(1)).as_secs_f64() * self.ratio;
        if new.as_secs_f64() <= limit {
            return Ok(());
        }
        let percentile = (self.quantile * 1e5).round() / 1e3;
        Err(format!(
            "p{percentile} of new is {new:.1?}, of old {old:.1?}: at most {} times as long is \
             allowed",
            self.ratio
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    #[test]
    fn samples_suffice_for_the_quantile() -> Result<(), ConfigError> {
        let needed = |quantile: f64, min: u64| {
            MaxSlowdown::new(1.0)?.quantile(quantile)?.min_samples(min).map(|gate| gate.needed())
        };
        assert_eq!(needed(0.99, 1)?, 100);
        assert_eq!(needed(0.99, 101)?, 101);
        assert_eq!(needed(0.999, 100)?, 1_000);
        assert_eq!(needed(0.5, 1)?, 2);
        Ok(())
    }

    #[test]
    fn a_side_that_takes_no_time_can_be_equalled() -> Result<(), ConfigError> {
        let gate = MaxSlowdown::new(1.0)?;
        let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
        evidence.old.reads.add(Duration::ZERO, 100);
        evidence.new.reads.add(Duration::from_micros(1), 100);
        assert_eq!(gate.check(&evidence), Ok(()));
        evidence.new.reads.add(Duration::from_micros(2), 100);
        assert!(gate.check(&evidence).is_err());
        Ok(())
    }
}
