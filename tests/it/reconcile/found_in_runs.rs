//! Runs that were wrong once: what they counted, and what they waited for.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tower_migration::{
    BoxFuture, FileStore, MigrationHandle, Side, Stage,
    reconcile::{
        Backfill, Checkpoint, CheckpointError, CheckpointStore, FileCheckpoints, Key, Listing,
        SlowDown, Sweep, SweepError,
    },
};

use super::world::*;
use crate::support::*;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<String>>>);

impl CheckpointStore for Kept {
    fn load(&self) -> BoxFuture<'_, Result<Option<Checkpoint>, CheckpointError>> {
        let kept = self.0.lock().unwrap().clone();
        Box::pin(async move { kept.map(|text| text.parse()).transpose() })
    }
    fn save(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>> {
        *self.0.lock().unwrap() = Some(checkpoint.to_string());
        Box::pin(std::future::ready(Ok(())))
    }
}

fn sweep(kept: &Kept) -> Sweep {
    Sweep::new()
        .concurrency(2)
        .checkpoints(kept.clone())
        .checkpoint_every(Duration::from_millis(100))
}

async fn half_way(world: &World, kept: &Kept) {
    world.tables.fill(Side::Old, (0..100).map(|key| (key, 1)));
    world.tables.slow.store(10, Ordering::SeqCst);
    let backfill = world.backfill().sweep(sweep(kept));
    assert!(timeout(Duration::from_millis(700), backfill.run()).await.is_err());
    world.tables.slow.store(0, Ordering::SeqCst);
    sleep(SECOND * 2).await;
}

/// Keys that only the target has are visited too.
#[tokio::test(start_paused = true)]
async fn progress_never_passes_its_total() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    world.tables.fill(Side::New, (100..200).map(|key| (key, 1)));
    let backfill = world.backfill();
    let progress = backfill.progress();
    backfill.run().await.unwrap();
    let end = *progress.borrow();
    assert!(end.done <= end.total.unwrap(), "{} of {:?}", end.done, end.total);
}

/// A service without a journal that is stopped in order and started again.
#[derive(Default)]
struct Restarts {
    dir: Option<tempfile::TempDir>,
    kept: Kept,
    tables: Tables,
}

impl Restarts {
    async fn start(&mut self) -> World {
        let dir = self.dir.get_or_insert_with(|| tempfile::tempdir().unwrap());
        let handle = on_disk("test", FileStore::create_or_open(dir.path().join("flag"))).await;
        World::over(self.tables.clone(), handle, |layer| layer)
    }

    /// Stops in order, with a key that is dirty and forgotten by that.
    async fn stop_with_a_dirty_key(&self, world: World, key: u32) {
        self.tables.down(Side::New, true);
        world.rig.ask(set(key, 77)).await;
        sleep(SECOND).await;
        self.tables.down(Side::New, false);
        assert!(world.rig.dirty().contains(&name(key)));
        world.handle().shutdown().await;
    }
}

/// A clean stop without a journal, with a dirty key behind the checkpoint.
#[tokio::test(start_paused = true)]
async fn a_dirty_key_lost_at_a_clean_stop_voids_the_checkpoint() {
    let mut service = Restarts::default();
    let world = service.start().await;
    world.advance().await;
    half_way(&world, &service.kept).await;
    service.stop_with_a_dirty_key(world, 0).await;

    let world = service.start().await;
    let report = world.backfill().sweep(sweep(&service.kept)).run().await.unwrap();
    assert!(report.synced && !report.resumed, "{report}");
    service.tables.assert_equal();
}

/// Forced around: what was copied before does not count.
#[tokio::test(start_paused = true)]
async fn forced_trips_void_checkpoints() {
    for trip in [
        vec![Stage::OldOnly, Stage::WriteBoth],
        vec![Stage::NewOnly, Stage::WriteBoth],
        vec![Stage::ReadNew, Stage::NewOnly, Stage::OldOnly, Stage::WriteBoth],
    ] {
        let world = World::new();
        world.advance().await;
        let kept = Kept::default();
        half_way(&world, &kept).await;
        for to in &trip {
            world.handle().force(*to, "a test").await.unwrap();
            if *to == Stage::OldOnly {
                world.rig.ask(set(0, 77)).await;
            }
        }
        let run = world.backfill().sweep(sweep(&kept));
        let ended = timeout(SECOND * 600, run.run()).await.unwrap();
        if trip.contains(&Stage::NewOnly) {
            // Old lacks what new alone has got: nothing may be copied from it.
            assert!(matches!(ended, Err(SweepError::Unsynced(Side::Old))), "{trip:?}: {ended:?}");
            continue;
        }
        let report = ended.unwrap();
        assert!(report.synced && !report.resumed, "{trip:?}: {report}");
        world.tables.assert_equal();
    }
}

