//! Two processes at one file: one owns the flag, the other follows. (Locks
//! belong to an open file, so two stores in one process are as two processes.)

use std::{path::Path, time::Duration};

use tower_migration::{
    Blocked, FileStore, MigrationHandle, Reason, Side, Stage, Standing, StoreErrorKind,
};

use crate::support::*;

async fn open(path: &Path) -> MigrationHandle {
    on_disk("x", FileStore::create_or_open(path)).await
}

fn is_follower(blocked: &Blocked) -> bool {
    matches!(blocked.reasons(), [Reason::Follower])
}

fn is_shared(blocked: &Blocked) -> bool {
    matches!(blocked.reasons(), [Reason::Shared])
}

/// Waits for what another task will bring about.
async fn until(check: impl Fn() -> bool) {
    while !check() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Two {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    owner: MigrationHandle,
    follower: MigrationHandle,
}

async fn two_at(stage: Stage) -> Two {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let owner = open(&path).await;
    while owner.stage() < stage {
        owner.advance().await.unwrap();
        if owner.stage() == Stage::WriteBoth {
            owner.confirm_synced(Side::New).await.unwrap();
        }
    }
    let follower = open(&path).await;
    Two { _dir: dir, path, owner, follower }
}

#[tokio::test]
async fn the_second_one_follows_and_nobody_flips() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::ReadNew).await;
    assert_eq!(owner.status().standing, Standing::Owner);
    assert_eq!(follower.status().standing, Standing::Follower);
    assert_eq!(follower.stage(), Stage::ReadNew);
    assert!(follower.status().sync.old.is_synced());
    assert!(follower.status().to_string().contains("follower"), "{}", follower.status());

    assert!(is_follower(&follower.advance().await.unwrap_err()));
    assert!(is_follower(&follower.rollback().await.unwrap_err()));
    assert!(is_follower(&follower.force(Stage::OldOnly, "no").await.unwrap_err()));
    assert!(is_follower(&follower.confirm_synced(Side::Old).await.unwrap_err()));
    assert!(is_shared(&owner.advance().await.unwrap_err()));
    assert!(is_shared(&owner.rollback().await.unwrap_err()));
    assert!(is_shared(&owner.confirm_synced(Side::Old).await.unwrap_err()));
    let blocked = owner.move_to(Stage::WriteBoth).await.unwrap_err();
    assert!(blocked.to_string().contains("end the other process"), "{blocked}");
    assert_eq!((owner.stage(), follower.stage()), (Stage::ReadNew, Stage::ReadNew));
    // Asking for where it stands is no step.
    owner.move_to(Stage::ReadNew).await.unwrap();
    follower.move_to(Stage::ReadNew).await.unwrap();
}

#[tokio::test]
async fn the_follower_takes_over_when_the_owner_stops_in_order() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::WriteBoth).await;
    owner.shutdown().await;
    until(|| follower.status().standing == Standing::Owner).await;
    assert!(follower.status().sync.new.is_synced(), "nothing is in doubt");
    follower.advance().await.unwrap();
    assert_eq!(follower.stage(), Stage::ReadNew);
    assert!(matches!(owner.advance().await.unwrap_err().reasons(), [Reason::ShutDown]));
}

#[tokio::test]
async fn the_follower_takes_over_when_the_owner_dies_and_trusts_nothing_then() {
    let Two { owner, follower, path, _dir } = two_at(Stage::WriteBoth).await;
    drop(owner);
    until(|| follower.status().standing == Standing::Owner).await;
    assert!(!follower.status().sync.new.is_synced(), "a write may be on one side alone");
    assert!(follower.status().sync.old.is_synced());
    let third = open(&path).await;
    assert_eq!(third.status().standing, Standing::Follower);
    assert!(is_shared(&follower.rollback().await.unwrap_err()));
    third.shutdown().await;
    follower.rollback().await.unwrap();
}

#[tokio::test]
async fn a_follower_that_goes_in_order_leaves_nothing_behind() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::WriteBoth).await;
    follower.shutdown().await;
    owner.advance().await.unwrap();
    assert!(owner.status().sync.old.is_synced());
}

