//! A diff that grows to a bound.

use super::{Diff, Unclear, diff::Listed};

/// A diff that grows to a bound, so that two long answers of which everything
/// differs do not make a long report.
#[derive(Debug, Default)]
pub(super) struct Findings {
    diff: Diff,
    listed: Listed,
}

impl Findings {
    /// Notes what differs at a place, if that place has room. `more` is not called
    /// where it has not.
    pub(super) fn add(&mut self, place: &str, more: impl FnOnce() -> Diff) {
        if self.listed.takes(place) {
            self.diff = std::mem::take(&mut self.diff).and(more());
        }
    }

    /// The same of a diff as a whole.
    #[cfg(feature = "grpc")]
    pub(super) fn extend(&mut self, more: Diff) {
        let unclear = more.why_unclear();
        for difference in more.into_differences() {
            let place = difference.place.clone();
            self.add(&place, || difference.into());
        }
        if let Some(reason) = unclear {
            self.unclear(reason);
        }
    }

    pub(super) fn unclear(&mut self, reason: impl Into<Unclear>) {
        self.diff = std::mem::take(&mut self.diff).and(Diff::unclear(reason));
    }

    /// Whether there are more places than are listed, so that looking on is of no use.
    pub(super) const fn is_full(&self) -> bool {
        self.listed.is_full
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.diff.is_empty()
    }

    pub(super) fn end(self) -> Diff {
        if self.is_full() { self.diff.and(Diff::further()) } else { self.diff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(found: &mut Findings, place: &str) {
        found.add(place, || Diff::of(place, "a", "b"));
    }

    #[test]
    fn findings_list_a_little_of_each_place() {
        let mut found = Findings::default();
        for _ in 0..1_000 {
            add(&mut found, "/rows/*/trace");
        }
        add(&mut found, "/total");
        assert!(!found.is_full());
        let found = found.end();
        assert_eq!(found.differences().len(), 4);
        assert_eq!(found.differences()[3].place, "/total");
    }

    #[test]
    fn findings_end_with_one_that_says_that_there_are_more_places() {
        let mut found = Findings::default();
        for at in 0..32 {
            add(&mut found, &format!("{at}"));
        }
        assert!(!found.is_full());
        add(&mut found, "x");
        assert!(found.is_full());
        add(&mut found, "y");
        let found = found.end();
        assert_eq!(found.differences().len(), 33);
        assert!(found.differences()[32].is_further());
        assert_eq!(found.listed().differences().len(), 33, "said once");
    }

    #[test]
    fn diffs_of_ones_own_comparer_are_bounded_too() {
        let all =
            (0..10_000).fold(Diff::none(), |all, at| all.and(Diff::of(format!("{at}"), 1, 2)));
        assert_eq!(all.listed().differences().len(), 33);
    }
}
