//! The process that is killed.

use std::{
    fmt::Display,
    io::{BufRead, Write},
    net::Ipv4Addr,
    path::PathBuf,
    process::exit,
    sync::atomic::Ordering,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};
use tower_layer::Layer;
use tower_migration::{
    BoxError, FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Reason, Standing,
};

use crate::{
    flipper::Flipper,
    position::{Mode, Position},
    stores::{Airport, Rows, Store},
};

/// What a child is to do.
pub struct Task {
    pub dir: PathBuf,
    pub mode: Mode,
    /// Two processes may have the stores open.
    pub shared: bool,
    pub seed: u64,
}

const NAMES: [&str; 4] =
    ["KILL_CHILD_DIR", "KILL_CHILD_MODE", "KILL_CHILD_SHARED", "KILL_CHILD_SEED"];

impl Task {
    pub fn to_env(&self) -> [(&'static str, String); 4] {
        let [dir, mode, shared, seed] = NAMES;
        [
            (dir, self.dir.to_str().unwrap().to_owned()),
            (mode, self.mode.name().to_owned()),
            (shared, self.shared.to_string()),
            (seed, self.seed.to_string()),
        ]
    }

    pub fn from_env() -> Option<Self> {
        let [dir, mode, shared, seed] = NAMES.map(|name| std::env::var(name).ok());
        Some(Self {
            dir: dir?.into(),
            mode: Mode::named(&mode?)?,
            shared: shared?.parse().ok()?,
            seed: seed?.parse().ok()?,
        })
    }
}

/// Tells the parent.
pub fn say(line: impl Display) {
    // One write for each line, so that a kill leaves none by halves.
    let line = format!("\n@ {line}\n");
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}

pub fn main(task: &Task) -> ! {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match runtime.block_on(live(task)) {
        Ok(()) => exit(0),
        Err(error) => {
            say(format_args!("error {error}"));
            exit(1)
        }
    }
}

/// What the parent asks for, a word a line. Its end is this process's end.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if tell.send(line).is_err() {
                return;
            }
        }
        exit(1)
    });
    told
}

async fn live(task: &Task) -> Result<(), BoxError> {
    let mut commands = commands();
    let flag = FileStore::create_or_open(task.dir.join("airports.flag"))?;
    // The stores are in this process: nothing that a dead one has sent still lands.
    let handle = MigrationHandle::builder("airports").linger(Duration::ZERO).open(flag).await?;
    let status = handle.status();
    say(format_args!(
        "opened {} {} {} {} {}",
        Position::of(&handle),
        status.epoch,
        status.sync.old.as_str(),
        status.sync.new.as_str(),
        if status.standing == Standing::Owner { "owner" } else { "follower" }
    ));
    let old = Store::sqlite(&task.dir.join("old.db"))?;
    let new = if task.shared {
        Store::sqlite(&task.dir.join("new.db"))?
    } else {
        Store::redb(&task.dir.join("new.redb"))?
    };

    let policy = match task.mode {
        Mode::Both => FailurePolicy::AwaitBoth,
        Mode::Orderly | Mode::Hurried => FailurePolicy::AuthorityWins,
    };
    let layer = MigrationLayer::new(handle.clone(), side(new.clone())).failure_policy(policy);
    let stores = (old.clone(), new.clone());
    let app = Router::new()
        .route("/sides", get(sides))
        .with_state(stores)
        .route("/status", get(async |State(handle): State<MigrationHandle>| Json(handle.status())))
        .with_state(handle.clone())
        .fallback_service(layer.layer(side(old.clone())));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(format_args!("serving {}", listener.local_addr()?));

    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
    let server = tokio::spawn(async move { server.await });
    if status.standing == Standing::Follower {
        tokio::spawn(tell_takeover(handle.clone()));
    }
    let (run, running) = watch::channel(false);
    let flipper = Flipper::new(handle.clone(), old, new, task.mode, task.seed, running);
    let parked = flipper.parked();
    let mut flipper = Some(flipper);
    while let Some(command) = commands.recv().await {
        match &*command {
            "go" => {
                run.send_replace(true);
                if let Some(flipper) = flipper.take() {
                    tokio::spawn(async move {
                        if let Err(error) = flipper.run().await {
                            say(format_args!("error the flipper: {error}"));
                        }
                    });
                }
            }
            "pause" => drop(run.send_replace(false)),
            "step" => {
                let refused = handle.advance().await.err();
                let reasons = refused.iter().flat_map(|blocked| blocked.reasons());
                let names = reasons.map(|reason| match reason {
                    Reason::Follower => "follower",
                    Reason::Shared => "shared",
                    Reason::NotSynced { .. } => "unsynced",
                    Reason::DirtyKeys { .. } => "dirty",
                    _ => "other",
                });
                say(format_args!("refused {}", names.collect::<Vec<_>>().join(",")));
            }
            "stop" => break,
            other => return Err(format!("no such command: {other}").into()),
        }
    }
    say("stopping");
    // What goes on beside a shutdown may end after the record is written.
    let alone = parked.load(Ordering::SeqCst);
    // As a service does on SIGTERM.
    let _ = stop.send(());
    server.await??;
    handle.shutdown().await;
    let status = handle.status();
    let dirty = status.dirty_right_on_old + status.dirty_right_on_new + status.conflicts;
    let (old, new) = (status.sync.old.as_str(), status.sync.new.as_str());
    say(format_args!("stopped {old} {new} {}", alone && dirty == 0));
    Ok(())
}

async fn tell_takeover(handle: MigrationHandle) {
    while handle.status().standing == Standing::Follower {
        sleep(Duration::from_millis(3)).await;
    }
    say("owner");
}

async fn sides(State((old, new)): State<(Store, Store)>) -> Result<Json<[Rows; 2]>, StatusCode> {
    blocking(move || Ok([old.all()?, new.all()?])).await.map(Json)
}

/// The service over one store.
fn side(store: Store) -> Router {
    Router::new().route("/airports/{icao}", get(read).put(write).delete(remove)).with_state(store)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, StatusCode> {
    match spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        failed => {
            let why = failed.map(|result| result.err());
            eprintln!("a store failed: {why:?}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The two legs of a write take turns in being the slower one.
async fn dawdle() {
    if fastrand::u8(..4) == 0 {
        sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
    }
}

async fn read(
    State(store): State<Store>,
    Path(icao): Path<String>,
) -> Result<Json<Airport>, StatusCode> {
    let found = blocking(move || store.get(&icao)).await?;
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn write(
    State(store): State<Store>,
    Path(icao): Path<String>,
    Json(airport): Json<Airport>,
) -> Result<StatusCode, StatusCode> {
    if airport.icao != icao {
        return Err(StatusCode::UNPROCESSABLE_ENTITY);
    }
    dawdle().await;
    blocking(move || store.put(&airport)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(store): State<Store>,
    Path(icao): Path<String>,
) -> Result<StatusCode, StatusCode> {
    dawdle().await;
    let was = blocking(move || store.delete(&icao)).await?;
    Ok(if was { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}
