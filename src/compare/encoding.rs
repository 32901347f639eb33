//! Bodies as they were before they were compressed.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;

use super::{Answer, SkipReason};

/// How much a body may grow when it is decoded, in bytes.
#[cfg(any(feature = "grpc", feature = "json"))]
const DECODED: usize = 16 << 20;

/// Why a body could not be had plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undecoded {
    /// It may be right, and cannot be looked into.
    Skip(SkipReason),
    /// It is not what its head says that it is.
    #[cfg_attr(
        not(any(feature = "grpc", feature = "json")),
        expect(dead_code, reason = "nothing decodes")
    )]
    Broken(String),
}

/// The encodings of an answer, in the order in which they were applied.
fn encodings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all(CONTENT_ENCODING).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity")
        .collect()
}

/// Whether two answers are the same bytes and nothing else: what most are, told in the
/// time that it takes to compare them.
pub(super) fn identical(a: &Answer, b: &Answer) -> bool {
    a.body == b.body && a.trailers.is_none() && b.trailers.is_none() && is_plain(a) && is_plain(b)
}

/// Whether nothing is said of an encoding. Most answers have few headers, which are
/// looked through faster than a name is hashed.
fn is_plain(answer: &Answer) -> bool {
    match answer.headers.len() {
        0..=8 => answer.headers.keys().all(|name| *name != CONTENT_ENCODING),
        _ => !answer.headers.contains_key(CONTENT_ENCODING),
    }
}

/// Whether two answers are encoded in the same way.
pub(super) fn same(a: &Answer, b: &Answer) -> bool {
    (is_plain(a) && is_plain(b)) || encodings(a) == encodings(b)
}

/// The body as it was before it was encoded.
pub(super) fn plain(answer: &Answer) -> Result<Cow<'_, Bytes>, Undecoded> {
    let mut body = Cow::Borrowed(&answer.body);
    // An answer to HEAD, or a 204: its head speaks of a body that is not sent.
    if body.is_empty() {
        return Ok(body);
    }
    // What was applied last comes off first.
    for name in encodings(answer).iter().rev() {
        body = Cow::Owned(decode(name, &body)?);
    }
    Ok(body)
}

#[cfg(any(feature = "grpc", feature = "json"))]
fn decode(name: &str, body: &Bytes) -> Result<Bytes, Undecoded> {
    use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

    match name {
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(&body[..])),
        // Meant to have zlib's head; some send it without.
        "deflate" => match read(ZlibDecoder::new(&body[..])) {
            Err(Undecoded::Broken(_)) => read(DeflateDecoder::new(&body[..])),
            read => read,
        },
        _ => Err(Undecoded::Skip(SkipReason::Encoding)),
    }
}

#[cfg(not(any(feature = "grpc", feature = "json")))]
fn decode(_: &str, _: &Bytes) -> Result<Bytes, Undecoded> {
    Err(Undecoded::Skip(SkipReason::Encoding))
}

#[cfg(any(feature = "grpc", feature = "json"))]
fn read(decoder: impl std::io::Read) -> Result<Bytes, Undecoded> {
    match crate::body::unpack(decoder, DECODED) {
        Ok(Some(plain)) => Ok(plain),
        Ok(None) => Err(Undecoded::Skip(SkipReason::TooLarge)),
        Err(error) => Err(Undecoded::Broken(error.to_string())),
    }
}
