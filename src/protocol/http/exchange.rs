//! Requests and answers of any protocol over HTTP, whatever they mean.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, header, request};
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::{
    body::{
        Branch, BranchFault, Capture, CaptureError, CollectError, Collected, CopyBody, Fan, Room,
        Sink, Streaming, Tee, collect, fan_out,
    },
    protocol::{Dispatch, upgrade},
    stage::Role,
    telemetry::{LegFault, Refused},
};

/// Frames that have been read, and perhaps the error after them.
type FramesOf<B> = VecDeque<Result<Frame<Bytes>, <B as Body>::Error>>;
type Prepare = dyn Fn(&mut Request<Bytes>) + Send + Sync;

/// A body of at most so many bytes is copied out of what it was read into: servers
/// read into buffers of eight KiB and more, and a leg may hang for minutes.
const COPIED: usize = 8 * 1024;

/// How requests are copied.
#[derive(Clone, Default)]
pub(crate) struct Exchange {
    pub(crate) prepare: Option<Arc<Prepare>>,
    pub(crate) strip: Vec<fn(&mut Extensions)>,
    pub(crate) dispatch_header: Option<HeaderName>,
    pub(crate) streaming: Option<Streaming>,
}

/// A request that is here, or that both legs read while it arrives.
///
/// Boxed once, where it comes in: its head alone is a few hundred bytes, and it is
/// handed on from one future to the next.
#[derive(Debug)]
pub struct WholeRequest(Box<Whole>);

#[derive(Debug)]
struct Whole {
    parts: request::Parts,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Collected {
        data: Bytes,
        trailers: Option<HeaderMap>,
        /// Pays for `data` until both legs have ended.
        _room: Option<Room>,
    },
    Streamed {
        fan: Fan,
        /// Until each leg has its own.
        branches: Mutex<[Option<Branch>; 2]>,
        /// What was read before.
        first: Bytes,
    },
}

/// A request that the authority is reading.
#[derive(Debug)]
pub struct WatchedRequest {
    /// Its content is what was read before the authority was asked.
    whole: WholeRequest,
    body: Capture,
}

/// Runs a hook over a request and makes its length right again.
pub(crate) fn with_hook(
    parts: request::Parts,
    data: Bytes,
    hook: impl FnOnce(Request<Bytes>) -> Option<Request<Bytes>>,
) -> Option<(request::Parts, Bytes)> {
    let length = data.len();
    let (mut parts, data) = hook(Request::from_parts(parts, data))?.into_parts();
    if data.len() != length && parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(data.len()));
    }
    Some((parts, data))
}

impl Exchange {
    /// Strips from a head what must not be in two copies.
    fn make_copyable(&self, parts: &mut request::Parts) {
        upgrade::strip(&mut parts.headers, &mut parts.extensions);
        // The body is here already: nobody has to be asked to send it.
        parts.headers.remove(header::EXPECT);
        for strip in &self.strip {
            strip(&mut parts.extensions);
        }
    }

    fn stamp(&self, parts: &mut request::Parts, dispatch: Dispatch) {
        parts.extensions.insert(dispatch);
        if let Some(name) = &self.dispatch_header {
            let Dispatch { stage, side, role, .. } = dispatch;
            if let Ok(value) = HeaderValue::try_from(format!("{stage}; {side}; {role}")) {
                parts.headers.insert(name, value);
            }
        }
    }

    pub(crate) fn build<B: CopyBody>(
        &self,
        mut parts: request::Parts,
        body: B,
        dispatch: Dispatch,
    ) -> Request<B> {
        self.stamp(&mut parts, dispatch);
        Request::from_parts(parts, body)
    }

    /// Makes a request one that can be copied, and answers its data, which a hook may
    /// have changed.
    fn prepare(&self, parts: &mut request::Parts, data: Bytes) -> Result<Bytes, Refused> {
        self.make_copyable(parts);
        let Some(prepare) = &self.prepare else {
            return Ok(data);
        };
        let (nothing, ()) = Request::new(()).into_parts();
        let prepared = with_hook(std::mem::replace(parts, nothing), data, |mut request| {
            prepare(&mut request);
            Some(request)
        });
        let (prepared, data) = prepared.ok_or(Refused::BodyBroken)?;
        *parts = prepared;
        Ok(data)
    }

