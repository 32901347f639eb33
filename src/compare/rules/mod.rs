//! Rules for fields: what to leave out, how near is near enough, what is secret.
//!
//! One set of [`Rules`] serves JSON bodies (`compare::json::Json`, feature `json`)
//! and gRPC messages (`compare::grpc::DecodedMessages`, feature `grpc`).
//!
//! # Where a rule holds
//!
//! A pattern is a JSON pointer (RFC 6901) with two wildcards:
//!
//! | pattern | fits |
//! |---|---|
//! | the empty text | the whole document |
//! | `/airports/3/name` | that field of the fourth element |
//! | `/airports/*/name` | that field of each element, or of each member |
//! | `/**/updated_at` | that field at any depth, at the top too |
//! | `/meta/**` | `/meta` and all below it |
//!
//! In a name `~` is written `~0`, `/` is `~1`, and a name that is itself `*` or `**`
//! is `~2` or `~2~2`. At most four `**` in one pattern.
//!
//! RFC 9535 (JSONPath) can say more: filters, slices, steps backwards. It selects
//! nodes of a document that is parsed as a whole; these patterns are followed while
//! two documents are walked, of which only what differs is parsed at all, and they
//! hold for gRPC messages as well.
//!
//! Where several rules fit one place, `ignore` and `redact` hold in any case, and of
//! the others of one kind the one that was given last.

mod canonical;
mod field;
mod held;
mod lists;
mod number;
mod pairing;
mod shown;
mod tolerance;
mod walk;
mod way;

use std::{fmt, sync::Arc};

pub use self::field::{Field, FieldKind, Scalar};
pub(super) use self::held::{Node, Open};
pub use self::number::Numbers;
pub use self::tolerance::Tolerance;
pub(super) use self::walk::Walk;
use crate::{flag::ConfigError, pattern::Pattern, stage::Side};

type Same = dyn Fn(&Field<'_>, &Field<'_>) -> bool + Send + Sync;
type Convert = dyn Fn(&Field<'_>) -> Option<Scalar> + Send + Sync;

/// What becomes of members of one object that have the same name.
///
/// RFC 8259 (section 4) wants names to be unique, and says that what readers make of
/// those that are not differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicates {
    /// All of them count, in their order: the default. Some client may see the
    /// first, some the last.
    #[default]
    All,
    /// The last one counts, as for most readers.
    LastWins,
}

/// What holds for fields. See the [module's page](self) for patterns.
///
/// Without any rule: objects are equal whatever the order of their members, lists
/// in their order; `null` and no member are two things; numbers are equal by
/// [value](Numbers::Value); all of several members of one name
/// [count](Duplicates::All).
///
/// ```
/// use std::time::Duration;
/// use tower_migration::{Side, compare::rules::{Field, Numbers, Rules, Tolerance}};
///
/// let rules = Rules::new()
///     .numbers(Numbers::Binary64)
///     .ignore("/request_id")?
///     .tolerate("/**/latitude", Tolerance::absolute(1e-6)?)?
///     .tolerate("/**/updated_at", Tolerance::time(Duration::from_secs(2)))?
///     .unordered("/tags")?
///     .matched_by("/runways", "id")?
///     .null_is_absent("/**")?
///     .redact("/**/password")?
///     // New calls it `iata_code`, and counts in metres.
///     .rename(Side::New, "/iata_code", "iata")?
///     .convert(Side::New, "/elevation_ft", |metres: &Field<'_>| {
///         Some((metres.as_f64()? / 0.3048).round().into())
///     })?;
/// # let _ = rules;
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rules {
    rules: Vec<(Pattern, Action)>,
    numbers: Numbers,
    duplicates: Duplicates,
    depth: usize,
}

#[derive(Clone)]
enum Action {
    Ignore,
    Redact,
    Entries,
    NullIsAbsent,
    Tolerate(Tolerance),
    Unordered,
    MatchedBy(Box<str>),
    With(Arc<Same>),
    Rename(Side, Box<str>),
    Convert(Side, Arc<Convert>),
}

/// How deep a document may be.
const DEPTH: usize = 128;

impl Default for Rules {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            numbers: Numbers::default(),
            duplicates: Duplicates::default(),
            depth: DEPTH,
        }
    }
}

impl Rules {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// When two numbers are the same (default: [`Numbers::Value`]).
    pub const fn numbers(mut self, numbers: Numbers) -> Self {
        self.numbers = numbers;
        self
    }

