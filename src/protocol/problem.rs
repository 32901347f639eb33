//! The layer's own answers: problem bodies after RFC 9457.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::telemetry::Refused;

const fn status(reason: Refused) -> StatusCode {
    match reason {
        Refused::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Refused::BodyBroken => StatusCode::BAD_REQUEST,
        Refused::BufferedBytes
        | Refused::Overloaded
        | Refused::Journal
        | Refused::PartialWrite
        | Refused::StreamClosed
        | Refused::AuthorityNotReady => StatusCode::SERVICE_UNAVAILABLE,
        Refused::AuthorityTimeout => StatusCode::GATEWAY_TIMEOUT,
        Refused::AuthorityPanicked => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) const fn text(reason: Refused) -> (&'static str, &'static str) {
    match reason {
        Refused::BodyTooLarge => ("Body too large", "Nothing was written."),
        Refused::BodyTimeout => ("Body too slow", "Nothing was written."),
        Refused::BodyBroken => ("Body broke off", "Nothing was written."),
        Refused::BufferedBytes => ("Too many large requests", "Nothing was written. Try again."),
        Refused::Overloaded => ("Too many writes", "Nothing was written. Try again."),
        Refused::Journal => ("Journal failed", "Nothing was written. Try again."),
        Refused::PartialWrite => {
            ("Partial write", "The write may have been applied in part. Read before you try again.")
        }
        Refused::StreamClosed => (
            "Stream closed",
            "The service is being migrated: reconnect. What was sent may have been applied in part.",
        ),
        Refused::AuthorityTimeout => (
            "Timed out",
            "The request may have been applied, or may be yet. Read before you try again.",
        ),
        Refused::AuthorityNotReady => ("Not ready", "The service took no request in time."),
        Refused::AuthorityPanicked => {
            ("Internal error", "The request may have been applied. Read before you try again.")
        }
    }
}

/// The answer to a request that the layer refuses, or could not bring to an
/// end.
pub(super) fn problem(reason: Refused) -> Response<Bytes> {
    let status = status(reason);
    let (title, detail) = text(reason);
    // Labels and texts are plain ASCII without quotes: nothing to escape.
    let body = format!(
        r#"{{"type":"{}","title":"{title}","status":{},"detail":"{detail}"}}"#,
        reason.as_str().replace('_', "-"),
        status.as_u16()
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, problem);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_json_and_names_itself() {
        for reason in Refused::ALL {
            let response = problem(*reason);
            let body: serde_json::Value =
                serde_json::from_slice(response.body()).expect("valid JSON");
            assert_eq!(body["type"], reason.as_str().replace('_', "-"));
            assert_eq!(body["status"], response.status().as_u16());
            assert!(response.status().is_client_error() || response.status().is_server_error());
        }
    }
}
