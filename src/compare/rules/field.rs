//! One value, as a rule's function sees it.

use std::{borrow::Cow, fmt};

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldKind {
    /// There is none.
    Absent,
    /// `null`.
    Null,
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// A text; also bytes, a name of an enum, a time.
    Text,
    /// A list.
    List,
    /// An object, a message or a map.
    Object,
}

/// One value of a JSON document or of a message.
///
/// ```
/// use tower_migration::compare::rules::{Field, Rules};
///
/// // Old writes "Y" and "N".
/// let rules = Rules::new().compare_with("/active", |a: &Field<'_>, b: &Field<'_>| {
///     let is = |field: &Field<'_>| field.as_bool().unwrap_or(field.as_str() == Some("Y"));
///     is(a) == is(b)
/// })?;
/// # let _ = rules;
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Field<'a> {
    pub(super) kind: FieldKind,
    pub(super) text: Cow<'a, str>,
}

impl Field<'_> {
    pub(super) const ABSENT: Field<'static> =
        Field { kind: FieldKind::Absent, text: Cow::Borrowed("(absent)") };

    /// What kind of value it is.
    #[must_use]
    pub const fn kind(&self) -> FieldKind {
        self.kind
    }

    /// A text, without its quotes.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        (self.kind == FieldKind::Text).then_some(&*self.text)
    }

    /// A number, as it was written: all its digits.
    #[must_use]
    pub fn as_number(&self) -> Option<&str> {
        (self.kind == FieldKind::Number).then_some(&*self.text)
    }

    /// A number, as the float nearest to it.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number()?.parse().ok()
    }

    /// True or false.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        (self.kind == FieldKind::Bool).then_some(&*self.text == "true")
    }

    /// Its text: of a scalar what it says, of a list or an object its JSON; of a
    /// message something like it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value that a rule puts in the place of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scalar {
    /// `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as it is written in JSON.
    Number(String),
    /// A text.
    Text(String),
}

macro_rules! from_numbers {
    ($($number:ty),+) => {
        $(impl From<$number> for Scalar {
            fn from(number: $number) -> Self {
                Self::Number(number.to_string())
            }
        })+
    };
}

from_numbers!(i32, i64, u32, u64, f64);

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