    /// Takes a request in, all of it, or lets both legs read it as it arrives.
    ///
    /// No `async fn`: that would hold the request twice.
    pub(crate) fn collect<B: CopyBody>(
        &self,
        request: Request<B>,
        streaming: Option<Streaming>,
        mut room: Room,
    ) -> impl Future<Output = Result<WholeRequest, Refused>> + Send {
        let (parts, body) = request.into_parts();
        let begun = WholeRequest::new(parts, Bytes::new());
        async move {
            if let Some(streaming) = streaming {
                return self.stream(begun, Vec::new(), body, streaming, room);
            }
            let collected = collect(body, None, &mut room).await;
            let Collected { data, trailers } = collected.map_err(|error| match error {
                CollectError::TooLarge => Refused::BodyTooLarge,
                CollectError::NoRoom => Refused::BufferedBytes,
                CollectError::Broken(error) => {
                    tracing::debug!(target: "tower_migration", %error, "a write's body broke off");
                    Refused::BodyBroken
                }
            })?;
            // A few bytes of a connection's buffer keep all of it, which no limit counts.
            let data = if data.len() > COPIED { data } else { Bytes::copy_from_slice(&data) };
            self.whole(begun, data, trailers, room)
        }
    }

    /// A request that has been read to its end.
    pub(crate) fn whole(
        &self,
        mut begun: WholeRequest,
        data: Bytes,
        trailers: Option<HeaderMap>,
        room: Room,
    ) -> Result<WholeRequest, Refused> {
        let data = self.prepare(&mut begun.0.parts, data)?;
        begun.0.content = Content::Collected { data, trailers, _room: Some(room) };
        Ok(begun)
    }

    /// Lets both legs read a request while it arrives. `frames` are what has been
    /// read of it, and `begun` has the data of those in one piece.
    pub(crate) fn stream<B: CopyBody>(
        &self,
        mut begun: WholeRequest,
        frames: Vec<Frame<Bytes>>,
        body: B,
        streaming: Streaming,
        room: Room,
    ) -> Result<WholeRequest, Refused> {
        let Whole { parts, content } = &mut *begun.0;
        let length = parts.headers.get(header::CONTENT_LENGTH).cloned();
        self.prepare(parts, Bytes::new())?;
        // The body is what it was, whatever the hook has made of none.
        match length {
            Some(length) => parts.headers.insert(header::CONTENT_LENGTH, length),
            None => parts.headers.remove(header::CONTENT_LENGTH),
        };
        let streaming = streaming.for_client(room.client_waits());
        let (fan, branches) = fan_out(frames, body, streaming, room.into_lease());
        let branches = Mutex::new(branches.map(Some));
        *content = Content::Streamed { fan, branches, first: content.data() };
        Ok(begun)
    }

    /// A request again: for each leg once, if it is streamed.
    pub(crate) fn copy<B: CopyBody>(&self, whole: &WholeRequest, dispatch: Dispatch) -> Request<B> {
        let body = match &whole.0.content {
            Content::Collected { data, trailers, .. } => {
                B::from_collected(data.clone(), trailers.clone())
            }
            Content::Streamed { .. } => {
                let branch = whole.branch(dispatch.role).expect("each leg gets its request once");
                (B::from_branch().expect("asked for before it was streamed"))(branch)
            }
        };
        self.build(whole.parts().clone(), body, dispatch)
    }

    /// The request, watched while the authority reads it. `begun` is what has
    /// been read of it, again the data of that in one piece, and whether that
    /// was all.
    pub(crate) fn watch<B: CopyBody>(
        &self,
        request: Request<B>,
        begun: (FramesOf<B>, Bytes, bool),
        dispatch: Dispatch,
        room: Room,
    ) -> (Request<B>, WatchedRequest) {
        let (mut parts, body) = request.into_parts();
        let mut copy = parts.clone();
        self.make_copyable(&mut copy);
        self.stamp(&mut parts, dispatch);
        let (frames, first, ended) = begun;
        let (body, capture) = if frames.is_empty() && body.is_end_stream() {
            (body, Capture::Nothing(Some(room)))
        } else {
            let tee = Tee::new(body, frames, ended);
            let (sink, capture) = Sink::new(&tee, None, false, room);
            (B::from_tee(tee.watched(sink)), capture)
        };
        let watched = WatchedRequest { whole: WholeRequest::new(copy, first), body: capture };
        (Request::from_parts(parts, body), watched)
    }
}

