//! Dirty keys that outlive the process.

use std::{fs, path::Path, time::Duration};

use tokio::time::timeout;
use tower_migration::{
    ConfigError, FileStore, MigrationHandle, OpenError, Side, Stage, Standing,
    reconcile::{FileCheckpoints, Journal, JournalErrorKind, JournalMode, RightSide, Sweep},
    stage::SyncState,
};

use super::{disk::*, world::*};
use crate::support::*;

#[tokio::test]
async fn a_stop_in_order_keeps_what_is_dirty_and_the_side_synced() {
    for mode in [JournalMode::OnFailure, JournalMode::BeforeLegs] {
        let (disk, tables) = (Disk::new(), Tables::default());
        let world = disk.with_a_dirty_key(&tables, mode).await;
        world.handle().mark_dirty(&name(2).into(), Side::Old);
        world.handle().mark_dirty(&name(2).into(), Side::New);
        world.handle().shutdown().await;
        drop(world);

        let world = disk.world(&tables, mode).await;
        assert_eq!(world.handle().status().sync.new, SyncState::Synced, "{mode}");
        let dirty = world.handle().dirty_keys();
        let rights: Vec<_> = dirty.iter().map(|d| (d.key.as_str(), d.right)).collect();
        let expected = [("/0001", RightSide::Is(Side::Old)), ("/0002", RightSide::Conflict)];
        assert_eq!(rights, expected);
        assert!(world.handle().advance().await.is_err());
        assert!(world.handle().resolve_conflict(&name(2).into(), Side::Old));
        world.repair().start().unwrap();
        until(|| world.handle().dirty_keys().is_empty()).await;
        tables.assert_equal();
        world.advance().await;
        world.handle().shutdown().await;
        drop(world);

        let world = disk.world(&tables, mode).await;
        assert_eq!(world.handle().stage(), Stage::ReadNew);
        assert!(world.handle().dirty_keys().is_empty(), "what was mended does not come back");
    }
}

#[tokio::test]
async fn after_a_crash_only_a_journal_of_what_begins_vouches_for_the_side() {
    for (mode, sync) in [
        (JournalMode::OnFailure, SyncState::Unsynced),
        (JournalMode::BeforeLegs, SyncState::Synced),
    ] {
        let (disk, tables) = (Disk::new(), Tables::default());
        let world = disk.with_a_dirty_key(&tables, mode).await;
        drop(world);
        let world = disk.world(&tables, mode).await;
        assert_eq!(world.handle().status().sync.new, sync, "{mode}");
        assert_eq!(world.rig.dirty(), ["/0001"], "{mode}");
    }
}

#[tokio::test]
async fn a_backfill_goes_on_after_a_crash_that_a_journal_vouches_for() {
    for (mode, resumed) in [(JournalMode::OnFailure, false), (JournalMode::BeforeLegs, true)] {
        let (disk, tables) = (Disk::new(), Tables::default());
        tables.fill(Side::Old, (0..60).map(|key| (key, 1)));
        tables.way(40, Some(Way::Hangs));
        let world = disk.world(&tables, mode).await;
        world.advance().await;
        let sweep = || {
            let file = FileCheckpoints::at(disk.path("backfill")).unwrap();
            Sweep::new().concurrency(1).checkpoints(file).checkpoint_every(Duration::ZERO)
        };
        let backfill = world.backfill().sweep(sweep());
        let mut run = Box::pin(backfill.run());
        let up_to = || fs::read_to_string(disk.path("backfill")).unwrap_or_default();
        while !up_to().contains("up-to = /0039") {
            assert!(timeout(Duration::from_millis(20), &mut run).await.is_err());
        }
        drop(run);
        drop((backfill, world));
        tables.way(40, None);
        let world = disk.world(&tables, mode).await;
        let report = world.backfill().sweep(sweep()).run().await.unwrap();
        assert_eq!((report.resumed, report.synced), (resumed, true), "{mode}: {report}");
        tables.assert_equal();
    }
}

