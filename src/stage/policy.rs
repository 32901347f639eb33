//! What a client waits for, and when the second leg begins.

use super::{FailurePolicy, Outcome, WriteOrder};

impl FailurePolicy {
    /// The policy that a write goes by once its authority has answered.
    ///
    /// `raised`: it was admitted while a step (or a record that is not written
    /// yet) wants every write on both sides. `moved`: a hurried flip has made
    /// the other side the authority meanwhile, so reads go there already, and
    /// the write is not acknowledged unless it is there too.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_migration::FailurePolicy::{AuthorityWins, AwaitBoth, RequireBoth};
    ///
    /// assert_eq!(AuthorityWins.effective(false, false), AuthorityWins);
    /// assert_eq!(AuthorityWins.effective(true, false), AwaitBoth);
    /// assert_eq!(AuthorityWins.effective(false, true), RequireBoth);
    /// ```
    #[must_use]
    pub const fn effective(self, raised: bool, moved: bool) -> Self {
        match self {
            _ if moved => Self::RequireBoth,
            Self::AuthorityWins if raised => Self::AwaitBoth,
            policy => policy,
        }
    }

    /// Whether the client waits for the other leg as well.
    #[must_use]
    pub const fn awaits_other(self) -> bool {
        matches!(self, Self::AwaitBoth | Self::RequireBoth)
    }
}

impl WriteOrder {
    /// Whether the other leg begins now that the authority's outcome is this
    /// one (`None`: not known yet).
    #[must_use]
    pub const fn starts_other(self, authority: Option<Outcome>) -> bool {
        match self {
            Self::Concurrent => true,
            Self::AuthorityFirst => matches!(authority, Some(Outcome::Applied)),
        }
    }
}

/// Whether a write is acknowledged only once the flag is on record.
///
/// `unrecorded`: it was admitted after an emergency exit whose record is not
/// durable yet, so a crash would lead back to the other side. A write that this
/// side has alone would then be missing.
#[must_use]
pub const fn acknowledged_on_record(unrecorded: bool, other: Outcome) -> bool {
    unrecorded && !matches!(other, Outcome::Applied)
}

/// Whether a write may still land although nobody here runs it any more.
///
/// `answered` is what its answer said, or `None` if it was cut off before its
/// answer was complete. What lingers delays settling for a while.
#[must_use]
pub const fn lingers(answered: Option<Outcome>) -> bool {
    matches!(answered, None | Some(Outcome::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailurePolicy::{AuthorityWins, AwaitBoth, RequireBoth};

    #[test]
    fn a_raise_waits_for_both_and_a_moved_authority_requires_both() {
        assert_eq!(AuthorityWins.effective(false, false), AuthorityWins);
        assert_eq!(AuthorityWins.effective(true, false), AwaitBoth);
        for policy in [AwaitBoth, RequireBoth] {
            for raised in [false, true] {
                assert_eq!(policy.effective(raised, false), policy);
            }
        }
        for policy in [AuthorityWins, AwaitBoth, RequireBoth] {
            for raised in [false, true] {
                assert_eq!(policy.effective(raised, true), RequireBoth);
            }
        }
        assert!(!AuthorityWins.awaits_other());
        assert!(AwaitBoth.awaits_other() && RequireBoth.awaits_other());
    }

    #[test]
    fn the_other_leg_follows_only_a_write_that_was_applied() {
        let outcomes = Outcome::ALL.map(Some).into_iter().chain([None]);
        for outcome in outcomes {
            assert!(WriteOrder::Concurrent.starts_other(outcome));
            let applied = outcome == Some(Outcome::Applied);
            assert_eq!(WriteOrder::AuthorityFirst.starts_other(outcome), applied);
        }
    }

    #[test]
    fn a_write_lingers_unless_its_answer_is_certain() {
        assert!(lingers(None));
        assert!(lingers(Some(Outcome::Unknown)));
        assert!(!lingers(Some(Outcome::Applied)));
        assert!(!lingers(Some(Outcome::Refused)));
        assert!(!lingers(Some(Outcome::NotRun)));
    }
}
