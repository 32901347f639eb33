//! Everything at once: writers, failing legs, repair, backfill, verify, steps; in the
//! end both tables are the same, and every acknowledged write is accounted for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use http::Method;
use tokio::time::sleep;
use tower::Service;
use tower_migration::{
    FailurePolicy, MigrationHandle, Reason, Side, Stage,
    reconcile::{Conflicts, Sweep},
};

use super::world::*;
use crate::support::*;

const KEYS: u32 = 6;

/// A side whose legs fail now and then: before they do anything, after they have done
/// it, by an error, a panic, or by taking their time.
fn ill(tables: &Tables, side: Side, seed: u64, sick: &Arc<AtomicBool>) -> Fake {
    let well =
        served(tables, side, move |n| fastrand::Rng::with_seed(seed ^ (n * 7_919)).u64(0..10));
    let (calls, sick) = (AtomicU64::new(0), Arc::clone(sick));
    Fake::new(move |call| {
        let n = calls.fetch_add(1, Ordering::SeqCst);
        let mut random = fastrand::Rng::with_seed(seed ^ (n * 104_729));
        let fate = if sick.load(Ordering::SeqCst) { random.u8(0..40) } else { 99 };
        let mut request = http::Request::new(body(call.body));
        (*request.method_mut(), *request.uri_mut()) = (call.method, call.uri);
        let mut well = well.clone();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(well.poll_ready(&mut cx).is_ready());
        let does = well.call(request);
        async move {
            match fate {
                0 | 1 => return Ok(answer(500, "before")),
                2 => return Err("no connection".into()),
                3 => std::panic::resume_unwind(Box::new("on purpose")),
                4 => sleep(Duration::from_millis(200)).await,
                _ => {}
            }
            let answered = does.await;
            match fate {
                5 | 6 => Ok(answer(503, "after")),
                7 => Err("connection lost".into()),
                _ => answered,
            }
        }
    })
}

/// What clients know: by key the values that it may have.
#[derive(Default)]
struct Known(BTreeMap<u32, Vec<Option<i64>>>);

impl Known {
    /// A client is told: from now on it is this, until the next write begins.
    fn acknowledged(&mut self, key: u32, value: Option<i64>) {
        self.0.insert(key, vec![value]);
    }

    /// It may have been written or not.
    fn maybe(&mut self, key: u32, value: Option<i64>) {
        self.0.entry(key).or_insert_with(|| vec![None]).push(value);
    }
}

/// Each client has keys of its own, so it knows the order of their writes.
async fn client(
    world: Arc<World>,
    me: u32,
    seed: u64,
    known: Arc<Mutex<Known>>,
    stop: Arc<AtomicBool>,
) {
    let mut random = fastrand::Rng::with_seed(seed * 1_000 + u64::from(me));
    let mut value = i64::from(me);
    while !stop.load(Ordering::SeqCst) {
        let key = me * 100 + random.u32(0..KEYS);
        value += 10;
        let (request, becomes) = match random.u8(0..5) {
            0 => (change(Method::DELETE, key, 0), None),
            _ => (set(key, value), Some(value)),
        };
        known.lock().unwrap().maybe(key, becomes);
        // A task of its own: a panic of a side that is alone is the server's to catch.
        let call = tokio::spawn(world.rig.service.clone().call(request));
        if random.u8(0..12) == 0 {
            // It hangs up.
            sleep(Duration::from_millis(3)).await;
            call.abort();
        } else if let Ok(Ok(answer)) = call.await
            && (answer.status().is_success() || answer.status() == 404)
        {
            drop(answer);
            known.lock().unwrap().acknowledged(key, becomes);
        }
        sleep(Duration::from_millis(random.u64(0..12))).await;
    }
}

