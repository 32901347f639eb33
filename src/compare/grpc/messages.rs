//! Messages, byte by byte.

use super::pairs::{How, each_pair};
use crate::compare::{Answers, Compare, Diff};

/// Compares the messages byte by byte, one after the other. Trailers are left
/// to [`GrpcStatus`](super::GrpcStatus) and [`Metadata`](super::Metadata).
///
/// How a message is compressed, if at all, makes no difference. The order of a
/// map's entries does: see [`DecodedMessages`](super::DecodedMessages). What is
/// no whole message is compared as it was sent.
///
/// ```
/// use http::StatusCode;
/// use tower_migration::compare::{Answer, Answers, Compare, grpc::ExactMessages};
///
/// let a = Answer::new(StatusCode::OK, &b"\0\0\0\0\x02ab"[..]);
/// let b = Answer::new(StatusCode::OK, &b"\0\0\0\0\x02ac"[..]);
/// let diff = ExactMessages.compare(&Answers::of(&a, &b));
/// assert_eq!(diff.differences()[0].what, "message 0 at byte 1");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactMessages;

impl Compare for ExactMessages {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let how = How::default();
        each_pair(answers, how, |at, a, b, found| {
            found.add("message", || how.bytes("message", &format!("message {at}"), a, b));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Answer, SkipReason,
        grpc::testing::{answer, framed, gzip, packed},
    };

    fn diff(authority: &Answer, other: &Answer) -> String {
        ExactMessages.compare(&Answers::of(authority, other)).to_string()
    }

    #[test]
    fn messages_are_compared_one_by_one() {
        let a = answer(&[b"one", b"two", b"three"]);
        assert_eq!(diff(&a, &a.clone()), "no difference");
        assert_eq!(
            diff(&a, &answer(&[b"one", b"tow"])),
            "number of messages: \"3\" against \"2\"; message 1 at byte 1: \"two\" against \"tow\""
        );
        // The same bytes, cut into messages in another way.
        assert_ne!(diff(&answer(&[b"ab", b""]), &answer(&[b"a", b"b"])), "no difference");
    }

    #[test]
    fn the_way_of_compressing_makes_no_difference_and_the_content_does() {
        let text: &[u8] = &b"EDDF ".repeat(100);
        let (plain, fast, best) =
            (answer(&[text]), packed("gzip", &[&gzip(text, 1)]), packed("gzip", &[&gzip(text, 0)]));
        assert_ne!(fast.body, best.body);
        assert_eq!(diff(&plain, &fast), "no difference");
        assert_eq!(diff(&fast, &best), "no difference");
        let other = packed("gzip", &[&gzip(&text[..99], 1)]);
        assert!(diff(&plain, &other).starts_with("message 0 at byte 99: "));
    }

    #[test]
    fn what_cannot_be_looked_into_is_skipped() {
        let a = packed("zstd", &[b"abc"]);
        assert_eq!(diff(&a, &a.clone()), "no difference");
        // Of the second, the same bytes mean something else.
        for b in [packed("zstd", &[b"abd"]), packed("br", &[b"abc"]), answer(&[b"text"])] {
            let found = ExactMessages.compare(&Answers::of(&a, &b));
            assert!(found.differences().is_empty());
            assert_eq!(found.why_unclear(), Some(SkipReason::Encoding.into()));
        }
    }

    #[test]
    fn what_is_damaged_is_compared_as_it_was_sent() {
        assert_eq!(
            diff(&packed("gzip", &[b"abc"]), &answer(&[b"abc"])),
            "message 0 (damaged gzip data): \"gzip\" against \"not compressed\""
        );
    }

    #[test]
    fn a_bomb_is_not_unpacked_to_its_end() {
        let found =
            |a: &Answer, b: &Answer| ExactMessages.compare(&Answers::of(a, b)).why_unclear();
        let too_large = Some(SkipReason::TooLarge.into());
        let big = vec![0; 17 << 20];
        let (a, b) = (packed("gzip", &[&gzip(&big, 1)]), packed("gzip", &[&gzip(&big, 2)]));
        assert_eq!(found(&a, &b), too_large);
        // Small ones add up.
        let small = vec![0; 7 << 20];
        let (a, b) = (gzip(&small, 1), gzip(&small, 2));
        assert_eq!(found(&packed("gzip", &[&a, &a]), &packed("gzip", &[&b, &b])), None);
        assert_eq!(
            found(&packed("gzip", &[&a, &a, &a]), &packed("gzip", &[&b, &b, &b])),
            too_large
        );
    }

    #[test]
    fn what_is_no_message_is_compared_as_a_body() {
        let mut cut = answer(&[b"one"]);
        cut.body.truncate(6);
        assert_eq!(diff(&cut, &cut.clone()), "no difference");
        let found = diff(&answer(&[b"one"]), &cut);
        assert!(
            found.starts_with("body (the message at byte 0 has 1 bytes instead of 3) at byte 6"),
            "{found}"
        );
        let mut odd = answer(&[]);
        odd.body = framed(7, b"x").into();
        assert!(diff(&odd, &cut).contains("unknown flag 7"));
    }

    #[test]
    fn a_long_stream_of_differences_is_cut() {
        let (a, b) = (vec![&b"a"[..]; 10_000], vec![&b"b"[..]; 10_000]);
        let found = ExactMessages.compare(&Answers::of(&answer(&a), &answer(&b)));
        assert_eq!(found.differences().len(), 3);
    }
}
