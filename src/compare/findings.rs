//! A diff that grows to a bound.

use super::{Diff, Unclear};

/// How many differences are listed.
const LISTED: usize = 32;

/// A diff that grows to a bound, so that two long answers of which everything
/// differs do not make a long report.
#[derive(Debug, Default)]
pub(super) struct Findings(Diff);

impl Findings {
    pub(super) fn add(&mut self, more: Diff) {
        if !self.is_full() {
            self.0 = std::mem::take(&mut self.0).and(more);
        }
    }

    pub(super) fn unclear(&mut self, reason: impl Into<Unclear>) {
        self.0 = std::mem::take(&mut self.0).and(Diff::unclear(reason));
    }

    /// Whether nothing more is listed, so that looking on is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.0.differences().len() > LISTED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn why(&self) -> Option<Unclear> {
        self.0.why_unclear()
    }

    pub(super) fn end(self) -> Diff {
        if !self.is_full() {
            return self.0;
        }
        self.0.first(LISTED).and(Diff::of("further differences", "not listed", "not listed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_end_with_one_that_says_so() {
        let mut found = Findings::default();
        for at in 0..LISTED {
            found.add(Diff::of(format!("{at}"), "a", "b"));
        }
        assert!(!found.is_full());
        found.add(Diff::of("x", "a", "b").and(Diff::of("y", "a", "b")));
        assert!(found.is_full());
        found.add(Diff::of("z", "a", "b"));
        let found = found.end();
        assert_eq!(found.differences().len(), LISTED + 1);
        assert_eq!(found.differences()[LISTED].what, "further differences");
    }
}