struct Stuck(Tables);

impl Listing for Stuck {
    type Error = std::convert::Infallible;
    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Self::Error> {
        if after.is_some() {
            std::future::pending::<()>().await;
        }
        self.0.page(side, after, limit).await
    }
}

/// A listing that hangs (a lost connection) has no time limit, and a run that waits for
/// it does not hear of the shutdown.
#[tokio::test(start_paused = true)]
async fn a_run_whose_listing_hangs_ends_at_the_shutdown() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    let backfill =
        Backfill::new(world.handle(), world.tables.clone()).listing(Stuck(world.tables.clone()));
    let run = tokio::spawn(async move { backfill.run().await });
    sleep(SECOND).await;
    timeout(SECOND * 60, world.handle().shutdown()).await.expect("shutdown");
    let ended = timeout(SECOND * 600, run).await;
    assert!(ended.is_ok(), "ten minutes after the shutdown the run is still there");
}

/// The same with a slow rate.
#[tokio::test(start_paused = true)]
async fn a_run_at_a_slow_rate_ends_at_the_shutdown() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    let backfill = world.backfill().sweep(Sweep::new().rate(0.01));
    let run = tokio::spawn(async move { backfill.run().await });
    sleep(SECOND).await;
    timeout(SECOND * 60, world.handle().shutdown()).await.expect("shutdown");
    let ended = timeout(SECOND * 600, run).await;
    assert!(ended.is_ok(), "ten minutes after the shutdown the run is still there");
}

/// The target is away for two seconds in the middle of a run.
#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_target_does_not_spoil_a_run() {
    let world = Arc::new(World::new());
    world.advance().await;
    world.tables.fill(Side::Old, (0..60_000).map(|key| (key, 1)));
    world.tables.slow.store(1, Ordering::SeqCst);
    let backfill = world.backfill();
    let run = tokio::spawn(async move { backfill.run().await.unwrap() });
    sleep(SECOND).await;
    world.tables.down(Side::New, true);
    sleep(SECOND * 10).await;
    world.tables.down(Side::New, false);
    let report = run.await.unwrap();
    assert!(report.failed == 0 && report.synced, "{report}");
}

/// Odd keys.
#[tokio::test(start_paused = true)]
async fn odd_keys_go_through() {
    let world = World::new();
    world.advance().await;
    let odd = ["", "\n", "\0", "a\nb = c", "ü", "\u{10ffff}", "/", "//", " ", "\\n", "a\rb"];
    for (n, key) in odd.iter().enumerate() {
        world.tables.old().insert((*key).to_owned(), n as i64);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let checkpoints = FileCheckpoints::at(dir.path().join("c\n p")).unwrap();
        let report =
            world.backfill().sweep(Sweep::new().checkpoints(checkpoints)).run().await.unwrap();
        assert!(report.synced, "{report}");
        assert_eq!(report.written, if round == 0 { odd.len() as u64 } else { 0 });
        world.tables.assert_equal();
    }
}

/// Numbers that make no sense are refused or survived.
#[tokio::test(start_paused = true)]
async fn odd_numbers() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    for rate in [0.0, f64::NAN, f64::INFINITY, -1.0, 1e-10] {
        assert!(world.backfill().sweep(Sweep::new().rate(rate)).run().await.is_err(), "{rate}");
    }
    for s in [
        Sweep::new().rate(1e300),
        Sweep::new().rate(f64::MAX),
        Sweep::new().concurrency(1),
        Sweep::new().concurrency(10_000),
        Sweep::new().retry_pause(Duration::MAX),
        Sweep::new().key_timeout(Duration::MAX),
        Sweep::new().checkpoint_every(Duration::ZERO),
        Sweep::new().slow_down(SlowDown::new().floor(Duration::ZERO).factor(1.0000001)),
    ] {
        let run = world.backfill().sweep(s.clone());
        let report = timeout(SECOND * 3_600, run.run()).await.unwrap().unwrap();
        assert!(report.synced, "{s:?} {report}");
    }
    let verify = world.verify().rereads(u32::MAX, Duration::MAX).keep(usize::MAX);
    timeout(SECOND * 3_600, verify.run()).await.unwrap().unwrap();
}

