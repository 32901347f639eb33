//! A large upload in memory, chunk by chunk.
//!
//! # What is measured
//!
//! 16 MiB in chunks of 64 KiB (what hyper reads at most), from the request to
//! its answer, on a runtime of one thread; each side reads its body to the end
//! and counts the bytes. All chunks are clones of one, so no byte is touched:
//! what shows is the price of handing a chunk on.
//!
//! - `bare`: the service alone. `bare_twice`: two of them, one after the other,
//!   each with a body of its own.
//! - `one_sided`: the layer in a one-sided stage.
//! - `collected`: the layer in a two-sided stage, the body copied into one piece
//!   before (what it does without streaming, if its limit allows that).
//! - `streamed`: with streaming; both sides take turns with each chunk.
//!   `streamed_apart`: each reads sixteen, a MiB, before it gives way.
//!
//! # How to read it
//!
//! As ratios to `bare_twice`, in one run. Trust those only.

mod support;

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use futures_util::{FutureExt, future::BoxFuture, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use tokio::{runtime::Runtime, task::yield_now};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_migration::{
    BoxError, FailurePolicy, Limits, MigrationLayer, Stage,
    body::{SlowLeg, Streaming},
};

use support::{all_were_written, at, current_thread};

type Body = UnsyncBoxBody<Bytes, BoxError>;

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 256;

fn request(chunk: &Bytes) -> Request<Body> {
    let chunk = chunk.clone();
    let chunks = (0..CHUNKS).map(move |_| Ok(Frame::data(chunk.clone())));
    let mut request = Request::new(Body::new(StreamBody::new(stream::iter(chunks))));
    *request.method_mut() = Method::PUT;
    request
}

/// Reads everything, and lets the other side read after each `every` chunks.
fn reads(
    every: usize,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = BoxError,
    Future = BoxFuture<'static, Result<Response<Body>, BoxError>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<Body>| {
        async move {
            let (mut body, mut length, mut chunks) = (request.into_body(), 0, 0_usize);
            while let Some(frame) = body.frame().await {
                length += frame?.data_ref().map_or(0, Bytes::len);
                chunks += 1;
                if chunks.is_multiple_of(every) {
                    yield_now().await;
                }
            }
            assert_eq!(black_box(length), CHUNK * CHUNKS);
            Ok(Response::new(Body::default()))
        }
        .boxed()
    })
}

fn row<S, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    service: &S,
    times: usize,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
{
    let chunk = Bytes::from(vec![7; CHUNK]);
    group.bench_function(name, |b| {
        b.to_async(runtime).iter(|| {
            let chunk = chunk.clone();
            async move {
                for _ in 0..times {
                    let answer = service.clone().oneshot(request(&chunk)).await;
                    drop(answer.expect("an answer"));
                }
            }
        });
    });
}

fn upload(c: &mut Criterion) {
    let runtime = current_thread();
    let _context = runtime.enter();
    let mut group = c.benchmark_group("upload");
    group.throughput(Throughput::Bytes((CHUNK * CHUNKS) as u64));
    row(&mut group, &runtime, "bare", &reads(1), 1);
    row(&mut group, &runtime, "bare_twice", &reads(1), 2);
    for (name, stage, streams, every) in [
        ("one_sided", Stage::OldOnly, true, 1),
        ("collected", Stage::WriteBoth, false, 1),
        ("streamed", Stage::WriteBoth, true, 1),
        ("streamed_apart", Stage::WriteBoth, true, 16),
    ] {
        let handle = runtime.block_on(at(stage));
        let limit = CHUNK * CHUNKS;
        let limits = Limits::default().body(if streams { CHUNK } else { limit });
        // So that both sides are in the number.
        let mut layer = MigrationLayer::new(handle.clone(), reads(every))
            .failure_policy(FailurePolicy::AwaitBoth)
            .limits(limits)
            .expect("good limits");
        if streams {
            layer = layer
                .stream_bodies(Streaming::new().slow_leg(SlowLeg::Hold(Duration::from_secs(10))))
                .expect("a lag");
        }
        row(&mut group, &runtime, name, &layer.layer(reads(every)), 1);
        if stage == Stage::WriteBoth {
            all_were_written(&handle);
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    upload(&mut criterion);
    criterion.final_summary();
}
