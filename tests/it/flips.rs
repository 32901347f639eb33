//! Thousands of flips under load: what was acknowledged is there, whatever the
//! sides do and wherever the flag goes.
//!
//! Each key has one writer, which writes 1, 2, 3, …; so a read that began after
//! the acknowledgement of 7 must find 7 or more. The sides are slow, fail before
//! or after they have written, answer after everybody has stopped waiting, and
//! clients hang up.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use fastrand::Rng;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    FailurePolicy, Limits, Migration, MigrationHandle, MigrationLayer, Moved, Side, Stage,
    WriteOrder,
    reconcile::{Key, RightSide},
};

use crate::support::SECOND;

const KEYS: u64 = 6;
const MS: Duration = Duration::from_millis(1);

/// One side: numbers by path.
#[derive(Clone)]
struct Shelf {
    rows: Arc<Mutex<BTreeMap<String, u64>>>,
    rng: Arc<Mutex<Rng>>,
    /// Whether it misbehaves.
    sick: Arc<AtomicBool>,
}

type Full200 = Response<Full<bytes::Bytes>>;

impl Shelf {
    fn new(seed: u64) -> Self {
        let rng = Arc::new(Mutex::new(Rng::with_seed(seed)));
        Self { rows: Arc::default(), rng, sick: Arc::new(AtomicBool::new(true)) }
    }

