//! What the dispatching code asks, answered for HTTP.

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use tokio::time::Instant;

use super::{
    AheadAnswer, Http, PendingAnswer, WatchedRequest, WholeRequest,
    answers::{self, length_of},
    exchange::with_hook,
    outcome::outcome,
};
use crate::{
    BoxError,
    body::{AnswerBody, CaptureError, CopyBody, Ending, Kept, Room},
    compare::{Answer, Answers, Context, Diff, InconclusiveReason, SkipReason},
    flag::Mark,
    protocol::{
        Class, Dispatch, Drained, FallbackRead, Head, Protocol, Said, UpgradeToken,
        problem::problem, upgrade,
    },
    reconcile::Keys,
    stage::{Outcome, Role, Side},
    telemetry::{LegFault, Refused, SkippedLeg},
};

fn label(method: &Method, uri: &Uri, secret: &[Box<str>]) -> Arc<str> {
    // Room for most, so that the text does not grow word by word.
    let mut label = String::with_capacity(64);
    label.push_str(method.as_str());
    label.push(' ');
    match uri.path_and_query() {
        // As most requests come. Not formatted: that takes longer than all else here.
        Some(path) if uri.authority().is_none() => label.push_str(path.as_str()),
        // A `String` takes everything.
        _ => write!(label, "{uri}").unwrap_or_default(),
    }
    if !secret.is_empty()
        && let Some(query) = uri.query()
    {
        label.truncate(label.len() - query.len());
        for (at, pair) in query.split('&').enumerate() {
            let name = pair.split('=').next().unwrap_or_default();
            label.push_str(if at == 0 { "" } else { "&" });
            let is_secret = secret.iter().any(|secret| is_named(name, secret));
            label.push_str(if is_secret { name } else { pair });
            label.push_str(if is_secret { "=(redacted)" } else { "" });
        }
    }
    label.into()
}

/// Whether a parameter's name, which may be written with escapes, is this one.
fn is_named(written: &str, name: &str) -> bool {
    let mut bytes = written.bytes();
    let mut decoded = Vec::with_capacity(written.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| (byte as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => b'%',
                }
            }
            byte => byte,
        });
    }
    decoded.eq_ignore_ascii_case(name.as_bytes())
}

