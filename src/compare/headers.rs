//! Headers, each by what it means.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Answers, Compare, Diff};

/// What the default compares: what a client acts on.
const ALLOWED: [HeaderName; 10] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::LINK,
    header::LOCATION,
    header::SET_COOKIE,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

/// What differs between two services that are both right: it names the moment,
/// the machine, or the way in which the body travels.
const NOISE: [HeaderName; 19] = [
    header::AGE,
    header::ALT_SVC,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    header::LAST_MODIFIED,
    header::SERVER,
    header::TRANSFER_ENCODING,
    header::VIA,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-response-time"),
];

#[derive(Clone, Debug)]
enum Which {
    These(Vec<HeaderName>),
    AllBut(Vec<HeaderName>),
}

/// Compares headers: by default those that a client acts on.
///
/// | | compared |
/// |---|---|
/// | `Headers::default()` | `allow`, `cache-control`, `content-disposition`, `content-language`, `content-type`, `link`, `location`, `set-cookie`, `vary`, `www-authenticate` |
/// | [`Headers::new`] | the ones that are named, and no others |
/// | [`Headers::all`] | all but known noise: `age`, `alt-svc`, `connection`, `content-encoding`, `content-length`, `date`, `etag`, `expires`, `keep-alive`, `last-modified`, `server`, `server-timing`, `traceparent`, `tracestate`, `transfer-encoding`, `via`, `x-powered-by`, `x-request-id`, `x-response-time` |
///
/// All values of a name count, in order, but:
///
/// - `content-type`: upper and lower case are the same, and so are JSON with and
///   without `charset=utf-8`, which says nothing there (RFC 8259, section 11).
/// - `cache-control`, `vary`, `allow`: sets, whatever their order and case.
/// - `set-cookie`: the *names* of the cookies that are set. Their values are not
///   compared, and never shown.
///
/// ```
/// use http::header::{CONTENT_TYPE, LOCATION};
/// use tower_migration::compare::Headers;
///
/// let two = Headers::new([CONTENT_TYPE, LOCATION]);
/// let most = Headers::all().without([http::HeaderName::from_static("x-served-by")]);
/// let secret = Headers::default().redact([LOCATION]);
/// # let _ = (two, most, secret);
/// ```
#[derive(Clone, Debug)]
pub struct Headers {
    which: Which,
    redacted: Vec<HeaderName>,
}

impl Headers {
    /// These and no others.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self { which: Which::These(names.into_iter().collect()), redacted: Vec::new() }
    }

    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self { which: Which::These(Vec::new()), redacted: Vec::new() }
    }

    /// All but known noise.
    #[must_use]
    pub fn all() -> Self {
        Self { which: Which::AllBut(NOISE.into()), redacted: Vec::new() }
    }

    /// These too.
    #[must_use]
    pub fn with(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        match &mut self.which {
            Which::These(these) => these.extend(names),
            Which::AllBut(noise) => {
                let names: Vec<_> = names.into_iter().collect();
                noise.retain(|name| !names.contains(name));
            }
        }
        self
    }

    /// Not these.
    #[must_use]
    pub fn without(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        match &mut self.which {
            Which::These(these) => {
                let names: Vec<_> = names.into_iter().collect();
                these.retain(|name| !names.contains(name));
            }
            Which::AllBut(noise) => noise.extend(names),
        }
        self
    }

    /// The values of these are compared and never shown.
    #[must_use]
    pub fn redact(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.redacted.extend(names);
        self
    }

    fn one(&self, name: &HeaderName, authority: &HeaderMap, other: &HeaderMap) -> Diff {
        if authority.get_all(name).iter().eq(other.get_all(name).iter()) {
            return Diff::none();
        }
        let (a, b) = (meaning(name, authority), meaning(name, other));
        if a == b {
            return Diff::none();
        }
        let what = format!("header {name}");
        if self.redacted.contains(name) {
            let shown = |there: &Option<_>| if there.is_some() { "(redacted)" } else { ABSENT };
            return Diff::of(what, shown(&a), shown(&b));
        }
        let shown = |text: Option<String>| {
            text.map_or_else(|| ABSENT.to_owned(), |letters| readable(&letters))
        };
        Diff::of(what, shown(a), shown(b))
    }
}

const ABSENT: &str = "(absent)";

