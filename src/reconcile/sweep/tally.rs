//! What was done to the keys of a run.

use std::{fmt, sync::Arc};

use crate::{reason::reasons, reconcile::Key};

reasons! {
    /// What a run has done to one key.
    pub enum Deed {
        /// Its row was written to the target.
        Written = "written",
        /// It was deleted from the target.
        Deleted = "deleted",
        /// The target was equal already.
        Unchanged = "unchanged",
        /// It is dirty, and right on the side that the run writes to, or on nobody
        /// knows which: left for a repair or for a person.
        Left = "left",
        /// Both sides were equal.
        Equal = "equal",
        /// They differed, and did so again in a moment without any write.
        Differing = "differing",
        /// They differed, and the right side was copied.
        Mended = "mended",
        /// It is dirty, so a difference is known already.
        Dirty = "dirty",
    }
}

/// How many deeds there are.
pub(crate) const DEEDS: usize = Deed::ALL.len();

/// How many keys met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct Tally([u64; DEEDS]);

impl Tally {
    pub(in crate::reconcile) const fn add(&mut self, deed: Deed) {
        self.0[deed as usize] += 1;
    }

    pub(in crate::reconcile) const fn set(&mut self, deed: Deed, count: u64) {
        self.0[deed as usize] = count;
    }

    pub(in crate::reconcile) const fn get(self, deed: Deed) -> u64 {
        self.0[deed as usize]
    }

    pub(in crate::reconcile) fn sum(self) -> u64 {
        self.0.iter().sum()
    }
}

/// A key that could not be copied or compared, however often it was tried.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FailedKey {
    /// The key.
    pub key: Key,
    /// What its last try said.
    pub error: Arc<str>,
}

impl fmt::Display for FailedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}

/// Keys that have failed: to be tried again, up to a number.
#[derive(Clone, Debug, Default)]
pub(in crate::reconcile) struct Failed {
    pub(in crate::reconcile) keys: Vec<FailedKey>,
    /// Beyond that number: only a new run finds them.
    pub(in crate::reconcile) lost: u64,
}

impl Failed {
    pub(super) fn add(&mut self, key: Key, error: Arc<str>, most: usize) {
        if self.keys.len() < most {
            self.keys.push(FailedKey { key, error });
        } else {
            self.lost += 1;
        }
    }

    pub(in crate::reconcile) fn count(&self) -> u64 {
        self.keys.len() as u64 + self.lost
    }

    /// For a report.
    pub(in crate::reconcile) fn first(mut self, most: usize) -> Vec<FailedKey> {
        self.keys.truncate(most);
        self.keys
    }
}
