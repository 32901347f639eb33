//! `--defects`: five defects in what new answers, as migrations have them, and how
//! shadow reads name the place of each.
//!
//! New's rows are right. What goes wrong is on the way to the client, in a few
//! airports that a hash of their code chooses, so that the same ones are wrong in
//! each answer. Both sides stamp their answers besides, as services do: that is the
//! noise in which the defects have to be found.

use std::{
    collections::{BTreeSet, HashMap},
    env::temp_dir,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use bytes::Bytes;
use http::{Method, header::CONTENT_LENGTH};
use serde_json::Value;
use siphasher::sip::SipHasher13;
use tokio::time::sleep;
use tower_layer::Layer;
use tower_migration::{
    Advice, BoxError, NdjsonFile, NdjsonSink, PlaceKind, Report,
    compare::{Compare, Headers, Noise, Status, json::Json, rules::Rules},
};

use crate::{
    args::Args,
    clients::{Clients, Load},
    console::Console,
    model,
    sides::copy_all,
    wire::Wire,
    world::{World, locked, serve},
};

/// Each defect, and where it has to show.
const PLACES: [(&str, &str, &str); 5] = [
    ("a lost accent", "GET /airports/*", "/subd"),
    ("a rounded number", "GET /airports/*", "/lat"),
    ("a missing member", "GET /airports/*", "/city"),
    ("a stale value", "GET /airports/*", "/elevation"),
    ("a list in another order", "GET /airports", "/*/icao"),
];

/// Until what differs was read again, and counts.
const AGAIN: Duration = Duration::from_millis(500);

/// What new does wrong, and what it has to remember for it.
#[derive(Clone, Default)]
pub(crate) struct Defects {
    /// A cache that nobody tells of writes: elevations as they were at first.
    cached: Arc<Mutex<HashMap<String, Value>>>,
}

/// The same for a text at all times.
fn hash(text: &str) -> u64 {
    SipHasher13::new().hash(text.as_bytes())
}

/// As somebody writes it who has no such letters.
fn plain(text: &str) -> String {
    let letters = [("áâãàä", "a"), ("éèê", "e"), ("íî", "i"), ("óôõö", "o"), ("úüù", "u")];
    let replaced =
        |text: String, (from, to): (&str, &str)| text.replace(|letter| from.contains(letter), to);
    letters.into_iter().fold(text.to_owned(), replaced)
}

impl Defects {
    /// Spoils one answer of new: an airport, or a page of them.
    pub(crate) fn spoil(&self, answer: &mut Value) {
        let airport = match answer {
            Value::Object(airport) => airport,
            // From an index that goes the other way, for some countries.
            Value::Array(page) => {
                let country = page.first().and_then(|airport| airport["country"].as_str());
                if country.is_some_and(|country| hash(country).is_multiple_of(8)) {
                    page.reverse();
                }
                return;
            }
            _ => return,
        };
        let text = |name: &str| airport[name].as_str().unwrap_or_default().to_owned();
        let icao = text("icao");
        // Of a hundred airports. Few regions have an accent, and few airports are
        // written after they were read: those two take more.
        match hash(&icao) % 100 {
            0..2 => {
                let lat = airport["lat"].as_f64().unwrap_or_default();
                airport["lat"] = ((lat * 100.0).round() / 100.0).into();
            }
            2..4 => drop(airport.remove("city")),
            4..30 => airport["subd"] = plain(&text("subd")).into(),
            30..40 => {
                let now = airport["elevation"].clone();
                airport["elevation"] = locked(&self.cached).entry(icao).or_insert(now).clone();
            }
            _ => {}
        }
    }

    /// Both routers behind a layer with these rules.
    fn router(&self, world: &World, rules: Rules, file: &NdjsonSink) -> Result<Router, BoxError> {
        let old = model::router(world.old.clone()).layer(from_fn(stamped));
        let new = model::router(world.new.clone())
            .layer(from_fn_with_state(self.clone(), spoiled))
            .layer(from_fn(stamped));
        let layer = world
            .layer_to(new)
            .compare(Status.and(Headers::default()).and(Json::with(rules)))
            // The run is short, so old is asked twice more often than by default.
            .noise(Noise::share(0.2)?)
            .observer(file.clone());
        Ok(Router::new().fallback_service(layer.layer(old)))
    }
}

/// Changes an answer to a read, if it is JSON.
async fn changed(request: Request, next: Next, change: impl FnOnce(&mut Value)) -> Response {
    let read = request.method() == Method::GET;
    let answer = next.run(request).await;
    if !read || !answer.status().is_success() {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    // A page has a thousand airports at most.
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let Ok(mut json) = serde_json::from_slice(&body) else {
        return Response::from_parts(head, Body::from(body));
    };
    change(&mut json);
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(json.to_string()))
}

async fn spoiled(State(defects): State<Defects>, request: Request, next: Next) -> Response {
    changed(request, next, |answer| defects.spoil(answer)).await
}

/// Two members that say something else each time.
async fn stamped(request: Request, next: Next) -> Response {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    changed(request, next, |answer| {
        if let Value::Object(airport) = answer {
            let now = UNIX_EPOCH.elapsed().unwrap_or_default();
            airport.insert("served_at".to_owned(), now.as_secs_f64().into());
            let id = REQUESTS.fetch_add(1, Ordering::Relaxed);
            airport.insert("request_id".to_owned(), id.into());
        }
    })
    .await
}

/// Asks for a page of each country while nobody writes. A page is raced by a write of
/// any airport, and while the clients run there is always one.
async fn read_pages(world: &World, clients: &Clients, address: SocketAddr) -> Result<(), BoxError> {
    let _guard = clients.pause().await;
    let wire = Wire::to(address);
    let airports = world.witness.rows.all();
    let countries: BTreeSet<_> = airports.iter().map(|airport| &*airport.country).collect();
    for country in countries {
        let uri = format!("/airports?country={country}&limit=20");
        wire.send(Method::GET, &uri, Bytes::new()).await?;
        sleep(Duration::from_millis(5)).await;
    }
    sleep(AGAIN).await;
    Ok(())
}

fn is_real(report: &Report, route: &str, place: &str) -> bool {
    let mut real = report.places().filter(|found| found.kind == PlaceKind::Real);
    real.any(|found| (&*found.route, &*found.place) == (route, place))
}

/// A rare defect takes more reads than a frequent one: on a slow machine, more time.
fn are_real(world: &World, places: &[(&str, &str, &str)]) -> bool {
    let report = world.migration.report();
    places.iter().all(|(_, route, place)| is_real(&report, route, place))
}

/// Writes to both, copies, and compares. Says whether each of the five was found, and
/// whether a rule settles the harmless one.
pub(crate) async fn run(args: &Args, world: &World, console: &Console) -> Result<bool, BoxError> {
    let path = args.verdicts.clone().unwrap_or_else(|| temp_dir().join("airports.ndjson"));
    let file = NdjsonFile::at(&path).open()?;
    let defects = Defects::default();
    let (address, first) = serve(defects.router(world, Rules::new(), &file)?).await?;
    world.migration.advance().await?;
    world.migration.settled().await;
    console.say(format!("backfill from old: {}", copy_all(world, console).await?));

    let load = Load { clients: args.clients, seed: args.seed, rate: 2_500.0, hang_ups: 0 };
    let clients = Clients::start(&world.witness, Wire::to(address), load);
    // Less what the pages take.
    let left = Duration::from_secs(args.seconds - 5).saturating_sub(console.elapsed());
    world.migration.set_shadow_rate(1.0)?;
    console.say("shadow reads: each read is compared, without any rule");
    sleep(left * 2 / 3).await;
    for _ in 0..200 {
        if are_real(world, &PLACES[..4]) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..20 {
        read_pages(world, &clients, address).await?;
        if are_real(world, &PLACES[4..]) {
            break;
        }
    }
    let report = world.migration.report();
    println!("\n{report}");
    let mut well = report.advice == Advice::No;
    for (what, route, place) in PLACES {
        let found = is_real(&report, route, place);
        let verb = if found { "found" } else { "MISSED" };
        console.say(format!("{verb}: {what}, {route} at {place}"));
        well &= found;
    }

    // Say that clients were promised no order. Then the last one is harmless, and a
    // rule for it is in the service's next release: a layer keeps its comparer.
    let rules = Rules::new().unordered("")?;
    let (address, second) = serve(defects.router(world, rules, &file)?).await?;
    let pause = clients.pause().await;
    clients.send_to(Wire::to(address));
    sleep(AGAIN).await;
    // What was counted without the rule says nothing any more.
    world.migration.restart_report();
    drop(pause);
    console.say("the same with a rule: unordered(\"\")");
    sleep(left / 3).await;
    read_pages(world, &clients, address).await?;
    let report = world.migration.report();
    println!("\n{report}");
    let pages = report.routes.iter().find(|route| &*route.route == "GET /airports");
    well &= pages.is_some_and(|pages| pages.matched > 0 && pages.places.is_empty());

    clients.stop().await?;
    world.migration.shutdown().await;
    first.abort();
    second.abort();
    // Blocks, but nothing else runs any more.
    file.close();
    console.say(format!("{} verdicts in {}", file.written(), path.display()));
    Ok(well)
}
