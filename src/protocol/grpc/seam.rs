//! What the dispatching code asks, answered for gRPC.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use super::{
    CallType, Grpc, MethodKind,
    begun::{Begun, Pays, Then},
    code, outcome, refusal,
    says::InTrailers,
    told::{code_number, is_grpc},
};
use crate::{
    BoxError,
    body::{AnswerBody, CaptureError, CopyBody, Ending, Kept, Late, Room},
    compare::{Answer, Answers, Context, Diff, SkipReason},
    flag::Mark,
    protocol::{
        BreakOff, Class, Closing, Dispatch, Drained, FallbackRead, HasKeys, Head, Protocol, Said,
        http::{
            AheadAnswer, PendingAnswer, WatchedRequest, WholeRequest, answers, exchange,
            outcome as http_outcome,
        },
    },
    reconcile::Keys,
    stage::{Outcome, Role, Side},
    telemetry::{LegFault, Refused},
};

/// How much of an answer is looked at for its end before it is handed on.
const MOST_AT_ONCE: usize = 64 << 10;

impl<B, RB, E> Protocol<Request<B>, Response<RB>, E> for Grpc
where
    B: CopyBody + Unpin,
    RB: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Answer = Response<AnswerBody<RB, InTrailers>>;
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
        let method = self.methods.get(request.uri().path());
        match method.kind {
            MethodKind::Read => Class::Read,
            MethodKind::Aside => Class::Aside,
            MethodKind::Write | MethodKind::Delete if method.listed => Class::Write,
            // No call of gRPC's: a page that is served beside it.
            _ if request.method().is_safe() => Class::Aside,
            MethodKind::Write | MethodKind::Delete => Class::Unlisted,
        }
    }

    fn name(&self, request: &Request<B>) -> Arc<str> {
        request.uri().path().into()
    }

    fn label(&self, whole: &WholeRequest) -> Arc<str> {
        whole.parts().uri.path().into()
    }

    fn read_keys(&self, watched: &WatchedRequest) -> Keys {
        self.keys_of(watched.parts().uri.path(), &watched.parts().headers, &watched.first())
    }

    fn keys(&self, whole: &WholeRequest) -> Keys {
        self.keys_of(whole.parts().uri.path(), &whole.parts().headers, &whole.data())
    }

    fn learns(&self, whole: &WholeRequest) -> bool {
        self.answer_keys.has(whole.parts().uri.path())
    }

    fn ramp_keys(&self, request: &Request<B>) -> Keys {
        match &self.ramp_by {
            Some(by) => by(&Head::of(request)).into(),
            None => Keys::none(),
        }
    }

    fn ramp_keys_of(&self, whole: &WholeRequest) -> Option<Keys> {
        Some(match &self.ramp_by {
            Some(by) => by(&Head::of_parts(whole.parts())).into(),
            // As for a read.
            None => Keys::none(),
        })
    }

    async fn collect(&self, request: Request<B>, mut room: Room) -> Result<WholeRequest, Refused> {
        let path = request.uri().path();
        let call = self.methods.get(path).call;
        let one_message = matches!(call, CallType::Unary | CallType::ServerStreaming);
        if one_message || !room.may_stream() || B::from_branch().is_none() {
            return self.exchange.collect(request, None, room).await;
        }
        let wants_message = self.keys.has(path);
        let (parts, mut body) = request.into_parts();
        let Begun { frames, data, then, .. } =
            Begun::read(&mut body, Pays::Now(&mut room), call, wants_message).await;
        match then {
            Then::NoRoom => return Err(Refused::BufferedBytes),
            Then::TooLong => return Err(Refused::BodyTooLarge),
            Then::Broken(error) => {
                let error: BoxError = error.into();
                tracing::debug!(target: "tower_migration", %error, "a call broke off");
                return Err(Refused::BodyBroken);
            }
            Then::End => {
                let trailers = frames.into_iter().find_map(|frame| frame.into_trailers().ok());
                let begun = WholeRequest::new(parts, Bytes::new());
                return self.exchange.whole(begun, data.freeze(), trailers, room);
            }
            Then::More => {}
        }
        let streaming = self.exchange.streaming.unwrap_or_default();
        let begun = WholeRequest::new(parts, data.freeze());
        self.exchange.stream(begun, frames, body, streaming, room)
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

    async fn watch(
        &self,
        mut request: Request<B>,
        dispatch: Dispatch,
        room: Room,
    ) -> (Request<B>, WatchedRequest) {
        let path = request.uri().path();
        // A handler needs the message as well. In a call that goes both ways it
        // may have to speak first.
        let call = self.methods.get(path).call;
        let peeks = self.keys.has(path) && call != CallType::Bidirectional;
        let begun = if peeks {
            // Nobody knows whether a call of unknown kind has to be asked first.
            let waits = call != CallType::Unknown;
            let Begun { frames, data, then } =
                Begun::read(request.body_mut(), Pays::Later(room.limit()), call, waits).await;
            let mut frames: VecDeque<_> = frames.into_iter().map(Ok).collect();
            let ended = matches!(then, Then::End | Then::Broken(_));
            if let Then::Broken(error) = then {
                frames.push_back(Err(error));
            }
            (frames, data.freeze(), ended)
        } else {
            Default::default()
        };
        self.exchange.watch(request, begun, dispatch, room)
    }

    async fn watched(&self, watched: WatchedRequest) -> Result<WholeRequest, CaptureError> {
        watched.wait().await
    }

    fn watched_now(&self, watched: WatchedRequest) -> Option<WholeRequest> {
        watched.now()
    }

    #[inline]
    fn glancing(&self) {}

    #[inline]
    fn glance((): &(), answer: Result<&Response<RB>, &E>) -> Option<Outcome> {
        let Ok(answer) = answer else {
            return Some(Outcome::Unknown);
        };
        let (status, headers) = (answer.status(), answer.headers());
        match code::in_head(status, headers) {
            Some(code) => Some(outcome(code)),
            // A page that is served beside gRPC has no status of gRPC's.
            None if !is_grpc(headers) => Some(Outcome::Applied),
            None => None,
        }
    }

    fn judge(&self, whole: &WholeRequest, answer: &Response<RB>) -> Said {
        match code::in_head(answer.status(), answer.headers()) {
            Some(code) => Said::Now(self.outcome_in_head(whole, code), code_number(code)),
            // A page that is served beside gRPC.
            None if !is_grpc(&whole.parts().headers) => {
                Said::Now(http_outcome(answer.status()), answer.status().as_u16())
            }
            None => Said::AtEnd,
        }
    }

    fn answer_ends_request(&self) -> bool {
        true
    }

    /// A read whose request may take its time is under no limit.
    fn covers(&self, watched: &WatchedRequest) -> bool {
        let call = self.methods.get(watched.parts().uri.path()).call;
        matches!(call, CallType::Unary | CallType::ServerStreaming)
    }

    fn comparable(&self, answer: &Response<RB>) -> Result<(), SkipReason> {
        match code::in_head(answer.status(), answer.headers()) {
            None | Some(tonic::Code::Ok) => Ok(()),
            Some(code) => Err(no_answer(code)),
        }
    }

    fn comparable_whole(&self, answer: &Box<Answer>) -> Result<(), SkipReason> {
        match code::at_end(answer.status, &answer.headers, answer.trailers.as_ref()) {
            tonic::Code::Ok => Ok(()),
            code => Err(no_answer(code)),
        }
    }

    #[inline]
    fn pass(answer: Response<RB>, mark: Option<Mark>) -> Self::Answer {
        answer.map(|body| AnswerBody::passed(body, mark))
    }

    fn closes(&self, request: &Request<B>) -> Option<Duration> {
        let grace = self.close_after?;
        // One message each way is no stream, however long it takes.
        (self.methods.get(request.uri().path()).call != CallType::Unary).then_some(grace)
    }

    fn breakable(&self, request: Request<B>, room: Room) -> (Request<B>, Option<BreakOff>) {
        match self.methods.get(request.uri().path()).call {
            // It is here with its first message.
            CallType::Unary | CallType::ServerStreaming => (request, None),
            CallType::ClientStreaming | CallType::Bidirectional | CallType::Unknown => {
                exchange::breakable(request, room)
            }
        }
    }

    fn close_when(&self, answer: Self::Answer, closing: Closing) -> Self::Answer {
        let end = || refusal::trailers(&refusal::moved_on());
        answer.map(|body| body.closed_when(closing, end()))
    }

    fn ahead(answer: Response<RB>) -> AheadAnswer<RB> {
        answers::ahead(answer)
    }

    fn ahead_said(&self, whole: &WholeRequest, ahead: &mut AheadAnswer<RB>) -> Option<Drained> {
        let (chunks, trailers) = ahead.read.read_now(MOST_AT_ONCE)?;
        let path = whole.parts().uri.path();
        let mut first = BytesMut::new();
        for chunk in chunks {
            let room = self.first_bytes(path).saturating_sub(first.len());
            first.extend_from_slice(&chunk[..room.min(chunk.len())]);
        }
        let response = &ahead.response;
        let head = self.head_of(whole, response.status(), response.headers().clone());
        Some(self.told(path, &head, trailers.as_ref(), &first.freeze()))
    }

    fn keep(&self, whole: &WholeRequest, ahead: AheadAnswer<RB>, ending: Ending) -> Self::Answer {
        let AheadAnswer { response, read } = ahead;
        let late = ending.is_awaited().then(|| {
            let uri = whole.parts().uri.clone();
            let first = self.first_bytes(uri.path());
            let head = self.head_of(whole, response.status(), response.headers().clone());
            let this = self.clone();
            Late {
                first,
                tell: Box::new(move |trailers, seen| this.told(uri.path(), &head, trailers, &seen)),
                refusal: |reason| refusal::trailers(&refusal::status(reason)),
            }
        });
        response.map(|()| AnswerBody::kept(Kept::new(read, ending, late)))
    }

    fn tee(
        &self,
        watched: &WatchedRequest,
        answer: Response<RB>,
        mark: Mark,
        room: Room,
    ) -> (Self::Answer, PendingAnswer) {
        answers::tee(watched, answer, mark, room)
    }

    async fn pending(pending: PendingAnswer) -> Result<(Box<Answer>, Room), CaptureError> {
        pending.wait().await
    }

    async fn capture(
        &self,
        whole: &WholeRequest,
        answer: Response<RB>,
        room: Room,
    ) -> Result<(Box<Answer>, Room), CaptureError> {
        answers::capture(whole, answer, room).await
    }

    async fn drain(
        &self,
        whole: &WholeRequest,
        answer: Response<RB>,
    ) -> Result<Drained, CaptureError> {
        let path = whole.parts().uri.path();
        let most = self.first_bytes(path);
        let (parts, body) = answer.into_parts();
        let mut first = BytesMut::new();
        let trailers = answers::drain(body, |frame| {
            let room = most.saturating_sub(first.len());
            if let Ok(frame) = frame
                && let Some(data) = frame.data_ref()
            {
                first.extend_from_slice(&data[..room.min(data.len())]);
            }
        });
        let trailers = trailers.await?;
        let in_head = code::in_head(parts.status, &parts.headers).is_some();
        if !is_grpc(&whole.parts().headers) || (in_head && trailers.is_none()) {
            return Ok(Drained::default());
        }
        let head = self.head_of(whole, parts.status, parts.headers);
        Ok(self.told(path, &head, trailers.as_ref(), &first.freeze()))
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
        let (method, uri) = (&whole.parts().method, &whole.parts().uri);
        self.compare.compare(&Answers { method, uri, authority, other, context })
    }

    fn compares_long(&self, authority: &Box<Answer>, other: &Box<Answer>, inline: usize) -> bool {
        answers::compares_long(&self.compare, authority, other, inline)
    }

    fn route(&self, whole: &WholeRequest) -> Arc<str> {
        self.route_of_path(whole.parts().uri.path())
    }

    fn route_of(&self, watched: &WatchedRequest) -> Arc<str> {
        self.route_of_path(watched.parts().uri.path())
    }

    fn noise_path<'a>(&self, whole: &'a WholeRequest) -> &'a str {
        whole.parts().uri.path()
    }

    fn refuse(&self, reason: Refused) -> Result<Self::Answer, E> {
        let answer: Response<()> = refusal::answer(refusal::status(reason));
        Ok(answer.map(|()| AnswerBody::own(Bytes::new())))
    }
}

impl HasKeys for Grpc {
    fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// Why there is nothing to compare with a call that ended so.
fn no_answer(code: tonic::Code) -> SkipReason {
    match code::outcome(code) {
        Outcome::Unknown => SkipReason::AuthorityFailed,
        _ => SkipReason::AuthorityRefused,
    }
}
