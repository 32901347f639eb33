//! What it costs a call that somebody counts it and listens.
//!
//! # What is measured
//!
//! The one-sided call of `one_sided.rs`, in a process without a recorder and a
//! subscriber, and in one that has installed the Prometheus exporter's recorder
//! and a subscriber at INFO, as services do. Both can be installed only once, so
//! this program starts itself for each turn; the two take turns. A turn is eleven
//! seconds of calls, and a runtime beside them, in which the layer's publisher hands
//! its counters on twice. At its end the recorder must have been told of every call.
//!
//! # Budget
//!
//! At most 100 ns more with them. The layer counts in its own cells, and a task
//! hands those on every five seconds: no call does.
//!
//! # How to read it
//!
//! A turn's number is its time divided by its calls: what happens twice in it counts.
//! Medians over the turns, and of the difference turn by turn.

mod support;

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_migration::{MigrationLayer, Stage};
use tracing_subscriber::filter::LevelFilter;

use support::{Hello, at, by_hand, get, median, two_workers};

/// Nanoseconds of one call, over so many milliseconds.
fn child(with: bool, millis: u64) -> f64 {
    let prometheus = with.then(|| {
        let to_nowhere = || std::io::sink();
        tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(to_nowhere).init();
        PrometheusBuilder::new().install_recorder().expect("the first recorder")
    });
    // It runs beside the calls.
    let runtime = two_workers();
    let _context = runtime.enter();
    let handle = runtime.block_on(at(Stage::OldOnly));
    let mut service = MigrationLayer::new(handle.clone(), Hello).layer(Hello);
    let mut calls = 0_u64;
    let mut stretch = || {
        for _ in 0..100 {
            black_box(by_hand(&mut service, black_box(get())));
        }
        calls += 100;
    };
    (0..100).for_each(|_| stretch());
    let (began, length) = (Instant::now(), Duration::from_millis(millis));
    let mut timed = 0_u64;
    while began.elapsed() < length {
        stretch();
        timed += 100;
    }
    let took = began.elapsed().as_secs_f64() * 1e9 / timed as f64;
    runtime.block_on(handle.shutdown());
    if let Some(prometheus) = prometheus {
        let counted = told(&prometheus.render());
        assert_eq!(counted, calls, "the recorder has not been told of every call");
    }
    took
}

/// How many requests the recorder knows of.
fn told(metrics: &str) -> u64 {
    let counters =
        metrics.lines().filter(|line| line.starts_with("tower_migration_requests_total"));
    counters.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn turn(with: &str, millis: &str) -> f64 {
    let me = env::current_exe().expect("a program has a path");
    let ran = Command::new(me).args(["child", with, millis]).output().expect("it starts itself");
    let said = String::from_utf8_lossy(&ran.stdout);
    said.trim().parse().unwrap_or_else(|_| panic!("a number, not {said:?}"))
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    if let ["child", with, millis] = args[..] {
        println!("{}", child(with == "with", millis.parse().expect("a number")));
        return ExitCode::SUCCESS;
    }
    let timed = args.contains(&"--bench") && !args.contains(&"--test");
    let (turns, millis) = if timed { (5, "11000") } else { (1, "100") };
    let (mut without, mut with, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let pair = ["without", "with"].map(|which| turn(which, millis));
        without.push(pair[0]);
        with.push(pair[1]);
        more.push(pair[1] - pair[0]);
    }
    println!("without a recorder and a subscriber  {:>8.1} ns", median(without));
    println!("with Prometheus, and one at INFO     {:>8.1} ns", median(with));
    println!("more, turn by turn                   {:>8.1} ns", median(more));
    ExitCode::SUCCESS
}
