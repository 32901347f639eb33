//! What once went wrong with the journal: restarts, kills, followers.

use std::{fs, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tower_migration::{
    MigrationHandle, Side, Stage, Standing,
    reconcile::{Journal, JournalMode, RightSide},
    stage::SyncState,
};

use super::{disk::*, world::*};

const MODE: JournalMode = JournalMode::BeforeLegs;

/// At write-both, with new synced.
async fn synced(disk: &Disk, tables: &Tables) -> World {
    tables.fill(Side::Old, [(1, 1), (2, 1)]);
    let world = disk.world(tables, MODE).await;
    world.advance().await;
    assert!(world.backfill().run().await.unwrap().synced);
    world
}

async fn stop(world: World) {
    world.handle().shutdown().await;
    drop(world);
}

fn dirty(world: &World) -> Vec<(String, RightSide)> {
    world.handle().dirty_keys().iter().map(|d| (d.key.to_string(), d.right)).collect()
}

/// Writes a row that fails on the new side.
async fn fail_one(world: &World) {
    world.tables.down(Side::New, true);
    world.rig.ask(set(1, 5)).await;
    world.tables.down(Side::New, false);
    assert_eq!(world.rig.dirty(), ["/0001"]);
}

/// Writes a row where only the new side can hear of it, and comes back to read-new.
async fn round_by_new_only(world: &World) {
    // The first may hear of a follower's doubts, and does not count then.
    if !world.backfill().run().await.unwrap().synced {
        assert!(world.backfill().run().await.unwrap().synced);
    }
    let repair = world.repair().start().unwrap();
    timeout(Duration::from_secs(20), world.handle().clean()).await.expect("it is mended");
    repair.stop().await;
    world.advance().await;
    world.advance().await;
    assert_eq!(world.handle().stage(), Stage::NewOnly);
    assert_eq!(world.rig.ask(set(1, 99)).await.0, 200);
    world.handle().move_to(Stage::ReadNew).await.unwrap();
    assert_eq!(world.tables.newer()[&name(1)], 99);
}

#[tokio::test]
async fn marks_of_a_follower_that_ended_long_ago_overwrite_nothing() {
    for clean in [true, false] {
        let (disk, tables) = (Disk::new(), Tables::default());
        tables.fill(Side::Old, [(1, 1), (2, 1)]);
        let owner = disk.world(&tables, MODE).await;
        owner.advance().await;
        let follower = disk.world(&tables, MODE).await;
        assert_eq!(follower.handle().status().standing, Standing::Follower);
        fail_one(&follower).await;
        if clean {
            follower.handle().shutdown().await;
        }
        drop(follower);
        round_by_new_only(&owner).await;
        stop(owner).await;

        let world = disk.world(&tables, MODE).await;
        // Right was the old side then; who knows what is now.
        assert_eq!(dirty(&world), [("/0001".to_owned(), RightSide::Conflict)], "{clean}");
        world.handle().mark_dirty(&name(2).into(), Side::Old);
        let repair = world.repair().start().unwrap();
        until(|| repair.counts().healed == 1).await;
        assert_eq!(world.rig.dirty(), ["/0001"], "{clean}");
        assert_eq!(tables.newer()[&name(1)], 99, "{clean}");
        assert!(world.handle().resolve_conflict(&name(1).into(), Side::New));
        timeout(Duration::from_secs(20), world.handle().clean()).await.unwrap();
        tables.assert_equal();
    }
}

#[tokio::test]
async fn what_a_follower_knew_of_a_side_does_not_unsync_it_later() {
    let (disk, tables) = (Disk::new(), Tables::default());
    tables.fill(Side::Old, [(1, 1), (2, 1)]);
    let owner = disk.world(&tables, MODE).await;
    owner.advance().await;
    stop(disk.world(&tables, MODE).await).await;
    if !owner.backfill().run().await.unwrap().synced {
        assert!(owner.backfill().run().await.unwrap().synced);
    }
    stop(owner).await;
    let world = disk.world(&tables, MODE).await;
    assert_eq!(world.handle().status().sync.new, SyncState::Synced);
}

#[tokio::test]
async fn followers_that_come_and_go_do_not_make_the_owners_journal_unknown() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let owner = synced(&disk, &tables).await;
    for _ in 0..70 {
        let follower = disk.open(MODE).await;
        follower.shutdown().await;
    }
    let killed = disk.killed_now().open(MODE).await;
    assert_eq!(killed.stage(), Stage::WriteBoth);
    stop(owner).await;
    let world = disk.world(&tables, MODE).await;
    assert_eq!(disk.files().len(), 1, "what followers left is tidied up");
    assert_eq!(world.handle().stage(), Stage::WriteBoth);
}

