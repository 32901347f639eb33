//! The flag in a file: what survives, and what is an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tower_migration::{
    Blocked, FileStore, MigrationHandle, OpenError, Reason, Side, Stage, StoreErrorKind,
};

use crate::support::*;

struct Dir {
    dir: TempDir,
    path: PathBuf,
}

fn dir() -> Dir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("airports.flag");
    Dir { dir, path }
}

async fn create(path: &Path) -> MigrationHandle {
    on_disk("x", FileStore::create(path)).await
}

async fn reopen(path: &Path) -> MigrationHandle {
    on_disk("x", FileStore::open(path)).await
}

fn kind(result: Result<FileStore, tower_migration::StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn store_kind(blocked: &Blocked) -> StoreErrorKind {
    match blocked.reasons() {
        [Reason::Store(error)] => error.kind(),
        other => panic!("not the store: {other:?}"),
    }
}

#[tokio::test]
async fn a_restart_goes_on_where_the_flag_stood() {
    let Dir { dir: _dir, path } = dir();
    let handle = create(&path).await;
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.ramp(0.25).await.unwrap();
    handle.force(Stage::WriteBoth, "because\nI say so").await.unwrap();
    handle.ramp(0.75).await.unwrap();
    handle.shutdown().await;
    let text = fs::read_to_string(&path).unwrap();
    for line in ["stage = write-both", "new = synced", "clean = yes", "ramp = 0.75", "I say so"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    drop(handle);

    let handle = reopen(&path).await;
    let status = handle.status();
    assert_eq!(status.stage, Stage::WriteBoth);
    assert!(status.sync.new.is_synced(), "a clean stop keeps what was known");
    assert!((status.ramp - 0.75).abs() < 1e-4);
    assert_eq!(status.forced.len(), 1);
    assert_eq!(status.forced[0].reason, "because\nI say so");
    assert!(fs::read_to_string(&path).unwrap().contains("clean = no"), "it is in use");
    handle.move_to(Stage::ReadNew).await.unwrap();
    drop(handle);

    // No shutdown: old may lack a write. Not so on a one-sided stage.
    let handle = reopen(&path).await;
    assert_eq!(handle.stage(), Stage::ReadNew);
    assert!(!handle.status().sync.old.is_synced());
    assert!(handle.status().sync.new.is_synced());
    handle.advance().await.unwrap();
    drop(handle);
    let handle = reopen(&path).await;
    assert_eq!(handle.stage(), Stage::NewOnly);
    assert!(handle.status().sync.new.is_synced());
}

#[tokio::test]
async fn every_flip_is_on_record_before_it_takes_effect() {
    let Dir { dir: _dir, path } = dir();
    let handle = create(&path).await;
    let mut changes = handle.subscribe();
    let watched = tokio::spawn({
        let path = path.clone();
        async move {
            let mut seen = Vec::new();
            while changes.changed().await.is_ok() {
                let stage = *changes.borrow_and_update();
                let text = fs::read_to_string(&path).unwrap();
                seen.push((stage, text.contains(&format!("stage = {stage}"))));
            }
            seen
        }
    });
    for stage in [Stage::WriteBoth, Stage::OldOnly, Stage::WriteBoth] {
        handle.move_to(stage).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(handle);
    let seen = watched.await.unwrap();
    assert!(seen.len() >= 2 && seen.iter().all(|(_, recorded)| *recorded), "{seen:?}");
}

#[test]
fn a_damaged_record_is_never_read() {
    let Dir { dir: _dir, path } = dir();
    drop(FileStore::create(&path).unwrap());
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        for opened in [FileStore::open(&path), FileStore::create_or_open(&path)] {
            let error = opened.unwrap_err();
            let kind = error.kind();
            assert!(
                matches!(kind, StoreErrorKind::Corrupt | StoreErrorKind::NewerFormat),
                "{what}: {error:?}"
            );
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is changed by looking");
    };
    for end in 0..good.len() {
        refused(&good[..end], "cut off");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            refused(&bytes, "a bit flipped");
        }
    }
    fs::write(&path, good).unwrap();
    FileStore::open(&path).unwrap();
}

#[tokio::test]
async fn a_record_of_a_newer_format_says_so_and_what_to_do() {
    let Dir { dir: _dir, path } = dir();
    drop(FileStore::create(&path).unwrap());
    let text = fs::read_to_string(&path).unwrap().replace("format 2", "format 9");
    fs::write(&path, text).unwrap();
    let error = FileStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NewerFormat);
    assert!(error.to_string().contains("format 9"), "{error}");
    let error = OpenError::from(error).to_string();
    assert!(error.contains("run the version that wrote it"), "{error}");
}

#[test]
fn a_record_that_is_missing_is_never_made_up() {
    let Dir { dir, path } = dir();
    assert_eq!(kind(FileStore::open(&path)), StoreErrorKind::Missing);
    drop(FileStore::create_or_open(&path).unwrap());
    drop(FileStore::create_or_open(&path).unwrap());
    assert_eq!(kind(FileStore::create(&path)), StoreErrorKind::Exists);
    assert_eq!(kind(FileStore::create_at(&path, Stage::ReadNew)), StoreErrorKind::Exists);
    // It was there once, so this is no new migration.
    fs::remove_file(&path).unwrap();
    let all = [FileStore::open(&path), FileStore::create_or_open(&path), FileStore::create(&path)];
    for opened in all {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Missing);
        assert!(error.to_string().contains("gone"), "{error}");
    }
    assert!(!path.exists());
    drop(FileStore::create_at(&path, Stage::ReadNew).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("stage = read-new") && text.contains("old = unsynced"), "{text}");

    let nowhere = dir.path().join("no/such/dir/x.flag");
    assert_eq!(kind(FileStore::create(&nowhere)), StoreErrorKind::Missing);
    assert_eq!(kind(FileStore::create(dir.path().join(".."))), StoreErrorKind::Missing);
    assert_ne!(kind(FileStore::open(dir.path())), StoreErrorKind::NewerFormat);
}