/// Moves the flag, and does what it says to be done first.
async fn step(world: &World, to: Stage) {
    for _ in 0..2_000 {
        let Err(blocked) = world.handle().move_to(to).await else {
            return;
        };
        for reason in blocked.reasons() {
            match reason {
                Reason::NotSynced { .. } => {
                    let _ = world.backfill().sweep(Sweep::new().concurrency(4)).run().await;
                }
                Reason::DirtyKeys { .. }
                | Reason::Conflicts { .. }
                | Reason::NotSettled { .. }
                | Reason::HoldTooLong { .. } => sleep(Duration::from_millis(20)).await,
                _ => panic!("{blocked}"),
            }
        }
    }
    panic!("{to} was refused for ever:\n{}", world.handle().status());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_on_the_way_there_and_back_whatever_fails() {
    let seeds = std::env::var("RACE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        whole_trip(seed).await;
    }
}

async fn whole_trip(seed: u64) {
    let tables = Tables::default();
    tables.fill(Side::Old, (0..4 * KEYS).map(|n| (n / KEYS * 100 + n % KEYS, 1)));
    tables.fill(Side::Old, (900..1_000).map(|key| (key, 7)));
    // A row that only new has.
    tables.fill(Side::New, [(950, 8), (2_000, 8)]);
    tables.slow.store(1, Ordering::SeqCst);
    let handle = MigrationHandle::builder("test")
        .hold(SECOND * 5)
        .linger(Duration::from_millis(250))
        .build()
        .unwrap();
    let policy = [FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth][(seed % 2) as usize];
    let world = World::over(tables.clone(), handle, |layer| layer.failure_policy(policy));
    let sick = Arc::new(AtomicBool::new(true));
    for side in Side::ALL {
        world.rig.side(side).becomes(&ill(&tables, side, seed * 31 + side as u64, &sick));
    }
    let world = Arc::new(world);
    let known = Arc::new(Mutex::new(Known::default()));
    for n in 0..4 * KEYS {
        known.lock().unwrap().acknowledged(n / KEYS * 100 + n % KEYS, Some(1));
    }
    let repairing = world.repair().conflicts(Conflicts::TrustAuthority).start().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|me| {
            let client =
                client(Arc::clone(&world), me, seed, Arc::clone(&known), Arc::clone(&stop));
            tokio::spawn(client)
        })
        .collect();
    let there = [Stage::WriteBoth, Stage::ReadNew, Stage::NewOnly];
    let back = [Stage::ReadNew, Stage::WriteBoth, Stage::OldOnly];
    for to in there.into_iter().chain(back) {
        sleep(Duration::from_millis(300)).await;
        if to == Stage::ReadNew && world.handle().stage() == Stage::WriteBoth {
            // One key's difference that nobody has marked.
            let report = world.verify().mend().run().await.unwrap();
            assert!(report.failed == 0, "seed {seed}: {report}");
        }
        step(&world, to).await;
        if !to.is_two_sided() {
            compare(&world, &known, to.authority(), seed).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    sick.store(false, Ordering::SeqCst);
    repairing.stop().await;

    // And once more, quietly: the sides are equal, and hold what was acknowledged.
    step(&world, Stage::WriteBoth).await;
    let repairing = world.repair().conflicts(Conflicts::TrustAuthority).start().unwrap();
    let report = world.backfill().run().await.unwrap();
    assert!(report.failed == 0 && report.synced, "seed {seed}: {report}");
    while !world.handle().dirty_keys().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    repairing.stop().await;
    world.handle().shutdown().await;
    tables.assert_equal();
    compare(&world, &known, Side::Old, seed).await;
    assert_eq!(tables.old().get(&name(950)), Some(&7));
    assert_eq!(tables.old().get(&name(2_000)), None, "old was right");
}

/// The side has, of each key, something that it may have.
async fn compare(world: &World, known: &Mutex<Known>, side: Side, seed: u64) {
    let table = world.tables.on(side).clone();
    // Writes that are under way may be either.
    let known = known.lock().unwrap();
    for (key, values) in &known.0 {
        let found = table.get(&name(*key)).copied();
        assert!(values.contains(&found), "seed {seed}: {key} is {found:?} on {side}: {values:?}");
    }
}
