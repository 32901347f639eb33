//! Everything at once, with increments, several keys, ramps, and copies that are cut off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use tokio::time::{sleep, timeout};
use tower::Service;
use tower_migration::{
    FailurePolicy, MigrationHandle, Side, Stage, WriteOrder,
    reconcile::{Conflicts, Key, Keys},
};

use super::world::*;
use crate::support::*;

const KEYS: u32 = 4;

/// `served`, plus POST /multi with a body "a,b" that increments both, and failing legs.
fn ill(tables: &Tables, side: Side, seed: u64, sick: &Arc<AtomicBool>, most: u64) -> Fake {
    let (calls, sick) = (AtomicU64::new(0), Arc::clone(sick));
    let tables = tables.clone();
    Fake::new(move |call| {
        let n = calls.fetch_add(1, Ordering::SeqCst);
        let mut random = fastrand::Rng::with_seed(seed ^ (n * 104_729));
        let fate = if sick.load(Ordering::SeqCst) { random.u8(0..60) } else { 99 };
        let (before, after) = (random.u64(0..=most), random.u64(0..=most));
        let tables = tables.clone();
        async move {
            sleep(Duration::from_millis(before)).await;
            match fate {
                0 | 1 => return Ok(answer(500, "before")),
                2 => return Err("no connection".into()),
                4 => sleep(Duration::from_millis(200)).await,
                _ => {}
            }
            let key = call.uri.path().to_owned();
            let text = std::str::from_utf8(&call.body).unwrap().to_owned();
            let status = {
                let mut table = tables.on(side);
                match call.method {
                    Method::GET => 200,
                    Method::POST => {
                        for key in text.split(',') {
                            *table.entry(key.to_owned()).or_default() += 1;
                        }
                        200
                    }
                    Method::PUT => {
                        table.insert(key, text.parse().unwrap());
                        200
                    }
                    Method::PATCH => match table.get_mut(&key) {
                        Some(row) => {
                            *row += text.parse::<i64>().unwrap();
                            200
                        }
                        None => 404,
                    },
                    _ => {
                        if table.remove(&key).is_some() {
                            204
                        } else {
                            404
                        }
                    }
                }
            };
            sleep(Duration::from_millis(after)).await;
            match fate {
                5 | 6 => Ok(answer(503, "after")),
                7 => Err("connection lost".into()),
                _ => Ok(answer(status, "")),
            }
        }
    })
}

fn request(random: &mut fastrand::Rng, puts: bool) -> Req {
    let key = random.u32(0..KEYS);
    match random.u8(0..10) {
        0 if puts => change(Method::DELETE, key, 0),
        1 | 2 if puts => set(key, i64::from(random.u16(..))),
        3 | 4 => {
            let (a, b) = (name(key), name((key + 1) % KEYS));
            Request::post("/multi").body(body(format!("{a},{b}"))).unwrap()
        }
        _ => change(Method::PATCH, key, 1),
    }
}