#[tokio::test]
async fn a_follower_that_dies_is_noticed_at_the_next_step() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::WriteBoth).await;
    drop(follower);
    until_unlocked(&owner).await;
    let blocked = owner.advance().await.unwrap_err();
    assert!(matches!(blocked.reasons(), [Reason::NotSynced { side: Side::New, .. }]), "{blocked}");
    // What it had sent may still land for a moment.
    owner.settled().await;
    owner.confirm_synced(Side::New).await.unwrap();
    owner.advance().await.unwrap();
}

/// A dropped handle's task may look at the file once more.
async fn until_unlocked(owner: &MigrationHandle) {
    while owner.confirm_synced(Side::Old).await.is_err_and(|blocked| is_shared(&blocked)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_follower_that_dies_is_noticed_by_the_next_owner_too() {
    let Two { owner, follower, path, _dir } = two_at(Stage::WriteBoth).await;
    owner.shutdown().await;
    // It dies before it has taken over.
    drop(follower);
    drop(owner);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let next = open(&path).await;
    assert_eq!(next.status().standing, Standing::Owner);
    assert!(!next.status().sync.new.is_synced());
}

#[tokio::test]
async fn a_follower_with_dirty_keys_does_not_take_them_with_it() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::WriteBoth).await;
    let rig = Rig::on(follower, Fake::says(200, ""), Fake::says(500, ""), |layer| layer);
    rig.ask(put("/a", "")).await;
    until(|| rig.dirty() == ["/a"]).await;
    rig.handle.shutdown().await;
    let blocked = owner.advance().await.unwrap_err();
    assert!(matches!(blocked.reasons(), [Reason::NotSynced { side: Side::New, .. }]), "{blocked}");
}

#[tokio::test]
async fn what_a_follower_has_seen_fail_it_still_knows_as_the_owner() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::WriteBoth).await;
    let rig = Rig::on(follower, Fake::says(200, ""), Fake::says(500, ""), |layer| layer);
    rig.ask(put("/a", "")).await;
    rig.ask(http::Request::post("/").body(body("")).unwrap()).await;
    until(|| rig.dirty() == ["/a"] && rig.handle.status().sync.new.as_str() == "suspect").await;
    owner.shutdown().await;
    until(|| rig.handle.status().standing == Standing::Owner).await;
    assert_eq!(rig.handle.status().sync.new.as_str(), "suspect");
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test]
async fn force_moves_both() {
    let Two { owner, follower, _dir, .. } = two_at(Stage::ReadNew).await;
    let rig = Rig::on(follower, Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer);
    assert_eq!(rig.ask(get("/a")).await.1, "new");
    owner.force(Stage::WriteBoth, "new is broken").await.unwrap();
    until(|| rig.handle.stage() == Stage::WriteBoth).await;
    assert_eq!(rig.ask(get("/a")).await.1, "old");
    assert_eq!(rig.handle.status().forced[0].reason, "new is broken");
}

#[tokio::test]
async fn a_file_in_use_can_be_refused() {
    let Two { path, _dir, owner: _owner, .. } = two_at(Stage::OldOnly).await;
    let refused = FileStore::open(&path).unwrap().require_owner().unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::NotOwner);
    assert_eq!(FileStore::create(&path).unwrap_err().kind(), StoreErrorKind::Exists);
}

#[tokio::test]
async fn a_follower_that_joins_during_a_step_sees_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let owner = open(&path).await;
    let (old, latch) = latched(200, "");
    let rig = Rig::on(owner, old, Fake::says(200, ""), |layer| layer);
    let write = tokio::spawn(tower::Service::call(&mut ready(&rig).await, put("/a", "")));
    rig.quiesce().await;
    rig.handle.advance().await.unwrap();
    // Waits for the write of the stage before.
    let step = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.rollback().await }
    });
    rig.quiesce().await;
    let joins = tokio::spawn({
        let path = path.clone();
        async move { open(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!joins.is_finished(), "nobody joins in the middle of a step");
    latch.open();
    write.await.unwrap().unwrap();
    step.await.unwrap().unwrap();
    assert_eq!(joins.await.unwrap().stage(), Stage::OldOnly);
}

async fn ready(rig: &Rig) -> tower_migration::Migration<Fake, Fake> {
    let mut service = rig.service.clone();
    tower::ServiceExt::ready(&mut service).await.unwrap();
    service
}
