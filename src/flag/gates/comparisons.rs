//! Gates over what shadow reads found.

use std::borrow::Cow;

use super::{Confidence, Evidence, Gate, wilson};
use crate::flag::options::{ConfigError, check_share};

/// At least so many shadow reads were compared (matches and mismatches) since
/// the present stage was entered.
///
/// Lets 0→1 pass.
///
/// ```
/// use tower_migration::{Stage, gates::{Evidence, Gate, MinComparisons}};
///
/// let gate = MinComparisons::new(1_000)?;
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// evidence.shadows.matches = 999;
/// assert!(gate.check(&evidence).is_err());
/// evidence.shadows.mismatches = 1;
/// assert!(gate.check(&evidence).is_ok(), "whether they match is not its business");
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MinComparisons {
    at_least: u64,
}

impl MinComparisons {
    /// A gate that wants this many.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`].
    pub const fn new(at_least: u64) -> Result<Self, ConfigError> {
        if at_least == 0 {
            return Err(ConfigError::Zero { limit: "MinComparisons" });
        }
        Ok(Self { at_least })
    }
}

impl Gate for MinComparisons {
    fn name(&self) -> Cow<'_, str> {
        "minimum of comparisons".into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        let compared = evidence.shadows.compared();
        if !evidence.from.is_two_sided() || compared >= self.at_least {
            return Ok(());
        }
        Err(format!("{compared} shadow reads were compared, {} are needed", self.at_least))
    }
}

/// It is sure enough that at most this share of shadow reads differ: mismatches
/// among the reads that were compared, by the upper end of Wilson's score
/// interval (1927).
///
/// So it is a minimum of comparisons as well. Without any mismatch it lets pass
/// after about
///
/// | share | 90 % | 95 % (default) | 99 % | 99.9 % |
/// |---|---|---|---|---|
/// | 0.01 | 163 | 268 | 536 | 946 |
/// | 0.001 | 1 641 | 2 703 | 5 407 | 9 540 |
/// | 0.0001 | 16 423 | 27 053 | 54 114 | 95 486 |
///
/// comparisons. Inconclusive, skipped and failed reads do not count:
/// [`MaxErrorShare`](super::MaxErrorShare) looks at those that the other side fails. Lets
/// 0→1 pass.
///
/// ```
/// use tower_migration::{Stage, gates::{Confidence, Evidence, Gate, MaxMismatchShare}};
///
/// let gate = MaxMismatchShare::new(0.01)?.confidence(Confidence::P99);
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// assert!(gate.check(&evidence).is_err(), "nothing was compared");
/// evidence.shadows.matches = 535;
/// assert!(gate.check(&evidence).is_err());
/// evidence.shadows.matches = 536;
/// assert!(gate.check(&evidence).is_ok());
/// evidence.shadows.mismatches = 1;
/// assert!(gate.check(&evidence).is_err());
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaxMismatchShare {
    share: f64,
    confidence: Confidence,
}

impl MaxMismatchShare {
    /// A gate that lets this share pass, more than 0 and less than 1, at 95 %
    /// confidence.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`]. No number of comparisons can show a share
    /// of 0.
    pub fn new(share: f64) -> Result<Self, ConfigError> {
        let share = check_share("MaxMismatchShare", share)?;
        Ok(Self { share, confidence: Confidence::default() })
    }

    /// How sure it has to be (default 95 %).
    #[must_use]
    pub const fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }
}

impl Gate for MaxMismatchShare {
    fn name(&self) -> Cow<'_, str> {
        "mismatch share".into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        if !evidence.from.is_two_sided() {
            return Ok(());
        }
        let of = ShareOf { hits: evidence.shadows.mismatches, trials: evidence.shadows.compared() };
        of.check(self.share, self.confidence, "mismatches", "comparisons")
    }
}

/// A share, as it was counted.
pub(super) struct ShareOf {
    pub(super) hits: u64,
    pub(super) trials: u64,
}

impl ShareOf {
    /// Whether it is `confidence` sure that the share is `at_most`.
    pub(super) fn check(
        &self,
        at_most: f64,
        confidence: Confidence,
        hits: &str,
        trials: &str,
    ) -> Result<(), String> {
        let upper = wilson::upper(self.hits, self.trials, confidence.z());
        if self.trials > 0 && upper <= at_most {
            return Ok(());
        }
        let (limit, seen) = (percent(at_most), format!("{} {hits} in {}", self.hits, self.trials));
        if self.trials == 0 {
            return Err(format!("no {trials} yet, so a share of at most {limit} is not shown"));
        }
        Err(format!(
            "{seen} {trials}: up to {} at {confidence} confidence, at most {limit} is allowed",
            percent(upper)
        ))
    }
}

/// Small shares keep two digits that mean something.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits =
        if percent >= 1.0 || percent <= 0.0 { 1 } else { 1 - percent.log10().floor() as i32 };
    format!("{percent:.*} %", usize::try_from(digits).unwrap_or(1).min(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_numbers_of_comparisons_are_the_first_that_pass() {
        use Confidence::{P90, P95, P99, P999};
        for (share, needed) in [
            (0.01, [163, 268, 536, 946]),
            (0.001, [1_641, 2_703, 5_407, 9_540]),
            (0.0001, [16_423, 27_053, 54_114, 95_486]),
        ] {
            for (confidence, needed) in [P90, P95, P99, P999].into_iter().zip(needed) {
                let passes =
                    |trials| ShareOf { hits: 0, trials }.check(share, confidence, "", "").is_ok();
                assert!(passes(needed), "{share} {confidence} {needed}");
                assert!(!passes(needed - 1), "{share} {confidence} {needed}");
            }
        }
    }

    #[test]
    fn percentages_can_be_read() {
        for (share, text) in [
            (0.0, "0.0 %"),
            (0.5, "50.0 %"),
            (0.01, "1.0 %"),
            (0.001, "0.10 %"),
            (0.000_123, "0.012 %"),
            (1.0, "100.0 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
