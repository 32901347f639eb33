//! What differs.

use std::fmt;

/// How much of a value is kept, in characters.
const EXCERPT: usize = 120;

/// One thing that differs: where, and a short excerpt of both values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Difference {
    /// `status`, `header content-type`, `body at byte 17`, …
    pub what: String,
    /// What the authority said, at most 120 characters.
    pub authority: String,
    /// What the other side said, at most 120 characters.
    pub other: String,
}

/// All that a comparer found to differ. Empty where nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use]
pub struct Diff(Vec<Difference>);

impl Diff {
    /// Nothing differs.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// One difference. Values are cut to 120 characters.
    pub fn of(
        what: impl Into<String>,
        authority: impl fmt::Display,
        other: impl fmt::Display,
    ) -> Self {
        Self(vec![Difference {
            what: what.into(),
            authority: excerpt(&authority.to_string()),
            other: excerpt(&other.to_string()),
        }])
    }

    /// One difference if `differs`, else none.
    pub fn when(
        differs: bool,
        what: impl Into<String>,
        authority: impl fmt::Display,
        other: impl fmt::Display,
    ) -> Self {
        if differs { Self::of(what, authority, other) } else { Self::none() }
    }

    /// The differences of both.
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// The first differences, at most so many.
    #[cfg(feature = "grpc")]
    pub(super) fn first(mut self, count: usize) -> Self {
        self.0.truncate(count);
        self
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The differences, in the order in which they were found.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.0
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no difference");
        }
        for (at, difference) in self.0.iter().enumerate() {
            let lead = if at == 0 { "" } else { "; " };
            let Difference { what, authority, other } = difference;
            write!(f, "{lead}{what}: {authority:?} against {other:?}")?;
        }
        Ok(())
    }
}
