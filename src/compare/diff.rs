//! What differs.

use std::{collections::HashMap, fmt};

use super::Unclear;

/// How much of a value is kept, in characters.
const EXCERPT: usize = 120;

/// How long the name of a place may be, in characters.
const NAME: usize = 200;

/// Where it is noted that there are more places than are listed.
const FURTHER: &str = "further differences";

/// One thing that differs: where, and a short excerpt of both values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Difference {
    /// `status`, `header content-type`, `body at byte 17`; of a JSON body, the
    /// pointer of RFC 6901: `/airports/3/name`.
    pub what: String,
    /// The same for all that is counted together: `body`, `/airports/*/name`.
    pub place: String,
    /// What the authority said, at most 120 characters.
    pub authority: String,
    /// What the other side said, at most 120 characters.
    pub other: String,
}

/// All that a comparer found to differ, and what it could not compare. Empty
/// where nothing differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Diff {
    differences: Vec<Difference>,
    unclear: Option<Unclear>,
}

impl Diff {
    /// Nothing differs.
    pub const fn none() -> Self {
        Self { differences: Vec::new(), unclear: None }
    }

    /// One difference. Values are cut to 120 characters.
    pub fn of(
        what: impl Into<String>,
        authority: impl fmt::Display,
        other: impl fmt::Display,
    ) -> Self {
        let what = what.into();
        Self::at(what.clone(), what, authority, other)
    }

    /// One difference that is counted together with others of the same `place`: a
    /// place for each element of a list would be places without end.
    ///
    /// ```
    /// use tower_migration::compare::Diff;
    ///
    /// let diff = Diff::at("row * name", "row 17 name", "Zürich", "Zurich");
    /// assert_eq!(diff.differences()[0].place, "row * name");
    /// ```
    pub fn at(
        place: impl Into<String>,
        what: impl Into<String>,
        authority: impl fmt::Display,
        other: impl fmt::Display,
    ) -> Self {
        let difference = Difference {
            what: named(what.into()),
            place: named(place.into()),
            authority: excerpt(&authority.to_string()),
            other: excerpt(&other.to_string()),
        };
        Self { differences: vec![difference], unclear: None }
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

    /// Something could not be compared, and why. Counts unless something else
    /// differs for certain.
    ///
    /// ```
    /// use tower_migration::compare::{Diff, SkipReason};
    ///
    /// let diff = Diff::unclear(SkipReason::Encoding);
    /// assert!(!diff.is_empty() && diff.differences().is_empty());
    /// ```
    pub fn unclear(reason: impl Into<Unclear>) -> Self {
        Self { differences: Vec::new(), unclear: Some(reason.into()) }
    }

    /// The differences of both.
    pub fn and(mut self, more: Self) -> Self {
        if more.is_empty() {
            return self;
        }
        self.differences.extend(more.differences);
        self.unclear = self.unclear.or(more.unclear);
        self
    }

    /// The differences for which this holds; what is unclear stays so.
    pub(crate) fn only(mut self, holds: impl FnMut(&Difference) -> bool) -> Self {
        self.differences.retain(holds);
        self
    }

    /// That there are more differences, at other places, which are not listed.
    pub(crate) fn further() -> Self {
        Self::of(FURTHER, "not listed", "not listed")
    }

    /// At most so many places, and of each so many differences. Where places are left
    /// out it says so.
    pub(crate) fn listed(self) -> Self {
        let Self { differences, unclear } = self;
        let mut listed = Listed::default();
        let mut diff = Self { differences: Vec::new(), unclear };
        for difference in differences {
            if listed.takes(&difference.place) {
                diff.differences.push(difference);
            }
        }
        if listed.is_full { diff.and(Self::further()) } else { diff }
    }

    #[cfg(feature = "grpc")]
    pub(super) fn into_differences(self) -> Vec<Difference> {
        self.differences
    }

    /// Whether everything was compared and nothing differs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.differences.is_empty() && self.unclear.is_none()
    }

    /// The differences, in the order in which they were found.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Why something could not be compared, if so.
    #[must_use]
    pub const fn why_unclear(&self) -> Option<Unclear> {
        self.unclear
    }
}

#[cfg(feature = "grpc")]
impl From<Difference> for Diff {
    fn from(difference: Difference) -> Self {
        Self { differences: vec![difference], unclear: None }
    }
}

impl Difference {
    /// Whether this stands for places that are not listed.
    pub(crate) fn is_further(&self) -> bool {
        self.place == FURTHER
    }
}

/// How many places one diff lists.
const PLACES: usize = 32;

/// How many differences of each.
const OF_EACH: u32 = 3;

/// What of the differences between two answers is listed: a little of each place, so
/// that a list of which every row differs hides nothing that comes after it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    places: HashMap<String, u32>,
    /// There are more places.
    pub(super) is_full: bool,
}

impl Listed {
    /// Whether one more difference there is listed.
    pub(super) fn takes(&mut self, place: &str) -> bool {
        if let Some(count) = self.places.get_mut(place) {
            *count += 1;
            return *count <= OF_EACH;
        }
        self.is_full |= self.places.len() >= PLACES && place != FURTHER;
        if !self.is_full && place != FURTHER {
            self.places.insert(place.to_owned(), 1);
        }
        !self.is_full
    }
}

/// As the list of its differences.
#[cfg(feature = "serde")]
impl serde::Serialize for Diff {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.differences.serialize(serializer)
    }
}

/// A place's name, which may hold what an answer said: short, and in one line, since it
/// is shown among others.
fn named(mut name: String) -> String {
    if let Some((end, _)) = name.char_indices().nth(NAME) {
        name.truncate(end);
    }
    if name.contains(char::is_control) {
        let plain = |letter: char| match letter.is_control() {
            true => letter.escape_default().to_string(),
            false => letter.to_string(),
        };
        name = name.chars().map(plain).collect();
    }
    name
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
        let mut lead = "";
        for Difference { what, authority, other, .. } in &self.differences {
            write!(f, "{lead}{what}: {authority:?} against {other:?}")?;
            lead = "; ";
        }
        match self.unclear {
            Some(reason) => write!(f, "{lead}not all compared: {reason}"),
            None => Ok(()),
        }
    }
}
