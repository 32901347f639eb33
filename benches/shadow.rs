//! A shadowed read, as its client feels it.
//!
//! # What is measured
//!
//! From the making of the request to the end of the answer's body, of a read at
//! `WriteBoth` whose authority answers at once. The shadow's task is spawned in
//! that time and runs afterwards, while nobody looks at the clock: what counts
//! is whether the client waits for anything. Once on a runtime of one thread,
//! where a spawned task cannot begin before the client has its answer, and once
//! on two workers, where spawning may have to wake the second one.
//!
//! - `bare` is the authority alone, `spawn` a shadow by hand: a copy of the
//!   request in a task of its own that reads the answer and compares nothing.
//!   `careful` is by hand, too, but bounds, compares, counts and knows races
//!   (`support/careful.rs`).
//! - `not_sampled` is the layer at rate 0. The others are sampled, every one:
//!   the other side answers at once, fails, takes 500 ms or hangs for ever.
//! - `no_slot` is a sampled read while all slots of shadow tasks are taken by
//!   reads that hang.
//!
//! # Budgets
//!
//! `not_sampled`: as `one_sided.rs` says. Sampled: no wait on the other side,
//! so `fails`, `500ms` and `hangs` cost what `fine` does.
//!
//! # How to read it
//!
//! Compare the sampled rows with each other, and `fine` with `spawn`. Reads are
//! made 48 in a row, fewer than there are slots; then the shadows are waited
//! for, untimed. So the first of a batch finds cold caches, most of all in the
//! rows that wait long: compare them with each other, not with other benches.

mod support;

use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use http::Response;
use http_body::Body;
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};
use tower::service_fn;
use tower_migration::Limits;
use tower_service::Service;

use support::{
    Broken, Hello, Other, Req, ask, by_hand_shadow, careful::Careful, current_thread, get,
    shadowed, shadows_have_ended, two_workers,
};

/// Reads in a row; fewer than there are slots, so that each is shadowed.
const BATCH: u64 = 48;

/// Times batches of reads, and waits for what they leave behind untimed.
fn row<S, B, W>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    service: &S,
    wait: impl Fn() -> W,
) where
    S: Service<Req, Response = Response<B>, Error = Broken> + Clone,
    B: Body<Data = bytes::Bytes>,
    W: Future<Output = ()>,
{
    group.bench_function(name, |b| {
        b.to_async(runtime).iter_custom(|iterations| {
            let mut service = service.clone();
            let wait = &wait;
            async move {
                // Whole batches, however few criterion asks for.
                let batches = iterations.div_ceil(BATCH);
                let mut took = Duration::ZERO;
                for _ in 0..batches {
                    let began = Instant::now();
                    for _ in 0..BATCH {
                        ask(&mut service, get()).await;
                    }
                    took += began.elapsed();
                    wait().await;
                }
                took.mul_f64(iterations as f64 / (batches * BATCH) as f64)
            }
        });
    });
}

fn shadow(c: &mut Criterion, name: &str, runtime: &Runtime) {
    let mut group = c.benchmark_group(name);
    row(&mut group, runtime, "bare", &Hello, || async {});

    row(&mut group, runtime, "spawn", &service_fn(by_hand_shadow), || {
        sleep(Duration::from_millis(1))
    });

    let careful = Careful::new(true);
    let service = service_fn(|request| careful.read(request));
    row(&mut group, runtime, "careful", &service, || careful.shadows_have_ended());
    careful.all_was_done();

    let (_, service) = shadowed(runtime, 0.0, Other::Fine, Limits::default());
    row(&mut group, runtime, "not_sampled", &service, || async {});

    for (name, other, deadline) in [
        ("fine", Other::Fine, 5_000),
        ("fails", Other::Fails, 5_000),
        // Given up soon, or the bench would wait five seconds for each batch.
        ("hangs", Other::Hangs, 10),
        ("500ms", Other::Slow, 5_000),
    ] {
        let limits = Limits::default().shadow_deadline(Duration::from_millis(deadline));
        let (handle, service) = shadowed(runtime, 1.0, other, limits);
        if matches!(other, Other::Slow) {
            group.sample_size(10);
        }
        row(&mut group, runtime, name, &service, || shadows_have_ended(&handle));
    }
    group.sample_size(100);

    let limits = Limits::default().shadow_tasks(1).shadow_deadline(Duration::from_secs(3_600));
    let (handle, mut service) = shadowed(runtime, 1.0, Other::Hangs, limits);
    runtime.block_on(ask(&mut service, get()));
    row(&mut group, runtime, "no_slot", &service, || async {});
    assert_eq!(handle.status().on_new.shadows, 1, "the slot is taken");
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    shadow(&mut criterion, "shadow_one_thread", &current_thread());
    shadow(&mut criterion, "shadow_two_workers", &two_workers());
    criterion.final_summary();
}
