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

use std::{collections::HashMap, sync::Arc, time::Duration};

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
    AutoRollback, BoxError, Event, FailurePolicy, FileStore, Limits, MigrationHandle,
    MigrationLayer, Operation, Side, WriteOrder,
    compare::{Answers, Compare, Diff, ExactBody, Headers, Status},
    gates,
    protocol::{ByMethod, Classify, Head},
};

type Things = Arc<RwLock<HashMap<String, String>>>;

/// One side: a table of things. The two differ in nothing but their data.
fn things() -> Router {
    let read = async |State(things): State<Things>, Path(id): Path<String>| {
        things.read().await.get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let write = async |State(things): State<Things>, Path(id): Path<String>, thing: String| {
        things.write().await.insert(id, thing);
    };
    let search = async |State(things): State<Things>, id: String| {
        things.read().await.contains_key(&id).to_string()
    };
    Router::new()
        .route("/things/{id}", get(read).put(write))
        .route("/search", post(search))
        .with_state(Things::default())
}

/// The handle, by which the flag is moved and watched.
async fn handle(flag: &std::path::Path) -> Result<MigrationHandle, BoxError> {
    let migration = MigrationHandle::builder("things") // the label of all metrics and log lines
        .dirty_keys(10_000) // keys that may differ, in memory; one more un-syncs the side
        .recent_mismatches(16) // how many `recent_mismatches()` remembers
        .hold(Duration::from_millis(500)) // how long a flip may keep writes waiting
        .step_deadline(Duration::from_secs(5)) // how long a step waits for writes before that
        .linger(Duration::from_secs(2)) // how long a cut-off write may still land
        // A step towards new has to pass these.
        .gate(gates::MinComparisons::new(1)?) // this many shadow reads in the present stage
        .gate(gates::MaxMismatchShare::new(0.9)?) // of which so few differed, for 95 % certain
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

/// Both sides behind the handle, and routes to watch and move the flag.
fn app(migration: &MigrationHandle, old: Router, new: Router) -> Result<Router, BoxError> {
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
        .reread_pause(Duration::from_millis(20)); // and after which pause
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
        // What counts as the same answer: these three, and a rule of one's own.
        .compare(Status.and(Headers::new([header::CONTENT_TYPE])).and(ExactBody).and(
            |answers: &Answers<'_>| {
                let (old, new) = (answers.authority.body.len(), answers.other.body.len());
                Diff::when(old.abs_diff(new) > 100, "length", old, new)
            },
        ))
        // Hears of verdicts, and of writes whose legs did not agree.
        .observer(|event: &Event<'_>| match event {
            Event::Shadow(read) => println!("  shadow of {}: {}", read.request, read.verdict),
            Event::Disagreement(write) => println!("  {} left the sides apart", write.request),
            _ => {}
        })
        .read_fallback(Duration::from_millis(500))? // the other side covers for a failed read
        .durations(true) // one-sided requests are timed too
        .name_writes(true); // and their writes named, where they hold up a step

    // Operators' routes, past the layer: not for the public.
    Ok(Router::new()
        .route(
            "/migration",
            get(async |State(migration): State<MigrationHandle>| migration.status().to_string()),
        )
        .route("/migration/{step}", post(step))
        .with_state(migration.clone())
        .fallback_service(layer.layer(old)))
}

async fn step(
    State(migration): State<MigrationHandle>,
    Path(step): Path<String>,
) -> (StatusCode, String) {
    let done = match &*step {
        "advance" => migration.advance().await.map(|_| ()),
        "rollback" => migration.rollback().await.map(|_| ()),
        "synced" => migration.confirm_synced(Side::New).await, // the operator's word
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
        ("PUT /things/fra", "Frankfurt"), // a program would copy what old has
        ("POST /migration/synced", ""),
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
    let app = app(&migration, things(), things())?;
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
