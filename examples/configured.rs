//! Everything that can be set, in one `main.rs`: what each line changes is
//! beside it. Most programs need two or three of these lines.
//!
//! Without arguments it drives a few requests through all four stages, says
//! what happened and ends; with `--serve` it prints an address and stays up.
//!
//! ```sh
//! cargo run --example configured
//! cargo run --example configured -- --serve
//! curl -X PUT -d Frankfurt http://127.0.0.1:PORT/things/fra
//! curl http://127.0.0.1:PORT/migration
//! curl -X POST http://127.0.0.1:PORT/migration/advance
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{MatchedPath, Path, State},
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    routing::{get, post},
};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::RwLock};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_migration::{
    AutoRollback, BoxError, EventQueue, FailurePolicy, FileStore, Limits, MigrationHandle,
    MigrationLayer, NdjsonFile, Operation, OwnedEvent, Side, WriteOrder,
    compare::{
        Answers, Compare, Diff, Headers, Noise, Status,
        json::Json,
        rules::{Duplicates, Field, Numbers, Rules, Tolerance},
    },
    gates,
    protocol::{ByMethod, Classify, Head},
    reconcile::{
        Backfill, Conflicts, FileCheckpoints, Journal, JournalMode, Key, Listing, Repair, Rest,
        SlowDown, Sweep, Verify,
    },
};

type Things = Arc<RwLock<BTreeMap<String, String>>>;

