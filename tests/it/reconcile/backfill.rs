//! Copying all keys.

use std::{sync::Arc, time::Duration};

use http::Method;
use tokio::time::{Instant, sleep, timeout};
use tower::Service;
use tower_migration::{
    MigrationHandle, Side, Stage,
    reconcile::{Phase, Sweep, SweepError, Uncounted},
    stage::SyncState,
};

use super::world::*;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn it_copies_what_is_there_and_removes_what_is_not() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..100).map(|key| (key, i64::from(key))));
    world.tables.fill(Side::New, (90..120).map(|key| (key, -1)));
    world.advance().await;
    let report = world.backfill().run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.unchanged), (100, 20, 0));
    assert!(report.synced && !report.resumed && report.failures.is_empty());
    world.tables.assert_equal();
    assert_eq!(world.tables.writes(Side::Old), 0, "never to the side that is right");
    assert_eq!(world.handle().status().sync.new, SyncState::Synced);
    world.advance().await;
    assert_eq!(world.handle().stage(), Stage::ReadNew);
}

#[tokio::test(start_paused = true)]
async fn a_second_run_changes_nothing() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 7)));
    world.advance().await;
    world.backfill().run().await.unwrap();
    let written = world.tables.writes(Side::New);
    let report = world.backfill().run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.unchanged), (0, 0, 50));
    assert!(report.synced);
    assert_eq!(world.tables.writes(Side::New), written);
}

