//! What a gRPC status says, and where it stands.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

use crate::stage::Outcome;

/// What a status code says about a write.
///
/// | code | outcome | why |
/// |---|---|---|
/// | `OK` | applied | the call was carried out |
/// | `INVALID_ARGUMENT`, `OUT_OF_RANGE` | refused | the request was looked at and rejected |
/// | `NOT_FOUND`, `ALREADY_EXISTS`, `FAILED_PRECONDITION` | refused | the data was looked at and did not allow it |
/// | `ABORTED` | refused | a transaction was given up, so nothing of it stays |
/// | `PERMISSION_DENIED`, `UNAUTHENTICATED` | refused | the caller was turned away |
/// | `UNIMPLEMENTED` | refused | there is nothing that could have written |
/// | `CANCELLED` | unknown | the one who gave up does not know how far the other had come |
/// | `DEADLINE_EXCEEDED` | unknown | time ran out; the work may have ended just before, or go on |
/// | `UNKNOWN` | unknown | an error of which nothing is known: a panic, a foreign code, no status at all |
/// | `INTERNAL` | unknown | it broke in the middle, perhaps after the write |
/// | `UNAVAILABLE` | unknown | the connection may have been lost after the request had arrived |
/// | `RESOURCE_EXHAUSTED` | unknown | servers also send it when the *answer* is too large, which is after the write |
/// | `DATA_LOSS` | unknown | the data itself is in doubt |
///
/// For a method that deletes, `NOT_FOUND` means applied: see
/// [`Grpc::deletes`](super::Grpc::deletes).
///
/// ```
/// use tonic::Code;
/// use tower_migration::{Outcome, protocol::grpc::outcome};
///
/// assert_eq!(outcome(Code::Ok), Outcome::Applied);
/// assert_eq!(outcome(Code::InvalidArgument), Outcome::Refused);
/// assert_eq!(outcome(Code::ResourceExhausted), Outcome::Unknown);
/// ```
#[must_use]
pub const fn outcome(code: Code) -> Outcome {
    match code {
        Code::Ok => Outcome::Applied,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Outcome::Refused,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Unknown,
    }
}

/// What the head tells already: the status of an answer without messages
/// ("trailers-only"), or one made of an HTTP status that is not 200. `None`: it
/// comes in the trailers.
pub(crate) fn in_head(status: StatusCode, headers: &HeaderMap) -> Option<Code> {
    read(headers).or_else(|| (status != StatusCode::OK).then(|| of_http(status)))
}

/// The status of a whole answer.
///
/// An answer that has ended without any is `UNKNOWN`, and so is a value that is
/// no code.
pub(crate) fn at_end(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
) -> Code {
    // Trailers come later and know more, should a broken server send both.
    trailers.and_then(read).or_else(|| in_head(status, headers)).unwrap_or(Code::Unknown)
}

/// The text that goes with the status, from the place where the status is.
/// Empty if there is none.
pub(crate) fn message<'a>(headers: &'a HeaderMap, trailers: Option<&'a HeaderMap>) -> Cow<'a, str> {
    let at = trailers.filter(|trailers| trailers.contains_key(Status::GRPC_STATUS));
    match at.unwrap_or(headers).get(Status::GRPC_MESSAGE) {
        Some(value) => decoded(value.as_bytes()),
        None => Cow::Borrowed(""),
    }
}

// Not `Status::from_header_map`: it panics on details that are not base64, and
// an answer must not be able to do that.
fn read(map: &HeaderMap) -> Option<Code> {
    map.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// The mapping that gRPC prescribes for answers that some proxy has made up.
const fn of_http(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// Percent-decodes. What is no escape stays as it is, as gRPC wants it.
fn decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'%') {
        return String::from_utf8_lossy(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are a byte.
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                at += 3;
            }
            _ => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), value.parse().expect("a value"))
            })
            .collect()
    }

    fn codes() -> impl Iterator<Item = Code> {
        (0..=16).map(Code::from_i32)
    }

    #[test]
    fn each_code_means_what_the_table_says() {
        let table = "applied unknown unknown refused unknown refused refused refused unknown \
                     refused refused refused refused unknown unknown unknown refused";
        let found: Vec<_> = codes().map(|code| outcome(code).as_str()).collect();
        assert_eq!(found.join(" "), table);
    }

    #[test]
    fn every_code_is_read_from_headers_and_from_trailers() {
        for code in codes() {
            let said = map(&[("grpc-status", &i32::from(code).to_string())]);
            let none = HeaderMap::new();
            assert_eq!(in_head(StatusCode::OK, &said), Some(code));
            assert_eq!(in_head(StatusCode::OK, &none), None);
            assert_eq!(at_end(StatusCode::OK, &said, None), code);
            assert_eq!(at_end(StatusCode::OK, &none, Some(&said)), code);
        }
    }

    #[test]
    fn what_is_no_code_is_unknown() {
        for bad in ["", "17", "-1", "00", "007", "x", "1 ", "2147483648", "0,0"] {
            let said = map(&[("grpc-status", bad)]);
            assert_eq!(in_head(StatusCode::OK, &said), Some(Code::Unknown), "{bad:?}");
        }
        let none = HeaderMap::new();
        assert_eq!(at_end(StatusCode::OK, &none, None), Code::Unknown);
        assert_eq!(at_end(StatusCode::OK, &none, Some(&none)), Code::Unknown);
    }

    #[test]
    fn a_status_goes_before_http_and_trailers_go_before_headers() {
        let (ok, gone) = (map(&[("grpc-status", "0")]), map(&[("grpc-status", "5")]));
        assert_eq!(at_end(StatusCode::BAD_GATEWAY, &gone, None), Code::NotFound);
        assert_eq!(at_end(StatusCode::OK, &ok, Some(&gone)), Code::NotFound);
        assert_eq!(at_end(StatusCode::OK, &gone, Some(&HeaderMap::new())), Code::NotFound);
    }

    #[test]
    fn http_statuses_map_as_grpc_prescribes() {
        let table = [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (500, Code::Unknown),
            (204, Code::Unknown),
            (302, Code::Unknown),
            (418, Code::Unknown),
        ];
        for (status, code) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(in_head(status, &HeaderMap::new()), Some(code), "{status}");
        }
    }

    #[test]
    fn texts_are_decoded_and_broken_escapes_kept() {
        for (sent, read) in [
            ("plain", "plain"),
            ("Z%C3%BCrich%20%25", "Zürich %"),
            ("%c3%bc", "ü"),
            ("100% sure%2", "100% sure%2"),
            ("%zz%+1", "%zz%+1"),
            ("%FF", "\u{fffd}"),
        ] {
            let there = map(&[("grpc-status", "2"), ("grpc-message", sent)]);
            assert_eq!(message(&HeaderMap::new(), Some(&there)), read);
            assert_eq!(message(&there, None), read);
            assert_eq!(message(&there, Some(&HeaderMap::new())), read);
        }
        assert_eq!(message(&HeaderMap::new(), None), "");
    }

    #[test]
    fn details_that_are_not_base64_do_no_harm() {
        let said = map(&[("grpc-status", "5"), ("grpc-status-details-bin", "###")]);
        assert_eq!(at_end(StatusCode::OK, &HeaderMap::new(), Some(&said)), Code::NotFound);
    }
}
