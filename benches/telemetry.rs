//! What it costs a call that somebody counts it and listens.
//!
//! # What is measured
//!
//! The one-sided call of `one_sided.rs`, in a process without a recorder and a
//! subscriber, and in one that has installed the Prometheus exporter's recorder
//! and a subscriber at INFO, as services do. Both can be installed only once, so
//! this program starts itself for each turn; the two take turns.
//!
//! # Budget
//!
//! At most 100 ns more with them. The layer counts in its own cells, and a task
//! hands those on every five seconds: no call does.
//!
//! # How to read it
//!
//! Medians over the turns, and of the difference turn by turn.

mod support;

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;
use tower_migration::Stage;
use tracing_subscriber::filter::LevelFilter;

use support::{by_hand, current_thread, get, median, migration};

/// Nanoseconds of one call, the median of some stretches.
fn child(with: bool, calls: u32) -> f64 {
    if with {
        PrometheusBuilder::new().install_recorder().expect("the first recorder");
        let to_nowhere = || std::io::sink();
        tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(to_nowhere).init();
    }
    let runtime = current_thread();
    let _context = runtime.enter();
    let mut service = migration(&runtime, Stage::OldOnly);
    let mut stretch = || {
        let began = Instant::now();
        for _ in 0..calls {
            black_box(by_hand(&mut service, black_box(get())));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    stretch();
    median((0..21).map(|_| stretch()).collect())
}

fn turn(with: &str, calls: &str) -> f64 {
    let me = env::current_exe().expect("a program has a path");
    let ran = Command::new(me).args(["child", with, calls]).output().expect("it starts itself");
    let said = String::from_utf8_lossy(&ran.stdout);
    said.trim().parse().unwrap_or_else(|_| panic!("a number, not {said:?}"))
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    if let ["child", with, calls] = args[..] {
        println!("{}", child(with == "with", calls.parse().expect("a number")));
        return ExitCode::SUCCESS;
    }
    let timed = args.contains(&"--bench") && !args.contains(&"--test");
    let (turns, calls) = if timed { (15, "20000") } else { (1, "100") };
    let (mut without, mut with, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let pair = ["without", "with"].map(|which| turn(which, calls));
        without.push(pair[0]);
        with.push(pair[1]);
        more.push(pair[1] - pair[0]);
    }
    println!("without a recorder and a subscriber  {:>8.1} ns", median(without));
    println!("with Prometheus, and one at INFO     {:>8.1} ns", median(with));
    println!("more, turn by turn                   {:>8.1} ns", median(more));
    ExitCode::SUCCESS
}
