//! A side that fails more reads than the other.

use std::sync::Arc;

use super::{Route, place::FEWEST};
use crate::flag::gates::{Confidence, lower, upper};

/// A route that the other side fails more often than the authority does.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) route: Arc<str>,
    /// Of so many reads that it was asked.
    pub(super) other: (u64, u64),
    pub(super) authority: (u64, u64),
}

impl Failing {
    /// Each side's rate is one of the reads that *it* was asked: what the authority does
    /// not answer is not asked of the other side, and would hide what that one fails.
    pub(super) fn of(name: &Arc<str>, route: &Route) -> Option<Self> {
        let (other, authority) = (route.other_failed(), route.authority_failed());
        let z = Confidence::P95.z();
        let more =
            other.1 >= FEWEST && lower(other.0, other.1, z) > upper(authority.0, authority.1, z);
        more.then(|| Self { route: Arc::clone(name), other, authority })
    }
}
