//! The gate over how the other side fails.

use std::borrow::Cow;

use super::{Confidence, Evidence, Gate, comparisons::ShareOf};
use crate::flag::options::{ConfigError, check_share};

/// It is sure enough that the other side fails at most this share of its legs
/// (5xx, errors, timeouts, panics): second legs of dual writes and shadow reads
/// together, by the upper end of Wilson's score interval (1927).
///
/// It wants as many legs as [`MaxMismatchShare`](super::MaxMismatchShare) wants
/// comparisons. The other side is new before the step to `ReadNew`, and old
/// before the one to `NewOnly`: there it says whether the way back is good. Lets
/// 0→1 pass.
///
/// ```
/// use tower_migration::{Stage, gates::{Evidence, Gate, MaxErrorShare}};
///
/// let gate = MaxErrorShare::new(0.01)?;
/// let mut evidence = Evidence::new(Stage::WriteBoth, Stage::ReadNew);
/// evidence.other_writes.applied = 300;
/// assert!(gate.check(&evidence).is_ok());
/// evidence.other_shadows.unknown = 5;
/// assert!(gate.check(&evidence).unwrap_err().contains("5 failures in 305 legs on new"));
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaxErrorShare {
    share: f64,
    confidence: Confidence,
}

impl MaxErrorShare {
    /// A gate that lets this share pass, more than 0 and less than 1, at 95 %
    /// confidence.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`]. No number of legs can show a share of 0.
    pub fn new(share: f64) -> Result<Self, ConfigError> {
        let share = check_share("MaxErrorShare", share)?;
        Ok(Self { share, confidence: Confidence::default() })
    }

    /// How sure it has to be (default 95 %).
    #[must_use]
    pub const fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }
}

impl Gate for MaxErrorShare {
    fn name(&self) -> Cow<'_, str> {
        "error share".into()
    }

    fn check(&self, evidence: &Evidence) -> Result<(), String> {
        if !evidence.from.is_two_sided() {
            return Ok(());
        }
        let legs = [evidence.other_writes, evidence.other_shadows];
        let of = ShareOf {
            hits: legs.iter().map(|legs| legs.unknown).sum(),
            trials: legs.iter().map(|legs| legs.total()).sum(),
        };
        let trials = format!("legs on {}", evidence.other());
        of.check(self.share, self.confidence, "failures", &trials)
    }
}