/// One side: a table of things. The two differ in nothing but their data.
fn things(table: &Things) -> Router {
    let read = async |State(things): State<Things>, Path(id): Path<String>| {
        things.read().await.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let write = async |State(things): State<Things>, Path(id): Path<String>, thing: String| {
        things.write().await.insert(id, thing);
    };
    let remove = async |State(things): State<Things>, Path(id): Path<String>| {
        things.write().await.remove(&id).map(drop).ok_or(StatusCode::NOT_FOUND)
    };
    let search = async |State(things): State<Things>, id: String| {
        things.read().await.contains_key(&id).to_string()
    };
    Router::new()
        .route("/things/{id}", get(read).put(write).delete(remove))
        .route("/search", post(search))
        .with_state(Arc::clone(table))
}

/// The tables of both sides, old first.
#[derive(Clone, Default)]
struct Tables([Things; 2]);

/// Which keys there are: of both sides, so that one which only new has is found too.
impl Listing for Tables {
    type Error = BoxError;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, BoxError> {
        let table = self.0[side as usize].read().await;
        let behind = table.keys().map(|id| Key::from(&**id)).filter(|key| Some(key) > after);
        Ok(behind.take(limit).collect())
    }

    async fn count(&self, side: Side) -> Option<u64> {
        Some(self.0[side as usize].read().await.len() as u64) // for the time that is left
    }
}

/// How a thing is read and written on each side: by its resource.
type Copies = Rest<Router, Router, Body>;

fn copies(migration: &MigrationHandle, tables: &Tables) -> Copies {
    let [old, new] = &tables.0;
    Rest::new(migration, things(old), things(new)) // the whole services, not the layered one
        .uri(|_, key| format!("/things/{key}").parse().ok()) // where a key's resource is
        .read_as(|_side, row| row) // brings both sides' forms into one
        .prepare(|_, _, request| drop(request.headers_mut().remove("x-token"))) // credentials
        .body_limit(64 * 1024) // a larger one cannot be copied
}

/// Copies all that was there before, then compares it.
async fn copy(migration: &MigrationHandle, tables: &Tables) -> Result<String, BoxError> {
    let dir = tempfile::tempdir()?; // a service keeps its checkpoints beside its flag
    let sweep = |name: &str| -> Result<Sweep, BoxError> {
        Ok(Sweep::new()
            .concurrency(8) // keys at once
            .rate(2_000.0) // keys begun in a second
            // Makes way when reads of old take so much longer than at their best.
            .slow_down(SlowDown::new().factor(3.0).floor(Duration::from_millis(10)))
            .key_timeout(Duration::from_secs(10)) // then the key has failed
            .attempts(3) // and is tried again, so often in all
            .retry_pause(Duration::from_millis(100)) // after this pause, doubled each time
            .failures(1_000) // failed keys that are remembered
            .checkpoints(FileCheckpoints::at(dir.path().join(name))?) // a restart goes on there
            .checkpoint_every(Duration::from_secs(5)))
    };
    let backfill = Backfill::new(migration, copies(migration, tables))
        .listing(tables.clone()) // or `streams`, or `changed_since` a run at old-only
        .sweep(sweep("backfill")?)
        .reread(true); // covers programs that write old past the layer
    let copied = backfill.run().await?;
    let verify = Verify::new(migration, copies(migration, tables))
        .listing(tables.clone())
        .sweep(sweep("verify")?)
        .rereads(1, Duration::from_millis(20)) // before a difference counts
        .keep(10) // differing keys that the report lists
        .mend(); // copies what differs
    Ok(format!("{copied}\n  {}", verify.run().await?))
}

/// The handle, by which the flag is moved and watched.
async fn handle(flag: &std::path::Path) -> Result<MigrationHandle, BoxError> {
    let migration = MigrationHandle::builder("things") // the label of all metrics and log lines
        .dirty_keys(10_000) // keys that may differ, in memory; one more un-syncs the side
        .recent_mismatches(16) // how many `recent_mismatches()` remembers
        .report_routes(64) // that the report tells apart; further ones are one
        .report_places(16) // where each of them may differ; further ones are only counted
        .hold(Duration::from_millis(500)) // how long a flip may keep writes waiting
        .step_deadline(Duration::from_secs(5)) // how long a step waits for writes before that
        .linger(Duration::from_secs(2)) // how long a cut-off write may still land
        // Dirty keys outlive the process, and so do writes that a kill has split.
        .journal(
            Journal::create_or_open(flag.with_extension("journal"))?
                .mode(JournalMode::BeforeLegs) // each write waits for an fsync, shared by all
                .keep(Duration::from_millis(200)), // hot keys do not: they stay noted so long
        )
        // A step towards new has to pass these.
        .gate(gates::MinComparisons::new(1)?) // this many shadow reads in the present stage
        .gate(gates::MaxMismatchShare::new(0.9)?) // of which so few differed, for 95 % certain
        .gate(gates::NoRealDifference::new().ignoring_undecided()) // and nowhere for certain
        .gate(gates::named("office hours", |_: &gates::Evidence| Ok(()))) // or one of one's own
        // Back to old by itself, once, if new fails its clients.
        .auto_rollback(
            AutoRollback::new()
                .error_share(0.05) // this share of them
                .slow_share(Duration::from_secs(1), 0.1) // or so many wait for longer than that
                .window(Duration::from_secs(30)) // in so short a time
                .min_samples(100), // and of so many at least
        )
        .open(FileStore::create_or_open(flag)?) // where the stage is kept, also for a restart
        .await?;
    migration.set_shadow_rate(1.0)?; // compares every read in the two-sided stages
    Ok(migration)
}

/// Mends dirty keys as they come.
fn repair(migration: &MigrationHandle, tables: &Tables) -> Result<(), BoxError> {
    Repair::new(migration, copies(migration, tables))
        .concurrency(2) // keys at once
        .rate(500.0) // keys begun in a second
        .backoff(Duration::from_millis(50), Duration::from_secs(10)) // after a failure
        .park_after(5) // failures; from there on it is tried rarely
        .parked_pause(Duration::from_secs(60)) // so rarely
        .key_timeout(Duration::from_secs(10)) // then the copy has failed
        .conflicts(Conflicts::TrustAuthority) // where marks name both sides
        .start()?;
    Ok(())
}

/// Both sides behind the handle, and routes to watch and move the flag.
fn app(
    migration: &MigrationHandle,
    tables: &Tables,
    verdicts: &std::path::Path,
) -> Result<Router, BoxError> {
    let [old, new] = &tables.0;
    let (old, new) = (things(old), things(new));
    let limits = Limits::default()
        .body(64 * 1024) // a larger body of a dual write: 413
        .body_timeout(Duration::from_secs(10)) // a slower one: 408
        .buffered_bytes(16 << 20) // all such bodies together: 503
        .ready_timeout(Duration::from_secs(1)) // a leg whose side is not ready has failed
        .leg_timeout(Duration::from_secs(10)) // nobody waits longer for a leg, which goes on
        .abandon_after(Duration::from_secs(60)) // until then
        .running_legs(256) // other legs at once; over it the key is dirty
        .key_queue(16) // the same, for one key
        .shadow_tasks(32) // shadow reads at once; over it: not shadowed
        .shadow_deadline(Duration::from_secs(2)) // what a shadow read may take in all
        .captured_body(64 * 1024) // a larger answer is not compared
        .captured_bytes(8 << 20) // nor one that does not fit beside the others
        .rereads(1) // how often both sides are read again before a mismatch counts
        .reread_pause(Duration::from_millis(20)) // and after which pause
        .compare_inline(16 * 1024); // larger answers are compared on a thread of their own
    let rules = Rules::new()
        .numbers(Numbers::Binary64) // equal as 64-bit floats
        .duplicates(Duplicates::LastWins) // of members of one name; else all count
        .depth(32)? // what differs further down is not compared
        .ignore("/request_id")? // may differ
        .redact("/**/password")? // is compared, and never shown
        .tolerate("/**/latitude", Tolerance::absolute(1e-6)?)? // may be so far apart
        .unordered("/tags")? // a list whose order says nothing
        .matched_by("/runways", "id")? // the same, and what differs is named by field
        .entries("/prices")? // an object that is a map: its names are data
        .null_is_absent("/**")? // new leaves out what is `null`
        .rename(Side::New, "/iata_code", "iata")? // new calls it so
        .convert(Side::New, "/elevation_ft", |metres: &Field<'_>| {
            Some((metres.as_f64()? / 0.3048).round().into()) // and counts in metres
        })?
        .compare_with("/colour", |old: &Field<'_>, new: &Field<'_>| {
            old.as_str().map(str::to_lowercase) == new.as_str().map(str::to_lowercase)
        })?;
    // Events for a task of one's own; what nobody takes in time is lost and counted.
    let (queue, mut events) = EventQueue::new(1_024)?;
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                OwnedEvent::Shadow(read) => {
                    println!("  shadow of {}: {}", read.request, read.verdict);
                }
                OwnedEvent::Disagreement(write) => {
                    println!("  {} left the sides apart", write.request);
                }
                _ => {}
            }
        }
    });
    let file = NdjsonFile::at(verdicts) // what was not equal, for study
        .max_bytes(16 << 20) // then it becomes `.1`, and so on
        .keep(2) // of which so many
        .capacity(1_024) // events that may wait for the disk; further ones are lost
        .matches(true) // and what was equal
        .open()?;
    let layer = MigrationLayer::new(migration.clone(), new)
        .limits(limits)?
        .failure_policy(FailurePolicy::RequireBoth) // a write on one side alone: 503
        .write_order(WriteOrder::AuthorityFirst) // the other leg only if the first was applied
        .other_leg(|request, _answer| Some(request)) // builds it, with ids out of that answer
        // Searching is a read although it is a POST.
        .classify(|head: &Head<'_>| match head.uri.path() {
            "/search" => Operation::Read,
            _ => ByMethod.classify(head),
        })
        // What is kept in order: a thing, by its id. `keys_with_answer` also learns
        // ids that a side assigns, `without_keys` does without.
        .keys(|head: &Head<'_>, _: &Bytes| {
            head.uri.path().strip_prefix("/things/").map(str::to_owned)
        })
        // Stamped once, so that both sides store the same.
        .prepare(|request| {
            let id = HeaderValue::from_static("write-1");
            request.headers_mut().insert("x-request-id", id);
        })
        // While a ramp lasts: who goes ahead, if not a share of the keys.
        .ramp_by(|head: &Head<'_>| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned))
        .strip_extension::<MatchedPath>() // copies do not carry it
        .dispatch_header(HeaderName::from_static("x-migration")) // tells a remote side its leg
        // What counts as the same answer: these three, and a rule of one's own. What is
        // no JSON is compared byte by byte.
        .compare(
            Status
                .and(Headers::default().with([header::ETAG]).redact([header::LOCATION]))
                .and(Json::with(rules))
                .and(|answers: &Answers<'_>| {
                    let (old, new) = (answers.authority.body.len(), answers.other.body.len());
                    Diff::when(old.abs_diff(new) > 100, "length", old, new)
                }),
        )
        // One sampled read in ten asks the authority twice, to know its own noise.
        .noise(Noise::share(0.1)?.never(["/search"])?)
        .routes(["/things/*", "/search"])? // what the report counts reads under
        .redact_query(["token"]) // never shown where a request is named
        // Hear of verdicts, and of writes whose legs did not agree. It may be a
        // closure too.
        .observer((queue, file))
        .read_fallback(Duration::from_millis(500))? // the other side covers for a failed read
        .durations(true) // one-sided requests are timed too
        .name_writes(true); // and their writes named, where they hold up a step

    // Operators' routes, past the layer: not for the public.
    Ok(Router::new()
        .route(
            "/migration",
            get(async |State(migration): State<MigrationHandle>| {
                format!("{}\n{}", migration.status(), migration.report())
            }),
        )
        .with_state(migration.clone())
        .route("/migration/{step}", post(step))
        .with_state((migration.clone(), tables.clone()))
        .fallback_service(layer.layer(old)))
}

