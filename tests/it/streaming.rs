//! Large request bodies, streamed to both sides of a dual write.

mod breaks;
mod early;
mod keys;
mod large;
mod random;
mod sides;
mod slow;
mod sockets;
mod steps;
mod which;

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{Semaphore, mpsc};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    BoxError, Dispatch, FailurePolicy, Migration, MigrationHandle, MigrationLayer, Side, Stage,
    body::{BranchError, Streaming},
};

use crate::support::{Answered, Body, Req, Res, answer, settle_tasks, text};

const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth];

/// What a side saw of one request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    path: String,
    headers: HeaderMap,
    dispatch: Option<Dispatch>,
    /// Its chunks, glued together.
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// How its body ended: `None` while it has not.
    end: Option<End>,
    /// Its handler came to its own end.
    answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
    CutOff,
    /// The handler wanted no more.
    Left,
}

/// What a side does once it has read as much as it wants.
#[derive(Clone, Copy, Debug)]
enum Then {
    Answer(u16),
    Error,
    Panic,
    /// Keeps the body and hangs.
    Hang,
    /// Answers 200, and the answer never ends.
    Endless,
}

/// What a reader passes before each chunk.
#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Gate {
    fn open(&self) {
        self.0.add_permits(1 << 20);
    }

    fn lets_one_through(&self) {
        self.0.add_permits(1);
    }
}

