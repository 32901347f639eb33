//! Two sides that do as they are told, without sockets.

use std::{
    future::pending,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, channel::Channel};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Code, body::Body};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    BoxError, Dispatch, Event, Migration, MigrationHandle, MigrationLayer, Stage,
    body::AnswerBody,
    compare::Verdict,
    protocol::grpc::{Grpc, InTrailers},
};

use crate::support::go;

pub type Req = Request<Body>;
pub type Res = Response<Body>;
pub type Answered = Response<AnswerBody<Body, InTrailers>>;
pub type Sender = http_body_util::channel::Sender<Bytes, BoxError>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Script = dyn Fn(Req) -> Boxed<Result<Res, BoxError>> + Send + Sync;

/// A message as it stands in a body.
pub fn framed(message: &impl Message) -> Bytes {
    let mut body = vec![0; 5];
    body[1..].copy_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut body).unwrap();
    body.into()
}

pub fn call(path: &str, body: Body) -> Req {
    let request = Request::post(format!("http://here{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).unwrap()
}

pub fn unary(path: &str, message: &impl Message) -> Req {
    call(path, Body::new(Full::new(framed(message))))
}

/// A body that a test gives piece by piece. Without its sender it has ended.
pub fn piecewise() -> (Sender, Body) {
    let (sender, body) = Channel::<Bytes, BoxError>::new(64);
    (sender, Body::new(body))
}

fn head(body: Body) -> Res {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

pub fn status(code: Code) -> HeaderMap {
    let code = HeaderValue::from(i32::from(code));
    let text = HeaderValue::from_static("said%20so");
    HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), code),
        (http::HeaderName::from_static("grpc-message"), text),
    ])
}

/// An answer that is nothing but a status.
pub fn only(code: Code) -> Res {
    let mut answer = head(Body::empty());
    answer.headers_mut().extend(status(code));
    answer
}

/// An answer whose status comes after its messages.
pub fn says(messages: &[Bytes], code: Code) -> Res {
    ends(messages, Some(status(code)))
}

/// The same, with the status some time after the messages.
pub fn says_late(messages: &[Bytes], code: Code) -> Res {
    let trailers = Frame::trailers(status(code));
    let frames: Vec<_> = messages.iter().cloned().map(Frame::data).chain([trailers]).collect();
    let frames = tokio_stream::iter(frames).then(async |frame| {
        if frame.is_trailers() {
            tokio::task::yield_now().await;
        }
        Ok::<_, BoxError>(frame)
    });
    head(Body::new(StreamBody::new(frames)))
}

/// The same with these trailers, if any.
pub fn ends(messages: &[Bytes], trailers: Option<HeaderMap>) -> Res {
    let data = messages.iter().cloned().map(Frame::data);
    let frames: Vec<_> = data.chain(trailers.map(Frame::trailers)).map(Ok::<_, BoxError>).collect();
    head(Body::new(StreamBody::new(tokio_stream::iter(frames))))
}

/// An answer that a test gives piece by piece.
pub fn streams(body: Body) -> Res {
    head(body)
}

/// What a client sees of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub http: StatusCode,
    pub code: Option<Code>,
    pub text: String,
    /// Whether the status came before any message.
    pub early: bool,
    pub data: Bytes,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub broke: bool,
}

pub async fn seen(answer: Answered) -> Seen {
    let (parts, body) = answer.into_parts();
    let mut body = pin!(body);
    let (mut data, mut trailers, mut broke) = (Vec::new(), HeaderMap::new(), false);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(chunk)) => data.extend_from_slice(&chunk),
            Ok(Err(frame)) => trailers = frame.into_trailers().unwrap(),
            Err(_) => {
                broke = true;
                break;
            }
        }
    }
    let read = |map: &HeaderMap| {
        let value = map.get("grpc-status")?;
        let text = map.get("grpc-message").map(|text| text.to_str().unwrap().replace("%20", " "));
        Some((Code::from_bytes(value.as_bytes()), text.unwrap_or_default()))
    };
    let early = read(&parts.headers);
    let said = early.clone().or_else(|| read(&trailers));
    Seen {
        http: parts.status,
        code: said.as_ref().map(|(code, _)| *code),
        text: said.map(|(_, text)| text).unwrap_or_default(),
        early: early.is_some(),
        data: data.into(),
        headers: parts.headers,
        trailers,
        broke,
    }
}

/// What a side saw of one request, once it has read it.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub dispatch: Option<Dispatch>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Option<Arc<Script>>>,
    calls: Mutex<Vec<Call>>,
    stuck: AtomicBool,
}