#[tokio::test(start_paused = true)]
async fn it_begins_once_what_knew_only_old_has_ended() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    let (slow, latch) = latched(200, "");
    let well = served(&world.tables, Side::Old, |_| 0);
    world.rig.old.becomes(&slow);
    let write = tokio::spawn(world.rig.service.clone().call(set(1, 2)));
    world.rig.quiesce().await;
    world.rig.old.becomes(&well);
    world.advance().await;
    let backfill = world.backfill();
    let progress = backfill.progress();
    let mut run = Box::pin(backfill.run());
    assert!(timeout(SECOND, &mut run).await.is_err());
    assert_eq!(progress.borrow().phase, Phase::Starting);
    assert!(world.tables.newer().is_empty());
    // It lands on old alone, at last.
    world.tables.fill(Side::Old, [(1, 2)]);
    latch.open();
    drop(write.await.unwrap().unwrap());
    assert!(run.await.unwrap().synced);
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn keys_that_fail_are_tried_again_and_the_rest_goes_on() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..40).map(|key| (key, 1)));
    world.tables.way(3, Some(Way::Fails));
    world.tables.way(20, Some(Way::Panics));
    world.advance().await;
    let report = world.backfill().run().await.unwrap();
    assert_eq!((report.written, report.failed, report.synced), (38, 2, false));
    assert_eq!(report.uncounted, Some(Uncounted::FailedKeys));
    let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    assert_eq!(failures, ["/0003: on purpose", "/0020: it panicked"]);
    assert_eq!(world.rig.dirty(), ["/0003", "/0020"], "nor are they forgotten otherwise");
    assert_eq!(world.tables.newer().len(), 38);

    world.tables.way(20, None);
    let tables = world.tables.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        tables.way(3, None);
    });
    let report = world.backfill().run().await.unwrap();
    assert!(report.synced, "{report}");
    world.tables.assert_equal();
    assert!(world.rig.dirty().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_holds_up_no_other() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..30).map(|key| (key, 1)));
    world.tables.way(0, Some(Way::Hangs));
    world.advance().await;
    let sweep = Sweep::new().concurrency(2).attempts(1).key_timeout(SECOND * 5);
    let began = Instant::now();
    let report = world.backfill().sweep(sweep).run().await.unwrap();
    assert!(began.elapsed() < SECOND * 6, "{:?}", began.elapsed());
    assert_eq!((report.written, report.failed), (29, 1));
    assert_eq!(report.failures[0].to_string(), "/0000: it took longer than 5s");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..10).map(|key| (key, 1)));
    world.tables.fill(Side::New, [(5, 1), (99, 1)]);
    for stage in [Stage::OldOnly, Stage::WriteBoth] {
        world.handle().move_to(stage).await.unwrap();
        let report = world.backfill().dry_run().run().await.unwrap();
        assert_eq!((report.written, report.deleted, report.unchanged), (9, 1, 1));
        assert_eq!((report.synced, report.uncounted), (false, Some(Uncounted::DryRun)));
        assert_eq!(world.tables.writes(Side::New) + world.tables.writes(Side::Old), 0);
    }
    assert!(!world.handle().status().sync.new.is_synced());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_without_a_key_meanwhile_voids_the_run() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..10).map(|key| (key, 1)));
    world.tables.slow.store(100, std::sync::atomic::Ordering::SeqCst);
    world.advance().await;
    let backfill = world.backfill().sweep(Sweep::new().concurrency(1));
    let mut run = Box::pin(backfill.run());
    assert!(timeout(SECOND, &mut run).await.is_err());
    world.rig.new.becomes(&Fake::says(500, ""));
    // A POST has no key before its answer names one.
    world.rig.ask(change(Method::POST, 1, 1)).await;
    let report = run.await.unwrap();
    assert_eq!((report.synced, report.uncounted), (false, Some(Uncounted::Voided)));
    assert!(!world.handle().status().sync.new.is_synced());
    assert!(world.backfill().run().await.unwrap().synced, "the next one counts");
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_found_no_room_voids_the_run_too() {
    let handle = MigrationHandle::builder("test").dirty_keys(1).build().unwrap();
    let world = World::on(handle, |layer| layer);
    world.tables.fill(Side::Old, (0..10).map(|key| (key, 1)));
    world.tables.slow.store(100, std::sync::atomic::Ordering::SeqCst);
    world.advance().await;
    let backfill = world.backfill().sweep(Sweep::new().concurrency(1));
    let mut run = Box::pin(backfill.run());
    assert!(timeout(SECOND * 2, &mut run).await.is_err());
    // Copied by now, and changed on old alone.
    world.rig.new.becomes(&Fake::says(500, ""));
    world.rig.ask(set(0, 2)).await;
    world.rig.ask(set(1, 2)).await;
    world.rig.quiesce().await;
    let report = run.await.unwrap();
    assert_eq!(report.uncounted, Some(Uncounted::Voided), "{report}");
    // What found room is still dirty.
    assert_eq!(world.rig.dirty().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_flag_leaves_it_behind() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    world.tables.slow.store(100, std::sync::atomic::Ordering::SeqCst);
    world.advance().await;
    let backfill = world.backfill().sweep(Sweep::new().concurrency(1));
    let mut run = Box::pin(backfill.run());
    assert!(timeout(SECOND, &mut run).await.is_err());
    let moved = world.handle().rollback();
    let (ended, moved) = tokio::join!(run, moved);
    moved.unwrap();
    let error = ended.unwrap_err();
    assert!(
        matches!(error, SweepError::Moved { from: Side::Old, stage: Stage::OldOnly }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_it() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    world.tables.slow.store(100, std::sync::atomic::Ordering::SeqCst);
    world.advance().await;
    let backfill = world.backfill();
    let mut run = Box::pin(backfill.run());
    assert!(timeout(Duration::from_millis(150), &mut run).await.is_err());
    let (ended, ()) = tokio::join!(run, world.handle().shutdown());
    assert!(matches!(ended, Err(SweepError::ShutDown)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn its_progress_can_be_watched() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..100).map(|key| (key, 1)));
    world.tables.slow.store(20, std::sync::atomic::Ordering::SeqCst);
    world.tables.way(50, Some(Way::Fails));
    world.advance().await;
    let sweep = Sweep::new().concurrency(4).rate(50.0).attempts(2);
    let backfill = world.backfill().sweep(sweep);
    let mut progress = backfill.progress();
    let watching = tokio::spawn(async move {
        let mut seen = vec![*progress.borrow_and_update()];
        while progress.changed().await.is_ok() {
            seen.push(*progress.borrow_and_update());
        }
        seen
    });
    backfill.run().await.unwrap();
    drop(backfill);
    let seen = watching.await.unwrap();
    assert!(seen.len() > 10);
    assert!(seen.windows(2).all(|two| two[0].done <= two[1].done), "{seen:?}");
    let middle = seen.iter().find(|now| now.done > 40 && now.phase == Phase::Running).unwrap();
    assert_eq!(middle.total, Some(100));
    assert!((40.0..55.0).contains(&middle.rate), "{middle:?}");
    assert!(middle.left.is_some_and(|left| left <= SECOND * 2), "{middle:?}");
    assert!(seen.iter().any(|now| now.phase == Phase::Retrying && now.done == 99));
    let last = seen.last().unwrap();
    assert_eq!((last.phase, last.done, last.failed), (Phase::Ended, 99, 1));
    let status = world.handle().status();
    assert_eq!(status.backfill.map(|backfill| backfill.done), Some(99));
    assert!(status.to_string().contains("backfill: 99 of 100 keys, 1 failed"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_said_before_anything_is_done() {
    let world = World::new();
    let run = async |sweep| world.backfill().sweep(sweep).run().await.unwrap_err().to_string();
    for (sweep, says) in [
        (Sweep::new().concurrency(0), "concurrency"),
        (Sweep::new().attempts(0), "attempts"),
        (Sweep::new().rate(0.0), "rate"),
        (Sweep::new().rate(f64::NAN), "rate"),
        (Sweep::new().key_timeout(Duration::ZERO), "key_timeout"),
    ] {
        let error = run(sweep).await;
        assert!(error.contains(says), "{error}");
    }
    let none = tower_migration::reconcile::Backfill::new(world.handle(), world.tables.clone());
    assert!(none.run().await.unwrap_err().to_string().contains("where the keys come from"));
}

#[tokio::test(start_paused = true)]
async fn there_and_back_again() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    world.advance().await;
    assert!(world.backfill().run().await.unwrap().synced);
    world.advance().await;
    world.advance().await;
    assert_eq!(world.handle().stage(), Stage::NewOnly);
    // Old goes stale: changed, made and deleted rows.
    for key in 0..5 {
        assert_eq!(world.rig.ask(set(key, 100)).await.0, 200);
    }
    assert_eq!(world.rig.ask(set(30, 1)).await.0, 200);
    assert_eq!(world.rig.ask(change(Method::DELETE, 19, 0)).await.0, 204);
    world.handle().rollback().await.unwrap();
    assert_eq!(world.handle().stage(), Stage::ReadNew);
    let blocked = world.handle().rollback().await.unwrap_err();
    assert!(blocked.to_string().contains("old is unsynced"), "{blocked}");
    let report = world.backfill().run().await.unwrap();
    assert_eq!(report.from, Side::New);
    assert_eq!((report.written, report.deleted, report.synced), (6, 1, true));
    world.tables.assert_equal();
    assert_eq!(world.tables.writes(Side::New), 20, "by the first run only");
    world.handle().move_to(Stage::WriteBoth).await.unwrap();
    world.handle().move_to(Stage::OldOnly).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_program_that_writes_the_source_past_the_layer_is_covered_by_reading_again() {
    for rereads in [true, false] {
        let world = World::new();
        world.tables.fill(Side::Old, [(1, 1)]);
        world.advance().await;
        let tables = world.tables.clone();
        // It writes old, then new, as `AuthorityFirst` does, while the copy has read
        // old and not written new yet.
        *world.tables.between.lock().unwrap() = Some(Box::new(move || {
            tables.fill(Side::Old, [(1, 2)]);
            tables.fill(Side::New, [(1, 2)]);
        }));
        world.backfill().reread(rereads).run().await.unwrap();
        let equal = *world.tables.old() == *world.tables.newer();
        assert_eq!(equal, rereads, "without it the copy undoes the newer write");
    }
}

#[tokio::test(start_paused = true)]
async fn one_run_at_its_end_does_not_undo_another_ones_finding() {
    // A mark that appears while the run is under way survives it.
    let world = World::new();
    world.tables.fill(Side::Old, (0..5).map(|key| (key, 1)));
    world.advance().await;
    world.handle().mark_dirty(&name(2).into(), Side::New);
    let report = world.backfill().run().await.unwrap();
    assert_eq!((report.written, report.left), (4, 1), "right on new: not overwritten");
    assert_eq!(world.rig.dirty(), ["/0002"]);
    assert!(report.synced, "dirty keys aside");
    assert!(world.handle().advance().await.is_err());
    let shared = Arc::new(world.tables.clone());
    assert_eq!(shared.writes(Side::Old), 0);
}

#[tokio::test(start_paused = true)]
async fn it_makes_way_when_the_side_that_it_reads_becomes_slow() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..4_000).map(|key| (key, 1)));
    world.tables.slow.store(2, std::sync::atomic::Ordering::SeqCst);
    world.advance().await;
    let backfill = world.backfill();
    let progress = backfill.progress();
    let run = tokio::spawn(async move { backfill.run().await });
    sleep(SECOND / 2).await;
    assert_eq!(progress.borrow().at_once, 16);
    // Clients have old to themselves, but for a key now and then.
    world.tables.slow.store(40, std::sync::atomic::Ordering::SeqCst);
    sleep(SECOND * 5).await;
    assert!(progress.borrow().at_once <= 2, "{:?}", progress.borrow());
    world.tables.slow.store(2, std::sync::atomic::Ordering::SeqCst);
    sleep(SECOND * 4).await;
    assert!(progress.borrow().at_once > 8, "{:?}", progress.borrow());
    assert!(run.await.unwrap().unwrap().synced);
}
