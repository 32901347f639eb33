//! What the dispatching code asks, answered for HTTP.

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, request};
use http_body::Body;

use super::outcome::outcome;
use super::{AheadAnswer, Http, PendingAnswer, WatchedRequest, WholeRequest};
use crate::{
    BoxError,
    body::{
        AnswerBody, Broken, Capture, CaptureError, CollectError, Collected, CopyBody, Ending, Kept,
        ReadAhead, Room, Sink, Tee, collect, read_on,
    },
    compare::{Answer, Answers, Diff, SkipReason},
    flag::Mark,
    protocol::{
        Class, Dispatch, Drained, FallbackRead, Head, KeyOf, Protocol, Said, UpgradeToken,
        problem::problem, upgrade,
    },
    reconcile::Keys,
    stage::{Outcome, Side},
    telemetry::{Refused, SkippedLeg},
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

fn nothing(room: Room) -> Capture {
    Capture::Now(Collected { data: Bytes::new(), trailers: None }, room)
}

fn label(method: &Method, uri: &Uri) -> Arc<str> {
    // Room for most, so that the text does not grow word by word.
    let mut label = String::with_capacity(64);
    label.push_str(method.as_str());
    // A `String` takes everything.
    let _ = write!(label, " {uri}");
    label.into()
}

impl<B, RB, E> Protocol<Request<B>, Response<RB>, E> for Http
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
    type Glance = ();

    #[inline]
    fn dispatched(&self, request: &Request<B>) -> Option<Dispatch> {
        request.extensions().get().copied()
    }

    #[inline]
    fn classify(&self, request: &Request<B>) -> Class {
        let upgrade = upgrade::is_upgrade(request.method(), request.headers());
        if upgrade && matches!(*request.method(), Method::CONNECT | Method::GET) {
            return Class::Upgrade;
        }
        self.classify.classify(&Head::of(request)).into()
    }

    fn upgrading(&self, request: &mut Request<B>, token: UpgradeToken) {
        request.extensions_mut().insert(token);
    }

    fn ramp_keys(&self, request: &Request<B>) -> Keys {
        let head = Head::of(request);
        match &self.ramp_by {
            Some(by) => by(&head).into(),
            None => self.keys_of(&head, &Bytes::new()),
        }
    }

    fn ramp_keys_of(&self, whole: &WholeRequest) -> Option<Keys> {
        self.ramp_by.as_ref().map(|by| by(&Head::of_parts(&whole.parts)).into())
    }

    fn read_keys(&self, request: &Request<B>) -> Keys {
        self.keys_of(&Head::of(request), &Bytes::new())
    }

    fn keys(&self, whole: &WholeRequest) -> Keys {
        self.keys_of(&Head::of_parts(&whole.parts), &whole.data)
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

    async fn collect(&self, request: Request<B>, mut room: Room) -> Result<WholeRequest, Refused> {
        let (mut parts, body) = request.into_parts();
        let collected = collect(body, &mut room).await;
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
        Ok(WholeRequest { parts, data, trailers, _room: room })
    }

    fn copy(&self, whole: &WholeRequest, dispatch: Dispatch) -> Request<B> {
        let WholeRequest { parts, data, trailers, .. } = whole;
        self.build(parts.clone(), data.clone(), trailers.clone(), dispatch)
    }

    fn follows(&self) -> bool {
        self.follow.is_some()
    }

    async fn copy_after(
        &self,
        whole: &WholeRequest,
        dispatch: Dispatch,
        ahead: &mut AheadAnswer<RB>,
        limit: usize,
    ) -> Result<Request<B>, SkippedLeg> {
        let WholeRequest { parts, data, trailers, .. } = whole;
        let (parts, data) = match &self.follow {
            None => (parts.clone(), data.clone()),
            Some(follow) => {
                let (body, trailers) =
                    ahead.read.read(limit).await.ok_or(SkippedLeg::AnswerTooLarge)?;
                let mut answer = Answer::new(ahead.response.status(), body);
                answer.headers = ahead.response.headers().clone();
                answer.trailers = trailers;
                with_hook(parts.clone(), data.clone(), |request| follow(request, &answer))
                    .ok_or(SkippedLeg::HookDeclined)?
            }
        };
        Ok(self.build(parts, data, trailers.clone(), dispatch))
    }

    fn watch(
        &self,
        request: Request<B>,
        dispatch: Dispatch,
        room: Room,
    ) -> (Request<B>, WatchedRequest) {
        let (mut parts, body) = request.into_parts();
        let mut copy = parts.clone();
        self.make_copyable(&mut copy);
        self.stamp(&mut parts, dispatch);
        let (body, capture) = if body.is_end_stream() {
            (body, nothing(room))
        } else {
            let (sink, capture) = Sink::new(&body, room);
            (B::from_tee(Tee::new(body, sink)), capture)
        };
        (Request::from_parts(parts, body), WatchedRequest { parts: copy, body: capture })
    }

    async fn watched(&self, watched: WatchedRequest) -> Result<WholeRequest, CaptureError> {
        let WatchedRequest { parts, body } = watched;
        let (Collected { data, trailers }, room) = body.wait().await?;
        Ok(WholeRequest { parts, data, trailers, _room: room })
    }

    fn watched_now(&self, watched: WatchedRequest) -> Option<WholeRequest> {
        let WatchedRequest { parts, body } = watched;
        let (Collected { data, trailers }, room) = body.now()?;
        Some(WholeRequest { parts, data, trailers, _room: room })
    }

    #[inline]
    fn glancing(&self) {}

    #[inline]
    fn glance((): &(), answer: Result<&Response<RB>, &E>) -> Option<Outcome> {
        Some(answer.map_or(Outcome::Unknown, |answer| outcome(answer.status())))
    }

    fn judge(&self, whole: &WholeRequest, answer: &Response<RB>) -> Said {
        let status = answer.status();
        let gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
        let outcome = if gone && whole.parts.method == Method::DELETE {
            // Nothing is there any more, which is what was asked for.
            Outcome::Applied
        } else {
            outcome(status)
        };
        Said::Now(outcome, status.as_u16())
    }

    fn comparable(&self, answer: &Response<RB>) -> Result<(), SkipReason> {
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_MODIFIED => Err(SkipReason::NotModified),
            _ => Err(SkipReason::AuthorityFailed),
        }
    }

    #[inline]
    fn pass(answer: Response<RB>, mark: Option<Mark>) -> Self::Answer {
        answer.map(|body| AnswerBody::passed(body, mark))
    }

    fn ahead(answer: Response<RB>) -> AheadAnswer<RB> {
        let (parts, body) = answer.into_parts();
        AheadAnswer { response: Response::from_parts(parts, ()), read: ReadAhead::none(body) }
    }

    fn keep(&self, _: &WholeRequest, ahead: AheadAnswer<RB>, ending: Ending) -> Self::Answer {
        let AheadAnswer { response, read } = ahead;
        response.map(|()| AnswerBody::kept(Kept::new(read, ending, None)))
    }

    fn tee(
        &self,
        watched: &WatchedRequest,
        answer: Response<RB>,
        mark: Mark,
        room: Room,
    ) -> (Self::Answer, PendingAnswer) {
        let (parts, body) = answer.into_parts();
        let head = answer_of(&parts);
        // The body of an answer to HEAD is never read, however long it claims
        // to be.
        let (sink, capture) = if watched.parts.method == Method::HEAD || body.is_end_stream() {
            (None, nothing(room))
        } else {
            let (sink, capture) = Sink::new(&body, room);
            (Some(sink), capture)
        };
        let body = AnswerBody::watched(body, Some(mark), sink);
        (Response::from_parts(parts, body), PendingAnswer { head, body: capture })
    }

    async fn pending(pending: PendingAnswer) -> Result<(Answer, Room), CaptureError> {
        let PendingAnswer { mut head, body } = pending;
        let (Collected { data, trailers }, room) = body.wait().await?;
        head.body = data;
        head.trailers = trailers;
        Ok((head, room))
    }

    async fn capture(
        &self,
        whole: &WholeRequest,
        answer: Response<RB>,
        mut room: Room,
    ) -> Result<(Answer, Room), CaptureError> {
        let (parts, body) = answer.into_parts();
        let mut answer = answer_of(&parts);
        if whole.parts.method == Method::HEAD {
            // As on the authority's side.
            return Ok((answer, room));
        }
        let collected = collect(body, &mut room).await.map_err(|error| match error {
            CollectError::TooLarge => CaptureError::TooLarge,
            CollectError::NoRoom => CaptureError::NoRoom,
            CollectError::Broken(_) => CaptureError::Broken,
        })?;
        answer.body = collected.data;
        answer.trailers = collected.trailers;
        Ok((answer, room))
    }

    async fn drain(&self, _: &WholeRequest, answer: Response<RB>) -> Result<Drained, CaptureError> {
        let body = answer.into_body();
        if !body.is_end_stream() {
            read_on(&mut Box::pin(body), |_| {}).await.map_err(|Broken| CaptureError::Broken)?;
        }
        Ok(Drained::default())
    }

    fn fell_back(&self, answer: &mut Response<RB>, side: Side) {
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

    fn refuse(&self, reason: Refused) -> Result<Self::Answer, E> {
        Ok(problem(reason).map(AnswerBody::own))
    }
}
