//! gRPC says how a call went in its trailers.

use http::{HeaderMap, StatusCode};

use super::{code, outcome};
use crate::{body::SaysWhere, stage::Outcome};

/// The answer's end says how the call went.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing in it")]
pub struct InTrailers;

impl SaysWhere for InTrailers {
    fn at_end(trailers: Option<&HeaderMap>) -> Option<Outcome> {
        Some(outcome(code::at_end(StatusCode::OK, &HeaderMap::new(), trailers)))
    }
}
