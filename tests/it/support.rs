//! Two sides that do as they are told and remember what they saw.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::sync::{Notify, Semaphore};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    BoxError, Dispatch, FileStore, Migration, MigrationHandle, MigrationLayer, Side, Stage,
    StoreError, compare::Noise,
};

/// How long a flip may hold writes where its record goes to a real disk: that of a busy
/// machine takes longer than a default is willing to wait.
pub const DISK: Duration = Duration::from_secs(60);

/// A flag in a file.
pub async fn on_disk(name: &str, file: Result<FileStore, StoreError>) -> MigrationHandle {
    MigrationHandle::builder(name).hold(DISK).open(file.unwrap()).await.unwrap()
}

pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type Req = Request<Body>;
pub type Res = Response<Body>;
pub type Answered = Response<tower_migration::body::AnswerBody<Body>>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Script = dyn Fn(Call) -> Boxed<Result<Res, BoxError>> + Send + Sync;

pub fn body(text: impl Into<Bytes>) -> Body {
    UnsyncBoxBody::new(Full::new(text.into()).map_err(|never| match never {}))
}

/// What a side saw of one request.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub uri: Uri,
    pub headers: http::HeaderMap,
    pub dispatch: Option<Dispatch>,
    pub body: Bytes,
    pub extensions: http::Extensions,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    calls: Mutex<Vec<Call>>,
    ready: AtomicBool,
    polled: AtomicUsize,
    alive: AtomicUsize,
    wake: Notify,
}

/// A side whose answers a test scripts. It panics when it is called without
/// having been polled ready, and its clones are not ready.
pub struct Fake {
    shared: Arc<Shared>,
    ready: bool,
    waiting: Mutex<Option<Boxed<()>>>,
}

impl Fake {
    pub fn new<F>(script: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Res, BoxError>> + Send + 'static,
    {
        let script: Arc<Script> = Arc::new(move |call| Box::pin(script(call)));
        Self {
            shared: Arc::new(Shared {
                script: Mutex::new(script),
                calls: Mutex::default(),
                ready: AtomicBool::new(true),
                polled: AtomicUsize::new(0),
                alive: AtomicUsize::new(0),
                wake: Notify::new(),
            }),
            ready: false,
            waiting: Mutex::default(),
        }
    }

    /// Answers every request with this status and this text.
    pub fn says(status: u16, text: &'static str) -> Self {
        Self::new(move |_| async move { Ok(answer(status, text)) })
    }

    pub fn hangs() -> Self {
        Self::new(|_| pending())
    }

    pub fn errs() -> Self {
        Self::new(|_| async { Err("out of order".into()) })
    }

    pub fn panics() -> Self {
        // Unwinds without the hook: thousands of reports would say nothing.
        Self::new(|_| async { std::panic::resume_unwind(Box::new("on purpose")) })
    }

    pub fn never_ready(self) -> Self {
        self.shared.ready.store(false, Ordering::SeqCst);
        self
    }

    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::SeqCst);
        self.shared.wake.notify_waiters();
    }

    /// From now on behaves as `other` does.
    pub fn becomes(&self, other: &Self) {
        let script = Arc::clone(&*other.shared.script.lock().unwrap());
        *self.shared.script.lock().unwrap() = script;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.calls.lock().unwrap().len()
    }

    /// How often it was polled ready, clones included.
    pub fn polled(&self) -> usize {
        self.shared.polled.load(Ordering::SeqCst)
    }

    /// Requests under way.
    pub fn alive(&self) -> usize {
        self.shared.alive.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Clone for Fake {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false, waiting: Mutex::default() }
    }
}

struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Req> for Fake {
    type Response = Res;
    type Error = BoxError;
    type Future = Boxed<Result<Res, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.shared.polled.fetch_add(1, Ordering::SeqCst);
        loop {
            if self.shared.ready.load(Ordering::SeqCst) {
                self.ready = true;
                *self.waiting.get_mut().unwrap() = None;
                return Poll::Ready(Ok(()));
            }
            let shared = Arc::clone(&self.shared);
            let waiting = self.waiting.get_mut().unwrap().get_or_insert_with(|| {
                Box::pin(async move {
                    let woken = shared.wake.notified();
                    tokio::pin!(woken);
                    woken.as_mut().enable();
                    if !shared.ready.load(Ordering::SeqCst) {
                        woken.await;
                    }
                })
            });
            if waiting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            *self.waiting.get_mut().unwrap() = None;
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being polled ready");
        let shared = Arc::clone(&self.shared);
        shared.alive.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&shared));
        let (parts, body) = request.into_parts();
        // Counted when it is called, even if its body never ends.
        let at = {
            let mut calls = shared.calls.lock().unwrap();
            calls.push(Call {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                dispatch: parts.extensions.get().copied(),
                body: Bytes::new(),
                extensions: parts.extensions,
            });
            calls.len() - 1
        };
        let script = Arc::clone(&*shared.script.lock().unwrap());
        Box::pin(async move {
            let _alive = alive;
            let data = body.collect().await?.to_bytes();
            let call = {
                let mut calls = shared.calls.lock().unwrap();
                calls[at].body = data;
                calls[at].clone()
            };
            script(call).await
        })
    }
}