async fn real_round(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let tables = Tables::default();
    tables.fill(Side::Old, (0..KEYS).map(|n| (n, 1)));
    tables.fill(Side::New, (0..KEYS).map(|n| (n, 5)));
    tables.slow.store(random.u64(0..6), Ordering::SeqCst);
    let handle = MigrationHandle::builder("test")
        .hold(SECOND * 5)
        .linger(Duration::from_millis(250))
        .build()
        .unwrap();
    let policy =
        [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth]
            [random.usize(..3)];
    let order = [WriteOrder::Concurrent, WriteOrder::AuthorityFirst][random.usize(..2)];
    let world = World::over(tables.clone(), handle, |layer| {
        layer.failure_policy(policy).write_order(order).keys(keys_of)
    });
    let sick = Arc::new(AtomicBool::new(random.u8(..3) > 0));
    for side in Side::ALL {
        let most = [0, 3, 12][random.usize(..3)];
        world.rig.side(side).becomes(&ill(&tables, side, seed * 31 + side as u64, &sick, most));
    }
    let world = Arc::new(world);
    world.handle().advance().await.unwrap();
    let ramps = random.bool();
    let stop = Arc::new(AtomicBool::new(false));
    let puts = random.bool();
    let clients: Vec<_> = (0..3)
        .map(|me| {
            let (world, stop) = (Arc::clone(&world), Arc::clone(&stop));
            let mut random = fastrand::Rng::with_seed(seed * 77 + me);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let call =
                        tokio::spawn(world.rig.service.clone().call(request(&mut random, puts)));
                    if random.u8(0..8) == 0 {
                        sleep(Duration::from_millis(random.u64(0..4))).await;
                        call.abort();
                    } else {
                        let _ = call.await;
                    }
                    sleep(Duration::from_millis(random.u64(0..30))).await;
                }
            })
        })
        .collect();
    let repairing = world.repair().conflicts(Conflicts::TrustAuthority).start().unwrap();
    for _ in 0..12 {
        match random.u8(..9) {
            0 | 1 => drop(timeout(SECOND * 9, world.backfill().run()).await),
            2 => drop(
                timeout(Duration::from_millis(random.u64(1..40)), world.backfill().run()).await,
            ),
            3 => drop(timeout(SECOND * 9, world.verify().mend().run()).await),
            4 => drop(timeout(SECOND * 9, world.verify().run()).await),
            5 => {
                let to = if random.bool() { Stage::WriteBoth } else { Stage::ReadNew };
                let _ = world.handle().move_to(to).await;
            }
            6 => drop(world.handle().rollback().await),
            7 if ramps => drop(world.handle().ramp([0.0, 0.3, 0.7, 1.0][random.usize(..4)]).await),
            _ => sleep(Duration::from_millis(random.u64(..200))).await,
        }
        if !world.handle().stage().is_two_sided() {
            let _ = world.handle().move_to(Stage::WriteBoth).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    sick.store(false, Ordering::SeqCst);
    sleep(SECOND * 60).await;
    let status = world.handle().status();
    let other = status.authority.other();
    let mut synced = status.sync.get(other).is_synced();
    if !synced {
        let report = timeout(SECOND * 60, world.backfill().run()).await.expect("a backfill hangs");
        synced = report.is_ok_and(|report| report.synced);
    }
    let _ = repairing.retry_parked();
    timeout(SECOND * 600, async {
        while !world.handle().dirty_keys().is_empty() {
            sleep(SECOND).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("seed {seed}: still dirty: {:?}", world.handle().dirty_keys()));
    if synced {
        assert_eq!(
            *tables.old(),
            *tables.newer(),
            "seed {seed}: {policy:?} {order:?} ramps {ramps} puts {puts}\n{}",
            world.handle().status()
        );
    }
}

fn keys_of(head: &tower_migration::protocol::Head<'_>, body: &bytes::Bytes) -> Keys {
    match head.uri.path() {
        "/multi" => std::str::from_utf8(body).unwrap().split(',').map(Key::from).collect(),
        path => Keys::from(path),
    }
}

#[tokio::test(start_paused = true)]
async fn equal_or_dirty_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let from: u64 = number("STRESS_SEED").unwrap_or(0);
    let count: u64 = number("STRESS_SEEDS").unwrap_or(60);
    let mut bad = Vec::new();
    for seed in from..from + count {
        let ended = tokio::spawn(real_round(seed)).await;
        if let Err(error) = ended {
            bad.push((seed, error.to_string()));
        }
    }
    assert!(bad.is_empty(), "{} of {count}: {bad:?}", bad.len());
}

/// Found by the test above (about one seed in a thousand): a difference that was never
/// marked, since it stems from a time at `OldOnly`, looks equal to a Verify that reads the
/// two sides with increments in between. Not so where it always compares with the key's
/// place in hand.
#[tokio::test(start_paused = true)]
async fn equal_or_dirty_seeds_that_failed() {
    let mut bad = Vec::new();
    for seed in [4643, 4645, 7551, 7751] {
        if tokio::spawn(real_round(seed)).await.is_err() {
            bad.push(seed);
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}
