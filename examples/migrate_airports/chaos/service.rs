//! The process that is killed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::exit,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as At, State},
    http::StatusCode,
    routing::{get, post},
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};
use tower_migration::{
    BoxError, FailurePolicy, FileStore, MigrationHandle, Stage, Status,
    reconcile::{FileCheckpoints, Journal, JournalMode, Sweep},
};

use crate::{
    new::Saves,
    ops::Rows,
    witness::Witness,
    world::{World, icao_of, stores},
};

/// Of a hundred requests to a side, so many meet a fault, copies included.
pub(super) const ILL: u8 = 3;

/// How many keys a backfill may begin in a second: it is to take long enough to be
/// killed in its middle.
const RATE: f64 = 1_500.0;

/// What a cut-off write may still take. Both stores are in this process, so nothing
/// that a dead one has sent still lands: only what a client of a one-sided stage
/// left behind, on a thread of its own.
const LINGER: Duration = Duration::from_millis(500);

/// How often the parent is told.
const TELL: Duration = Duration::from_millis(40);

/// What stands before each line that is meant for the parent.
pub(super) const MARK: &str = "@ ";

/// What the parent is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Up(Up),
    /// Since the process began.
    Counts(Counts),
    /// A shadow read has found the two sides different.
    Mismatch(String),
}

/// The process has opened everything and answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Up {
    pub(super) address: SocketAddr,
    pub(super) stage: Stage,
    /// Whether both sides are, as the flag's record and the journal say.
    pub(super) synced: bool,
    /// The airports that the journal knows as dirty.
    pub(super) dirty: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) injected: u64,
    pub(super) repaired: u64,
    pub(super) disagreements: u64,
}

/// Both are promised to lose nothing.
pub(super) const fn policy(seed: u64) -> FailurePolicy {
    match seed % 2 {
        0 => FailurePolicy::RequireBoth,
        _ => FailurePolicy::AwaitBoth,
    }
}

fn say(said: &Said) {
    let Ok(line) = serde_json::to_string(said) else { exit(1) };
    // One write for each line, so that a kill leaves none by halves.
    let line = format!("\n{MARK}{line}\n");
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}

/// Serves what lies in `dir` until it is killed, or its parent is gone.
pub(crate) async fn service(dir: &Path, seed: u64) -> Result<bool, BoxError> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        exit(0)
    });
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install()?;

    // Each start finds what the one before has left. A record or a journal that is
    // damaged or gone is an error here, never a migration that starts anew.
    let flag = FileStore::create_or_open(dir.join("airports.flag"))?;
    let journal = Journal::create_or_open(dir.join("journal"))?.mode(JournalMode::BeforeLegs);
    // Kills are no rare thing here, and each key that is noted is copied after one.
    let journal = journal.keep(Duration::from_millis(200));
    let builder = MigrationHandle::builder("airports").journal(journal).linger(LINGER);
    let migration = builder.open(flag).await?;
    let status = migration.status();
    let found = migration.dirty_keys();
    let dirty = found.iter().map(|dirty| icao_of(dirty.key.as_str()).to_owned()).collect();

    let witness = Witness::new(Rows::new(Vec::new()));
    let mut world = World::over(migration, stores(dir, Saves::Each)?, witness, seed);
    world.policy = policy(seed);
    let _repairing = world.repair()?;
    set_faults(&world, ILL);

    let operator = Operator {
        world: world.clone(),
        backfill: FileCheckpoints::at(dir.join("airports.backfill"))?,
    };
    let app = Router::new()
        .route("/migration", get(show))
        .route("/migration/move/{stage}", post(move_to))
        .route("/migration/backfill", post(backfill))
        .route("/migration/verify", post(verify))
        .route("/migration/shadow/{rate}", post(shadow))
        .route("/migration/faults/{percent}", post(faults))
        .with_state(operator)
        .fallback_service(world.router());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let synced = status.sync.old.is_synced() && status.sync.new.is_synced();
    let address = listener.local_addr()?;
    say(&Said::Up(Up { address, stage: status.stage, synced, dirty }));
    tokio::spawn(tell(world, snapshotter));
    axum::serve(listener, app).await?;
    Ok(true)
}

/// Tells the parent what has changed.
async fn tell(world: World, snapshotter: Snapshotter) {
    let (mut last, mut repaired, mut mismatches) = (Counts::default(), 0, 0);
    loop {
        sleep(TELL).await;
        repaired = healed(&world.migration, &snapshotter).max(repaired);
        let injected = world.old_faults.injected() + world.new_faults.injected();
        let counts = Counts { injected, repaired, disagreements: world.tally.disagreements() };
        if counts != last {
            say(&Said::Counts(counts));
            last = counts;
        }
        for mismatch in world.migration.recent_mismatches().iter().skip(mismatches) {
            say(&Said::Mismatch(format!("{}: {}", mismatch.request, mismatch.diff)));
            mismatches += 1;
        }
    }
}

/// How many keys the repair has mended, as a metric says; 0 if it was not published
/// since the last look.
fn healed(migration: &MigrationHandle, snapshotter: &Snapshotter) -> u64 {
    migration.publish_metrics();
    let mut sum = 0;
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let is_healed = key.name() == "tower_migration_repairs_total"
            && key.labels().any(|label| label.value() == "healed");
        if let DebugValue::Counter(count) = value
            && is_healed
        {
            sum += count;
        }
    }
    sum
}

fn set_faults(world: &World, percent: u8) {
    world.old_faults.set(percent);
    world.new_faults.set(percent);
}

#[derive(Clone)]
struct Operator {
    world: World,
    backfill: FileCheckpoints,
}

/// What was done, or why not.
type Answer = Result<Json<Value>, (StatusCode, String)>;

fn refused(why: impl Into<BoxError>) -> (StatusCode, String) {
    (StatusCode::CONFLICT, why.into().to_string())
}

fn answer(what: impl Serialize) -> Answer {
    serde_json::to_value(what).map(Json).map_err(refused)
}

async fn show(State(op): State<Operator>) -> Json<Status> {
    Json(op.world.migration.status())
}

async fn move_to(State(op): State<Operator>, At(to): At<String>) -> Answer {
    let to: Stage = to.parse().map_err(refused)?;
    let moved = op.world.migration.move_to(to).await.map_err(refused)?;
    answer(moved.to)
}

fn sweep() -> Sweep {
    // A key that meets a fault is to be tried again soon: the next kill is not far.
    Sweep::new().retry_pause(Duration::from_millis(50)).attempts(8)
}

async fn backfill(State(op): State<Operator>) -> Answer {
    let sweep = sweep()
        .rate(RATE)
        .checkpoints(op.backfill.clone())
        .checkpoint_every(Duration::from_millis(100));
    answer(op.world.backfill(sweep).run().await.map_err(refused)?)
}

async fn verify(State(op): State<Operator>) -> Answer {
    answer(op.world.verify(sweep()).run().await.map_err(refused)?)
}

async fn shadow(State(op): State<Operator>, At(rate): At<f64>) -> Answer {
    op.world.migration.set_shadow_rate(rate).map_err(refused)?;
    answer(rate)
}

async fn faults(State(op): State<Operator>, At(percent): At<u8>) -> Answer {
    set_faults(&op.world, percent);
    answer(percent)
}
