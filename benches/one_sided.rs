//! One leg and nothing else: the price of the layer when it has nothing to do.
//!
//! # What is measured
//!
//! One call of a service that answers at once, from the making of the request
//! to the end of the answer's body. The future is polled by hand, inside the
//! context of a runtime (so that the layer's publisher is spawned, though it never
//! runs: see `telemetry.rs` for that) but not by it. Every row makes the same request and reads the same answer.
//!
//! - `call/bare` is the baseline. `call/bare_and_two_arc_pairs` is the same
//!   with two `Arc` clone-and-drop pairs around it, `box_clone_service`,
//!   `either`, `steer` and `switch` are what one would use instead of the layer.
//! - `call/old_only` and `call/new_only` are the one-sided stages,
//!   `call/write_both_read` a read in a two-sided stage that is not sampled.
//!   `call/old_only_write` is a write, which is counted by epoch too.
//! - `plain/…` is the same for a service that is not HTTP, through `Plain`, with
//!   the same baselines; `judged` has a `judge` closure, which is asked of every
//!   answer and is counted up and down for it.
//! - `router/…` is a whole axum router called with `oneshot`, and `http1/…` the
//!   same behind hyper, one request after the other on a kept connection
//!   through memory. `nested` is a router in a router, as one needs for a layer
//!   around a whole one; `old_only_no_router` is served without the outer one.
//!
//! # Budgets
//!
//! - `plain/old_only`: at most `plain/bare_and_two_arc_pairs`, and less than
//!   `plain/box_clone_service`. Over HTTP it is the copying of heads that is
//!   measured beside those: there the router and the sockets tell.
//! - `write_both_read`: at most `old_only` plus 5 ns.
//! - `http1/old_only_no_router`: at most `http1/bare` / 0.98. `router/…` has no budget of
//!   its own: there, nothing but routing is left to compare with.
//!
//! # How to read it
//!
//! Subtract `bare`; compare what is left. Only numbers of one run compare.
//! Allocations are counted in `allocations.rs`.

mod support;

use std::{
    hint::black_box,
    sync::{Arc, atomic::AtomicBool},
};

use criterion::Criterion;
use tower::util::{BoxCloneService, Either};
use tower_migration::Stage;

use support::{
    Hello, Op, Rows, Switch, by_hand, by_hand_plain, current_thread, get, migration, plain, put,
    steer,
};

fn call(c: &mut Criterion) {
    let runtime = current_thread();
    let _context = runtime.enter();
    let mut group = c.benchmark_group("call");

    let mut bare = Hello;
    group.bench_function("bare", |b| b.iter(|| by_hand(&mut bare, black_box(get()))));

    let shared = Arc::new(0_u64);
    group.bench_function("bare_and_two_arc_pairs", |b| {
        b.iter(|| {
            drop(black_box(Arc::clone(black_box(&shared))));
            drop(black_box(Arc::clone(black_box(&shared))));
            by_hand(&mut bare, black_box(get()))
        });
    });

    let mut boxed = BoxCloneService::new(Hello);
    group.bench_function("box_clone_service", |b| {
        b.iter(|| by_hand(&mut boxed, black_box(get())));
    });

    let mut either = black_box(Either::<Hello, Hello>::Left(Hello));
    group.bench_function("either", |b| {
        b.iter(|| by_hand(&mut either, black_box(get())));
    });

    let mut steer = steer();
    group.bench_function("steer", |b| {
        b.iter(|| by_hand(&mut steer, black_box(get())));
    });

    let mut switch = Switch { old: Hello, new: Hello, to_new: Arc::new(AtomicBool::new(false)) };
    group.bench_function("switch", |b| {
        b.iter(|| by_hand(&mut switch, black_box(get())));
    });

    for (name, stage) in [
        ("old_only", Stage::OldOnly),
        ("new_only", Stage::NewOnly),
        ("write_both_read", Stage::WriteBoth),
    ] {
        let mut service = migration(&runtime, stage);
        group.bench_function(name, |b| {
            b.iter(|| by_hand(&mut service, black_box(get())));
        });
    }

    let write = put("/things/1");
    group.bench_function("bare_write", |b| {
        b.iter(|| by_hand(&mut bare, black_box(write.clone())));
    });
    let mut service = migration(&runtime, Stage::OldOnly);
    group.bench_function("old_only_write", |b| {
        b.iter(|| by_hand(&mut service, black_box(write.clone())));
    });
    group.finish();
}

