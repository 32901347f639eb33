//! What it costs to compare, and what it takes to find something.
//!
//! # What is measured
//!
//! - `costs`: `Json` on two answers, in nanoseconds or microseconds, beside what
//!   reading them would cost: comparing the bytes of 1 KiB twice, and
//!   `serde_json::from_slice::<Value>` of both. In turns, medians.
//! - `race`: reads of a few keys through a layer at rate 1.0 while the same keys are
//!   written, until a million reads were compared. Both sides are right, so each
//!   mismatch would be a lie.
//! - `planted`: reads of a service with random ids and five defects, each in one of
//!   10 000 answers, until each is called real; after how many reads that was.
//!
//! # Budgets
//!
//! Equal bodies: no parsing, at most two comparisons of the bytes (and what it takes to
//! look at two heads). 100 KiB that differ: at most 3 times both `from_slice`. No
//! mismatch in a million comparisons. Every planted defect found, named by its path.
//!
//! # How to read it
//!
//! The last column of `costs` is the ratio to the baseline. `race` and `planted` say
//! what they counted; they fail if the budget is missed.

mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    hint::black_box,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_migration::{
    BoxError, Limits, MigrationHandle, MigrationLayer, PlaceKind, Side, Stage,
    compare::{Answer, Answers, Compare, Headers, Noise, Status, json::Json},
};

type Body = Full<Bytes>;

