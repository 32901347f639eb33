//! The comparers that come with the crate: status, body, and their combinations.

use std::{fmt, sync::Arc};

use super::{
    Answer, Answers, Compare, Diff,
    encoding::{self, Undecoded},
};
use crate::stage::Side;

/// Compares the status codes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status;

impl Compare for Status {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let (authority, other) = (answers.authority.status, answers.other.status);
        Diff::when(authority != other, "status", authority.as_u16(), other.as_u16())
    }
}

/// Compares the bodies byte by byte, and the trailers if there are any (of which only
/// the names are shown).
///
/// Bodies whose `content-encoding` differs, or that differ encoded, are decoded
/// first (`gzip`, `deflate`; needs one of the features `json` and `grpc`). What
/// cannot be decoded is skipped with the reason, up to 16 MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactBody;

impl Compare for ExactBody {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        if encoding::identical(answers.authority, answers.other) {
            return Diff::none();
        }
        let bodies = match Bodies::of(answers) {
            Ok(None) => Diff::none(),
            Ok(Some(Bodies { authority, other })) => bytes(&authority, &other, true),
            Err(diff) => diff,
        };
        bodies.and(trailers(answers))
    }
}

/// Two bodies that are not the same bytes, decoded.
pub(super) struct Bodies<'a> {
    pub(super) authority: std::borrow::Cow<'a, bytes::Bytes>,
    pub(super) other: std::borrow::Cow<'a, bytes::Bytes>,
}

impl<'a> Bodies<'a> {
    /// `None`: they are equal. A diff: that is all there is to say.
    pub(super) fn of(answers: &Answers<'a>) -> Result<Option<Self>, Diff> {
        let Answers { authority, other, .. } = *answers;
        let empty = authority.body.is_empty();
        if authority.body == other.body && (empty || encoding::same(authority, other)) {
            return Ok(None);
        }
        let (mine, theirs) = match (encoding::plain(authority), encoding::plain(other)) {
            (Ok(mine), Ok(theirs)) => (mine, theirs),
            (Err(Undecoded::Skip(reason)), _) | (_, Err(Undecoded::Skip(reason))) => {
                return Err(Diff::unclear(reason));
            }
            (mine, theirs) => {
                let said = |body: Result<_, Undecoded>| match body {
                    Err(Undecoded::Broken(error)) => format!("cannot be decoded: {error}"),
                    _ => "can be decoded".to_owned(),
                };
                return Err(Diff::of("body", said(mine), said(theirs)));
            }
        };
        Ok((mine != theirs).then_some(Self { authority: mine, other: theirs }))
    }
}

/// Where two bodies differ. Without `shows`, what they say is kept secret.
pub(super) fn bytes(authority: &[u8], other: &[u8], shows: bool) -> Diff {
    if authority == other {
        return Diff::none();
    }
    let at = authority.iter().zip(other).take_while(|(a, b)| a == b).count();
    // A little of what is equal, so that a person finds the place.
    let from = at.saturating_sub(24);
    let shown = |body: &[u8]| match shows {
        true => String::from_utf8_lossy(&body[from.min(body.len())..(at + 64).min(body.len())])
            .into_owned(),
        false => format!("({} bytes, not shown)", body.len()),
    };
    Diff::at("body", format!("body at byte {at}"), shown(authority), shown(other))
}

/// Which trailers differ. What they say is not shown: no rule names them.
pub(super) fn trailers(answers: &Answers<'_>) -> Diff {
    let (authority, other) = (&answers.authority.trailers, &answers.other.trailers);
    if authority == other {
        return Diff::none();
    }
    let (a, b) = match (authority, other) {
        (Some(a), Some(b)) => (a, b),
        (a, _) => {
            let said = |there| if there { "there" } else { "(absent)" };
            return Diff::of("trailers", said(a.is_some()), said(a.is_none()));
        }
    };
    let names: std::collections::BTreeSet<_> =
        a.keys().chain(b.keys()).map(http::HeaderName::as_str).collect();
    names.into_iter().fold(Diff::none(), |diff, name| {
        let differs = !a.get_all(name).iter().eq(b.get_all(name).iter());
        let said = |map: &http::HeaderMap| match map.contains_key(name) {
            true => "(not shown)",
            false => "(absent)",
        };
        diff.and(Diff::when(differs, format!("trailer {name}"), said(a), said(b)))
    })
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

    fn looks_into_equal(&self) -> bool {
        self.first.looks_into_equal() || self.second.looks_into_equal()
    }
}

type Normalise = dyn Fn(Side, &mut Answer) + Send + Sync;

/// Puts the answers of either side into a common form before a comparer sees them;
/// see [`Compare::normalised`].
#[derive(Clone)]
pub struct Normalised<C> {
    comparer: C,
    normalise: Arc<Normalise>,
}

impl<C> Normalised<C> {
    pub(super) fn new(
        comparer: C,
        normalise: impl Fn(Side, &mut Answer) + Send + Sync + 'static,
    ) -> Self {
        Self { comparer, normalise: Arc::new(normalise) }
    }
}

