//! What the benches share: services that cost next to nothing, and ways to
//! drive them that cost nothing either.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod careful;
#[cfg(feature = "axum")]
pub(crate) mod routers;
pub(crate) mod stores;

use std::{
    convert::Infallible,
    fmt,
    future::{Future, Ready, pending, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header::UPGRADE};
use http_body::Body;
use http_body_util::Full;
use tokio::{runtime::Runtime, time::sleep};
use tower::{service_fn, steer::Steer};
use tower_layer::Layer;
use tower_migration::{
    FailurePolicy, Limits, Migration, MigrationHandle, MigrationLayer, Operation, Outcome, Side,
    Stage, protocol::Plain,
};
use tower_service::Service;

pub(crate) type Req = Request<Full<Bytes>>;
pub(crate) type Res = Response<Full<Bytes>>;

/// The error that no side of these benches gives, except the failing one.
#[derive(Debug)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Always ready, and answers 200 with a few bytes at once. The cheapest service
/// there can be, so that whatever stands around it shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello;

impl Service<Req> for Hello {
    type Response = Res;
    type Error = Broken;
    type Future = Ready<Result<Res, Broken>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        drop(request);
        ready(Ok(hello()))
    }
}

pub(crate) fn hello() -> Res {
    Response::new(Full::new(Bytes::from_static(b"hello, world")))
}

/// What a team would write by hand: a flag that says which service is called.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    pub(crate) old: Hello,
    pub(crate) new: Hello,
    pub(crate) to_new: Arc<AtomicBool>,
}

impl Service<Req> for Switch {
    type Response = Res;
    type Error = Broken;
    type Future = Ready<Result<Res, Broken>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.to_new.load(Ordering::Acquire) {
            self.new.call(request)
        } else {
            self.old.call(request)
        }
    }
}

/// tower's choice among services of one type.
pub(crate) fn steer() -> impl Service<Req, Response = Res, Error = Broken> {
    Steer::new([Hello, Hello], |_: &Req, _: &[Hello]| 0)
}

pub(crate) fn get() -> Req {
    Request::new(Full::default())
}

/// A write of `path`, to be cloned: parsing is not what is measured.
pub(crate) fn put(path: &'static str) -> Req {
    let mut request = Request::new(Full::new(Bytes::from_static(b"hello, world")));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = Uri::from_static(path);
    request
}

/// A read of the same path, whose key is that path.
pub(crate) fn get_of(path: &'static str) -> Req {
    let mut request = get();
    *request.uri_mut() = Uri::from_static(path);
    request
}

/// Calls a service that is ready at once, and reads its answer to the end. No
/// runtime and no waker have a part in it.
#[inline(never)]
pub(crate) fn by_hand<S, R, B>(service: &mut S, request: R) -> usize
where
    S: Service<R, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        panic!("not ready at once");
    };
    finish(service.call(request))
}

/// The same, for a call that has been made.
#[inline]
pub(crate) fn finish<F, B, E>(call: F) -> usize
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(call).poll(&mut cx) else {
        panic!("no answer at once");
    };
    let mut body = pin!(response.into_body());
    let mut length = 0;
    while !body.is_end_stream() {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => length += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(None) => break,
            _ => panic!("no frame at once"),
        }
    }
    length
}

/// Reads an answer to its end, as a client does.
pub(crate) async fn read<B>(response: Response<B>) -> usize
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(response.into_body());
    let mut length = 0;
    while !body.is_end_stream() {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
    length
}

/// Waits for readiness, calls, and reads the answer to its end.
pub(crate) async fn ask<S, R, B>(service: &mut S, request: R) -> usize
where
    S: Service<R, Response = Response<B>, Error: fmt::Debug>,
    B: Body<Data = Bytes>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
    read(service.call(request).await.expect("an answer")).await
}

/// A handle that has gone to `stage` in order, the other side synced where
/// there is one.
pub(crate) async fn at(stage: Stage) -> MigrationHandle {
    let handle = MigrationHandle::new("bench");
    while handle.stage() < stage {
        let _moved = handle.advance().await.expect("a step in order");
        handle.settled().await;
        if handle.stage() == Stage::WriteBoth {
            handle.confirm_synced(Side::New).await.expect("settled");
        }
    }
    handle
}

/// Two [`Hello`]s behind a flag at `stage`, with all the layer's defaults.
pub(crate) fn migration(runtime: &Runtime, stage: Stage) -> Migration<Hello, Hello> {
    MigrationLayer::new(runtime.block_on(at(stage)), Hello).layer(Hello)
}

/// The same, with a ramp in force that covers `share` of the keys.
pub(crate) fn ramped(runtime: &Runtime, share: f64) -> Migration<Hello, Hello> {
    let handle = runtime.block_on(at(Stage::WriteBoth));
    let _moved = runtime.block_on(handle.ramp(share)).expect("new is synced");
    MigrationLayer::new(handle, Hello).layer(Hello)
}

/// The same, where the other side answers a read that the authority fails.
pub(crate) fn covered(runtime: &Runtime) -> Migration<Hello, Hello> {
    let layer = MigrationLayer::new(runtime.block_on(at(Stage::WriteBoth)), Hello);
    layer.read_fallback(Duration::from_secs(1)).expect("a limit").layer(Hello)
}

