//! A write that goes to both sides.
//!
//! # What is measured
//!
//! From the request's copy to the end of the answer's body, on a runtime.
//!
//! - `ready/…`: two sides that answer at once, on a runtime of one thread, so
//!   that all that is done is in the number, whichever task does it.
//!   `ready/spawn` is an empty task and the wait for it; `ready/join` is the
//!   `join!` of both sides that one would write by hand.
//!   `ready/careful` and `ready/careful_await_both` are by hand, too, but keep most
//!   of what the layer promises (`support/careful.rs`). The others are the
//!   layer by failure policy, with the default keys (the path) and with none;
//!   the sides are synced, so `RequireBoth` is what it says. `AuthorityWins`
//!   does not wait for the other leg: its row gives way to the runtime once, so
//!   that the leg is run and paid for.
//! - `slow/…`: two sides that sleep for 1 ms, on two workers. `slow/authority`
//!   is one of them alone, `slow/join` both by hand; in `…_other_20ms` the
//!   other side sleeps for 20 ms.
//!
//! # Budgets
//!
//! - `ready/*`: at most `ready/join` plus `ready/spawn` plus 300 ns.
//! - `slow/authority_wins` and `slow/authority_wins_other_20ms`: at most 1.05
//!   of `slow/authority`. `slow/await_both`: at most 1.05 of `slow/join`.
//!
//! # How to read it
//!
//! tokio's timer has ticks of 1 ms, so a sleep of 1 ms takes nearly two, in
//! every row. Tests here switch on tokio's `test-util`, which makes each
//! reading of its clock (four a dual write, and tokio's own) a few nanoseconds dearer
//! than in a program.

mod support;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use http::Uri;
use tokio::{runtime::Runtime, task::yield_now};
use tower::service_fn;
use tower_layer::Layer;
use tower_migration::{FailurePolicy, MigrationLayer, Stage};
use tower_service::Service;

use support::{
    Broken, Hello, POLICIES, Req, after, all_were_written, ask, at, careful::Careful,
    current_thread, put, read, two_workers,
};

fn ready(c: &mut Criterion) {
    let runtime = current_thread();
    let mut group = c.benchmark_group("ready");
    let write = put("/things/1");

    group.bench_function("spawn", |b| {
        b.to_async(&runtime).iter(|| async { tokio::spawn(async {}).await });
    });
    group.bench_function("join", |b| {
        b.to_async(&runtime).iter(|| async {
            let (mut old, mut new) = (Hello, Hello);
            tokio::join!(ask(&mut old, write.clone()), ask(&mut new, write.clone()))
        });
    });
    for (name, awaits_both) in [("careful", false), ("careful_await_both", true)] {
        let careful = Careful::new(awaits_both);
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| {
                let (careful, write) = (careful.clone(), write.clone());
                async move { read(careful.write(write).await.expect("an answer")).await }
            });
        });
        careful.all_was_done();
    }
    for with_keys in [true, false] {
        for (name, policy) in POLICIES {
            let _context = runtime.enter();
            let handle = runtime.block_on(at(Stage::WriteBoth));
            let mut layer = MigrationLayer::new(handle.clone(), Hello).failure_policy(policy);
            if !with_keys {
                layer = layer.without_keys();
            }
            let service = layer.layer(Hello);
            let keys = if with_keys { "" } else { "_no_keys" };
            group.bench_function(format!("{name}{keys}"), |b| {
                b.to_async(&runtime).iter(|| {
                    let (mut service, write) = (service.clone(), write.clone());
                    async move {
                        let length = ask(&mut service, write).await;
                        if policy == FailurePolicy::AuthorityWins {
                            yield_now().await;
                        }
                        length
                    }
                });
            });
            all_were_written(&handle);
        }
    }
    group.finish();
}

/// One write after the other, of ever another key: a client's, who does not
/// wait for the leg of his last one.
fn slow_row<S, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    service: &S,
) where
    S: Service<Req, Response = http::Response<B>, Error = Broken> + Clone,
    B: http_body::Body<Data = bytes::Bytes>,
{
    let paths: Vec<Uri> =
        (0..64).map(|i| format!("/things/{i}").parse().expect("a path")).collect();
    let template = put("/");
    let mut next = paths.iter().cycle();
    group.bench_function(name, |b| {
        b.to_async(runtime).iter(|| {
            let (mut service, mut write) = (service.clone(), template.clone());
            if let Some(path) = next.next() {
                *write.uri_mut() = path.clone();
            }
            async move { ask(&mut service, write).await }
        });
    });
}

fn slow(c: &mut Criterion) {
    let runtime = two_workers();
    let mut group = c.benchmark_group("slow");
    slow_row(&mut group, &runtime, "authority", &after(1));
    let both = service_fn(|write: Req| async move {
        let (mut old, mut new) = (after(1), after(1));
        let (old, _new) = tokio::join!(old.call(write.clone()), new.call(write));
        old
    });
    slow_row(&mut group, &runtime, "join", &both);
    for (name, policy, other) in [
        ("authority_wins", FailurePolicy::AuthorityWins, 1),
        ("authority_wins_other_20ms", FailurePolicy::AuthorityWins, 20),
        ("await_both", FailurePolicy::AwaitBoth, 1),
        ("require_both", FailurePolicy::RequireBoth, 1),
    ] {
        let handle = runtime.block_on(at(Stage::WriteBoth));
        let service = {
            let _context = runtime.enter();
            MigrationLayer::new(handle.clone(), after(other)).failure_policy(policy).layer(after(1))
        };
        slow_row(&mut group, &runtime, name, &service);
        runtime.block_on(handle.shutdown());
        all_were_written(&handle);
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ready(&mut criterion);
    slow(&mut criterion);
    criterion.final_summary();
}