    /// What becomes of several members of one name (default: [`Duplicates::All`]).
    pub const fn duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }

    /// How deeply what differs may be nested, 1 to 256 (default 128). Documents
    /// that differ below are skipped with the reason
    /// [`TooDeep`](super::SkipReason::TooDeep), unless they differ above as well.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`].
    pub fn depth(mut self, most: usize) -> Result<Self, ConfigError> {
        if !(1..=256).contains(&most) {
            let (what, range) = ("depth", "from 1 to 256");
            return Err(ConfigError::OutOfRange { what, given: most as f64, range });
        }
        self.depth = most;
        Ok(self)
    }

    /// What is there, and below it, is not compared.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`]; so for all that take a pattern.
    pub fn ignore(self, pattern: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Ignore)
    }

    /// What is there, and below it, is compared and never shown: not in a diff, a
    /// log, a report, nor a file. A body to which the rules cannot be applied, since
    /// it is no JSON, is not shown at all then. Names of members are shown, unless
    /// they are below such a place, or are [entries](Self::entries) that are
    /// redacted.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn redact(self, pattern: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Redact)
    }

    /// The members of the object there are entries of a map, whose names are data:
    /// they are counted together, as the elements of a list are. The maps of
    /// protobuf are so without a rule.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn entries(self, pattern: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Entries)
    }

    /// `null` there is the same as nothing there.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn null_is_absent(self, pattern: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::NullIsAbsent)
    }

    /// Values there may be a little apart.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn tolerate(self, pattern: &str, tolerance: Tolerance) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Tolerate(tolerance))
    }

    /// The list there has no order: it is equal to one of the same elements, each as
    /// often. Where a rule lets values be a little apart, as many elements are matched
    /// as can be, of lists of up to 64; of longer ones equal elements first, and then up
    /// to 64 others. Sets in sets in sets are a lot of work: what would take more than
    /// reading the document 256 times over is skipped, with the reason
    /// [`TooLarge`](super::SkipReason::TooLarge).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn unordered(self, pattern: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Unordered)
    }

    /// The list there has no order, and its elements are matched by the member of
    /// this name. Of several with the same value, or without one, the first is
    /// matched with the first.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn matched_by(self, pattern: &str, name: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::MatchedBy(name.into()))
    }

    /// Values there are equal if `same` says so: the authority's first. Either may
    /// be absent. Called for values that are not written in the same way, in place
    /// of all else, also for those below.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn compare_with(
        self,
        pattern: &str,
        same: impl Fn(&Field<'_>, &Field<'_>) -> bool + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        self.with(pattern, Action::With(Arc::new(same)))
    }

    /// A member of this side is called something else on the other: what `pattern`
    /// names is taken for `name`, in the same object. In all other patterns it has
    /// its new name; [`redact`](Self::redact) holds by either.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn rename(self, side: Side, pattern: &str, name: &str) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Rename(side, name.into()))
    }

    /// A value of this side is converted before it is compared; `None` leaves it as
    /// it is.
    ///
    /// With any such rule, or a [`rename`](Self::rename), answers are compared field
    /// by field even where both are the same bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn convert(
        self,
        side: Side,
        pattern: &str,
        convert: impl Fn(&Field<'_>) -> Option<Scalar> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        self.with(pattern, Action::Convert(side, Arc::new(convert)))
    }

    fn with(mut self, pattern: &str, action: Action) -> Result<Self, ConfigError> {
        self.rules.push((Pattern::parse(pattern, unescape)?, action));
        Ok(self)
    }

    /// Whether equal texts may mean different things, since the sides are read
    /// differently.
    pub(super) fn tell_sides_apart(&self) -> bool {
        let per_side =
            |(_, action): &(_, _)| matches!(action, Action::Rename(..) | Action::Convert(..));
        self.rules.iter().any(per_side)
    }

    /// Whether anything is secret.
    pub(super) fn redact_anything(&self) -> bool {
        self.rules.iter().any(|(_, action)| matches!(action, Action::Redact))
    }

    /// Whether things may be equal that are not written in the same way.
    fn are_lenient(&self) -> bool {
        let lenient =
            |(_, action): &(_, _)| matches!(action, Action::Tolerate(_) | Action::With(_));
        self.rules.iter().any(lenient)
    }

    fn rename_anything(&self) -> bool {
        self.rules.iter().any(|(_, action)| matches!(action, Action::Rename(..)))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("rules", &self.rules.len())
            .field("numbers", &self.numbers)
            .field("duplicates", &self.duplicates)
            .field("depth", &self.depth)
            .finish()
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('~');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let plain = match part.chars().next()? {
            '0' => '~',
            '1' => '/',
            '2' => '*',
            _ => return None,
        };
        text.push(plain);
        text.push_str(&part[1..]);
    }
    Some(text)
}
