//! What a status means for the data.

use http::StatusCode;

use crate::stage::Outcome;

/// What a status says about a write.
#[inline]
pub(in crate::protocol) fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::REQUEST_TIMEOUT => Outcome::Unknown,
        StatusCode::NOT_MODIFIED
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => Outcome::Refused,
        _ if status.is_success() || status.is_redirection() => Outcome::Applied,
        _ if status.is_client_error() => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}
