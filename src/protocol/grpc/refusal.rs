//! The layer's own answers to gRPC calls.

use http::{HeaderMap, Response};
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::{protocol::problem, telemetry::Refused};

/// Tells a client's own retries to stay away: A6 of gRPC's proposals.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

const fn code(reason: Refused) -> Code {
    match reason {
        Refused::BodyTooLarge => Code::ResourceExhausted,
        Refused::BodyTimeout | Refused::AuthorityTimeout => Code::DeadlineExceeded,
        Refused::BodyBroken => Code::Cancelled,
        Refused::BufferedBytes
        | Refused::Overloaded
        | Refused::Journal
        | Refused::PartialWrite
        | Refused::StreamClosed
        | Refused::AuthorityNotReady => Code::Unavailable,
        Refused::AuthorityPanicked => Code::Internal,
    }
}

/// Whether a write may have been done, so that nobody must repeat it unseen.
/// Clients are often set up to retry `UNAVAILABLE`.
const fn must_not_be_retried(reason: Refused) -> bool {
    matches!(reason, Refused::PartialWrite | Refused::AuthorityTimeout | Refused::AuthorityPanicked)
}

/// The status of a call that the layer refuses, or could not bring to an end.
pub(crate) fn status(reason: Refused) -> Status {
    let (title, detail) = problem::text(reason);
    let mut metadata = MetadataMap::new();
    if must_not_be_retried(reason) {
        // A negative pause means: not at all.
        metadata.insert(PUSHBACK, AsciiMetadataValue::from_static("-1"));
    }
    Status::with_metadata(code(reason), format!("{title}. {detail}"), metadata)
}

/// The status of a stream that the layer ends because the flag moves on. A
/// client that connects again is served by the stage of then.
pub(crate) fn moved_on() -> Status {
    Status::unavailable("the service is being migrated: reconnect")
}

/// A whole answer that is nothing but a status.
pub(crate) fn answer<B: Default>(status: Status) -> Response<B> {
    status.into_http()
}

/// The status as the trailers of an answer that has begun.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Texts and metadata of this file are valid header values.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, i32::from(status.code()).into());
    }
    trailers
}

#[cfg(test)]
mod tests {
    use http::{StatusCode, header};

    use super::*;

    fn parsed(map: &HeaderMap) -> (Code, String, Option<String>) {
        let status = Status::from_header_map(map).expect("a status");
        let pushback = status.metadata().get(PUSHBACK);
        let pushback = pushback.map(|value| value.to_str().expect("text").to_owned());
        (status.code(), status.message().to_owned(), pushback)
    }

    #[test]
    fn every_refusal_is_a_status_that_tonic_reads_back() {
        use Refused::*;
        let table = [
            (BodyTooLarge, Code::ResourceExhausted, false),
            (BodyTimeout, Code::DeadlineExceeded, false),
            (BodyBroken, Code::Cancelled, false),
            (BufferedBytes, Code::Unavailable, false),
            (Overloaded, Code::Unavailable, false),
            (Journal, Code::Unavailable, false),
            (PartialWrite, Code::Unavailable, true),
            (StreamClosed, Code::Unavailable, false),
            (AuthorityTimeout, Code::DeadlineExceeded, true),
            (AuthorityNotReady, Code::Unavailable, false),
            (AuthorityPanicked, Code::Internal, true),
        ];
        assert_eq!(table.len(), Refused::ALL.len());
        for (reason, code, final_word) in table {
            let answer = answer::<()>(status(reason));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/grpc");
            let (title, detail) = problem::text(reason);
            let wanted = (code, format!("{title}. {detail}"), final_word.then(|| "-1".to_owned()));
            assert_eq!(parsed(answer.headers()), wanted, "{reason}");
            let trailers = trailers(&status(reason));
            assert_eq!(parsed(&trailers), wanted, "{reason}");
            assert!(!trailers.contains_key(header::CONTENT_TYPE));
        }
    }

    #[test]
    fn texts_are_escaped_on_the_wire() {
        let answer = answer::<()>(status(Refused::PartialWrite));
        let text = answer.headers()[Status::GRPC_MESSAGE].to_str().expect("plain ASCII");
        assert!(text.starts_with("Partial%20write."), "{text}");
    }

    #[test]
    fn a_stream_that_is_closed_asks_to_come_again() {
        let (code, text, pushback) = parsed(&trailers(&moved_on()));
        assert_eq!(code, Code::Unavailable);
        assert_eq!(text, "the service is being migrated: reconnect");
        // Unlike a partial write: coming again is what is wanted.
        assert_eq!(pushback, None);
    }
}