impl Default for Headers {
    fn default() -> Self {
        Self::new(ALLOWED)
    }
}

impl Compare for Headers {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let (authority, other) = (&answers.authority.headers, &answers.other.headers);
        // As nearly always: one walk, in the order in which they were set, which is mostly
        // the same on both sides. Else one that looks each of them up.
        if authority.iter().eq(other.iter()) || authority == other {
            return Diff::none();
        }
        let one = |diff: Diff, name| diff.and(self.one(name, authority, other));
        match &self.which {
            Which::These(names) => names.iter().fold(Diff::none(), one),
            Which::AllBut(noise) => {
                // In an order that does not depend on the hashing of either map.
                let names: BTreeSet<_> =
                    authority.keys().chain(other.keys()).map(HeaderName::as_str).collect();
                let names = names.into_iter().filter_map(|name| name.parse().ok());
                let names: Vec<HeaderName> = names.filter(|name| !noise.contains(name)).collect();
                names.iter().fold(Diff::none(), one)
            }
        }
    }
}

/// What the values of a header mean, as a text that is equal where they mean the
/// same: one letter for each byte. `None`: there is none.
fn meaning(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes).peekable();
    values.peek()?;
    let values: Vec<String> =
        values.map(|value| value.iter().map(|byte| char::from(*byte)).collect()).collect();
    Some(match *name {
        header::CONTENT_TYPE => {
            values.iter().map(|value| media_type(value)).collect::<Vec<_>>().join(", ")
        }
        header::CACHE_CONTROL | header::VARY | header::ALLOW => {
            let joined = values.join(",").to_ascii_lowercase();
            let set: BTreeSet<_> =
                joined.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
            set.into_iter().collect::<Vec<_>>().join(", ")
        }
        header::SET_COOKIE => {
            let name = |cookie: &str| match cookie.split(';').next()?.split_once('=') {
                Some((name, _)) => Some(name.trim().to_owned()),
                // A value and nothing else, which is not shown.
                None => Some("(no name)".to_owned()),
            };
            let names: BTreeSet<_> = values.iter().filter_map(|cookie| name(cookie)).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        }
        _ => values.join(", "),
    })
}

/// The bytes of such a text, readable.
fn readable(letters: &str) -> String {
    let bytes: Vec<u8> = letters.chars().filter_map(|letter| u8::try_from(letter).ok()).collect();
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().escape_ascii().to_string(),
    }
}

fn media_type(value: &str) -> String {
    let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let json = matches!(&*essence, "application/json" | "text/json") || essence.ends_with("+json");
    // What is quoted and need not be says the same without quotes.
    let plain = |part: String| match part.split_once("=\"") {
        Some((name, quoted)) => match quoted.strip_suffix('"') {
            Some(value) if is_token(value) => format!("{name}={value}"),
            _ => part,
        },
        None => part,
    };
    let says_nothing = |part: &String| part.is_empty() || (json && part == "charset=utf-8");
    let parameters: BTreeSet<_> = parts.map(plain).filter(|part| !says_nothing(part)).collect();
    parameters.into_iter().fold(essence, |all, parameter| format!("{all}; {parameter}"))
}

