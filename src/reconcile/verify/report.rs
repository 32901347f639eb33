//! What a verify found.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    compare::Diff,
    reconcile::{FailedKey, Key, Uncounted},
    stage::Side,
};

/// A key whose two sides differ, and what does.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Differing {
    /// The key.
    pub key: Key,
    /// The authority's against the other side's.
    pub diff: Diff,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.diff)
    }
}

/// What a [`Verify`](super::Verify) found. `Display` is a page for a person.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct VerifyReport {
    /// The side that is right.
    pub from: Side,
    /// Keys that are equal on both sides.
    pub equal: u64,
    /// Keys that differ.
    pub differ: u64,
    /// Keys that differed, and were copied from the side that is right.
    pub mended: u64,
    /// Keys that are dirty: not compared.
    pub dirty: u64,
    /// Keys that could not be compared.
    pub failed: u64,
    /// The first hundred of them.
    pub failures: Vec<FailedKey>,
    /// Of those that differ, and of those that were mended, as many as were to be
    /// [kept](super::Verify::keep); of the part that ran in this process.
    pub differing: Vec<Differing>,
    /// By what differs: in how many keys. At most 256 names; what goes over it counts as
    /// `(others)`.
    pub fields: BTreeMap<String, u64>,
    /// How long it took, in this process.
    pub took: Duration,
    /// Whether it went on from a checkpoint. Then the numbers of keys are those of the
    /// whole.
    pub resumed: bool,
    /// Whether the other side is synced now.
    pub synced: bool,
    /// If not, why.
    pub uncounted: Option<Uncounted>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, differ, mended, dirty, failed, .. } = self;
        write!(
            f,
            "{equal} equal, {differ} differ, {mended} mended, {dirty} dirty, {failed} failed in \
             {:.1?}: ",
            self.took
        )?;
        let to = self.from.other();
        match self.uncounted {
            None => write!(f, "{to} is synced")?,
            Some(why) => write!(f, "{to} is not synced by it, since {why}")?,
        }
        for (what, keys) in &self.fields {
            write!(f, "\n  {what}: in {keys} keys")?;
        }
        for differing in &self.differing {
            write!(f, "\n  {differing}")?;
        }
        Ok(())
    }
}
