//! gRPC says how a call went in its trailers.

use std::{
    fmt,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, StatusCode};

use super::{code, outcome, refusal};
use crate::{body::SaysWhere, flag::BoxFuture, stage::Outcome};

/// The answer's end says how the call went, and the layer may put another in
/// its place.
#[derive(Default)]
pub struct InTrailers {
    closing: Option<BoxFuture<'static, ()>>,
}

impl InTrailers {
    /// The answer is ended when `closing` resolves.
    pub(super) const fn until(closing: BoxFuture<'static, ()>) -> Self {
        Self { closing: Some(closing) }
    }
}

impl SaysWhere for InTrailers {
    fn at_end(trailers: Option<&HeaderMap>) -> Option<Outcome> {
        Some(outcome(code::at_end(StatusCode::OK, &HeaderMap::new(), trailers)))
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<HeaderMap> {
        let Some(closing) = &mut self.closing else {
            return Poll::Pending;
        };
        ready!(closing.as_mut().poll(cx));
        self.closing = None;
        Poll::Ready(refusal::trailers(&refusal::moved_on()))
    }
}

impl fmt::Debug for InTrailers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTrailers").field("closes", &self.closing.is_some()).finish()
    }
}
