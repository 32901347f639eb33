//! How often the authority is asked twice.

use crate::{flag::ConfigError, layer::Routes, report::Need};

/// Reads of the authority against itself.
///
/// A field that the authority answers differently each time (a request id, the
/// time of day) says nothing about new. So a share of the sampled reads is sent to
/// the authority once more, after the other side was asked and never while a client
/// waits, and what differs between its two answers is its *noise*. In the
/// [`Report`](crate::Report) a place counts as a real difference only where the two
/// sides differ more often than the authority does with itself, with statistical
/// confidence.
///
/// Besides, each read that differs is read again on both sides (see
/// [`Limits::rereads`](crate::Limits::rereads)): where the authority's answers to
/// *that* read differ among themselves, it is noise as well.
///
/// Costs the authority `shadow rate × share` more reads. The default share is
/// 0.05; the largest 0.5. For a route where something differs and it is not clear yet
/// whether that is noise, the share is ten times as large (never above 0.5), and 0.5
/// until twenty such reads were made.
///
/// ```
/// use tower_migration::{MigrationHandle, MigrationLayer, compare::Noise};
///
/// let layer = MigrationLayer::new(MigrationHandle::new("airports"), ())
///     // One sampled read in ten; an export is read once only.
///     .noise(Noise::share(0.1)?.never(["/exports/**"])?);
/// # let _ = layer;
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Noise {
    /// Of 2³².
    below: u64,
    never: Routes,
}

/// The largest share.
const MOST: f64 = 0.5;

impl Noise {
    /// This share of the sampled reads, from 0 to 0.5.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`].
    pub fn share(share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=MOST).contains(&share) {
            let range = "from 0 to 0.5";
            return Err(ConfigError::OutOfRange { what: "noise share", given: share, range });
        }
        let below = (share * f64::from(2.0_f32.powi(32))).ceil() as u64;
        Ok(Self { below, never: Routes::default() })
    }

    /// No read is made for it. What differs is a real difference then, unless the
    /// authority contradicts itself while that read is made again.
    pub fn off() -> Self {
        Self { below: 0, never: Routes::default() }
    }

    /// Nor for paths like these: reads that are dear, or that are none.
    /// `/reports/*` is one segment below, `/reports/**` everything.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn never<'a>(
        mut self,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        self.never = Routes::new(paths)?;
        Ok(self)
    }

    /// Whether any read of this path may be made for it.
    pub(crate) fn may(&self, path: &str) -> bool {
        self.below > 0 && self.never.find(path).is_none()
    }

    /// Whether this one is.
    pub(crate) fn samples(&self, need: impl FnOnce() -> Need) -> bool {
        const MOST_OF: u64 = 1 << 31;
        let rolled = u64::from(fastrand::u32(..));
        // Whatever the need is, half of them are not: it is not asked for.
        if self.below == 0 || rolled >= MOST_OF.max(self.below) {
            return false;
        }
        let below = match need() {
            Need::Usual => self.below,
            Need::Undecided => (self.below * 10).min(MOST_OF),
            Need::Urgent => MOST_OF,
        };
        rolled < below
    }
}

impl Default for Noise {
    fn default() -> Self {
        Self { below: (1 << 32) / 20, never: Routes::default() }
    }
}
