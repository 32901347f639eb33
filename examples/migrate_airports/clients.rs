//! Clients over real HTTP that never stop, and remember what they were told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::{
    sync::{RwLock, RwLockWriteGuard},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_migration::BoxError;

use crate::{
    history::{Heard, Moment, Seen},
    model::Patch,
    ops::{Change, Op},
    stats::Ended,
    wire::{Answer, Wire, json, unexpected},
    world::{World, path_of},
};

/// All clients together ask about this often per second, if they are let.
const RATE: f64 = 2_500.0;
/// Requests that follow each other without a pause, so that clients collide.
const BURST: u32 = 8;

/// What is wrong with reads, counted.
#[derive(Debug, Default)]
pub(crate) struct WrongReads {
    /// An acknowledged write was missing, or a refused one was there.
    pub(crate) wrong: AtomicU64,
    /// The same, for a key that the emergency exit had named.
    pub(crate) announced: AtomicU64,
}

#[derive(Clone)]
struct Shared {
    world: World,
    wire: Wire,
    /// Each request holds it for reading, so whoever holds it for writing knows
    /// that none is under way.
    gate: Arc<RwLock<()>>,
    stop: Arc<AtomicBool>,
    /// Odd while the side that answers is made to fail.
    faulty: Arc<AtomicU64>,
    wrong: Arc<WrongReads>,
    stamp: Arc<AtomicU64>,
}

/// The clients' tasks.
pub(crate) struct Clients {
    shared: Shared,
    tasks: JoinSet<()>,
}

/// The part of an airport that tells who wrote it.
#[derive(Deserialize)]
struct Row {
    icao: String,
    name: String,
}