async fn step(
    State((migration, tables)): State<(MigrationHandle, Tables)>,
    Path(step): Path<String>,
) -> (StatusCode, String) {
    if step == "copy" {
        return match copy(&migration, &tables).await {
            Ok(report) => (StatusCode::OK, report),
            Err(error) => (StatusCode::CONFLICT, error.to_string()),
        };
    }
    let done = match &*step {
        "advance" => migration.advance().await.map(|_| ()),
        "rollback" => migration.rollback().await.map(|_| ()),
        "synced" => migration.confirm_synced(Side::New).await, // the operator's word instead
        _ => return (StatusCode::NOT_FOUND, String::new()),
    };
    match done {
        Ok(()) => (StatusCode::OK, format!("now at {}", migration.stage())),
        Err(blocked) => (StatusCode::CONFLICT, blocked.to_string()), // why, and what would help
    }
}

/// The whole way, with a request or two at each stage.
async fn try_out(app: &Router, migration: &MigrationHandle) -> Result<(), BoxError> {
    let requests = [
        ("PUT /things/fra", "Frankfurt"), // old alone
        ("POST /migration/advance", ""),  // from here on both
        ("POST /migration/advance", ""),  // refused: nobody said that new has the data
        ("POST /migration/copy", ""),     // what old has, and then a comparison of all
        ("GET /things/fra", ""),
        ("POST /search", "fra"),
        ("POST /migration/advance", ""), // from here on new answers
        ("PUT /things/zrh", "Zurich"),
        ("POST /migration/rollback", ""), // and back, at once: nothing is missing
        ("GET /things/zrh", ""),
        ("POST /migration/advance", ""),
        ("GET /things/zrh", ""),         // for the gates
        ("POST /migration/advance", ""), // new alone
        ("GET /migration", ""),
    ];
    for (line, body) in requests {
        let (method, path) = line.split_once(' ').ok_or("METHOD /path")?;
        let request = Request::builder().method(method).uri(path);
        let answer = app.clone().oneshot(request.body(Body::from(body))?).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        println!("{line} {body}\n  {status} {}", String::from_utf8_lossy(&text));
        migration.settled().await; // before data is copied: no write knows old alone
        tokio::time::sleep(Duration::from_millis(20)).await; // its shadow is printed below it
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let dir = tempfile::tempdir()?; // a service keeps its flag where its data is
    let migration = handle(&dir.path().join("things.flag")).await?;
    let tables = Tables::default();
    let app = app(&migration, &tables, &dir.path().join("things.ndjson"))?;
    repair(&migration, &tables)?;
    if std::env::args().any(|arg| arg == "--serve") {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        let stop = async { drop(tokio::signal::ctrl_c().await) };
        axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    } else {
        try_out(&app, &migration).await?;
    }
    migration.shutdown().await; // waits for all legs, then notes a clean stop
    Ok(())
}