/// A key that only new has, when a relative write (an upsert that counts, or one that
/// sets some of the fields) creates it on old: applied by both, so nobody marks it. The
/// source's stream has gone by, and the target's key is not compared, since the source
/// has one.
#[tokio::test(start_paused = true)]
async fn a_stream_run_compares_a_leftover_that_the_source_got_meanwhile() {
    use futures_util::StreamExt;
    let tables = Tables::default();
    let counts = |side: Side| {
        let tables = tables.clone();
        Fake::new(move |call| {
            *tables.on(side).entry(call.uri.path().to_owned()).or_default() += 1;
            async { Ok(answer(200, "")) }
        })
    };
    let (old, new) = (counts(Side::Old), counts(Side::New));
    let world = World { rig: Rig::on(MigrationHandle::new("test"), old, new, |l| l), tables };
    world.advance().await;
    world.tables.fill(Side::New, [(1, 5)]);
    let listed = world.tables.clone();
    let backfill = Backfill::new(world.handle(), world.tables.clone()).streams(move |side| {
        let keys: Vec<_> = listed.on(side).keys().cloned().collect();
        let pause = if side == Side::New { 1_000 } else { 0 };
        futures_util::stream::once(sleep(Duration::from_millis(pause)))
            .flat_map(move |()| futures_util::stream::iter(keys.clone()))
            .map(Ok::<_, String>)
    });
    let run = tokio::spawn(async move { backfill.run().await.unwrap() });
    sleep(Duration::from_millis(500)).await;
    world.rig.ask(set(1, 0)).await;
    let report = run.await.unwrap();
    assert!(report.synced, "{report}");
    world.tables.assert_equal();
}

/// The checkpoint of a finished run that left one failed key: the next run visits that key
/// alone. What was dirty at a clean stop without a journal is forgotten.
#[tokio::test(start_paused = true)]
async fn dirty_keys_lost_at_a_clean_stop_void_a_finished_run_with_failures() {
    let mut service = Restarts::default();
    let world = service.start().await;
    world.advance().await;
    service.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    service.tables.way(7, Some(Way::Fails));
    let report = world.backfill().sweep(sweep(&service.kept)).run().await.unwrap();
    assert_eq!(report.failed, 1);
    service.stop_with_a_dirty_key(world, 3).await;
    service.tables.way(7, None);

    let world = service.start().await;
    let report = world.backfill().sweep(sweep(&service.kept)).run().await.unwrap();
    assert!(report.synced && !report.resumed, "{report}");
    service.tables.assert_equal();
}

/// The same for a Verify that goes on from its checkpoint.
#[tokio::test(start_paused = true)]
async fn dirty_keys_lost_at_a_clean_stop_void_a_verify() {
    let mut service = Restarts::default();
    let world = service.start().await;
    world.advance().await;
    for side in Side::ALL {
        service.tables.fill(side, (0..100).map(|key| (key, 1)));
    }
    service.tables.slow.store(10, Ordering::SeqCst);
    let verify = world.verify().sweep(sweep(&service.kept));
    assert!(timeout(Duration::from_millis(700), verify.run()).await.is_err());
    service.tables.slow.store(0, Ordering::SeqCst);
    service.stop_with_a_dirty_key(world, 0).await;

    let world = service.start().await;
    let report = world.verify().sweep(sweep(&service.kept)).run().await.unwrap();
    assert!(!report.synced && !report.resumed, "{report}");
    assert_eq!(report.differ, 1, "{report}");
}

/// A panic in the user's listing is the run's error, not the caller's panic.
#[tokio::test(start_paused = true)]
async fn a_panic_while_listing_is_an_error() {
    let world = World::new();
    world.advance().await;
    let run = Backfill::new(world.handle(), world.tables.clone()).streams(|_| {
        if true {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        futures_util::stream::empty::<Result<Key, String>>()
    });
    let ended = tokio::spawn(async move { run.run().await.map(|_| ()) }).await;
    assert!(matches!(ended, Ok(Err(SweepError::Panicked))), "{ended:?}");
}

/// A write of an earlier stage hangs, so the flag does not settle.
#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_the_flag_to_settle_ends_at_the_shutdown() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    let (slow, latch) = latched(200, "");
    world.rig.old.becomes(&slow);
    let write = tokio::spawn(tower::Service::call(&mut world.rig.service.clone(), set(1, 2)));
    world.rig.quiesce().await;
    world.advance().await;
    let backfill = world.backfill();
    let run = tokio::spawn(async move { backfill.run().await });
    sleep(SECOND).await;
    assert!(timeout(SECOND, world.handle().shutdown()).await.is_err(), "the write hangs");
    let ended = timeout(SECOND * 600, run).await.expect("the run ends").unwrap();
    assert!(matches!(ended, Err(SweepError::ShutDown)), "{ended:?}");
    latch.open();
    drop(write.await);
}
