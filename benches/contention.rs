//! Does the layer scale with the threads that use it?
//!
//! # What is measured
//!
//! The one-sided call of `one_sided.rs`, made by one thread and by two at once,
//! bare and through the layer, each thread with its own clone of the service.
//! `shared counter` is the bare call with one atomic addition to a cache line
//! that all threads write: what the layer must not do.
//!
//! *Scaling* is the calls per second of two threads over those of one: 2.00 is
//! perfect, 1.00 means that the second thread adds nothing.
//!
//! # Budget
//!
//! The layer's scaling is at least 0.9 of the bare call's.
//!
//! # How to read it
//!
//! The last columns are the ratio to the bare call's scaling in the same round, and
//! the interval of its median. A machine with two
//! cores that does anything else meanwhile steals from the second thread, from
//! every row alike; so the rows take turns, round by round, and what counts is
//! the median over the rounds. That is why this bench is not criterion's, which
//! measures one row after the other.

mod support;

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::time::Instant;
use tower_migration::{Migration, Stage};

use support::{Hello, by_hand, current_thread, get, median, median_and_interval, migration};

/// One service, called over and over. Answers when it began and ended.
type Work = Arc<dyn Fn(u64) + Send + Sync>;

/// Calls per microsecond, all threads together.
fn rate(threads: usize, calls: u64, work: &Work) -> f64 {
    let start = Barrier::new(threads);
    let spans: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    // The thread's first call finds its place in the ledger.
                    work(1_000.min(calls));
                    start.wait();
                    let began = Instant::now();
                    work(calls);
                    (began, Instant::now())
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let began = spans.iter().map(|span| span.0).min().expect("a thread");
    let ended = spans.iter().map(|span| span.1).max().expect("a thread");
    threads as f64 * calls as f64 / (ended - began).as_secs_f64() / 1e6
}

fn main() {
    // `cargo bench` says so; `cargo bench -- --test` and `cargo test` want to
    // know only that it runs.
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let (rounds, calls) = if timed { (101, 400_000) } else { (1, 1_000) };

    let runtime = current_thread();
    let _context = runtime.enter();
    let calls_of = |service: Migration<Hello, Hello>| -> Work {
        Arc::new(move |calls| {
            let mut own = service.clone();
            for _ in 0..calls {
                black_box(by_hand(&mut own, black_box(get())));
            }
        })
    };
    let counter = AtomicU64::new(0);
    let rows: [(&str, Work); 5] = [
        (
            "bare",
            Arc::new(|calls| {
                for _ in 0..calls {
                    black_box(by_hand(&mut black_box(Hello), black_box(get())));
                }
            }),
        ),
        (
            "shared counter",
            Arc::new(move |calls| {
                for _ in 0..calls {
                    counter.fetch_add(1, Ordering::Relaxed);
                    black_box(by_hand(&mut black_box(Hello), black_box(get())));
                }
            }),
        ),
        ("old-only", calls_of(migration(&runtime, Stage::OldOnly))),
        ("new-only", calls_of(migration(&runtime, Stage::NewOnly))),
        ("write-both, read", calls_of(migration(&runtime, Stage::WriteBoth))),
    ];

    let mut one = rows.each_ref().map(|_| Vec::new());
    let mut two = one.clone();
    for _ in 0..rounds {
        for (at, (_, work)) in rows.iter().enumerate() {
            one[at].push(rate(1, calls, work));
            two[at].push(rate(2, calls, work));
        }
    }
    println!(
        "{:<20}{:>15}{:>15}{:>10}{:>10}{:>18}",
        "", "1 thread ns", "2 threads ns", "scaling", "to bare", "95 % interval"
    );
    // Round by round, so that what slows a whole round cancels out.
    let scaling =
        |of: usize| one[of].iter().zip(&two[of]).map(|(one, two)| two / one).collect::<Vec<_>>();
    let bare = scaling(0);
    for (at, (name, _)) in rows.iter().enumerate() {
        let own = scaling(at);
        let to_bare = own.iter().zip(&bare).map(|(own, bare)| own / bare).collect();
        let (to_bare, [low, high]) = median_and_interval(to_bare);
        println!(
            "{name:<20}{:>15.1}{:>15.1}{:>10.2}{to_bare:>10.3}{:>18}",
            1e3 / median(one[at].clone()),
            2e3 / median(two[at].clone()),
            median(own),
            format!("[{low:.3}, {high:.3}]"),
        );
    }
}