async fn opened(builder: tower_migration::HandleBuilder, flag: FileStore) -> Result<(), String> {
    match builder.open(flag).await {
        Ok(_) => Ok(()),
        Err(error @ OpenError::Journal { .. }) => Err(error.to_string()),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_journal_that_the_record_names_is_never_taken_for_an_empty_one() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let world = disk.with_a_dirty_key(&tables, JournalMode::BeforeLegs).await;
    world.handle().shutdown().await;
    drop(world);
    let builder =
        || MigrationHandle::builder("test").hold(crate::support::DISK).linger(Duration::ZERO);

    let left_out = opened(builder(), disk.flag()).await.unwrap_err();
    assert!(left_out.contains("without_journal"), "{left_out}");
    let another = Journal::create_or_open(disk.path("another")).unwrap();
    let another = opened(builder().journal(another), disk.flag()).await.unwrap_err();
    assert!(another.contains("start_over"), "{another}");
    let foreign = disk.journal(JournalMode::BeforeLegs);
    let foreign = MigrationHandle::builder("other").journal(foreign);
    let foreign = opened(foreign, disk.flag()).await.unwrap_err();
    assert!(foreign.contains("a directory of its own"), "{foreign}");

    // None of that has harmed it.
    let handle = disk.open(JournalMode::BeforeLegs).await;
    assert_eq!(handle.dirty_keys().len(), 1);
    assert!(handle.status().sync.new.is_synced());
    handle.shutdown().await;
    drop(handle);

    // Given up: what it knew is not known, and the side has to be copied.
    let journal = Journal::start_over(disk.path("journal")).unwrap();
    let handle = builder().journal(journal).open(disk.flag()).await.unwrap();
    assert!(handle.dirty_keys().is_empty());
    assert_eq!(handle.status().sync.new, SyncState::Unsynced);
    handle.shutdown().await;
    drop(handle);
    let handle = builder().without_journal().open(disk.flag()).await.unwrap();
    assert_eq!(handle.status().sync.new, SyncState::Unsynced);
    assert!(handle.status().journal.is_none());
    handle.shutdown().await;
    drop(handle);
    assert_eq!(opened(builder(), disk.flag()).await, Ok(()), "and the record names none now");
}

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[tokio::test]
async fn a_damaged_journal_is_an_error_with_a_way_out() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let world = disk.with_a_dirty_key(&tables, JournalMode::OnFailure).await;
    world.handle().shutdown().await;
    drop(world);
    let files = disk.files();
    let [file] = &*files else { panic!("one file: {files:?}") };
    let whole = fs::read(file).unwrap();
    let length = whole.len() as u64;
    for to in [0, 1, 100, 4_096, 8_192, 12_288, 12_289, length / 2, length - 4_096, length - 1] {
        cut(file, to);
        let error = Journal::create_or_open(disk.path("journal")).unwrap_err();
        assert_eq!(error.kind(), JournalErrorKind::Corrupt, "cut at {to}: {error}");
        assert!(error.lifted_by().contains("start_over"));
        fs::write(file, &whole).unwrap();
    }
    let handle = disk.open(JournalMode::OnFailure).await;
    assert_eq!(handle.dirty_keys().len(), 1, "whole again");
}

#[tokio::test]
async fn a_follower_takes_over_what_the_owner_knew() {
    for clean in [true, false] {
        let (disk, tables) = (Disk::new(), Tables::default());
        let owner = disk.with_a_dirty_key(&tables, JournalMode::BeforeLegs).await;
        let follower = disk.world(&tables, JournalMode::BeforeLegs).await;
        assert_eq!(follower.handle().status().standing, Standing::Follower);
        // It writes too, and its failures are its own.
        tables.down(Side::New, true);
        follower.rig.ask(set(2, 5)).await;
        tables.down(Side::New, false);
        if clean {
            owner.handle().shutdown().await;
        }
        drop(owner);
        until(|| follower.handle().status().standing == Standing::Owner).await;
        assert_eq!(follower.rig.dirty(), ["/0001", "/0002"]);
        let sync = follower.handle().status().sync;
        assert_eq!(sync.new, SyncState::Synced, "clean: {clean}");
        follower.repair().start().unwrap();
        until(|| follower.handle().dirty_keys().is_empty()).await;
        tables.assert_equal();
        follower.advance().await;
    }
}

#[tokio::test]
async fn a_write_without_a_key_that_a_crash_may_have_split_makes_the_side_suspect() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let world = disk.with_a_dirty_key(&tables, JournalMode::BeforeLegs).await;
    let (hangs, _latch) = latched(200, "");
    world.rig.new.becomes(&hangs);
    let post = http::Request::post("/things").body(body("")).unwrap();
    let write = tokio::spawn(tower::Service::call(&mut world.rig.service.clone(), post));
    until(|| world.rig.new.alive() == 1).await;
    // As a kill does: neither of them comes to an end. The journal is flushed by the
    // write itself, before its legs began.
    write.abort();
    let copy = disk.path("copy");
    copy_dir(&disk.path("journal"), &copy);
    fs::copy(disk.path("flag"), disk.path("flag-then")).unwrap();
    let journal = Journal::create_or_open(&copy).unwrap().mode(JournalMode::BeforeLegs);
    let flag = FileStore::create_or_open(disk.path("flag-then")).unwrap();
    let handle = MigrationHandle::builder("test")
        .hold(crate::support::DISK)
        .journal(journal)
        .open(flag)
        .await
        .unwrap();
    assert_eq!(handle.status().sync.new, SyncState::Suspect);
    assert_eq!(handle.dirty_keys().len(), 1, "and no key more is doubted than was");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn more_keys_than_the_set_holds_make_the_side_unsynced() {
    let (disk, tables) = (Disk::new(), Tables::default());
    let world = disk.with_a_dirty_key(&tables, JournalMode::OnFailure).await;
    world.handle().mark_dirty(&name(2).into(), Side::Old);
    world.handle().shutdown().await;
    drop(world);
    let builder = MigrationHandle::builder("test").dirty_keys(1);
    let handle =
        builder.journal(disk.journal(JournalMode::OnFailure)).open(disk.flag()).await.unwrap();
    assert_eq!(handle.dirty_keys().len(), 1);
    assert_eq!(handle.status().sync.new, SyncState::Unsynced, "never in silence");
}

#[test]
fn a_journal_needs_a_flag_that_is_kept_too() {
    let disk = Disk::new();
    let builder = MigrationHandle::builder("test").journal(disk.journal(JournalMode::OnFailure));
    assert!(matches!(builder.build(), Err(ConfigError::Missing { .. })));
}