fn answer(body: String) -> Answer {
    let mut answer = Answer::new(StatusCode::OK, body);
    answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// So many rows of about 110 bytes, with a name in each.
fn rows(count: usize, name: impl Fn(usize) -> String) -> String {
    let row = |n| {
        format!(
            r#"{{"icao":"K{n:04}","name":"{}","latitude":47.46{n},"runways":[{{"id":1,"length":{n}}}],"open":true}}"#,
            name(n)
        )
    };
    format!("[{}]", (0..count).map(row).collect::<Vec<_>>().join(","))
}

/// The median of the time that one call takes, in nanoseconds, of both in turns.
fn medians(turns: usize, calls: u32, mut one: impl FnMut(), mut two: impl FnMut()) -> [f64; 2] {
    let time = |call: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..calls {
            call();
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        a.push(time(&mut one));
        b.push(time(&mut two));
    }
    [a, b].map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn row(name: &str, [own, baseline]: [f64; 2], than: &str) {
    let ratio = own / baseline;
    println!("costs    {name:<34} {own:>12.0} ns   {than:<24} {baseline:>12.0} ns   {ratio:>5.2}");
}

fn costs(timed: bool) {
    let (turns, scale) = if timed { (31, 1) } else { (1, 1_000) };
    let json = Json::new();
    let name = |n: usize| format!("Zürich {n}");

    // Bodies of their own, as they come from two sides.
    let (a, b) = (answer(rows(9, name)), answer(rows(9, name)));
    let answers = Answers::of(&a, &b);
    let equal = medians(
        turns,
        20_000 / scale,
        || drop(black_box(json.compare(black_box(&answers)))),
        || {
            black_box(black_box(&a.body) == black_box(&b.body));
            black_box(black_box(&a.body) == black_box(&b.body));
        },
    );
    row(&format!("equal, {} bytes", a.body.len()), equal, "== twice");

    let large = answer(rows(970, name));
    let one = rows(970, |n| if n == 500 { "Zurich 500".to_owned() } else { name(n) });
    let spaced = rows(970, name).replace(":", ": ").replace(",", ", ");
    let every = rows(970, |n| format!("Zurich {n}"));
    let shuffled = rows(970, name)
        .replace(r#","open":true"#, "")
        .replace(r#"{"icao""#, r#"{"open":true,"icao""#);
    for (what, other) in [
        ("one field differs", one),
        ("every row differs", every),
        ("spaces differ, nothing else", spaced),
        ("order of members differs", shuffled),
    ] {
        let other = answer(other);
        let answers = Answers::of(&large, &other);
        let read = |body: &Bytes| drop(black_box(serde_json::from_slice::<Value>(body)));
        let cost = medians(
            turns,
            (200 / scale).max(1),
            || drop(black_box(json.compare(black_box(&answers)))),
            || {
                read(&large.body);
                read(&other.body);
            },
        );
        let kib = other.body.len() / 1_024;
        row(&format!("{what}, {kib} KiB"), cost, "from_slice of both");
    }
}

fn respond(body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Rows in memory, yielding in the middle so that others come in between.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<HashMap<String, Bytes>>>);

impl Table {
    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let key = head.uri.path().to_owned();
        let Ok(body) = body.collect().await;
        if fastrand::bool() {
            tokio::task::yield_now().await;
        }
        let rows = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = match head.method {
            Method::PUT => {
                rows().insert(key, body.to_bytes());
                Bytes::new()
            }
            _ => rows().get(&key).cloned().unwrap_or_else(|| Bytes::from_static(b"null")),
        };
        if fastrand::bool() {
            tokio::task::yield_now().await;
        }
        Ok(respond(row))
    }
}

async fn two_sided(handle: &MigrationHandle) -> Result<(), BoxError> {
    handle.move_to(Stage::WriteBoth).await?;
    handle.settled().await;
    handle.confirm_synced(Side::New).await?;
    handle.set_shadow_rate(1.0)?;
    Ok(())
}

async fn send<S, B>(service: &S, request: Request<Body>) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.clone().oneshot(request).await?;
    response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
    Ok(())
}

async fn race(needed: u64) -> Result<(), BoxError> {
    let handle = MigrationHandle::new("race");
    let [old, new] = [Table::default(), Table::default()]
        .map(|table: Table| service_fn(move |request| table.clone().serve(request)));
    let limits = Limits::default().rereads(1).reread_pause(Duration::from_millis(1));
    let layer = MigrationLayer::new(handle.clone(), new)
        .compare(Status.and(Headers::default()).and(Json::new()))
        .limits(limits)?;
    let service = layer.layer(old);
    two_sided(&handle).await?;
    let began = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (service, handle) = (service.clone(), handle.clone());
            tokio::spawn(async move {
                for n in 0_u64.. {
                    if n % 1_000 == 0 && handle.report().compared() >= needed {
                        break;
                    }
                    let key = format!("/rows/{}", fastrand::u8(..8));
                    let request = match fastrand::u8(..20) {
                        0 => {
                            let body = format!(r#"{{"by":{client},"n":{n}}}"#);
                            Request::put(&key).body(Full::new(body.into()))?
                        }
                        _ => Request::get(&key).body(Full::default())?,
                    };
                    send(&service, request).await?;
                }
                Ok::<_, BoxError>(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    handle.shutdown().await;
    let report = handle.report();
    let route = report.routes.first().ok_or("nothing was read")?;
    let raced: u64 = route.inconclusive.iter().map(|reason| reason.count).sum();
    println!(
        "race     {} compared in {:.0?}: {} matched, {} mismatched, {} healed; {raced} raced",
        route.compared,
        began.elapsed(),
        route.matched,
        route.mismatched,
        route.transient
    );
    assert_eq!(route.mismatched, 0, "{report}");
    Ok(())
}

/// Airport number `n`, with a random id; of new, with the defect of its number.
fn airport(n: u64, defective: bool, rare: u64) -> String {
    let kind = if defective && n % rare < 5 { n % rare } else { 9 };
    let name = if kind == 0 { "Zurich" } else { "Zürich" };
    let latitude = if kind == 1 { "47.46" } else { "47.464722" };
    let iata = if kind == 2 { "" } else { r#""iata":"ZRH","# };
    let version = if kind == 3 { n } else { n + 1 };
    let tags = if kind == 4 { r#"["b","a"]"# } else { r#"["a","b"]"# };
    let id = fastrand::u64(..);
    format!(
        r#"{{"name":"{name}","latitude":{latitude},{iata}"version":{version},"tags":{tags},"id":{id}}}"#
    )
}

const PLACES: [&str; 5] = ["/name", "/latitude", "/iata", "/version", "/tags/*"];

async fn planted(rare: u64, share: f64, most: u64) -> Result<(), BoxError> {
    let handle = MigrationHandle::new("planted");
    let side = |defective| {
        service_fn(move |request: Request<Body>| async move {
            let number = request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok());
            Ok::<_, Infallible>(respond(airport(number.unwrap_or(0), defective, rare)))
        })
    };
    let limits = Limits::default().rereads(2).reread_pause(Duration::from_micros(100));
    let layer = MigrationLayer::new(handle.clone(), side(true))
        .compare(Status.and(Headers::default()).and(Json::new()))
        .noise(Noise::share(share)?)
        .limits(limits)?;
    let service = layer.layer(side(false));
    two_sided(&handle).await?;
    let began = Instant::now();
    let mut found: HashMap<&str, u64> = HashMap::new();
    let mut n = 0;
    while found.len() < PLACES.len() && n < most {
        for _ in 0..32 {
            let request = Request::get(format!("/airports/{n}")).body(Full::default())?;
            send(&service, request).await?;
            n += 1;
        }
        while handle.status().on_new.shadows > 0 {
            sleep(Duration::from_micros(200)).await;
        }
        if n % 3_200 == 0 {
            for place in handle.report().places().filter(|p| p.kind == PlaceKind::Real) {
                if let Some(name) = PLACES.iter().find(|name| **name == &*place.place) {
                    found.entry(name).or_insert(n);
                }
            }
        }
    }
    let report = handle.report();
    let twice: u64 = report.routes.iter().map(|route| route.answered_twice).sum();
    println!(
        "planted  one in {rare}: {n} reads in {:.0?}, {twice} answered twice",
        began.elapsed()
    );
    for name in PLACES {
        let at = found.get(name).ok_or_else(|| format!("{name} was not found:\n{report}"))?;
        println!("planted  {name:<12} real after {at} reads");
    }
    let wrong: Vec<_> = report
        .places()
        .filter(|place| place.kind == PlaceKind::Real && !PLACES.contains(&&*place.place))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    costs(timed);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        race(if timed { 1_000_000 } else { 2_000 }).await?;
        match timed {
            true => planted(10_000, 0.5, 400_000).await,
            false => planted(200, 0.5, 40_000).await,
        }
    })
}