/// Whether a text needs no quotes (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::compare::Answer;

    fn answer(headers: &[(&'static str, &'static str)]) -> Answer {
        let mut answer = Answer::new(StatusCode::OK, "");
        for (name, value) in headers {
            answer.headers.append(*name, HeaderValue::from_static(value));
        }
        answer
    }

    fn diff(
        comparer: &Headers,
        a: &[(&'static str, &'static str)],
        b: &[(&'static str, &'static str)],
    ) -> String {
        comparer.compare(&Answers::of(&answer(a), &answer(b))).to_string()
    }

    #[test]
    fn values_that_mean_the_same_are_equal() {
        let default = Headers::default();
        for (a, b) in [
            (
                vec![("content-type", "application/json")],
                vec![("content-type", "Application/JSON;charset=UTF-8")],
            ),
            (
                vec![("content-type", "text/html; charset=utf-8; x=1")],
                vec![("content-type", "text/html; X=1;charset=UTF-8")],
            ),
            (
                vec![("content-type", "text/html; charset=\"utf-8\"")],
                vec![("content-type", "text/html; charset=utf-8")],
            ),
            (
                vec![("content-type", "text/json")],
                vec![("content-type", "text/json; charset=utf-8")],
            ),
            (
                vec![("cache-control", "no-store, max-age=0")],
                vec![("cache-control", "Max-Age=0"), ("cache-control", "no-store")],
            ),
            (vec![("vary", "accept, origin")], vec![("vary", "Origin"), ("vary", "Accept")]),
            (
                vec![("set-cookie", "id=1; Path=/"), ("set-cookie", "x=2")],
                vec![("set-cookie", "x=3; Secure"), ("set-cookie", "id=7")],
            ),
        ] {
            assert_eq!(diff(&default, &a, &b), "no difference");
        }
    }

    #[test]
    fn what_a_client_acts_on_is_compared_and_noise_is_not() {
        let default = Headers::default();
        let noise = [("date", "a"), ("server", "a"), ("etag", "a"), ("x-request-id", "a")];
        assert_eq!(diff(&default, &noise, &[]), "no difference");
        assert_eq!(diff(&Headers::all(), &noise, &[]), "no difference");
        for (a, b) in [
            (vec![("content-type", "text/html")], vec![("content-type", "text/plain")]),
            (vec![("content-type", "text/html")], vec![]),
            (
                vec![("content-type", "text/html; charset=utf-8")],
                vec![("content-type", "text/html")],
            ),
            (vec![("location", "/a")], vec![("location", "/A")]),
            (vec![("cache-control", "max-age=1")], vec![("cache-control", "max-age=2")]),
            (vec![("set-cookie", "a=1")], vec![("set-cookie", "b=1")]),
        ] {
            assert_ne!(diff(&default, &a, &b), "no difference", "{a:?} {b:?}");
            assert_ne!(diff(&Headers::all(), &a, &b), "no difference", "{a:?} {b:?}");
        }
        assert_eq!(diff(&default, &[("x-total", "1")], &[]), "no difference");
        assert_eq!(
            diff(&Headers::all(), &[("x-total", "1")], &[]),
            "header x-total: \"1\" against \"(absent)\""
        );
    }

    #[test]
    fn names_can_be_added_and_taken_away() {
        let total = || [HeaderName::from_static("x-total")];
        let (one, two) = ([("x-total", "1")], [("x-total", "2")]);
        assert_ne!(diff(&Headers::default().with(total()), &one, &two), "no difference");
        assert_eq!(diff(&Headers::all().without(total()), &one, &two), "no difference");
        assert_eq!(diff(&Headers::new(total()).without(total()), &one, &two), "no difference");
        let tags = ([("etag", "1")], [("etag", "2")]);
        assert_ne!(diff(&Headers::all().with([header::ETAG]), &tags.0, &tags.1), "no difference");
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let secret =
            Headers::new([header::LOCATION, header::SET_COOKIE]).redact([header::LOCATION]);
        let shown = diff(
            &secret,
            &[("location", "/login?token=hunter2"), ("set-cookie", "a=hunter2")],
            &[("location", "/login?token=hunter3"), ("set-cookie", "b=hunter2")],
        );
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("header location: \"(redacted)\""), "{shown}");
        assert!(shown.contains("header set-cookie: \"a\" against \"b\""), "{shown}");
        // A cookie without a name is all value.
        let shown = diff(&secret, &[("set-cookie", "hunter2; Secure")], &[]);
        assert_eq!(shown, "header set-cookie: \"(no name)\" against \"(absent)\"");
    }

    #[test]
    fn values_that_are_no_unicode_are_compared_as_bytes() {
        let named = |name: &[u8]| {
            let mut answer = answer(&[]);
            let value = [&b"attachment; filename=caf"[..], name].concat();
            let value = HeaderValue::from_bytes(&value).expect("a value");
            answer.headers.insert(header::CONTENT_DISPOSITION, value);
            answer
        };
        let (one, two, utf8) = (named(b"\xe9"), named(b"\xe8"), named("é".as_bytes()));
        let found = |a, b| Headers::default().compare(&Answers::of(a, b));
        assert!(!found(&one, &two).is_empty() && !found(&one, &utf8).is_empty());
        let same = one.clone();
        assert!(found(&one, &same).is_empty());
        let shown = &found(&one, &utf8).differences()[0].clone();
        assert!(
            shown.authority.ends_with("caf\\xe9") && shown.other.ends_with("café"),
            "{shown:?}"
        );
    }
}