impl<B, RB, E> Protocol<Request<B>, Response<RB>, E> for Http
where
    B: CopyBody,
    RB: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Answer = Response<AnswerBody<RB>>;
    type Whole = WholeRequest;
    type Watched = WatchedRequest;
    type Captured = Box<Answer>;
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
        self.ramp_by.as_ref().map(|by| by(&Head::of_parts(whole.parts())).into())
    }

    fn read_keys(&self, watched: &WatchedRequest) -> Keys {
        self.keys_of(&Head::of_parts(watched.parts()), &Bytes::new())
    }

    fn keys(&self, whole: &WholeRequest) -> Keys {
        self.keys_of(&Head::of_parts(whole.parts()), &whole.data())
    }

    fn late_keys(&self, whole: &WholeRequest, answer: &Response<RB>) -> Keys {
        let head = Head::of_parts(whole.parts());
        match &self.keys {
            Some(keys) => keys.of_answer(&head, answer.status(), answer.headers()),
            None => Keys::none(),
        }
    }

    fn name(&self, request: &Request<B>) -> Arc<str> {
        label(request.method(), request.uri(), &self.secret)
    }

    fn label(&self, whole: &WholeRequest) -> Arc<str> {
        label(&whole.parts().method, &whole.parts().uri, &self.secret)
    }

    fn collect(
        &self,
        request: Request<B>,
        room: Room,
    ) -> impl Future<Output = Result<WholeRequest, Refused>> + Send {
        let streaming = self.exchange.streaming.filter(|streaming| {
            let above = streaming.above.unwrap_or_else(|| room.limit());
            room.may_stream()
                && B::from_branch().is_some()
                && request.body().size_hint().upper().is_none_or(|most| most > above as u64)
        });
        self.exchange.collect(request, streaming, room)
    }

    fn copy(&self, whole: &WholeRequest, dispatch: Dispatch) -> Request<B> {
        self.exchange.copy(whole, dispatch)
    }

    async fn given(&self, whole: &WholeRequest, role: Role) {
        whole.given(role).await;
    }

    fn idle(&self, whole: &WholeRequest, role: Role) -> Option<Instant> {
        whole.idle(role)
    }

    fn spoiled(&self, whole: &WholeRequest, role: Role) -> Option<LegFault> {
        whole.spoiled(role)
    }

    fn left(&self, whole: &WholeRequest) {
        whole.left();
    }

    fn close(&self, whole: &WholeRequest) {
        whole.close();
    }

    fn unneeded(&self, whole: &WholeRequest, role: Role) {
        whole.unneeded(role);
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
        let (parts, data) = (whole.parts().clone(), whole.data());
        let (parts, data) = match &self.follow {
            None => (parts, data),
            Some(follow) => {
                let (body, trailers) =
                    ahead.read.read(limit).await.ok_or(SkippedLeg::AnswerTooLarge)?;
                let mut answer = Answer::new(ahead.response.status(), body);
                answer.headers = ahead.response.headers().clone();
                answer.trailers = trailers;
                with_hook(parts, data, |request| follow(request, &answer))
                    .ok_or(SkippedLeg::HookDeclined)?
            }
        };
        Ok(self.exchange.build(parts, B::from_collected(data, whole.trailers()), dispatch))
    }

    fn watch(
        &self,
        request: Request<B>,
        dispatch: Dispatch,
        room: Room,
    ) -> impl Future<Output = (Request<B>, WatchedRequest)> + Send {
        async move { self.exchange.watch(request, Default::default(), dispatch, room) }
    }

    fn watched(
        &self,
        watched: WatchedRequest,
    ) -> impl Future<Output = Result<WholeRequest, CaptureError>> + Send {
        watched.wait()
    }

    fn watched_now(&self, watched: WatchedRequest) -> Option<WholeRequest> {
        watched.now()
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
        let outcome = if gone && whole.parts().method == Method::DELETE {
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
            status if outcome(status) == Outcome::Unknown => Err(SkipReason::AuthorityFailed),
            _ => Err(SkipReason::AuthorityRefused),
        }
    }

    #[inline]
    fn pass(answer: Response<RB>, mark: Option<Mark>) -> Self::Answer {
        let (parts, body) = answer.into_parts();
        let body = AnswerBody::passed(body, mark).of_length(|| length_of(&parts.headers));
        Response::from_parts(parts, body)
    }

    fn ahead(answer: Response<RB>) -> AheadAnswer<RB> {
        answers::ahead_sized(answer)
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
        answers::tee_sized(watched, answer, mark, room)
    }

    fn pending(
        pending: PendingAnswer,
    ) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>> + Send {
        pending.wait()
    }

    fn capture(
        &self,
        whole: &WholeRequest,
        answer: Response<RB>,
        room: Room,
    ) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>> + Send {
        answers::capture_sized(whole, answer, room)
    }

    fn drain(
        &self,
        _: &WholeRequest,
        answer: Response<RB>,
    ) -> impl Future<Output = Result<Drained, CaptureError>> + Send {
        answers::drain_sized(answer)
    }

    fn fell_back(&self, answer: &mut Response<RB>, side: Side) {
        answer.extensions_mut().insert(FallbackRead { side });
    }

    fn compare(
        &self,
        whole: &WholeRequest,
        authority: &Box<Answer>,
        other: &Box<Answer>,
        context: Context,
    ) -> Diff {
        if other.status == StatusCode::NOT_MODIFIED && authority.status.is_success() {
            // The client would have kept what it has: there is nothing to compare.
            return Diff::unclear(InconclusiveReason::NotModified);
        }
        let (method, uri) = (&whole.parts().method, &whole.parts().uri);
        self.compare.compare(&Answers { method, uri, authority, other, context })
    }

    fn compares_long(&self, authority: &Box<Answer>, other: &Box<Answer>, inline: usize) -> bool {
        answers::compares_long(&self.compare, authority, other, inline)
    }

    fn route(&self, whole: &WholeRequest) -> Arc<str> {
        self.routes.of(whole.parts().method.as_str(), whole.parts().uri.path()).into()
    }

    fn route_of(&self, watched: &WatchedRequest) -> Arc<str> {
        self.routes.of(watched.parts().method.as_str(), watched.parts().uri.path()).into()
    }

    fn noise_path<'a>(&self, whole: &'a WholeRequest) -> &'a str {
        whole.parts().uri.path()
    }

    fn refuse(&self, reason: Refused) -> Result<Self::Answer, E> {
        Ok(problem(reason).map(AnswerBody::own))
    }
}
