//! The comparers that come with the crate.

use http::{HeaderName, header::CONTENT_TYPE};

use super::{Answers, Compare, Diff};

/// Compares the status codes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status;

impl Compare for Status {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let (authority, other) = (answers.authority.status, answers.other.status);
        Diff::when(authority != other, "status", authority.as_u16(), other.as_u16())
    }
}

/// Compares chosen headers: all values of each, in order.
///
/// The default is `content-type` alone: most others differ for good reasons.
///
/// ```
/// use http::header::{CONTENT_TYPE, LOCATION};
/// use tower_migration::compare::Headers;
///
/// let headers = Headers::new([CONTENT_TYPE, LOCATION]);
/// # let _ = headers;
/// ```
#[derive(Clone, Debug)]
pub struct Headers(Vec<HeaderName>);

impl Headers {
    /// These and no others.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Default for Headers {
    fn default() -> Self {
        Self::new([CONTENT_TYPE])
    }
}

impl Compare for Headers {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let values = |headers: &http::HeaderMap, name: &HeaderName| {
            let all: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            if all.is_empty() { "(absent)".to_owned() } else { all.join(", ") }
        };
        self.0.iter().fold(Diff::none(), |diff, name| {
            let (authority, other) = (&answers.authority.headers, &answers.other.headers);
            if authority.get_all(name).iter().eq(other.get_all(name).iter()) {
                return diff;
            }
            let what = format!("header {name}");
            diff.and(Diff::of(what, values(authority, name), values(other, name)))
        })
    }
}

/// Compares the bodies byte by byte, and the trailers if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactBody;

impl Compare for ExactBody {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let (authority, other) = (&answers.authority.body, &answers.other.body);
        let body = if authority == other {
            Diff::none()
        } else {
            let at = authority.iter().zip(other).take_while(|(a, b)| a == b).count();
            // A little of what is equal, so that a person finds the place.
            let from = at.saturating_sub(24);
            let shown = |body: &[u8]| {
                String::from_utf8_lossy(&body[from.min(body.len())..(at + 64).min(body.len())])
                    .into_owned()
            };
            Diff::of(format!("body at byte {at}"), shown(authority), shown(other))
        };
        let (authority, other) = (&answers.authority.trailers, &answers.other.trailers);
        let shown = |trailers: &Option<http::HeaderMap>| format!("{trailers:?}");
        body.and(Diff::when(authority != other, "trailers", shown(authority), shown(other)))
    }
}

/// Two comparers, one after the other; see [`Compare::and`].
#[derive(Clone, Copy, Debug)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A, B> And<A, B> {
    pub(super) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Compare, B: Compare> Compare for And<A, B> {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        self.first.compare(answers).and(self.second.compare(answers))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};

    use super::*;
    use crate::compare::Answer;

    fn diff(comparer: &impl Compare, authority: &Answer, other: &Answer) -> String {
        comparer.compare(&Answers::of(authority, other)).to_string()
    }

    #[test]
    fn each_part_sees_its_own_difference_and_no_other() {
        let a = Answer::new(StatusCode::OK, "{\"name\":\"Zürich\"}");
        let mut b = Answer::new(StatusCode::NOT_FOUND, "{\"name\":\"Zurich\"}");
        b.headers.insert(LOCATION, HeaderValue::from_static("/z"));
        assert_eq!(diff(&Status, &a, &b), "status: \"200\" against \"404\"");
        assert_eq!(
            diff(&Headers::new([LOCATION]), &a, &b),
            "header location: \"(absent)\" against \"/z\""
        );
        assert_eq!(diff(&Headers::default(), &a, &b), "no difference");
        assert!(diff(&ExactBody, &a, &b).starts_with("body at byte 10: "));
        assert_eq!(diff(&(), &a, &b), "no difference");
        let all = Status.and(Headers::new([LOCATION])).and(ExactBody);
        assert_eq!(all.compare(&Answers::of(&a, &b)).differences().len(), 3);
        assert_eq!(diff(&all, &a, &a.clone()), "no difference");
    }

    #[test]
    fn one_body_may_be_a_prefix_of_the_other_or_no_text_at_all() {
        let a = Answer::new(StatusCode::OK, "abc");
        let b = Answer::new(StatusCode::OK, "abcdef");
        assert_eq!(diff(&ExactBody, &a, &b), "body at byte 3: \"abc\" against \"abcdef\"");
        let c = Answer::new(StatusCode::OK, vec![0xff; 500]);
        assert!(diff(&ExactBody, &a, &c).len() < 1_000);
    }

    #[test]
    fn trailers_count() {
        let a = Answer::new(StatusCode::OK, "");
        let mut b = a.clone();
        b.trailers = Some(HeaderMap::new());
        assert!(diff(&ExactBody, &a, &b).starts_with("trailers"));
    }
}