impl Content {
    /// What was collected; what was read beforehand of a request that is streamed.
    fn data(&self) -> Bytes {
        match self {
            Self::Collected { data, .. } => data.clone(),
            Self::Streamed { first, .. } => first.clone(),
        }
    }
}

impl WholeRequest {
    /// One that is still to be read, but for `first`.
    pub(crate) fn new(parts: request::Parts, first: Bytes) -> Self {
        let content = Content::Collected { data: first, trailers: None, _room: None };
        Self(Box::new(Whole { parts, content }))
    }

    pub(crate) const fn parts(&self) -> &request::Parts {
        &self.0.parts
    }

    /// The same, once it has been read.
    fn read(mut self, (collected, room): (Collected, Room)) -> Self {
        let Collected { data, trailers } = collected;
        self.0.content = Content::Collected { data, trailers, _room: Some(room) };
        self
    }

    fn branch(&self, role: Role) -> Option<Branch> {
        let Content::Streamed { branches, .. } = &self.0.content else {
            return None;
        };
        let mut branches = branches.lock().unwrap_or_else(PoisonError::into_inner);
        branches[usize::from(role != Role::Authority)].take()
    }

    fn fan(&self) -> Option<&Fan> {
        match &self.0.content {
            Content::Collected { .. } => None,
            Content::Streamed { fan, .. } => Some(fan),
        }
    }

    /// Whether it is given to its legs while it arrives.
    #[cfg(feature = "grpc")]
    pub(crate) fn is_streamed(&self) -> bool {
        self.fan().is_some()
    }

    /// What was collected; what was read beforehand of a request that is
    /// streamed.
    pub(crate) fn data(&self) -> Bytes {
        self.0.content.data()
    }

    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        match &self.0.content {
            Content::Collected { trailers, .. } => trailers.clone(),
            Content::Streamed { .. } => None,
        }
    }

    /// Waits until a leg has all that it will be given.
    pub(crate) async fn given(&self, role: Role) {
        if let Some(fan) = self.fan() {
            fan.ended(role).await;
        }
    }

    pub(crate) fn idle(&self, role: Role) -> Option<Instant> {
        self.fan()?.idle(role)
    }

    pub(crate) fn spoiled(&self, role: Role) -> Option<LegFault> {
        self.fan()?.fault(role).map(|fault| match fault {
            BranchFault::Broken => LegFault::RequestBroken,
            BranchFault::CutOff => LegFault::CutOff,
            BranchFault::Closed => LegFault::Closed,
        })
    }

    pub(crate) fn left(&self) {
        if let Some(fan) = self.fan() {
            fan.left();
        }
    }

    pub(crate) fn close(&self) {
        if let Some(fan) = self.fan() {
            fan.close();
        }
    }

    /// One leg will not be run: the other need not wait for it.
    pub(crate) fn unneeded(&self, role: Role) {
        drop(self.branch(role));
    }
}

impl WatchedRequest {
    pub(crate) const fn parts(&self) -> &request::Parts {
        self.whole.parts()
    }

    /// What was read before the authority was asked.
    #[cfg(feature = "grpc")]
    pub(crate) fn first(&self) -> Bytes {
        self.whole.data()
    }

    /// The request, once it has been read.
    pub(crate) fn wait(self) -> impl Future<Output = Result<WholeRequest, CaptureError>> + Send {
        let Self { whole, mut body } = self;
        async move {
            let read = (&mut body).await?;
            Ok(whole.read(read))
        }
    }

    /// The request, if it has been read by now.
    pub(crate) fn now(self) -> Option<WholeRequest> {
        Some(self.whole.read(self.body.now()?))
    }
}

/// A request that can be broken off while its one leg reads it, and how.
#[cfg(feature = "grpc")]
pub(crate) fn breakable<B: CopyBody>(
    request: Request<B>,
    room: Room,
) -> (Request<B>, Option<crate::protocol::BreakOff>) {
    let Some(from_branch) = B::from_branch().filter(|_| !request.body().is_end_stream()) else {
        return (request, None);
    };
    let (parts, body) = request.into_parts();
    let (fan, [branch, _]) = fan_out([], body, Streaming::new(), room.into_lease());
    (Request::from_parts(parts, from_branch(branch)), Some(Box::new(move || fan.close())))
}