pub fn answer(status: u16, text: impl Into<Bytes>) -> Res {
    let mut response = Response::new(body(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub fn get(path: &str) -> Req {
    Request::get(path).body(body("")).unwrap()
}

pub fn put(path: &str, text: &'static str) -> Req {
    Request::put(path).body(body(text)).unwrap()
}

pub async fn text(response: Answered) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Two sides and the layer around them.
pub struct Rig {
    pub handle: MigrationHandle,
    pub old: Fake,
    pub new: Fake,
    pub service: Migration<Fake, Fake>,
}

impl Rig {
    pub fn with(
        old: Fake,
        new: Fake,
        set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
    ) -> Self {
        Self::on(MigrationHandle::new("test"), old, new, set)
    }

    pub fn on(
        handle: MigrationHandle,
        old: Fake,
        new: Fake,
        set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
    ) -> Self {
        // What a test counts must not depend on chance.
        let layer = MigrationLayer::new(handle.clone(), new.clone()).noise(Noise::off());
        let layer = set(layer);
        let service = layer.layer(old.clone());
        Self { handle, old, new, service }
    }

    pub fn new(old: Fake, new: Fake) -> Self {
        Self::with(old, new, |layer| layer)
    }

    /// Walks to `stage` in order, with both sides confirmed where they can be.
    pub async fn at(self, stage: Stage) -> Self {
        self.walk(stage).await;
        self
    }

    pub async fn walk(&self, stage: Stage) {
        while self.handle.stage() < stage {
            self.handle.advance().await.unwrap();
            if self.handle.stage() == Stage::WriteBoth {
                self.handle.confirm_synced(Side::New).await.unwrap();
            }
        }
    }

    pub async fn send(&self, request: Req) -> Result<Answered, BoxError> {
        self.service.clone().oneshot(request).await
    }

    /// Sends a request and reads the answer's status and text.
    pub async fn ask(&self, request: Req) -> (u16, String) {
        let response = self.send(request).await.unwrap();
        (response.status().as_u16(), text(response).await)
    }

    /// Lets spawned tasks run until nothing more happens at this moment.
    pub async fn quiesce(&self) {
        settle_tasks().await;
    }

    pub fn dirty(&self) -> Vec<String> {
        self.handle.dirty_keys().iter().map(|d| d.key.to_string()).collect()
    }

    pub fn side(&self, side: Side) -> &Fake {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}

/// On a current-thread runtime: every task that can go on has gone on.
pub async fn settle_tasks() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

pub const SECOND: Duration = Duration::from_secs(1);

/// A gate that a test opens: what waits at it is counted.
#[derive(Clone, Default)]
pub struct Latch(Arc<(AtomicBool, Notify)>);

impl Latch {
    pub fn close(&self) {
        self.0.0.store(false, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    pub async fn passed(&self) {
        loop {
            let opened = self.0.1.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.0.0.load(Ordering::SeqCst) {
                return;
            }
            opened.await;
        }
    }
}

/// A side that answers once its latch is open.
pub fn latched(status: u16, text: &'static str) -> (Fake, Latch) {
    let latch = Latch::default();
    let at = latch.clone();
    let fake = Fake::new(move |_| {
        let at = at.clone();
        async move {
            at.passed().await;
            Ok(answer(status, text))
        }
    });
    (fake, latch)
}

/// A side that notes the bodies it was given, in order, and answers one request
/// each time it is allowed to.
pub fn stepped() -> (Fake, Arc<Mutex<Vec<String>>>, Arc<Semaphore>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let steps = Arc::new(Semaphore::new(0));
    let (note, step) = (Arc::clone(&seen), Arc::clone(&steps));
    let fake = Fake::new(move |call| {
        note.lock().unwrap().push(String::from_utf8_lossy(&call.body).into_owned());
        let step = Arc::clone(&step);
        async move {
            step.acquire().await.unwrap().forget();
            Ok(answer(200, "stepped"))
        }
    });
    (fake, seen, steps)
}
