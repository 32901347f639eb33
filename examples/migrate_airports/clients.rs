//! Clients over real HTTP that never stop, and remember what they were told.

use std::{
    sync::{
        Arc, PoisonError, RwLock as Lock,
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
    time::{Instant, sleep, timeout},
};
use tower_migration::BoxError;

use crate::{
    history::{Heard, Moment, Seen},
    model::Patch,
    ops::{Change, Op},
    stats::Ended,
    wire::{Answer, Wire, json, unexpected},
    witness::Witness,
    world::path_of,
};

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

/// How much the clients ask for, and how patient they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) seed: u64,
    /// All clients together ask about this often per second, if they are let.
    pub(crate) rate: f64,
    /// Of a hundred requests, so many are given up after a few milliseconds.
    pub(crate) hang_ups: u8,
}

/// The longest time after which a client hangs up, in microseconds.
const IMPATIENCE: u64 = 6_000;

#[derive(Clone)]
struct Shared {
    witness: Witness,
    /// Where the service is. After a restart it is elsewhere.
    wire: Arc<Lock<Wire>>,
    hang_ups: u8,
    hung_up: Arc<AtomicU64>,
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
    pub(crate) fn start(witness: &Witness, wire: Wire, load: Load) -> Self {
        let shared = Shared {
            witness: witness.clone(),
            wire: Arc::new(Lock::new(wire)),
            hang_ups: load.hang_ups,
            hung_up: Arc::default(),
            gate: Arc::default(),
            stop: Arc::default(),
            faulty: Arc::default(),
            wrong: Arc::default(),
            stamp: Arc::default(),
        };
        let pause = Duration::from_secs_f64(f64::from(load.clients * BURST) / load.rate);
        let mut seeds = Rng::with_seed(load.seed);
        let mut tasks = JoinSet::new();
        for _ in 0..load.clients {
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

    /// The service is here from now on.
    pub(crate) fn send_to(&self, wire: Wire) {
        *self.shared.wire.write().unwrap_or_else(PoisonError::into_inner) = wire;
    }

    /// How often a client did not wait for its answer.
    pub(crate) fn hung_up(&self) -> u64 {
        self.shared.hung_up.load(Ordering::SeqCst)
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
                let op = self.witness.rows.next(&mut rng);
                self.run(op, &mut rng).await;
            }
            sleep(pause.mul_f64(0.5 + rng.f64())).await;
        }
    }

    async fn run(&self, op: Op, rng: &mut Rng) {
        let phase = self.witness.stats().phase();
        let faulty = self.faulty.load(Ordering::SeqCst);
        let write = matches!(op, Op::Write { .. });
        let began = Instant::now();
        let (label, result) = match op {
            Op::Read { icao } => (path_of(&icao), self.read(&icao, rng).await),
            Op::List { uri } => (uri.clone(), self.list(&uri, rng).await),
            Op::Write { icao, change } => (path_of(&icao), self.write(&icao, change, rng).await),
        };
        let took = began.elapsed();
        let now = self.faulty.load(Ordering::SeqCst);
        let injected = faulty % 2 == 1 || now != faulty;
        let ended = {
            let mut stats = self.witness.stats();
            let ended = result.unwrap_or_else(|why| {
                if !injected {
                    stats.sample(|| format!("{label}: {why}"));
                }
                Ended::Badly { injected }
            });
            stats.record(phase, write, took, ended);
            ended
        };
        if ended == (Ended::Badly { injected: true }) {
            // There may be nobody at the other end.
            sleep(took.min(Duration::from_millis(10))).await;
        }
    }

    fn wire(&self) -> Wire {
        self.wire.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, wire: &Wire, request: (Method, &str, Bytes), rng: &mut Rng) -> Answer {
        let (method, path, body) = request;
        let answer = wire.send(method, path, body);
        if rng.u8(..100) >= self.hang_ups {
            return answer.await;
        }
        // Most are answered in a millisecond: short times more often.
        let patience = Duration::from_micros(rng.u64(..IMPATIENCE) * rng.u64(..=8) / 8);
        timeout(patience, answer).await.unwrap_or_else(|_| {
            self.hung_up.fetch_add(1, Ordering::SeqCst);
            Err("the client hung up".to_owned())
        })
    }

    async fn read(&self, icao: &str, rng: &mut Rng) -> Result<Ended, String> {
        let began = self.witness.history().begin_read();
        let get = (Method::GET, &*path_of(icao), Bytes::new());
        let (status, body) = self.send(&self.wire(), get, rng).await?;
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

    async fn list(&self, uri: &str, rng: &mut Rng) -> Result<Ended, String> {
        let began = self.witness.history().begin_read();
        match self.send(&self.wire(), (Method::GET, uri, Bytes::new()), rng).await? {
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
        let history = self.witness.history();
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
        let mut stats = self.witness.stats();
        let phase = stats.phases.last().map_or("", |phase| phase.what);
        stats.sample(|| format!("{icao} in `{phase}`: {value:?} is {seen:?}"));
    }

    async fn write(&self, icao: &str, change: Change, rng: &mut Rng) -> Result<Ended, String> {
        // No other write uses this name: whoever reads it knows where it is from.
        let name = format!("Stamp {}", self.stamp.fetch_add(1, Ordering::SeqCst));
        let (method, path, body) = match change {
            Change::Create => {
                let document = self.witness.rows.document(icao, &name, rng);
                (Method::POST, "/airports".to_owned(), json(&document)?)
            }
            Change::Replace => {
                let document = self.witness.rows.document(icao, &name, rng);
                (Method::PUT, path_of(icao), json(&document)?)
            }
            Change::Patch => {
                let patch = Patch { name: Some(name.clone()), ..Patch::default() };
                (Method::PATCH, path_of(icao), json(&patch)?)
            }
            Change::Delete => (Method::DELETE, path_of(icao), Bytes::new()),
        };
        let value = (change != Change::Delete).then_some(&*name);
        // First the service's place, then its life: this write never lands in a later one.
        let wire = self.wire();
        let ticket = self.witness.history().begin(icao, value);
        let answer = self.send(&wire, (method, &path, body), rng).await;
        let (heard, ended) = heard(change, answer);
        self.witness.history().end(&ticket, heard);
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