/// The smallest share that there is: it covers no key of these benches.
pub(crate) const NEARLY_NONE: f64 = 1e-9;

/// A read that asks for another protocol.
pub(crate) fn upgrade() -> Req {
    let mut request = get();
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    request
}

/// What a store behind the handlers is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Get(u64),
    Put(u64, u64),
}

/// Such a store: as cheap as [`Hello`], and no HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows;

impl Service<Op> for Rows {
    type Response = u64;
    type Error = Broken;
    type Future = Ready<Result<u64, Broken>>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, op: Op) -> Self::Future {
        let (Op::Get(row) | Op::Put(row, _)) = op;
        ready(Ok(row))
    }
}

/// Two [`Rows`] behind a flag at `stage`.
pub(crate) fn plain(
    runtime: &Runtime,
    stage: Stage,
    judged: bool,
) -> Migration<Rows, Rows, Plain<Op, u64, Broken>> {
    let classify = |op: &Op| match op {
        Op::Get(_) => Operation::Read,
        Op::Put(..) => Operation::Write,
    };
    let key = |op: &Op| {
        let (Op::Get(row) | Op::Put(row, _)) = op;
        row.to_string()
    };
    let mut protocol = Plain::new(classify, |_| Broken).keys(key);
    if judged {
        protocol = protocol.judge(|answer: Result<&u64, &Broken>| match answer {
            Ok(_) => Outcome::Applied,
            Err(Broken) => Outcome::Unknown,
        });
    }
    MigrationLayer::with_protocol(runtime.block_on(at(stage)), Rows, protocol).layer(Rows)
}

/// [`by_hand`] for a service whose answer has no body.
#[inline(never)]
pub(crate) fn by_hand_plain<S>(service: &mut S, op: Op) -> u64
where
    S: Service<Op, Response = u64>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        panic!("not ready at once");
    };
    let Poll::Ready(Ok(row)) = pin!(service.call(op)).poll(&mut cx) else {
        panic!("no answer at once");
    };
    row
}

pub(crate) fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn two_workers() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The other side, well or not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Other {
    Fine,
    Fails,
    Slow,
    Hangs,
}

impl Service<Req> for Other {
    type Response = Res;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Res, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        let this = *self;
        Box::pin(async move {
            match this {
                Self::Fine => Ok(hello()),
                Self::Fails => Err(Broken),
                Self::Slow => {
                    sleep(Duration::from_millis(500)).await;
                    Ok(hello())
                }
                Self::Hangs => pending().await,
            }
        })
    }
}

pub(crate) fn shadowed(
    runtime: &Runtime,
    rate: f64,
    other: Other,
    limits: Limits,
) -> (MigrationHandle, Migration<Hello, Other>) {
    let _context = runtime.enter();
    let handle = runtime.block_on(at(Stage::WriteBoth));
    handle.set_shadow_rate(rate).expect("a rate");
    let layer = MigrationLayer::new(handle.clone(), other).limits(limits).expect("good limits");
    (handle, layer.layer(Hello))
}

pub(crate) async fn shadows_have_ended(handle: &MigrationHandle) {
    while handle.status().on_new.shadows > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A shadow by hand: nothing is compared, counted or bounded.
pub(crate) fn by_hand_shadow(
    request: Req,
) -> impl Future<Output = Result<Res, Broken>> + Send + 'static {
    let copy = request.clone();
    let answer = Hello.call(request);
    async move {
        let answer = answer.await?;
        tokio::spawn(async move {
            let mut other = Other::Fine;
            if let Ok(answer) = other.call(copy).await {
                read(answer).await;
            }
        });
        Ok(answer)
    }
}

pub(crate) const POLICIES: [(&str, FailurePolicy); 3] = [
    ("authority_wins", FailurePolicy::AuthorityWins),
    ("await_both", FailurePolicy::AwaitBoth),
    ("require_both", FailurePolicy::RequireBoth),
];

/// A bench that left legs out has measured something else.
pub(crate) fn all_were_written(handle: &MigrationHandle) {
    assert!(handle.dirty_keys().is_empty(), "a leg was not run");
    let status = handle.status();
    assert!(status.sync.new.is_synced(), "a leg without a key was not run");
}

/// Answers after a while.
pub(crate) fn after(
    millis: u64,
) -> impl Service<Req, Response = Res, Error = Broken, Future: Send> + Clone + Send + 'static {
    service_fn(move |_: Req| async move {
        sleep(Duration::from_millis(millis)).await;
        Ok(hello())
    })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median, and the interval that holds that of many more such values in 95 of 100
/// runs: the values that stand as far from the middle as the binomial distribution says.
pub(crate) fn median_and_interval(mut values: Vec<f64>) -> (f64, [f64; 2]) {
    values.sort_by(f64::total_cmp);
    let of = values.len() as f64;
    let aside = 0.98 * of.sqrt();
    let low = (of / 2.0 - aside).floor().max(0.0) as usize;
    (values[values.len() / 2], [values[low], values[values.len() - 1 - low]])
}
