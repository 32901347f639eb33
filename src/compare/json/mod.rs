//! JSON bodies, by what they mean.
//!
//! ```
//! use tower_migration::{
//!     MigrationHandle, MigrationLayer,
//!     compare::{Compare, Headers, Status, json::Json, rules::{Rules, Tolerance}},
//! };
//!
//! let rules = Rules::new()
//!     .ignore("/request_id")?
//!     .tolerate("/**/latitude", Tolerance::absolute(1e-6)?)?;
//! let comparer = Status.and(Headers::default()).and(Json::with(rules));
//! let layer = MigrationLayer::new(MigrationHandle::new("airports"), ()).compare(comparer);
//! # let _ = layer;
//! # Ok::<(), tower_migration::ConfigError>(())
//! ```
//!
//! # What it costs
//!
//! Bodies of the same bytes are equal before anything is parsed. Others are split one
//! level at a time, and only what differs is split further, so a long document with
//! one field that differs is read about once for each level above that field.

mod node;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use self::node::Value;
use super::{
    Answer, Answers, Compare, Context, Diff, SkipReason, encoding,
    parts::{Bodies, bytes, trailers},
    rules::{Rules, Walk},
};

/// How large a body may be, in bytes.
const SIZE: usize = 16 << 20;

/// Compares JSON bodies by what they mean, and lists each field that differs with
/// its pointer (RFC 6901). Bodies of other types are compared byte by byte, as
/// [`ExactBody`](super::ExactBody) does, and so are trailers, of which only the names are
/// shown.
///
/// | | |
/// |---|---|
/// | what is JSON | one of the answers says so: `application/json`, `text/json` or `…+json` |
/// | what claims to be and is none | a difference, unless both are the same bytes |
/// | white space, the order of members, escapes (`"\u00fc"` and `"ü"`) | make no difference |
/// | texts in different Unicode forms (`ü` and `u` with `¨`) | differ |
/// | numbers | see [`Numbers`](super::rules::Numbers): by default 1, 1.0 and 1e0 are the same, 0.3 and 0.30000000000000004 are not, whatever the number of digits |
/// | `null` and no member | differ, unless a rule says that they do not |
/// | members of one name | all count: see [`Duplicates`](super::rules::Duplicates) |
/// | lists | in their order, unless a rule says otherwise |
/// | compressed bodies | are decoded (`gzip`, `deflate`), or skipped with the reason |
/// | how large | 16 MiB decoded, else skipped; 128 levels deep |
///
/// For each pair of answers 32 places are listed, with three differences of each.
///
/// A text that is no Unicode (half of a surrogate pair) is equal to itself, however it is
/// escaped, and to nothing else.
#[derive(Clone, Debug, Default)]
pub struct Json {
    rules: Arc<Rules>,
}

impl Json {
    /// Without any rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these rules.
    #[must_use]
    pub fn with(rules: Rules) -> Self {
        Self { rules: Arc::new(rules) }
    }

    /// Two documents, whatever their answers say: for comparers of one's own.
    ///
    /// ```
    /// use tower_migration::{Side, compare::{Context, json::Json}};
    ///
    /// let context = Context::new(Side::Old);
    /// let diff = Json::new().documents(br#"{"a":[1,2]}"#, br#"{"a":[1.0,3]}"#, context);
    /// assert_eq!(diff.to_string(), r#"/a/1: "2" against "3""#);
    /// ```
    pub fn documents(&self, authority: &[u8], other: &[u8], context: Context) -> Diff {
        if authority == other && !self.rules.tell_sides_apart() {
            return Diff::none();
        }
        if authority.len().max(other.len()) > SIZE {
            return Diff::unclear(SkipReason::TooLarge);
        }
        let parsed = |text| serde_json::from_slice::<&RawValue>(text);
        match (parsed(authority), parsed(other)) {
            (Ok(a), Ok(b)) => {
                let size = authority.len() + other.len();
                let (a, b) = (Value::of(a), Value::of(b));
                Walk::over(&self.rules, context, String::new(), size, (a, b))
            }
            (Err(_), Err(_)) => self.undocumented(authority, other),
            (a, b) => {
                let said = |parsed: Result<&RawValue, serde_json::Error>| match parsed {
                    Ok(_) => "JSON".to_owned(),
                    // Its text may quote what was found: where is enough.
                    Err(error) => {
                        format!("no JSON, at line {} column {}", error.line(), error.column())
                    }
                };
                Diff::of("body", said(a), said(b))
            }
        }
    }

    /// Neither is JSON.
    fn undocumented(&self, authority: &[u8], other: &[u8]) -> Diff {
        bytes(authority, other, !self.rules.redact_anything())
    }
}

impl Compare for Json {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let Answers { authority, other, context, .. } = *answers;
        if encoding::identical(authority, other) && !self.rules.tell_sides_apart() {
            return Diff::none();
        }
        // Asked only where the bodies differ: most do not.
        let is_json = || is_json(authority) || is_json(other);
        let body = match Bodies::of(answers) {
            Err(diff) => diff,
            // Each side may be meant in its own way.
            Ok(None) if self.rules.tell_sides_apart() && is_json() => {
                match encoding::plain(authority) {
                    Ok(body) => self.documents(&body, &body, context),
                    Err(_) => Diff::none(),
                }
            }
            Ok(None) => Diff::none(),
            Ok(Some(Bodies { authority, other })) if is_json() => {
                self.documents(&authority, &other, context)
            }
            Ok(Some(Bodies { authority, other })) => self.undocumented(&authority, &other),
        };
        body.and(trailers(answers))
    }

    fn looks_into_equal(&self) -> bool {
        self.rules.tell_sides_apart()
    }
}

fn is_json(answer: &Answer) -> bool {
    let Some(kind) = answer.headers.get(CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    matches!(&*kind, b"application/json" | b"text/json") || kind.ends_with(b"+json")
}

#[cfg(test)]
mod tests;