/// A side that reads a body as it is told.
#[derive(Clone)]
struct Reader {
    /// It wants no more than so many chunks.
    chunks: usize,
    then: Then,
    /// What it answers to a body that breaks off.
    broken: Then,
    /// Passed before each chunk that is asked for.
    gate: Option<Gate>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn reads(chunks: usize, then: Then) -> Reader {
    Reader { chunks, then, broken: Then::Answer(500), gate: None, seen: Arc::default() }
}

/// Reads everything and answers 200; 500 to what breaks off.
fn stores() -> Reader {
    reads(usize::MAX, Then::Answer(200))
}

/// The same, once its gate is open.
fn gated() -> (Reader, Gate) {
    let gate = Gate(Arc::new(Semaphore::new(0)));
    (Reader { gate: Some(gate.clone()), ..stores() }, gate)
}

impl Reader {
    fn on_error(self, broken: Then) -> Self {
        Self { broken, ..self }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Of the only request.
    fn one(&self) -> Seen {
        let [seen] = &self.seen()[..] else { panic!("{:?}", self.seen()) };
        seen.clone()
    }

    fn data(&self) -> String {
        String::from_utf8(self.one().data).unwrap()
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// How a branch's error, or hyper's own, is told apart.
fn end_of(error: &BoxError) -> End {
    match error.downcast_ref() {
        Some(BranchError::CutOff) => End::CutOff,
        _ => End::Broken,
    }
}

async fn act(then: Then, body: Body) -> Result<Res, BoxError> {
    match then {
        Then::Answer(status) => Ok(answer(status, status.to_string())),
        Then::Error => Err("out of order".into()),
        Then::Panic => std::panic::resume_unwind(Box::new("on purpose")),
        Then::Endless => {
            let endless = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
            Ok(answer(200, "").map(|_| Body::new(StreamBody::new(endless))))
        }
        Then::Hang => {
            pending::<()>().await;
            drop(body);
            unreachable!()
        }
    }
}

impl Service<Req> for Reader {
    type Response = Res;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let this = self.clone();
        let (parts, mut body) = request.into_parts();
        let at = {
            let mut seen = this.seen.lock().unwrap();
            seen.push(Seen {
                path: parts.uri.path().to_owned(),
                headers: parts.headers,
                dispatch: parts.extensions.get().copied(),
                ..Seen::default()
            });
            seen.len() - 1
        };
        Box::pin(async move {
            let note = |note: &dyn Fn(&mut Seen)| note(&mut this.seen.lock().unwrap()[at]);
            let mut end = End::Left;
            for _ in 0..this.chunks {
                if let Some(gate) = &this.gate {
                    gate.0.acquire().await.unwrap().forget();
                }
                match body.frame().await {
                    None => end = End::Whole,
                    Some(Err(error)) => end = end_of(&error),
                    Some(Ok(frame)) => {
                        match frame.into_data() {
                            Ok(data) => note(&|seen| seen.data.extend_from_slice(&data)),
                            Err(frame) => {
                                let trailers = frame.into_trailers().ok();
                                note(&|seen| seen.trailers.clone_from(&trailers));
                            }
                        }
                        continue;
                    }
                }
                break;
            }
            let then = if matches!(end, End::Whole | End::Left) { this.then } else { this.broken };
            note(&|seen| seen.end = Some(end));
            let answer = act(then, body).await;
            note(&|seen| seen.answered = true);
            answer
        })
    }
}

/// A body that the test feeds while it is read.
#[derive(Clone)]
struct Feed(Option<mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>>);

impl Feed {
    fn gives(&self, text: impl Into<Bytes>) {
        // Nobody may be left to read it.
        let _ = self.0.as_ref().unwrap().send(Ok(Frame::data(text.into())));
    }

    fn trailers(&self, trailers: HeaderMap) {
        self.0.as_ref().unwrap().send(Ok(Frame::trailers(trailers))).unwrap();
    }

    fn breaks(&mut self) {
        let _ = self.0.take().unwrap().send(Err("the line is dead".into()));
    }

    /// Ends well, as far as can be seen.
    fn ends(&mut self) {
        self.0 = None;
    }

    /// Whether nobody reads it any more.
    fn is_dropped(&self) -> bool {
        self.0.as_ref().unwrap().is_closed()
    }
}

struct Fed {
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>,
    /// What is left of a length that is known.
    left: Option<u64>,
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(self.frames.poll_recv(cx));
        let length: usize =
            frame.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum();
        if let Some(left) = &mut self.left {
            *left -= length as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn fed(length: Option<u64>) -> (Feed, Body) {
    let (send, frames) = mpsc::unbounded_channel();
    (Feed(Some(send)), Body::new(Fed { frames, left: length }))
}

/// `PUT` of a body that the test feeds, of a length that nobody knows.
fn upload(path: &str) -> (Feed, Req) {
    let (feed, body) = fed(None);
    (feed, Request::put(path).body(body).unwrap())
}

/// The same, with its length.
fn sized(path: &str, length: u64) -> (Feed, Req) {
    let (feed, body) = fed(Some(length));
    let request = Request::put(path).header("content-length", length).body(body).unwrap();
    (feed, request)
}

/// Two sides, and a layer that streams.
struct Rig {
    handle: MigrationHandle,
    old: Reader,
    new: Reader,
    service: Migration<Reader, Reader>,
}

type Set<'a> = &'a (dyn Fn(MigrationLayer<Reader>) -> MigrationLayer<Reader> + Sync);

impl Rig {
    async fn with(
        stage: Stage,
        old: Reader,
        new: Reader,
        streaming: Streaming,
        set: Set<'_>,
    ) -> Self {
        let handle = MigrationHandle::new("test");
        let layer = MigrationLayer::new(handle.clone(), new.clone());
        let layer = set(layer.stream_bodies(streaming).unwrap());
        let service = layer.layer(old.clone());
        let this = Self { handle, old, new, service };
        this.walk(stage).await;
        this
    }

    async fn new(old: Reader, new: Reader) -> Self {
        Self::with(Stage::WriteBoth, old, new, Streaming::new(), &|layer| layer).await
    }

    async fn under(policy: FailurePolicy, old: Reader, new: Reader) -> Self {
        let set = |layer: MigrationLayer<_>| layer.failure_policy(policy);
        Self::with(Stage::WriteBoth, old, new, Streaming::new(), &set).await
    }

    async fn walk(&self, stage: Stage) {
        while self.handle.stage() < stage {
            self.handle.advance().await.unwrap();
            if self.handle.stage() == Stage::WriteBoth {
                self.handle.confirm_synced(Side::New).await.unwrap();
            }
        }
    }

    fn sides(&self) -> [&Reader; 2] {
        [&self.old, &self.new]
    }

    /// Sends it in a task of its own.
    fn send(&self, request: Req) -> Sent {
        Sent(tokio::spawn(self.service.clone().oneshot(request)))
    }

    fn dirty(&self) -> Vec<String> {
        self.handle.dirty_keys().iter().map(|dirty| dirty.key.to_string()).collect()
    }

    fn in_flight(&self) -> (u64, u64) {
        let status = self.handle.status();
        (status.on_old.writes, status.on_new.writes)
    }

    /// Waits for everything that runs, which must come to an end.
    async fn shuts_down(&self) {
        let limit = Duration::from_secs(3600);
        tokio::time::timeout(limit, self.handle.shutdown()).await.expect("everything ends");
    }

    /// Nothing is left of any request.
    async fn is_quiet(&self) {
        settle_tasks().await;
        assert_eq!(self.in_flight(), (0, 0));
        assert!(self.handle.status().settled);
    }
}

struct Sent(tokio::task::JoinHandle<Result<Answered, BoxError>>);

impl Sent {
    fn has_answer(&self) -> bool {
        self.0.is_finished()
    }

    /// The status of the answer, and its text; `(0, error)` for an error.
    async fn answer(self) -> (u16, String) {
        let limit = Duration::from_secs(3600);
        match tokio::time::timeout(limit, self.0).await.expect("an answer").unwrap() {
            Ok(answer) => (answer.status().as_u16(), text(answer).await),
            Err(error) => (0, error.to_string()),
        }
    }

    async fn status(self) -> u16 {
        self.answer().await.0
    }

    /// The client hangs up.
    async fn hangs_up(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled());
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])
}
