//! HTTP, whatever the framework.

mod outcome;
mod seam;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, header, request};
use http_body::Body;

use super::{ByMethod, Classify, Dispatch, HasKeys, Head, HttpKeys, KeyOf, upgrade};
use crate::{
    body::{Capture, CopyBody, ReadAhead, Room},
    compare::{Answer, Compare, ExactBody, Headers, Status},
    reconcile::{Key, Keys},
};

type RampBy = dyn Fn(&Head<'_>) -> Option<Key> + Send + Sync;
type Prepare = dyn Fn(&mut Request<Bytes>) + Send + Sync;
type Follow = dyn Fn(Request<Bytes>, &Answer) -> Option<Request<Bytes>> + Send + Sync;

/// The protocol of HTTP services: how requests are classified, keyed, copied
/// and compared. Set up through the methods of
/// [`MigrationLayer`](crate::MigrationLayer).
#[derive(Clone)]
pub struct Http {
    pub(crate) classify: Arc<dyn Classify>,
    pub(crate) keys: Option<Arc<dyn KeyOf>>,
    pub(crate) ramp_by: Option<Arc<RampBy>>,
    pub(crate) prepare: Option<Arc<Prepare>>,
    pub(crate) follow: Option<Arc<Follow>>,
    pub(crate) strip: Vec<fn(&mut Extensions)>,
    pub(crate) dispatch_header: Option<HeaderName>,
    pub(crate) compare: Arc<dyn Compare>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            classify: Arc::new(ByMethod),
            keys: Some(Arc::new(HttpKeys)),
            ramp_by: None,
            prepare: None,
            follow: None,
            strip: Vec::new(),
            dispatch_header: None,
            compare: Arc::new(Status.and(Headers::default()).and(ExactBody)),
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// A request that has been read.
#[derive(Debug)]
pub struct WholeRequest {
    parts: request::Parts,
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// Pays for `data` until both legs have ended.
    _room: Room,
}

/// A request that the authority is reading.
#[derive(Debug)]
pub struct WatchedRequest {
    parts: request::Parts,
    body: Capture,
}

/// An answer that the client is reading.
#[derive(Debug)]
pub struct PendingAnswer {
    head: Answer,
    body: Capture,
}

/// An answer of which a part has been read ahead.
pub struct AheadAnswer<B: Body> {
    response: Response<()>,
    read: ReadAhead<B>,
}

impl<B: Body> fmt::Debug for AheadAnswer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AheadAnswer").finish_non_exhaustive()
    }
}

impl Http {
    fn keys_of(&self, head: &Head<'_>, body: &Bytes) -> Keys {
        self.keys.as_ref().map_or_else(Keys::none, |keys| keys.of_request(head, body))
    }

    /// Strips from a head what must not be in two copies.
    pub(super) fn make_copyable(&self, parts: &mut request::Parts) {
        upgrade::strip(&mut parts.headers, &mut parts.extensions);
        // The body is here already: nobody has to be asked to send it.
        parts.headers.remove(header::EXPECT);
        for strip in &self.strip {
            strip(&mut parts.extensions);
        }
    }

    pub(super) fn stamp(&self, parts: &mut request::Parts, dispatch: Dispatch) {
        parts.extensions.insert(dispatch);
        if let Some(name) = &self.dispatch_header {
            let Dispatch { stage, side, role, .. } = dispatch;
            if let Ok(value) = HeaderValue::try_from(format!("{stage}; {side}; {role}")) {
                parts.headers.insert(name, value);
            }
        }
    }

    pub(super) fn build<B: CopyBody>(
        &self,
        mut parts: request::Parts,
        data: Bytes,
        trailers: Option<HeaderMap>,
        dispatch: Dispatch,
    ) -> Request<B> {
        self.stamp(&mut parts, dispatch);
        Request::from_parts(parts, B::from_collected(data, trailers))
    }
}

impl HasKeys for Http {
    fn has_keys(&self) -> bool {
        self.keys.is_some()
    }
}