fn plain_services(c: &mut Criterion) {
    let runtime = current_thread();
    let _context = runtime.enter();
    let mut group = c.benchmark_group("plain");
    let mut bare = Rows;
    group.bench_function("bare", |b| {
        b.iter(|| by_hand_plain(&mut bare, black_box(Op::Get(1))));
    });
    let shared = Arc::new(0_u64);
    group.bench_function("bare_and_two_arc_pairs", |b| {
        b.iter(|| {
            drop(black_box(Arc::clone(black_box(&shared))));
            drop(black_box(Arc::clone(black_box(&shared))));
            by_hand_plain(&mut bare, black_box(Op::Get(1)))
        });
    });
    let mut boxed = BoxCloneService::new(Rows);
    group.bench_function("box_clone_service", |b| {
        b.iter(|| by_hand_plain(&mut boxed, black_box(Op::Get(1))));
    });
    for (name, stage, judged, op) in [
        ("old_only", Stage::OldOnly, false, Op::Get(1)),
        ("old_only_judged", Stage::OldOnly, true, Op::Get(1)),
        ("new_only_judged", Stage::NewOnly, true, Op::Get(1)),
        ("write_both_read_judged", Stage::WriteBoth, true, Op::Get(1)),
        ("old_only_write", Stage::OldOnly, false, Op::Put(1, 2)),
        ("old_only_write_judged", Stage::OldOnly, true, Op::Put(1, 2)),
    ] {
        let mut service = plain(&runtime, stage, judged);
        group.bench_function(name, |b| b.iter(|| by_hand_plain(&mut service, black_box(op))));
    }
    group.finish();
}

#[cfg(feature = "axum")]
mod with_axum {
    use std::convert::Infallible;

    use axum::body::Body;
    use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
    use http::Request;
    use hyper::server::conn::http1;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    use tokio::runtime::Runtime;
    use tower::ServiceExt;
    use tower_migration::Stage;
    use tower_service::Service;

    use super::support::{
        current_thread, finish, read,
        routers::{hello, routers, without_router},
    };

    pub(super) fn router(c: &mut Criterion) {
        let runtime = current_thread();
        let _context = runtime.enter();
        let mut group = c.benchmark_group("router");
        for (name, app) in routers(&runtime) {
            group.bench_function(name, |b| {
                b.iter(|| finish(app.clone().oneshot(hello())));
            });
        }
        let app = without_router(&runtime, Stage::OldOnly);
        group.bench_function("old_only_no_router", |b| {
            b.iter(|| finish(app.clone().oneshot(hello())));
        });
        group.finish();
    }

    pub(super) fn http1(c: &mut Criterion) {
        let runtime = current_thread();
        let mut group = c.benchmark_group("http1");
        for (name, app) in routers(&runtime) {
            connection(&mut group, &runtime, name, app);
        }
        let app = without_router(&runtime, Stage::OldOnly);
        // As `axum::serve` hands it on: a `Router` takes hyper's body itself.
        let app = app.map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
        connection(&mut group, &runtime, "old_only_no_router", app);
        group.finish();
    }

    fn connection<S>(
        group: &mut BenchmarkGroup<'_, WallTime>,
        runtime: &Runtime,
        name: &str,
        app: S,
    ) where
        S: Service<
                Request<hyper::body::Incoming>,
                Response = axum::response::Response,
                Error = Infallible,
                Future: Send,
            > + Clone
            + Send
            + 'static,
    {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut client = runtime.block_on(async {
            let service = TowerToHyperService::new(app);
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(far), service));
            let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
                .await
                .expect("a connection");
            tokio::spawn(connection);
            client
        });
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    client.ready().await.expect("a live connection");
                    let request = Request::get("/hello")
                        .header("host", "bench")
                        .body(Body::empty())
                        .expect("valid");
                    let answer = client.send_request(request).await.expect("an answer");
                    assert_eq!(read(answer).await, 12);
                });
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    call(&mut criterion);
    plain_services(&mut criterion);
    #[cfg(feature = "axum")]
    {
        with_axum::router(&mut criterion);
        with_axum::http1(&mut criterion);
    }
    criterion.final_summary();
}
