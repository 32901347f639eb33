//! Between `WriteBoth` and `ReadNew`: a share of the keys goes ahead.

use std::{fmt, hash::Hasher, str::FromStr};

use siphasher::sip::SipHasher13;

use super::Stage;
use crate::flag::ConfigError;

/// A share of the keys, from 0 (none) to 1 (all), in steps of 1/65535.
///
/// ```
/// use tower_migration::stage::Share;
///
/// let quarter = Share::new(0.25)?;
/// assert!((quarter.as_f64() - 0.25).abs() < 1e-4);
/// assert!(Share::new(1.5).is_err());
/// assert!(!Share::new(0.000_001)?.is_none(), "a share that is not 0 covers something");
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "f64", into = "f64"))]
pub struct Share(u16);

impl Share {
    /// No key.
    pub const NONE: Self = Self(0);
    /// Every key.
    pub const ALL: Self = Self(u16::MAX);

    /// A share from a ratio.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Rate`] if it is not a number from 0 to 1.
    pub fn new(ratio: f64) -> Result<Self, ConfigError> {
        let ratio = crate::flag::check_rate(ratio)?;
        // A share that is not nothing covers something, however small it is;
        // and one that was read from a record is itself again.
        let steps = ratio * f64::from(u16::MAX);
        let near = steps.round();
        let steps = if (steps - near).abs() < 1e-6 { near } else { steps.ceil() };
        Ok(Self(steps as u16))
    }

    /// The ratio, 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    /// Whether it covers no key.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether a key with this hash is covered. What a share covers, every
    /// greater one covers too.
    ///
    /// ```
    /// use tower_migration::stage::{Share, partition};
    ///
    /// let seed = 7;
    /// let (tenth, half) = (Share::new(0.1)?, Share::new(0.5)?);
    /// let hash = partition(seed, "/airports/EDDF");
    /// assert!(!tenth.covers(hash) || half.covers(hash));
    /// assert!(Share::ALL.covers(hash) && !Share::NONE.covers(hash));
    /// # Ok::<(), tower_migration::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn covers(self, hash: u64) -> bool {
        self.0 == u16::MAX || (hash >> 48) < self.0 as u64
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough digits to tell any two shares apart.
        let text = format!("{:.5}", self.as_f64());
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.pad(if text == "0" && !self.is_none() { "0.00001" } else { text })
    }
}

impl FromStr for Share {
    type Err = ParseShareError;

    fn from_str(text: &str) -> Result<Self, ParseShareError> {
        let ratio = text.parse::<f64>().map_err(|_| ParseShareError)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(ParseShareError);
        }
        // The nearest step, so that a share comes back from its text.
        Ok(Self((ratio * f64::from(u16::MAX)).round() as u16))
    }
}

/// A text that is no number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseShareError;

impl fmt::Display for ParseShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share is a number from 0 to 1")
    }
}

impl std::error::Error for ParseShareError {}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.as_f64()
    }
}

impl TryFrom<f64> for Share {
    type Error = ConfigError;

    fn try_from(ratio: f64) -> Result<Self, ConfigError> {
        Self::new(ratio)
    }
}

/// The number by which a share covers a key or not: `SipHash` 1-3 of its text
/// under the migration's seed. The same in every process, version and machine,
/// so that one key always goes the same way.
#[must_use]
pub fn partition(seed: u64, key: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(key.as_bytes());
    hasher.finish()
}

/// The stage in force for one request: that of the flag, or `ReadNew` for a
/// request whose keys a ramp covers. `covered` is only asked in a ramp.
///
/// | flag | share | keys | stage in force |
/// |---|---|---|---|
/// | `WriteBoth` | over 0 | all covered | `ReadNew` |
/// | `WriteBoth` | over 0 | none, or one not covered | `WriteBoth` |
/// | any other | any | any | the flag's |
///
/// ```
/// use tower_migration::{Stage, stage::{Share, stage_in_force}};
///
/// let share = Share::new(0.5)?;
/// assert_eq!(stage_in_force(Stage::WriteBoth, share, || true), Stage::ReadNew);
/// assert_eq!(stage_in_force(Stage::WriteBoth, share, || false), Stage::WriteBoth);
/// assert_eq!(stage_in_force(Stage::NewOnly, share, || true), Stage::NewOnly);
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[must_use]
pub fn stage_in_force(flag: Stage, share: Share, covered: impl FnOnce() -> bool) -> Stage {
    if flag == Stage::WriteBoth && !share.is_none() && covered() { Stage::ReadNew } else { flag }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_comes_back_from_its_text_and_its_ratio() {
        for bits in 0..=u16::MAX {
            let share = Share(bits);
            assert_eq!(share.to_string().parse(), Ok(share), "{share}");
            assert_eq!(Share::new(share.as_f64()), Ok(share));
        }
        assert_eq!(Share::NONE.to_string(), "0");
        assert_eq!(Share::ALL.to_string(), "1");
        assert!("1.5".parse::<Share>().is_err() && "NaN".parse::<Share>().is_err());
    }

    #[test]
    fn a_share_covers_about_that_many_keys_and_keeps_them_when_it_grows() {
        let mut before = Vec::new();
        for ratio in [0.01, 0.1, 0.5, 0.9, 1.0] {
            let share = Share::new(ratio).unwrap();
            let covered: Vec<u32> = (0..20_000)
                .filter(|n| share.covers(partition(42, &format!("/airports/{n}"))))
                .collect();
            let found = covered.len() as f64 / 20_000.0;
            assert!((found - ratio).abs() < 0.01, "{ratio}: {found}");
            assert!(before.iter().all(|key| covered.contains(key)));
            before = covered;
        }
        assert!(!Share::NONE.covers(0));
    }

    #[test]
    fn the_hash_never_changes() {
        // Records name a seed; another hash would send keys the other way.
        assert_eq!(partition(0, ""), 0xd1fb_a762_150c_532c);
        assert_ne!(partition(0, "a"), partition(1, "a"));
    }
}