/// A side whose answers a test scripts.
#[derive(Clone)]
pub struct Fake(Arc<Shared>);

impl Fake {
    pub fn new<F>(script: impl Fn(Req) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        let shared = Shared::default();
        *shared.script.lock().unwrap() = Some(Arc::new(move |req| Box::pin(script(req))));
        Self(Arc::new(shared))
    }

    /// Reads each request to its end, then answers.
    pub fn answers(answer: impl Fn() -> Res + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::new(move |request: Req| {
            let answer = Arc::clone(&answer);
            async move {
                let _ = request.into_body().collect().await;
                Ok(answer())
            }
        })
    }

    pub fn hangs() -> Self {
        Self::new(|_| pending())
    }

    pub fn errs() -> Self {
        Self::new(|_| async { Err("out of order".into()) })
    }

    pub fn panics() -> Self {
        Self::new(|_| async { std::panic::resume_unwind(Box::new("on purpose")) })
    }

    pub fn never_ready() -> Self {
        let this = Self::hangs();
        this.0.stuck.store(true, Ordering::SeqCst);
        this
    }

    pub fn becomes(&self, other: &Self) {
        let script = other.0.script.lock().unwrap().clone();
        *self.0.script.lock().unwrap() = script;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.calls.lock().unwrap().len()
    }
}

impl Service<Req> for Fake {
    type Response = Res;
    type Error = BoxError;
    type Future = Boxed<Result<Res, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.stuck.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let call = Call {
            path: request.uri().path().to_owned(),
            headers: request.headers().clone(),
            dispatch: request.extensions().get().copied(),
        };
        self.0.calls.lock().unwrap().push(call);
        let script = self.0.script.lock().unwrap().clone().unwrap();
        script(request)
    }
}

/// A migration between two of them.
pub struct Rig {
    pub handle: MigrationHandle,
    pub service: Migration<Fake, Fake, Grpc>,
    pub old: Fake,
    pub new: Fake,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
}

pub type Layered = MigrationLayer<Fake, Grpc>;

impl Rig {
    pub fn new(grpc: Grpc, old: Fake, new: Fake, set: impl FnOnce(Layered) -> Layered) -> Self {
        Self::on(MigrationHandle::new("test"), grpc, old, new, set)
    }

    pub fn on(
        handle: MigrationHandle,
        grpc: Grpc,
        old: Fake,
        new: Fake,
        set: impl FnOnce(Layered) -> Layered,
    ) -> Self {
        let verdicts = Arc::<Mutex<Vec<Verdict>>>::default();
        let told = Arc::clone(&verdicts);
        let layer = MigrationLayer::with_protocol(handle.clone(), new.clone(), grpc)
            .noise(tower_migration::compare::Noise::off());
        let layer = set(layer.observer(move |event: &Event<'_>| {
            if let Event::Shadow(read) = event {
                told.lock().unwrap().push(read.verdict.clone());
            }
        }));
        let service = layer.layer(old.clone());
        Self { handle, service, old, new, verdicts }
    }

    pub async fn at(self, stage: Stage) -> Self {
        go(&self.handle, stage).await;
        self
    }

    pub fn send(
        &self,
        request: Req,
    ) -> impl Future<Output = Result<Answered, BoxError>> + Send + use<> {
        self.service.clone().oneshot(request)
    }

    pub async fn ask(&self, request: Req) -> Seen {
        seen(self.send(request).await.unwrap()).await
    }

    pub fn dirty(&self) -> Vec<String> {
        self.handle.dirty_keys().iter().map(|dirty| dirty.key.as_str().to_owned()).collect()
    }

    pub fn verdicts(&self) -> Vec<String> {
        let verdicts = self.verdicts.lock().unwrap();
        verdicts.iter().map(said).collect()
    }

    /// Nothing is in flight on either side, once what runs by itself has ended.
    pub async fn assert_idle(&self) {
        assert_idle(&self.handle).await;
    }
}

/// `skipped: dirty`, for example.
pub fn said(verdict: &Verdict) -> String {
    match verdict.reason() {
        None => verdict.as_str().to_owned(),
        Some(reason) => format!("{}: {reason}", verdict.as_str()),
    }
}

/// Waits, at most some seconds, until no leg is in flight.
pub async fn assert_idle(handle: &MigrationHandle) {
    for _ in 0..1000 {
        let status = handle.status();
        let sides = [status.on_old, status.on_new];
        if sides.iter().all(|side| side.reads + side.writes + side.shadows == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("something is left in flight: {}", handle.status());
}

/// Lets everything run that can.
pub async fn let_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
