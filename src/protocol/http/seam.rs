//! What the dispatching code asks, answered for HTTP.

use std::{
    fmt::Write,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request};
use http_body::Body;
use tokio::time::timeout;

use super::outcome::outcome;
use super::{AheadAnswer, Http, PendingAnswer, WatchedRequest, WholeRequest};
use crate::{
    BoxError,
    body::{
        AnswerBody, Budget, Capture, CaptureError, CollectError, Collected, CopyBody, Kept,
        KeptEnd, Lease, ReadAhead, Sink, Tee, collect, drain,
    },
    compare::{Answer, Answers, Diff},
    flag::Mark,
    layer::Limits,
    protocol::{
        Dispatch, FallbackRead, Head, KeyOf, Seam, UpgradeToken, problem::problem, upgrade,
    },
    reconcile::Keys,
    stage::{Operation, Outcome, Share, Side},
    telemetry::Refused,
};

/// Runs a hook over a request and makes its length right again.
fn with_hook(
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

fn answer_of(parts: &http::response::Parts) -> Answer {
    let mut answer = Answer::new(parts.status, Bytes::new());
    answer.headers = parts.headers.clone();
    answer
}

fn nothing(lease: Lease) -> Capture {
    Capture::Now(Collected { data: Bytes::new(), trailers: None }, lease)
}

fn label(method: &Method, uri: &Uri) -> Arc<str> {
    // Room for most, so that the text does not grow word by word.
    let mut label = String::with_capacity(64);
    label.push_str(method.as_str());
    // A `String` takes everything.
    let _ = write!(label, " {uri}");
    label.into()
}

impl<B, RB> Seam<Request<B>, Response<RB>> for Http
where
    B: CopyBody,
    RB: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Answer = Response<AnswerBody<RB>>;
    type Whole = WholeRequest;
    type Watched = WatchedRequest;
    type Captured = Answer;
    type Pending = PendingAnswer;
    type Ahead = AheadAnswer<RB>;

    #[inline]
    fn dispatched(&self, request: &Request<B>) -> Option<Dispatch> {
        request.extensions().get().copied()
    }

    #[inline]
    fn classify(&self, request: &Request<B>) -> Option<Operation> {
        let upgrade = upgrade::is_upgrade(request.method(), request.headers());
        if upgrade && matches!(*request.method(), Method::CONNECT | Method::GET) {
            return None;
        }
        Some(self.classify.classify(&Head::of(request)))
    }

    fn leaves(&self, request: &mut Request<B>, side: Side, counts: &Arc<[AtomicUsize; 2]>) {
        let token = UpgradeToken::new(counts, side);
        request.extensions_mut().insert(token);
    }

    fn partition(&self, request: &Request<B>, share: Share, seed: u64) -> bool {
        let keys = || Seam::<Request<B>, Response<RB>>::read_keys(self, request);
        self.covered(&Head::of(request), keys, share, seed)
    }

    fn partition_whole(&self, whole: &WholeRequest, keys: &Keys, share: Share, seed: u64) -> bool {
        self.covered(&Head::of_parts(&whole.parts), || keys.clone(), share, seed)
    }

    fn read_keys(&self, request: &Request<B>) -> Keys {
        let of = |keys: &Arc<dyn KeyOf>| keys.of_request(&Head::of(request), &Bytes::new());
        self.keys.as_ref().map_or_else(Keys::none, of)
    }

    fn keys(&self, whole: &WholeRequest) -> Keys {
        let of =
            |keys: &Arc<dyn KeyOf>| keys.of_request(&Head::of_parts(&whole.parts), &whole.data);
        self.keys.as_ref().map_or_else(Keys::none, of)
    }

    fn late_keys(&self, whole: &WholeRequest, answer: &Response<RB>) -> Keys {
        let of = |keys: &Arc<dyn KeyOf>| {
            keys.of_answer(&Head::of_parts(&whole.parts), answer.status(), answer.headers())
        };
        self.keys.as_ref().map_or_else(Keys::none, of)
    }

    fn name(&self, request: &Request<B>) -> Arc<str> {
        label(request.method(), request.uri())
    }

    fn label(&self, whole: &WholeRequest) -> Arc<str> {
        label(&whole.parts.method, &whole.parts.uri)
    }

    async fn collect(
        &self,
        request: Request<B>,
        limits: &Limits,
        budget: &Arc<Budget>,
    ) -> Result<WholeRequest, Refused> {
        let (mut parts, body) = request.into_parts();
        let mut lease = Arc::clone(budget).lease(limits.buffered_bytes);
        let reading = collect(body, limits.body, &mut lease);
        let Ok(collected) = timeout(limits.body_timeout, reading).await else {
            return Err(Refused::BodyTimeout);
        };
        let Collected { data, trailers } = collected.map_err(|error| match error {
            CollectError::TooLarge => Refused::BodyTooLarge,
            CollectError::NoRoom => Refused::BufferedBytes,
            CollectError::Broken(error) => {
                tracing::debug!(target: "tower_migration", %error, "a write's body broke off");
                Refused::BodyBroken
            }
        })?;
        self.make_copyable(&mut parts);
        let (parts, data) = match &self.prepare {
            None => (parts, data),
            Some(prepare) => with_hook(parts, data, |mut request| {
                prepare(&mut request);
                Some(request)
            })
            .ok_or(Refused::BodyBroken)?,
        };
        Ok(WholeRequest { parts, data, trailers, _lease: lease })
    }

    fn copy(&self, whole: &WholeRequest, dispatch: Dispatch) -> Request<B> {
        let WholeRequest { parts, data, trailers, .. } = whole;
        self.build(parts.clone(), data.clone(), trailers.clone(), dispatch)
    }

    fn copy_after(
        &self,
        whole: &WholeRequest,
        dispatch: Dispatch,
        answer: &Answer,
    ) -> Option<Request<B>> {
        let Some(follow) = &self.follow else {
            return Some(Seam::<Request<B>, Response<RB>>::copy(self, whole, dispatch));
        };
        let (parts, data) =
            with_hook(whole.parts.clone(), whole.data.clone(), |r| follow(r, answer))?;
        Some(self.build(parts, data, whole.trailers.clone(), dispatch))
    }

    fn follows(&self) -> bool {
        self.follow.is_some()
    }

    fn watch(
        &self,
        request: Request<B>,
        dispatch: Dispatch,
        limit: usize,
        lease: Lease,
    ) -> (Request<B>, WatchedRequest) {
        let (mut parts, body) = request.into_parts();
        let mut copy = parts.clone();
        self.make_copyable(&mut copy);
        self.stamp(&mut parts, dispatch);
        let (body, capture) = if body.is_end_stream() {
            (body, nothing(lease))
        } else {
            let (sink, capture) = Sink::new(&body, limit, lease);
            (B::from_tee(Tee::new(body, sink)), capture)
        };
        (Request::from_parts(parts, body), WatchedRequest { parts: copy, body: capture })
    }

    async fn watched(&self, watched: WatchedRequest) -> Result<WholeRequest, CaptureError> {
        let WatchedRequest { parts, body } = watched;
        let (Collected { data, trailers }, lease) = body.wait().await?;
        Ok(WholeRequest { parts, data, trailers, _lease: lease })
    }

    fn watched_now(&self, watched: WatchedRequest) -> Option<WholeRequest> {
        let WatchedRequest { parts, body } = watched;
        let (Collected { data, trailers }, lease) = body.now()?;
        Some(WholeRequest { parts, data, trailers, _lease: lease })
    }

    fn judge(&self, whole: &WholeRequest, answer: &Response<RB>) -> Outcome {
        let gone = matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::GONE);
        if gone && whole.parts.method == Method::DELETE {
            // Nothing is there any more, which is what was asked for.
            return Outcome::Applied;
        }
        outcome(answer.status())
    }

    #[inline]
    fn glance(answer: &Response<RB>) -> Outcome {
        outcome(answer.status())
    }

    fn is_success(answer: &Response<RB>) -> bool {
        answer.status().is_success()
    }

    fn is_not_modified(answer: &Response<RB>) -> bool {
        answer.status() == StatusCode::NOT_MODIFIED
    }

    fn code(answer: &Response<RB>) -> u16 {
        answer.status().as_u16()
    }

    #[inline]
    fn pass(answer: Response<RB>, mark: Option<Mark>) -> Self::Answer {
        answer.map(|body| AnswerBody::passed(body, mark))
    }

    fn ahead(answer: Response<RB>) -> AheadAnswer<RB> {
        let (parts, body) = answer.into_parts();
        AheadAnswer { response: Response::from_parts(parts, ()), read: ReadAhead::none(body) }
    }

    async fn read_ahead(ahead: &mut AheadAnswer<RB>, limit: usize) -> Option<Answer> {
        let (body, trailers) = ahead.read.read(limit).await?;
        let mut answer = Answer::new(ahead.response.status(), body);
        answer.headers = ahead.response.headers().clone();
        answer.trailers = trailers;
        Some(answer)
    }

    fn keep(ahead: AheadAnswer<RB>, end: KeptEnd) -> Self::Answer {
        let AheadAnswer { response, read } = ahead;
        response.map(|()| AnswerBody::kept(Kept::new(read, end)))
    }

    fn tee(
        &self,
        watched: &WatchedRequest,
        answer: Response<RB>,
        mark: Mark,
        limit: usize,
        lease: Lease,
    ) -> (Self::Answer, PendingAnswer) {
        let (parts, body) = answer.into_parts();
        let head = answer_of(&parts);
        // The body of an answer to HEAD is never read, however long it claims
        // to be.
        let (sink, capture) = if watched.parts.method == Method::HEAD || body.is_end_stream() {
            (None, nothing(lease))
        } else {
            let (sink, capture) = Sink::new(&body, limit, lease);
            (Some(sink), capture)
        };
        let body = AnswerBody::watched(body, Some(mark), sink);
        (Response::from_parts(parts, body), PendingAnswer { head, body: capture })
    }

    async fn pending(pending: PendingAnswer) -> Result<(Answer, Lease), CaptureError> {
        let PendingAnswer { mut head, body } = pending;
        let (Collected { data, trailers }, lease) = body.wait().await?;
        head.body = data;
        head.trailers = trailers;
        Ok((head, lease))
    }

    async fn capture(
        &self,
        whole: &WholeRequest,
        answer: Response<RB>,
        limit: usize,
        mut lease: Lease,
    ) -> Result<(Answer, Lease), CaptureError> {
        let (parts, body) = answer.into_parts();
        let mut answer = answer_of(&parts);
        if whole.parts.method == Method::HEAD {
            // As on the authority's side.
            return Ok((answer, lease));
        }
        let collected = collect(body, limit, &mut lease).await.map_err(|error| match error {
            CollectError::TooLarge => CaptureError::TooLarge,
            CollectError::NoRoom => CaptureError::NoRoom,
            CollectError::Broken(_) => CaptureError::Broken,
        })?;
        answer.body = collected.data;
        answer.trailers = collected.trailers;
        Ok((answer, lease))
    }

    async fn drain(answer: Response<RB>) -> bool {
        let body = answer.into_body();
        body.is_end_stream() || drain(Box::pin(body)).await
    }

    fn fell_back(answer: &mut Response<RB>, side: Side) {
        answer.extensions_mut().insert(FallbackRead { side });
    }

    fn compare(&self, whole: &WholeRequest, authority: &Answer, other: &Answer) -> Diff {
        self.compare.compare(&Answers {
            method: &whole.parts.method,
            uri: &whole.parts.uri,
            authority,
            other,
        })
    }

    fn refuse(&self, reason: Refused) -> Self::Answer {
        problem(reason).map(|body| AnswerBody::own(body))
    }
}