impl<C: Compare> Compare for Normalised<C> {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let (mut authority, mut other) = (answers.authority.clone(), answers.other.clone());
        (self.normalise)(answers.context.authority, &mut authority);
        (self.normalise)(answers.context.other, &mut other);
        self.comparer.compare(&Answers { authority: &authority, other: &other, ..*answers })
    }

    /// The function sees both, equal or not.
    fn looks_into_equal(&self) -> bool {
        true
    }
}

impl<C: fmt::Debug> fmt::Debug for Normalised<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Normalised").field("comparer", &self.comparer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};

    use super::*;
    use crate::compare::{Answer, Headers, SkipReason};

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
        assert_eq!(diff(&Headers::none(), &a, &b), "no difference");
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
        let found = ExactBody.compare(&Answers::of(&a, &b));
        assert_eq!(found.differences()[0].place, "body", "all places in a body count as one");
    }

    #[test]
    fn trailers_count() {
        let a = Answer::new(StatusCode::OK, "");
        let mut b = a.clone();
        b.trailers = Some(HeaderMap::new());
        assert!(diff(&ExactBody, &a, &b).starts_with("trailers"));
    }

    fn encoded(encoding: &'static str, body: impl Into<bytes::Bytes>) -> Answer {
        let mut answer = Answer::new(StatusCode::OK, body);
        answer.headers.insert("content-encoding", HeaderValue::from_static(encoding));
        answer
    }

    #[test]
    fn what_cannot_be_decoded_is_not_called_different() {
        let plain = Answer::new(StatusCode::OK, "text");
        let brotli = encoded("br", "\x0b\x01text");
        let found = ExactBody.compare(&Answers::of(&plain, &brotli));
        assert_eq!(found.why_unclear(), Some(SkipReason::Encoding.into()));
        assert!(found.differences().is_empty() && !found.is_empty());
        // The same bytes, encoded in the same way, need not be decoded.
        assert_eq!(diff(&ExactBody, &brotli, &brotli.clone()), "no difference");
        // But the same bytes mean something else if they are encoded in another way.
        let raw = Answer::new(StatusCode::OK, brotli.body.clone());
        assert!(!ExactBody.compare(&Answers::of(&raw, &brotli)).is_empty());
        // What differs for certain counts for more.
        let missing = Answer::new(StatusCode::NOT_FOUND, "text");
        let found = Status.and(ExactBody).compare(&Answers::of(&missing, &brotli));
        assert_eq!(found.differences().len(), 1);
        assert_eq!(
            found.to_string(),
            "status: \"404\" against \"200\"; not all compared: encoding"
        );
    }

    #[cfg(any(feature = "grpc", feature = "json"))]
    #[test]
    fn compressed_bodies_are_decoded() {
        use std::io::Write;

        use flate2::{
            Compression,
            write::{DeflateEncoder, GzEncoder, ZlibEncoder},
        };

        fn gzip(text: &[u8], level: u32) -> Vec<u8> {
            let mut writer = GzEncoder::new(Vec::new(), Compression::new(level));
            writer.write_all(text).expect("memory takes all");
            writer.finish().expect("memory takes all")
        }
        let text = "EDDF ".repeat(100);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(text.as_bytes()).expect("memory takes all");
        let zlib = zlib.finish().expect("memory takes all");
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(text.as_bytes()).expect("memory takes all");
        let raw = raw.finish().expect("memory takes all");
        let plain = Answer::new(StatusCode::OK, text.clone());
        for same in [
            encoded("gzip", gzip(text.as_bytes(), 0)),
            encoded("X-GZIP", gzip(text.as_bytes(), 9)),
            encoded("deflate", zlib),
            encoded("deflate", raw),
            encoded("identity", text.clone()),
            encoded("gzip, gzip", gzip(&gzip(text.as_bytes(), 1), 1)),
            // A member after the other.
            encoded(
                "gzip",
                [gzip(&text.as_bytes()[..9], 1), gzip(&text.as_bytes()[9..], 1)].concat(),
            ),
        ] {
            assert_eq!(diff(&ExactBody, &plain, &same), "no difference");
        }
        let other = encoded("gzip", gzip(b"EDDM", 1));
        assert!(diff(&ExactBody, &plain, &other).starts_with("body at byte 3: "));
        let cut = encoded("gzip", gzip(text.as_bytes(), 1)[..20].to_vec());
        assert!(diff(&ExactBody, &plain, &cut).starts_with("body: \"can be decoded\" against"));
        let bomb = encoded("gzip", gzip(&vec![0; 17 << 20], 9));
        let found = ExactBody.compare(&Answers::of(&plain, &bomb));
        assert_eq!(found.why_unclear(), Some(SkipReason::TooLarge.into()));
    }

    #[test]
    fn both_sides_can_be_put_into_a_common_form() {
        let comparer = Status.and(ExactBody).normalised(|side, answer: &mut Answer| {
            if side == Side::New {
                answer.body = answer.body.to_ascii_lowercase().into();
            }
        });
        let (a, b) = (Answer::new(StatusCode::OK, "abc"), Answer::new(StatusCode::OK, "ABC"));
        assert_eq!(diff(&comparer, &a, &b), "no difference");
        // Old is left as it is.
        assert_ne!(diff(&comparer, &b, &a), "no difference");
    }
}
