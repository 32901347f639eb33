//! A run that is stopped, and goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use http::Method;
use tokio::time::timeout;
use tower_migration::{
    BoxFuture, FileStore, MigrationHandle, Side, Stage,
    reconcile::{Checkpoint, CheckpointError, CheckpointStore, FileCheckpoints, Sweep, SweepError},
};

use super::world::*;
use crate::support::*;

/// In memory, through the text that a store of one's own would keep.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<String>>>);

impl Kept {
    fn get(&self) -> Checkpoint {
        self.0.lock().unwrap().as_ref().expect("a checkpoint was saved").parse().unwrap()
    }
}

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
    let every = Duration::from_millis(100);
    Sweep::new().concurrency(2).checkpoints(kept.clone()).checkpoint_every(every)
}

/// Stops a run of a hundred keys about half-way.
async fn half_way(world: &World, kept: &Kept) {
    world.tables.fill(Side::Old, (0..100).map(|key| (key, 1)));
    world.tables.slow.store(10, Ordering::SeqCst);
    let backfill = world.backfill().sweep(sweep(kept));
    assert!(timeout(Duration::from_millis(700), backfill.run()).await.is_err());
    world.tables.slow.store(0, Ordering::SeqCst);
    let up_to = kept.get().up_to.expect("some keys are done");
    assert!(up_to > name(10).into() && up_to < name(95).into(), "{up_to}");
    // What was cut off lingers.
    tokio::time::sleep(SECOND * 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_run_goes_on_from_there() {
    let (world, kept) = (World::new(), Kept::default());
    world.advance().await;
    half_way(&world, &kept).await;
    let reads = world.tables.reads(Side::Old);
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(report.resumed && report.synced, "{report}");
    assert_eq!(report.written, 100, "those of the run before included");
    let read = world.tables.reads(Side::Old) - reads;
    assert!(read < 2 * 95, "{read} reads");
    world.tables.assert_equal();
    assert!(kept.get().finished);
    let again = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(!again.resumed, "one that has ended begins anew");
    assert_eq!((again.written, again.unchanged), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn it_does_not_once_the_flag_was_back() {
    let (world, kept) = (World::new(), Kept::default());
    world.advance().await;
    half_way(&world, &kept).await;
    world.handle().move_to(Stage::OldOnly).await.unwrap();
    // Copied already, and changed while new was not looked at.
    world.rig.ask(set(0, 2)).await;
    world.advance().await;
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(!report.resumed && report.synced);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn nor_after_a_failure_that_left_no_dirty_key() {
    let (world, kept) = (World::new(), Kept::default());
    world.advance().await;
    half_way(&world, &kept).await;
    let well = served(&world.tables, Side::New, |_| 0);
    world.rig.new.becomes(&Fake::says(500, ""));
    world.rig.ask(change(Method::POST, 0, 0)).await;
    tokio::time::sleep(SECOND).await;
    world.rig.new.becomes(&well);
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(!report.resumed && report.synced);
}

#[tokio::test(start_paused = true)]
async fn nor_is_a_run_ahead_of_the_flag_the_beginning_of_one_that_counts() {
    let (world, kept) = (World::new(), Kept::default());
    half_way(&world, &kept).await;
    world.rig.ask(set(0, 2)).await;
    world.advance().await;
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(!report.resumed && report.synced);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn only_what_failed_is_visited_again() {
    let (world, kept) = (World::new(), Kept::default());
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    world.tables.way(7, Some(Way::Fails));
    world.advance().await;
    let report = world.backfill().sweep(sweep(&kept).attempts(2)).run().await.unwrap();
    assert_eq!((report.failed, report.synced), (1, false));
    assert_eq!(kept.get().again, [name(7).into()]);
    world.tables.way(7, None);
    let reads = world.tables.reads(Side::Old);
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert_eq!((report.written, report.failed, report.synced), (50, 0, true), "{report}");
    assert!(report.resumed);
    assert!(world.tables.reads(Side::Old) - reads <= 2);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn more_failures_than_are_kept_make_the_next_run_begin_anew() {
    let (world, kept) = (World::new(), Kept::default());
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    (0..5).for_each(|key| world.tables.way(key, Some(Way::Fails)));
    world.advance().await;
    let few = sweep(&kept).failures(2).attempts(1);
    let report = world.backfill().sweep(few).run().await.unwrap();
    assert_eq!((report.failed, report.failures.len(), report.synced), (5, 2, false));
    (0..5).for_each(|key| world.tables.way(key, None));
    let report = world.backfill().sweep(sweep(&kept)).run().await.unwrap();
    assert!(!report.resumed && report.synced);
    world.tables.assert_equal();
}

struct OnDisk {
    dir: tempfile::TempDir,
}

impl OnDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn handle(&self) -> MigrationHandle {
        on_disk("test", FileStore::create_or_open(self.path("flag"))).await
    }

    fn sweep(&self) -> Sweep {
        let file = FileCheckpoints::at(self.path("backfill")).unwrap();
        Sweep::new().concurrency(1).checkpoints(file).checkpoint_every(Duration::ZERO)
    }
}

/// The file is written by threads, so time cannot be paused.
#[tokio::test]
async fn a_restart_goes_on_if_it_was_in_order_and_begins_anew_if_not() {
    for clean in [true, false] {
        let disk = OnDisk { dir: tempfile::tempdir().unwrap() };
        let tables = Tables::default();
        tables.fill(Side::Old, (0..100).map(|key| (key, 1)));
        let world = World::over(tables.clone(), disk.handle().await, |layer| layer);
        world.advance().await;
        tables.way(60, Some(Way::Hangs));
        let backfill = world.backfill().sweep(disk.sweep());
        let up_to = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("up-to"))?.to_owned();
            Some(line)
        };
        let mut run = Box::pin(backfill.run());
        let path = disk.path("backfill");
        while up_to(&path).as_deref() != Some("up-to = /0059") {
            assert!(timeout(Duration::from_millis(20), &mut run).await.is_err());
        }
        drop(run);
        tables.way(60, None);
        if clean {
            // The key that was cut off is dirty: forgotten, it would void the checkpoint.
            while world.handle().dirty_count() == 0 {
                tokio::task::yield_now().await;
            }
            world.repair().start().unwrap();
            world.handle().clean().await;
            world.handle().shutdown().await;
        }
        drop((world, backfill));
        // The handle's own tasks hold it for a moment.
        let handle = disk.handle().await;
        let world = World::over(tables.clone(), handle, |layer| layer);
        assert_eq!(world.handle().stage(), Stage::WriteBoth);
        let report = world.backfill().sweep(disk.sweep()).run().await.unwrap();
        assert_eq!((report.resumed, report.synced), (clean, true), "{report}");
        tables.assert_equal();
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_an_error_with_a_way_out() {
    let disk = OnDisk { dir: tempfile::tempdir().unwrap() };
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    world.advance().await;
    let sweep = disk.sweep();
    world.backfill().sweep(sweep.clone()).run().await.unwrap();
    let path = disk.path("backfill");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("up-to = /0001"));
    for cut in 0..text.len() {
        fs::write(&path, &text[..cut]).unwrap();
        let error = FileCheckpoints::at(&path).unwrap_err();
        assert!(error.lifted_by().contains("move the file away"), "{cut}: {error}");
    }
    let error = world.backfill().sweep(sweep.clone()).run().await.unwrap_err();
    assert!(matches!(error, SweepError::Checkpoint(_)), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(world.backfill().sweep(sweep).run().await.unwrap().synced);
}

struct Full;

impl CheckpointStore for Full {
    fn load(&self) -> BoxFuture<'_, Result<Option<Checkpoint>, CheckpointError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn save(&self, _: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>> {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Box::pin(std::future::ready(Err(CheckpointError::new(full))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_costs_the_run_nothing() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    world.advance().await;
    let sweep = Sweep::new().checkpoints(Full).checkpoint_every(Duration::ZERO);
    assert!(world.backfill().sweep(sweep).run().await.unwrap().synced);
}
