//! What the messages and the end of a call tell.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{CallType, Grpc, code};
use crate::{
    protocol::{Drained, http::WholeRequest},
    reconcile::Keys,
    stage::Outcome,
};

/// The most of a message that is looked at for its keys, unpacked: as much as
/// tonic takes by default.
const MOST_FOR_KEYS: usize = 4 << 20;

/// What of an answer's head is needed at its end.
pub(super) struct AnswerHead {
    status: StatusCode,
    headers: HeaderMap,
    /// Whether a refusal at the end can be believed.
    certain: bool,
}

/// A refusal says that nothing was written only of a call that is one message
/// each way: in any other, something may have been done before it.
fn believed(outcome: Outcome, code: tonic::Code, certain: bool) -> Outcome {
    match outcome {
        Outcome::Refused if !certain && code != tonic::Code::Unimplemented => Outcome::Unknown,
        outcome => outcome,
    }
}

impl Grpc {
    /// What a status says that stands in an answer's head.
    pub(super) fn outcome_in_head(&self, whole: &WholeRequest, code: tonic::Code) -> Outcome {
        let method = self.methods.get(whole.parts().uri.path());
        let certain = match method.call {
            CallType::Unary | CallType::ServerStreaming => true,
            CallType::ClientStreaming | CallType::Bidirectional => false,
            CallType::Unknown => !whole.is_streamed(),
        };
        believed(method.outcome(code), code, certain)
    }

    pub(super) fn head_of(
        &self,
        whole: &WholeRequest,
        status: StatusCode,
        headers: HeaderMap,
    ) -> AnswerHead {
        let certain = match self.methods.get(whole.parts().uri.path()).call {
            CallType::Unary => true,
            CallType::Unknown => !whole.is_streamed(),
            _ => false,
        };
        AnswerHead { status, headers, certain }
    }

    pub(super) fn keys_of(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> Keys {
        self.keys.of(path, headers, body, MOST_FOR_KEYS)
    }

    /// What the end of an answer says about a call.
    pub(super) fn told(
        &self,
        path: &str,
        head: &AnswerHead,
        trailers: Option<&HeaderMap>,
        first: &Bytes,
    ) -> Drained {
        let code = code::at_end(head.status, &head.headers, trailers);
        let outcome = believed(self.methods.get(path).outcome(code), code, head.certain);
        let keys = if outcome == Outcome::Applied {
            self.answer_keys.of(path, &head.headers, first, MOST_FOR_KEYS)
        } else {
            Keys::none()
        };
        Drained { said: Some((outcome, code_number(code))), keys }
    }

    /// How much of an answer has to be seen for the keys that it tells.
    pub(super) fn first_bytes(&self, path: &str) -> usize {
        if self.answer_keys.has(path) { MOST_FOR_KEYS } else { 0 }
    }
}

pub(super) fn code_number(code: tonic::Code) -> u16 {
    i32::from(code) as u16
}

/// Whether an answer is one of gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}
