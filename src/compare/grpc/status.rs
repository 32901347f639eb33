//! How the calls ended.

use crate::{
    compare::{Answer, Answers, Compare, Diff},
    protocol::grpc::code,
};

/// Compares how the calls ended: the status code, and the text that goes with
/// it, wherever the two stand (in the head of an answer without messages, else
/// in the trailers).
///
/// Details (`grpc-status-details-bin`) are metadata: see
/// [`Metadata`](super::Metadata). The text is shown; where it may hold secrets, take
/// [`Metadata::redact`](super::Metadata::redact) for both.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_migration::compare::{Answer, Answers, Compare, grpc::GrpcStatus};
///
/// let mut head = Answer::new(StatusCode::OK, "");
/// head.headers.insert("grpc-status", 5.into());
/// let mut trailers = Answer::new(StatusCode::OK, "");
/// trailers.trailers = Some(head.headers.clone());
/// assert!(GrpcStatus.compare(&Answers::of(&head, &trailers)).is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatus;

impl Compare for GrpcStatus {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let Answers { authority, other, .. } = answers;
        let said = |answer: &Answer| {
            let code = code::at_end(answer.status, &answer.headers, answer.trailers.as_ref());
            format!("{code:?}")
        };
        let (a, b) = (said(authority), said(other));
        let codes = Diff::when(a != b, "grpc-status", a, b);
        let (a, b) = (text(authority), text(other));
        codes.and(Diff::when(a != b, "grpc-message", a, b))
    }
}

fn text(answer: &Answer) -> std::borrow::Cow<'_, str> {
    code::message(&answer.headers, answer.trailers.as_ref())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn said(code: &'static str, text: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from_static(code));
        map.insert("grpc-message", HeaderValue::from_static(text));
        map
    }

    fn diff(authority: &Answer, other: &Answer) -> String {
        GrpcStatus.compare(&Answers::of(authority, other)).to_string()
    }

    #[test]
    fn the_place_makes_no_difference_and_code_and_text_do() {
        let mut head = Answer::new(StatusCode::OK, "");
        head.headers = said("5", "no%20EDDF");
        let mut end = Answer::new(StatusCode::OK, "");
        end.trailers = Some(said("5", "no EDDF"));
        assert_eq!(diff(&head, &end), "no difference");
        end.trailers = Some(said("9", "no%20EDDM"));
        assert_eq!(
            diff(&head, &end),
            "grpc-status: \"NotFound\" against \"FailedPrecondition\"; \
             grpc-message: \"no EDDF\" against \"no EDDM\""
        );
    }

    #[test]
    fn an_answer_without_a_status_is_not_ok() {
        let silent = Answer::new(StatusCode::OK, "");
        let mut ok = silent.clone();
        ok.trailers = Some(said("0", ""));
        assert_eq!(diff(&silent, &ok), "grpc-status: \"Unknown\" against \"Ok\"");
        let proxy = Answer::new(StatusCode::BAD_GATEWAY, "<html>");
        assert_eq!(diff(&proxy, &ok), "grpc-status: \"Unavailable\" against \"Ok\"");
    }
}