#[tokio::test]
async fn a_record_that_was_replaced_by_hand_keeps_the_flag_where_it_is() {
    let Dir { dir: _dir, path } = dir();
    let handle = create(&path).await;
    let earlier = fs::read(&path).unwrap();
    handle.advance().await.unwrap();
    let own = fs::read(&path).unwrap();

    fs::write(&path, &earlier).unwrap();
    let blocked = handle.rollback().await.unwrap_err();
    assert_eq!(store_kind(&blocked), StoreErrorKind::Conflict);
    assert!(blocked.to_string().contains("put the record back"), "{blocked}");
    fs::write(&path, "stage = new-only").unwrap();
    assert_eq!(store_kind(&handle.rollback().await.unwrap_err()), StoreErrorKind::Corrupt);
    fs::remove_file(&path).unwrap();
    assert_eq!(store_kind(&handle.rollback().await.unwrap_err()), StoreErrorKind::Conflict);
    assert_eq!(handle.stage(), Stage::WriteBoth);
    assert!(!handle.status().holding);

    fs::write(&path, &own).unwrap();
    handle.rollback().await.unwrap();
    assert_eq!(handle.stage(), Stage::OldOnly);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_the_flag_stays_and_the_exit_is_open_all_the_same() {
    let Dir { dir: _dir, path } = dir();
    let handle = create(&path).await;
    let next = path.with_extension("flag.next");
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer);
    rig.walk(Stage::ReadNew).await;
    let before = fs::read(&path).unwrap();
    let fill = || std::os::unix::fs::symlink("/dev/full", &next).unwrap();

    fill();
    let blocked = rig.handle.advance().await.unwrap_err();
    assert_eq!(store_kind(&blocked), StoreErrorKind::Full);
    assert!(blocked.to_string().contains("free some space"), "{blocked}");
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    assert_eq!(fs::read(&path).unwrap(), before);
    fill();
    let blocked = rig.handle.move_to(Stage::WriteBoth).await.unwrap_err();
    assert_eq!(store_kind(&blocked), StoreErrorKind::Full);
    assert_eq!(rig.ask(put("/a", "")).await, (200, "new".to_owned()), "nothing is held");

    fill();
    let moved = rig.handle.rollback().await.unwrap();
    assert_eq!(moved.to, Stage::WriteBoth);
    assert_eq!(rig.ask(get("/a")).await.1, "old");
    // There is room again: the record follows.
    while !fs::read_to_string(&path).unwrap().contains("stage = write-both") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_is_a_typed_error() {
    let Dir { dir, path } = dir();
    let handle = create(&path).await;
    let elsewhere = dir.path().with_extension("away");
    fs::rename(dir.path(), &elsewhere).unwrap();
    let blocked = handle.advance().await.unwrap_err();
    assert_eq!(store_kind(&blocked), StoreErrorKind::Missing);
    assert_eq!(handle.stage(), Stage::OldOnly);
    fs::rename(&elsewhere, dir.path()).unwrap();
    handle.advance().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_typed_error() {
    use std::os::unix::fs::PermissionsExt;
    let Dir { dir, path } = dir();
    let handle = create(&path).await;
    let allow = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    // The superuser may write anywhere: then there is nothing to see.
    let forbidden = fs::write(dir.path().join("probe"), "").is_err();
    let stepped = handle.advance().await;
    allow(0o755);
    match stepped {
        Err(blocked) => {
            assert_eq!(store_kind(&blocked), StoreErrorKind::Denied);
            assert_eq!(handle.stage(), Stage::OldOnly);
        }
        Ok(_) => assert!(!forbidden),
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_is_followed_and_the_permissions_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let Dir { dir, path } = dir();
    drop(FileStore::create(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    let before = fs::read(&path).unwrap();
    let other_name = dir.path().join("other name");
    fs::hard_link(&path, &other_name).unwrap();
    let handle = reopen(&link).await;
    handle.advance().await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&other_name).unwrap(), before, "replaced, not written over");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    // Through whichever name: there is one owner.
    assert!(FileStore::open(&path).unwrap().require_owner().is_err());
}

#[test]
fn what_a_crash_left_beside_the_record_does_no_harm() {
    let Dir { dir: _dir, path } = dir();
    drop(FileStore::create(&path).unwrap());
    let next = path.with_extension("flag.next");
    fs::write(&next, "half a reco").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = reopen(&path).await;
        handle.advance().await.unwrap();
    });
    assert!(!next.exists());
}