impl Clients {
    pub(crate) fn start(world: &World, address: SocketAddr, count: u32, seed: u64) -> Self {
        let shared = Shared {
            world: world.clone(),
            wire: Wire::to(address),
            gate: Arc::default(),
            stop: Arc::default(),
            faulty: Arc::default(),
            wrong: Arc::default(),
            stamp: Arc::default(),
        };
        let pause = Duration::from_secs_f64(f64::from(count * BURST) / RATE);
        let mut seeds = Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(shared.clone().live(seeds.fork(), pause));
        }
        Self { shared, tasks }
    }

    /// Waits until no request is under way, and lets none begin while the
    /// guard lives.
    pub(crate) async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().await
    }

    /// From now on, or no longer, errors are what the example asked for.
    pub(crate) fn expect_errors(&self, on: bool) {
        let now = self.shared.faulty.load(Ordering::SeqCst);
        self.shared.faulty.store((now | 1) + u64::from(!on), Ordering::SeqCst);
    }

    pub(crate) fn wrong_reads(&self) -> &WrongReads {
        &self.shared.wrong
    }

    /// Waits for every request's answer.
    pub(crate) async fn stop(mut self) -> Result<(), BoxError> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Shared {
    async fn live(self, mut rng: Rng, pause: Duration) {
        // Not all at once.
        sleep(pause.mul_f64(rng.f64())).await;
        loop {
            for _ in 0..BURST {
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                let _pass = self.gate.read().await;
                let op = self.world.rows.next(&mut rng);
                self.run(op, &mut rng).await;
            }
            sleep(pause.mul_f64(0.5 + rng.f64())).await;
        }
    }

    async fn run(&self, op: Op, rng: &mut Rng) {
        let phase = self.world.stats().phase();
        let faulty = self.faulty.load(Ordering::SeqCst);
        let write = matches!(op, Op::Write { .. });
        let began = Instant::now();
        let (label, result) = match op {
            Op::Read { icao } => (path_of(&icao), self.read(&icao).await),
            Op::List { uri } => (uri.clone(), self.list(&uri).await),
            Op::Write { icao, change } => (path_of(&icao), self.write(&icao, change, rng).await),
        };
        let took = began.elapsed();
        let now = self.faulty.load(Ordering::SeqCst);
        let injected = faulty % 2 == 1 || now != faulty;
        let mut stats = self.world.stats();
        let ended = result.unwrap_or_else(|why| {
            if !injected {
                stats.sample(|| format!("{label}: {why}"));
            }
            Ended::Badly { injected }
        });
        stats.record(phase, write, took, ended);
    }

    async fn read(&self, icao: &str) -> Result<Ended, String> {
        let began = self.world.history().begin_read();
        let (status, body) = self.wire.send(Method::GET, &path_of(icao), Bytes::new()).await?;
        match status {
            StatusCode::OK => {
                let row: Row = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
                self.saw(icao, Some(&row.name), began);
                Ok(Ended::Well)
            }
            StatusCode::NOT_FOUND => {
                self.saw(icao, None, began);
                Ok(Ended::Refused)
            }
            other => Err(unexpected(other)),
        }
    }

    async fn list(&self, uri: &str) -> Result<Ended, String> {
        let began = self.world.history().begin_read();
        match self.wire.send(Method::GET, uri, Bytes::new()).await? {
            (StatusCode::OK, body) => {
                let rows: Vec<Row> = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
                for row in rows {
                    self.saw(&row.icao, Some(&row.name), began);
                }
                Ok(Ended::Well)
            }
            (other, _) => Err(unexpected(other)),
        }
    }

    /// A read has found this value. It must not be one that an acknowledged
    /// write had replaced before the read began.
    fn saw(&self, icao: &str, value: Option<&str>, began: Moment) {
        let history = self.world.history();
        let seen = history.judge(icao, value, began);
        if seen == Seen::Fresh {
            return;
        }
        if history.is_announced(icao, value) {
            self.wrong.announced.fetch_add(1, Ordering::SeqCst);
            return;
        }
        drop(history);
        self.wrong.wrong.fetch_add(1, Ordering::SeqCst);
        let mut stats = self.world.stats();
        let stage = self.world.migration.stage();
        stats.sample(|| format!("{icao} at {stage}: {value:?} is {seen:?}"));
    }

    async fn write(&self, icao: &str, change: Change, rng: &mut Rng) -> Result<Ended, String> {
        // No other write uses this name: whoever reads it knows where it is from.
        let name = format!("Stamp {}", self.stamp.fetch_add(1, Ordering::SeqCst));
        let (method, path, body) = match change {
            Change::Create => {
                let document = self.world.rows.document(icao, &name, rng);
                (Method::POST, "/airports".to_owned(), json(&document)?)
            }
            Change::Replace => {
                let document = self.world.rows.document(icao, &name, rng);
                (Method::PUT, path_of(icao), json(&document)?)
            }
            Change::Patch => {
                let patch = Patch { name: Some(name.clone()), ..Patch::default() };
                (Method::PATCH, path_of(icao), json(&patch)?)
            }
            Change::Delete => (Method::DELETE, path_of(icao), Bytes::new()),
        };
        let value = (change != Change::Delete).then_some(&*name);
        let ticket = self.world.history().begin(icao, value);
        let answer = self.wire.send(method, &path, body).await;
        let (heard, ended) = heard(change, answer);
        self.world.history().end(&ticket, heard);
        ended
    }
}

/// What an answer to a write means.
fn heard(change: Change, answer: Answer) -> (Heard, Result<Ended, String>) {
    let status = match answer {
        Ok((status, _)) => status,
        Err(why) => return (Heard::Unknown, Err(why)),
    };
    match (change, status) {
        (Change::Create, StatusCode::CREATED)
        | (Change::Replace, StatusCode::OK | StatusCode::CREATED)
        | (Change::Patch, StatusCode::OK)
        | (Change::Delete, StatusCode::NO_CONTENT) => (Heard::Acked, Ok(Ended::Well)),
        // It is not there, which is what a deletion is for.
        (Change::Delete, StatusCode::NOT_FOUND) => (Heard::Acked, Ok(Ended::Refused)),
        (Change::Create, StatusCode::CONFLICT) | (Change::Patch, StatusCode::NOT_FOUND) => {
            (Heard::Refused, Ok(Ended::Refused))
        }
        (_, other) if other.is_client_error() => (Heard::Refused, Err(unexpected(other))),
        (_, other) => (Heard::Unknown, Err(unexpected(other))),
    }
}
