//! Data first: everything is copied while old is alone, and caught up on later.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::stream;
use http::Method;
use tower_migration::{
    Side, Stage,
    reconcile::{Backfill, FileCheckpoints, Sweep, SweepError, Uncounted},
};

use super::world::*;

struct Kept {
    _dir: tempfile::TempDir,
    sweep: Sweep,
}

fn kept() -> Kept {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = FileCheckpoints::at(dir.path().join("airports.backfill")).unwrap();
    Kept { _dir: dir, sweep: Sweep::new().checkpoints(checkpoints) }
}

/// What clients of old have changed, deletions included.
type Changed = Arc<Mutex<Vec<u32>>>;

impl World {
    fn catch_up(&self, changed: &Changed, kept: &Kept) -> Backfill<Tables> {
        let changed = Arc::clone(changed);
        Backfill::new(self.handle(), self.tables.clone())
            .changed_since(move |_: SystemTime| {
                let keys: Vec<_> = changed.lock().unwrap().iter().map(|key| name(*key)).collect();
                stream::iter(keys.into_iter().map(Ok::<_, String>))
            })
            .sweep(kept.sweep.clone())
    }

    /// Everything is copied at old-only; then clients write, delete and make rows.
    async fn ahead(&self, kept: &Kept) -> Changed {
        self.tables.fill(Side::Old, (0..30).map(|key| (key, 1)));
        let report = self.backfill().sweep(kept.sweep.clone()).run().await.unwrap();
        assert_eq!((report.written, report.synced), (30, false));
        assert_eq!(report.uncounted, Some(Uncounted::AheadOfFlag));
        self.tables.assert_equal();
        for request in [set(3, 2), change(Method::DELETE, 4, 0), set(40, 1)] {
            self.rig.ask(request).await;
        }
        Arc::new(Mutex::new(vec![3, 4, 40]))
    }
}

#[tokio::test(start_paused = true)]
async fn the_run_ahead_does_not_count_and_the_catch_up_after_it_does() {
    let (world, kept) = (World::new(), kept());
    let changed = world.ahead(&kept).await;
    world.advance().await;
    assert!(world.handle().advance().await.is_err(), "not synced");
    let report = world.catch_up(&changed, &kept).run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.synced), (2, 1, true), "{report}");
    world.tables.assert_equal();
    world.advance().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_run_catches_up_too() {
    let (world, kept) = (World::new(), kept());
    world.ahead(&kept).await;
    world.advance().await;
    let report = world.backfill().sweep(kept.sweep.clone()).run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.unchanged), (2, 1, 28));
    assert!(report.synced && !report.resumed);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn the_moment_it_is_asked_for_lies_before_the_run() {
    let (world, kept) = (World::new(), kept());
    let before = SystemTime::now();
    world.ahead(&kept).await;
    world.advance().await;
    let asked = Arc::new(Mutex::new(None));
    let note = Arc::clone(&asked);
    let backfill = Backfill::new(world.handle(), world.tables.clone())
        .changed_since(move |since| {
            *note.lock().unwrap() = Some(since);
            stream::iter([3, 4, 40].map(|key| Ok::<_, String>(name(key))))
        })
        .sweep(kept.sweep.clone());
    backfill.run().await.unwrap();
    let since = asked.lock().unwrap().unwrap();
    assert!(since <= before - Duration::from_secs(59), "{:?}", before.duration_since(since));
}

#[tokio::test(start_paused = true)]
async fn a_catch_up_needs_a_finished_run_that_still_counts() {
    let (world, kept) = (World::new(), kept());
    world.tables.fill(Side::Old, [(1, 1)]);
    let changed = Changed::default();
    let refused = |ended: Result<_, SweepError>| matches!(ended, Err(SweepError::NoRunAhead));
    assert!(refused(world.catch_up(&changed, &kept).run().await), "at old-only");
    world.advance().await;
    assert!(refused(world.catch_up(&changed, &kept).run().await), "there was none");

    world.handle().move_to(Stage::OldOnly).await.unwrap();
    world.tables.way(1, Some(Way::Fails));
    let sweep = kept.sweep.clone().attempts(1);
    assert_eq!(world.backfill().sweep(sweep).run().await.unwrap().failed, 1);
    world.tables.way(1, None);
    world.advance().await;
    assert!(refused(world.catch_up(&changed, &kept).run().await), "it was not finished");

    world.handle().move_to(Stage::OldOnly).await.unwrap();
    let report = world.backfill().sweep(kept.sweep.clone()).run().await.unwrap();
    assert_eq!(report.failed, 0);
    world.advance().await;
    // A row that only new has, and that nobody remembers at old-only.
    world.rig.ask(set(9, 1)).await;
    world.handle().move_to(Stage::OldOnly).await.unwrap();
    world.tables.old().remove(&name(9));
    world.advance().await;
    assert!(refused(world.catch_up(&changed, &kept).run().await), "the flag went back");
    assert!(world.backfill().run().await.unwrap().synced);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_dual_write_queues_behind_a_copy_that_came_before_the_flag() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    let inner = world.tables.clone();
    world.tables.slow.store(500, std::sync::atomic::Ordering::SeqCst);
    let backfill = world.backfill();
    let mut run = Box::pin(backfill.run());
    // It has read old, and is about to write new.
    assert!(tokio::time::timeout(Duration::from_millis(1_250), &mut run).await.is_err());
    let step = async {
        world.advance().await;
        world.rig.ask(set(1, 2)).await
    };
    let (ended, (status, _)) = tokio::join!(run, step);
    assert_eq!(status, 200);
    assert!(ended.is_ok() || matches!(ended, Err(SweepError::Moved { .. })), "{ended:?}");
    world.rig.quiesce().await;
    world.handle().shutdown().await;
    assert_eq!((inner.old().get("/0001"), inner.newer().get("/0001")), (Some(&2), Some(&2)));
}

#[tokio::test(start_paused = true)]
async fn from_new_at_new_only_as_well() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    world.advance().await;
    world.backfill().run().await.unwrap();
    world.advance().await;
    world.advance().await;
    world.rig.ask(set(1, 5)).await;
    let report = world.backfill().run().await.unwrap();
    assert_eq!((report.from, report.written), (Side::New, 1));
    assert_eq!(report.uncounted, Some(Uncounted::AheadOfFlag));
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_a_run_ahead_has_written_is_not_the_empty_one_that_was_found() {
    let (world, kept) = (World::new(), kept());
    world.tables.fill(Side::Old, (0..5).map(|key| (key, 1)));
    world.backfill().find_empty().await.unwrap();
    world.backfill().sweep(kept.sweep.clone()).run().await.unwrap();
    // Deleted while new was not looked at: only a listing of new finds it.
    world.rig.ask(change(Method::DELETE, 4, 0)).await;
    world.advance().await;
    let error = world.backfill().target_empty().run().await.unwrap_err();
    assert!(matches!(error, SweepError::NotEmpty(_)), "{error}");
    assert!(world.backfill().run().await.unwrap().synced);
    world.tables.assert_equal();
}