#[tokio::test]
async fn starts_that_fail_do_not_make_the_journal_unknown() {
    let (disk, tables) = (Disk::new(), Tables::default());
    stop(synced(&disk, &tables).await).await;
    // Each takes over the journal, and dies before that is on record.
    let record = fs::read(disk.path("flag")).unwrap();
    for _ in 0..70 {
        drop(disk.open(MODE).await);
        fs::write(disk.path("flag"), &record).unwrap();
    }
    assert_eq!(disk.open(MODE).await.status().sync.new, SyncState::Synced);
}

#[tokio::test]
async fn what_was_given_up_does_not_come_back() {
    for over in [false, true] {
        let (disk, tables) = (Disk::new(), Tables::default());
        let world = synced(&disk, &tables).await;
        fail_one(&world).await;
        // While the process before still lives, as in a deployment.
        let early = over.then(|| Journal::start_over(disk.path("journal")).unwrap());
        stop(world).await;
        let builder =
            MigrationHandle::builder("test").hold(crate::support::DISK).linger(Duration::ZERO);
        let builder = match early {
            Some(early) => builder.journal(early.mode(MODE)),
            None => builder.journal(disk.journal(MODE)).without_journal(),
        };
        let world = world_of(&tables, builder.open(disk.flag()).await.unwrap());
        assert_eq!(world.handle().status().sync.new, SyncState::Unsynced, "{over}");
        round_by_new_only(&world).await;
        stop(world).await;
        let world = disk.world(&tables, MODE).await;
        assert_eq!(dirty(&world), [], "{over}");
        assert_eq!(tables.newer()[&name(1)], 99, "{over}");
    }
}

#[tokio::test]
async fn a_note_in_a_journal_that_was_left_out_for_a_while_does_not_unsync() {
    let (disk, tables) = (Disk::new(), Tables::default());
    tables.fill(Side::Old, [(1, 1), (2, 1)]);
    let world = disk.world(&tables, MODE).await;
    world.advance().await;
    stop(world).await;
    let builder =
        MigrationHandle::builder("test").hold(crate::support::DISK).linger(Duration::ZERO);
    let handle = builder.without_journal().open(disk.flag()).await.unwrap();
    handle.shutdown().await;
    drop(handle);
    // Back again.
    let world = disk.world(&tables, MODE).await;
    assert!(world.backfill().run().await.unwrap().synced);
    stop(world).await;
    let world = disk.world(&tables, MODE).await;
    assert_eq!(world.handle().status().sync.new, SyncState::Synced);
}

#[tokio::test]
async fn a_kill_right_after_a_backfill_leaves_the_side_synced() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let _world = synced(&disk, &tables).await;
    let handle = disk.killed_now().open(MODE).await;
    assert_eq!(handle.status().sync.new, SyncState::Synced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_forgets_no_key_that_is_marked_while_its_copy_ends() {
    let handle = MigrationHandle::builder("test").linger(Duration::ZERO).build().unwrap();
    let world = World::on(handle, |layer| layer);
    world.advance().await;
    world.tables.fill(Side::Old, (0..4).map(|key| (key, 1)));
    let repair = world.repair().rate(1e6).concurrency(8).start().unwrap();
    for round in 0..20 {
        let handle = world.handle().clone();
        let marks = move || {
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {
                (0..4).for_each(|key| handle.mark_dirty(&name(key).into(), Side::Old));
                (0..fastrand::u32(..2000)).for_each(|_| std::hint::spin_loop());
            }
        };
        spawn_blocking(marks).await.unwrap();
        let clean = timeout(Duration::from_secs(20), world.handle().clean()).await;
        assert!(clean.is_ok(), "round {round}: dirty for ever: {:?}", repair.counts());
    }
}
