//! How much memory the layer holds at most, limit by limit.
//!
//! # What is measured
//!
//! The bytes that are allocated and not freed while so many things of one kind are
//! held: writes and shadow reads whose other side hangs, dirty keys, bodies. Divided
//! by how many there are it is what one costs; times the limit's default it is the
//! most that this limit lets the layer hold. Tasks, futures and what the sides of these
//! benches keep are in it; what an allocator adds is not.
//!
//! # Budgets
//!
//! `allowed` is what one takes now and about a quarter. It does not depend on the
//! machine, so it is checked: if one is missed this bench ends with exit code 1. A head
//! is in it: ten headers here, and a request has it three times while both legs run.

mod support;

use std::{alloc::System, future::Future, process::ExitCode};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::{runtime::Runtime, task::yield_now};
use tower_layer::Layer;
use tower_migration::{Limits, Migration, MigrationHandle, MigrationLayer, Stage};

use support::{Hello, Other, Req, ask, at, current_thread, shadowed};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of each kind.
const COUNT: usize = 64;
const KIB: f64 = 1024.0;
const MIB: usize = 1 << 20;

/// What one of a kind costs.
struct Row {
    name: &'static str,
    /// Bytes, on average.
    each: f64,
    /// The limit, and its default.
    limit: (&'static str, usize),
    allowed: f64,
}

/// Prints a row. `false`: it costs too much.
fn print(row: &Row) -> bool {
    let Row { name, each, limit: (limit, default), allowed } = row;
    let whole = each * *default as f64 / MIB as f64;
    let over = each > allowed;
    let mark = if over { "  OVER ITS BUDGET" } else { "" };
    println!("{name:<36}{each:>10.2}{allowed:>10.2}   {limit} {default}: {whole:.1} MiB{mark}");
    !over
}

/// What `hold` leaves behind, for each of so many that are held.
fn held<F: Future<Output = ()>>(runtime: &Runtime, hold: impl FnOnce() -> F) -> f64 {
    let region = Region::new(ALLOCATOR);
    runtime.block_on(hold());
    let change = region.change();
    let bytes = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    bytes / COUNT as f64
}

/// What a browser or a client library sends.
const HEAD: [(&str, &str); 10] = [
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "de-CH,de;q=0.9,en;q=0.8"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("content-type", "application/json"),
    ("host", "airports.example.com"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("x-forwarded-for", "192.0.2.44, 198.51.100.7"),
    ("x-request-id", "018f3c2e-7a51-7c3e-9d8c-0242ac120002"),
];

/// A write of a key that has about fifty letters, with a body cut out of what a
/// connection was read into, as a server does it.
fn write(key: usize, body: usize) -> Req {
    let read = Bytes::from(vec![b'.'; body.max(64 * 1024)]);
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/airports/by-country/switzerland/{key:08}/runways"));
    for (name, value) in HEAD {
        // Owned, as a server's are.
        request = request.header(name, value.to_owned());
    }
    request.body(Full::new(read.slice(..body))).expect("a request")
}

/// Makes so many writes, whose clients have their answers.
async fn written(service: &mut Migration<Hello, Other>, keys: Keys, body: usize) {
    for number in 0..COUNT {
        let key = match keys {
            Keys::From(first) => first + number,
            Keys::Only(key) => key,
        };
        ask(service, write(key, body)).await;
    }
    yield_now().await;
}

/// Which keys are written.
#[derive(Clone, Copy)]
enum Keys {
    /// Distinct ones, counted from here.
    From(usize),
    Only(usize),
}

/// Both sides written, and new of this health.
fn dual(runtime: &Runtime, other: Other) -> (MigrationHandle, Migration<Hello, Other>) {
    let _context = runtime.enter();
    let handle = runtime.block_on(at(Stage::WriteBoth));
    let layer = MigrationLayer::new(handle.clone(), other);
    (handle, layer.layer(Hello))
}

/// Writes whose other leg hangs: `keys` after those that were there before.
fn legs(keys: Keys, body: usize) -> f64 {
    let runtime = current_thread();
    let (handle, mut service) = dual(&runtime, Other::Hangs);
    // What is made once is there before it is counted.
    runtime.block_on(written(&mut service, Keys::From(1_000), 0));
    let each = held(&runtime, || written(&mut service, keys, body));
    assert_eq!(handle.status().on_new.writes, 2 * COUNT as u64, "a leg was left out");
    each
}

fn shadows(body: usize) -> f64 {
    let runtime = current_thread();
    let limits = Limits::default().shadow_tasks(2 * COUNT);
    let (handle, mut service) = shadowed(&runtime, 1.0, Other::Hangs, limits);
    let read = |body: usize| {
        let mut request = write(0, body);
        *request.method_mut() = Method::GET;
        request
    };
    let mut reads = async |body| {
        for _ in 0..COUNT {
            ask(&mut service, read(body)).await;
        }
        yield_now().await;
    };
    runtime.block_on(reads(0));
    let each = held(&runtime, || reads(body));
    assert_eq!(handle.status().on_new.shadows, 2 * COUNT as u64, "a shadow was left out");
    each
}

fn dirty_keys() -> f64 {
    let runtime = current_thread();
    let (handle, mut service) = dual(&runtime, Other::Fails);
    let mut failed = async |first| {
        written(&mut service, Keys::From(first), 12).await;
        while handle.status().on_new.writes > 0 {
            yield_now().await;
        }
    };
    runtime.block_on(failed(1_000));
    let each = held(&runtime, || failed(0));
    assert_eq!(handle.dirty_keys().len(), 2 * COUNT, "a key is not dirty");
    each
}

fn main() -> ExitCode {
    println!(
        "{:<36}{:>10}{:>10}   the limit, its default, and what it holds then",
        "held", "bytes", "allowed"
    );
    let leg = legs(Keys::From(0), 12);
    let queued = legs(Keys::Only(0), 12);
    let shadow = shadows(0);
    let rows = [
        Row {
            name: "a write whose other leg hangs",
            each: leg,
            limit: ("running_legs", 1024),
            allowed: 7.1 * KIB,
        },
        Row {
            name: "one that waits for its key",
            each: queued,
            limit: ("running_legs", 1024),
            allowed: 8.3 * KIB,
        },
        Row {
            name: "a shadow whose other side hangs",
            each: shadow,
            limit: ("shadow_tasks", 64),
            allowed: 5.7 * KIB,
        },
        Row {
            name: "a dirty key of fifty letters",
            each: dirty_keys(),
            limit: ("dirty_keys", 100_000),
            allowed: 370.0,
        },
        Row {
            name: "a byte of a write's body",
            each: (legs(Keys::From(0), MIB) - leg) / MIB as f64,
            limit: ("buffered_bytes", 256 * MIB),
            allowed: 1.05,
        },
        Row {
            name: "a byte of a shadowed request",
            // All of them are under the limit.
            each: (shadows(MIB / 4) - shadow) / (MIB / 4) as f64,
            limit: ("captured_bytes", 64 * MIB),
            allowed: 1.05,
        },
    ];
    if rows.iter().filter(|row| !print(row)).count() == 0 {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