    fn get(&self, path: &str) -> u64 {
        self.rows.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    fn set(&self, path: &str, number: u64) {
        self.rows.lock().unwrap().insert(path.to_owned(), number);
    }

    fn dice(&self) -> u8 {
        let dice = self.rng.lock().unwrap().u8(..100);
        if self.sick.load(Ordering::SeqCst) { dice } else { dice % 50 }
    }
}

fn says(status: u16, number: u64) -> Full200 {
    let mut response = Response::new(Full::from(number.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

impl Service<Request<Full<bytes::Bytes>>> for Shelf {
    type Response = Full200;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Full200, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<bytes::Bytes>>) -> Self::Future {
        let shelf = self.clone();
        async move {
            let dice = shelf.dice();
            let path = request.uri().path().to_owned();
            if dice.is_multiple_of(4) {
                sleep(MS * u32::from(dice / 8)).await;
            }
            if request.method() == Method::GET {
                return Ok(says(if dice > 95 { 500 } else { 200 }, shelf.get(&path)));
            }
            let body = request.into_body().collect().await?.to_bytes();
            let number = std::str::from_utf8(&body).unwrap().parse().unwrap();
            match dice {
                // Over the time that anybody waits, and then it lands.
                90 => sleep(MS * 30).await,
                91..95 => return Ok(says(500, 0)),
                _ => {}
            }
            shelf.set(&path, number);
            Ok(says(if dice > 96 { 500 } else { 200 }, number))
        }
        .boxed()
    }
}

/// Everything that the tasks share.
#[derive(Clone)]
struct World {
    handle: MigrationHandle,
    old: Shelf,
    new: Shelf,
    service: Migration<Shelf, Shelf>,
    /// The newest number of each key that was acknowledged.
    acked: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Keys that an emergency exit has named: stale until they are copied.
    tainted: Arc<Mutex<BTreeSet<String>>>,
    /// Emergency exits so far.
    exits: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

fn path(key: u64) -> String {
    format!("/{key}")
}

fn request(method: Method, path: &str, text: String) -> Request<Full<bytes::Bytes>> {
    Request::builder().method(method).uri(path).body(Full::from(text)).unwrap()
}

impl World {
    fn new(seed: u64, policy: FailurePolicy, order: WriteOrder) -> Self {
        let handle = MigrationHandle::builder("flips").linger(MS * 5).build().unwrap();
        let (old, new) = (Shelf::new(seed), Shelf::new(seed + 1));
        let limits =
            Limits::default().leg_timeout(MS * 20).abandon_after(MS * 100).ready_timeout(MS * 20);
        let layer = MigrationLayer::new(handle.clone(), new.clone())
            .failure_policy(policy)
            .write_order(order)
            .limits(limits)
            .unwrap();
        let service = layer.layer(old.clone());
        let done = Arc::new(AtomicBool::new(false));
        let (acked, tainted) = Default::default();
        let (reads, writes, exits) = Default::default();
        Self { handle, old, new, service, acked, tainted, exits, done, reads, writes }
    }

    fn shelf(&self, side: Side) -> &Shelf {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    fn acked(&self, path: &str) -> u64 {
        self.acked.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    async fn write_all(self, key: u64, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let path = path(key);
        for number in 1.. {
            if self.done.load(Ordering::SeqCst) {
                return;
            }
            let sent =
                self.service.clone().oneshot(request(Method::PUT, &path, number.to_string()));
            // Some clients do not wait for the answer.
            let patience = if rng.u8(..100) < 5 { MS * rng.u32(..4) } else { SECOND * 60 };
            if let Ok(Ok(answer)) = timeout(patience, sent).await
                && answer.status() == 200
            {
                self.acked.lock().unwrap().insert(path.clone(), number);
                self.writes.fetch_add(1, Ordering::SeqCst);
            }
            sleep(MS * rng.u32(..3)).await;
        }
    }

    async fn read_all(self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        while !self.done.load(Ordering::SeqCst) {
            let path = path(rng.u64(..KEYS));
            let before = self.acked(&path);
            let exits = self.exits.load(Ordering::SeqCst);
            let mut excused = self.tainted.lock().unwrap().contains(&path);
            let sent = self.service.clone().oneshot(request(Method::GET, &path, String::new()));
            let answer = sent.await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            if status == 200 {
                let found: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                // An exit that came in between may have named the key.
                excused |= self.tainted.lock().unwrap().contains(&path)
                    || exits != self.exits.load(Ordering::SeqCst);
                assert!(
                    found >= before || excused,
                    "{path}: {found} was read after {before} was acknowledged\n{}",
                    self.handle.status()
                );
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            sleep(MS * rng.u32(..3)).await;
        }
    }

    /// Copies one key, as a user would: reads, and then writes.
    async fn copy(&self, key: &Key, from: Side) {
        let copy = || async {
            let number = self.shelf(from).get(key.as_str());
            tokio::task::yield_now().await;
            self.shelf(from.other()).set(key.as_str(), number);
            Ok::<(), Infallible>(())
        };
        if self.handle.copy_key(key, from, copy).await.is_ok() {
            self.tainted.lock().unwrap().remove(key.as_str());
        }
    }

    async fn heal(&self) {
        for dirty in self.handle.dirty_keys() {
            let from = match dirty.right {
                RightSide::Is(side) => side,
                _ => {
                    // Whoever looks at both rows takes the newer one.
                    let newer = |side| self.shelf(side).get(dirty.key.as_str());
                    let right =
                        if newer(Side::Old) > newer(Side::New) { Side::Old } else { Side::New };
                    self.handle.resolve_conflict(&dirty.key, right);
                    right
                }
            };
            self.copy(&dirty.key, from).await;
        }
    }

    /// Makes the side that is not the authority equal, and says so.
    async fn fill(&self) {
        let from = self.handle.stage().authority();
        self.handle.settled().await;
        for key in 0..KEYS {
            self.copy(&Key::from(path(key)), from).await;
        }
        let _ = self.handle.confirm_synced(from.other()).await;
    }

    fn moved(&self, moved: &Moved) {
        let tainted = moved.tainted.iter().map(ToString::to_string);
        self.tainted.lock().unwrap().extend(tainted);
    }

    /// One step, wherever it leads.
    async fn step(&self, rng: &mut Rng, exits: bool) -> bool {
        let handle = &self.handle;
        let stage = handle.stage();
        let other = stage.authority().other();
        if stage.is_two_sided() && !handle.status().sync.get(other).is_synced() {
            self.fill().await;
        }
        // An orderly step wants the sides well for a moment; the exit does not.
        let well = rng.u8(..10) < 8;
        self.sick(!well);
        if well {
            sleep(MS * 45).await;
        }
        self.heal().await;
        let dice = rng.u8(..10);
        let taken = match (stage, dice) {
            (Stage::WriteBoth, 0..3) => handle.ramp(f64::from(rng.u8(..5)) / 4.0).await,
            (Stage::WriteBoth, 3) if exits => handle.rollback().await,
            (Stage::ReadNew, 0..3) if exits => {
                // Which keys are stale the answer says, and it comes after the
                // flip.
                let before = self.tainted.lock().unwrap().clone();
                self.tainted.lock().unwrap().extend((0..KEYS).map(path));
                let exit = handle.rollback().await;
                self.exits.fetch_add(1, Ordering::SeqCst);
                *self.tainted.lock().unwrap() = match &exit {
                    Ok(moved) => moved.tainted.iter().map(ToString::to_string).collect(),
                    Err(_) => before,
                };
                exit
            }
            (Stage::ReadNew, 0..6) => handle.move_to(Stage::WriteBoth).await,
            (Stage::NewOnly, _) => handle.move_to(Stage::ReadNew).await,
            (Stage::WriteBoth, 4) => handle.move_to(Stage::OldOnly).await,
            // Given up half-way.
            (_, 9) => match handle.advance().now_or_never() {
                Some(taken) => taken,
                None => return false,
            },
            _ => handle.advance().await,
        };
        self.sick(true);
        match taken {
            Ok(moved) => {
                self.moved(&moved);
                true
            }
            Err(blocked) => {
                if std::env::var_os("WHY").is_some() {
                    println!("{blocked}");
                }
                false
            }
        }
    }

    fn sick(&self, sick: bool) {
        for shelf in [&self.old, &self.new] {
            shelf.sick.store(sick, Ordering::SeqCst);
        }
    }

    async fn check(&self) {
        self.handle.settled().await;
        self.sick(false);
        // What hangs lands, or is abandoned.
        sleep(SECOND).await;
        let stage = self.handle.stage();
        let authority = stage.authority();
        if stage.is_two_sided() {
            while !self.handle.dirty_keys().is_empty() {
                self.heal().await;
            }
        }
        let synced = self.handle.status().sync;
        for key in (0..KEYS).map(path) {
            let found = self.shelf(authority).get(&key);
            let acked = self.acked(&key);
            assert!(found >= acked, "{key}: {authority} has {found}, {acked} was acknowledged");
            if stage.is_two_sided() && synced.get(authority.other()).is_synced() {
                let other = self.shelf(authority.other()).get(&key);
                assert_eq!(found, other, "{key} at {stage}, no key dirty");
            }
        }
        let status = self.handle.status();
        assert_eq!((status.on_old.writes, status.on_new.writes), (0, 0), "{status}");
        assert_eq!((status.on_old.reads, status.on_new.reads), (0, 0), "{status}");
    }
}

/// Answers how many steps were taken.
async fn run(
    seed: u64,
    steps: u64,
    limit: Duration,
    policy: FailurePolicy,
    order: WriteOrder,
    exits: bool,
) -> u64 {
    let world = World::new(seed, policy, order);
    let mut tasks = JoinSet::new();
    for key in 0..KEYS {
        tasks.spawn(world.clone().write_all(key, seed ^ key));
    }
    for reader in 0..3 {
        tasks.spawn(world.clone().read_all(seed ^ (100 + reader)));
    }
    let mut rng = Rng::with_seed(seed);
    let mut taken = 0;
    let began = Instant::now();
    while taken < steps && began.elapsed() < limit {
        taken += u64::from(world.step(&mut rng, exits).await);
        sleep(MS * rng.u32(..20)).await;
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
    }
    world.done.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    world.check().await;
    assert!(world.reads.load(Ordering::SeqCst) > 100);
    assert!(world.writes.load(Ordering::SeqCst) > 100);
    taken
}

const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth];

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed}");
    seed
}

/// Time stands still where nothing happens, so a run of hours takes seconds.
#[tokio::test(start_paused = true)]
async fn thousands_of_flips_lose_nothing_on_one_thread() {
    let seed = seed();
    for (at, policy) in POLICIES.into_iter().enumerate() {
        for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
            let taken = run(seed + at as u64, 250, SECOND * 36_000, policy, order, true).await;
            assert!(taken >= 250, "{policy:?} {order:?}: {taken} steps");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flips_lose_nothing_on_several_threads() {
    let seed = seed();
    for (at, policy) in POLICIES.into_iter().enumerate() {
        let taken =
            run(seed + at as u64, 2_000, SECOND * 4, policy, WriteOrder::Concurrent, true).await;
        assert!(taken > 10, "{policy:?}: {taken} steps");
    }
}

/// Without the emergency exit nothing at all is excused.
#[tokio::test(start_paused = true)]
async fn orderly_flips_never_show_an_older_value() {
    let seed = seed();
    for policy in POLICIES {
        run(seed, 150, SECOND * 36_000, policy, WriteOrder::Concurrent, false).await;
    }
}
