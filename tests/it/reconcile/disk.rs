//! A flag and a journal on a real disk.

use std::{fs, path::PathBuf, time::Duration};

use tokio::time::{sleep, timeout};
use tower_migration::{
    FailurePolicy, FileStore, MigrationHandle, Side,
    reconcile::{Journal, JournalMode},
};

use super::world::*;

/// A flag and a journal in files.
pub struct Disk(tempfile::TempDir);

impl Disk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn flag(&self) -> FileStore {
        FileStore::create_or_open(self.path("flag")).unwrap()
    }

    pub fn journal(&self, mode: JournalMode) -> Journal {
        Journal::create_or_open(self.path("journal")).unwrap().mode(mode)
    }

    pub async fn open(&self, mode: JournalMode) -> MigrationHandle {
        let builder =
            MigrationHandle::builder("test").hold(crate::support::DISK).linger(Duration::ZERO);
        builder.journal(self.journal(mode)).open(self.flag()).await.unwrap()
    }

    /// At write-both, with new synced and one key that new lacks.
    pub async fn with_a_dirty_key(&self, tables: &Tables, mode: JournalMode) -> World {
        let world = self.world(tables, mode).await;
        tables.fill(Side::Old, [(1, 1), (2, 1)]);
        world.advance().await;
        assert!(world.backfill().run().await.unwrap().synced);
        tables.down(Side::New, true);
        world.rig.ask(set(1, 2)).await;
        tables.down(Side::New, false);
        assert_eq!(world.rig.dirty(), ["/0001"]);
        world
    }

    pub async fn world(&self, tables: &Tables, mode: JournalMode) -> World {
        world_of(tables, self.open(mode).await)
    }

    /// All files as a kill at this moment leaves them.
    pub fn killed_now(&self) -> Self {
        let copy = Self::new();
        fs::copy(self.path("flag"), copy.path("flag")).unwrap();
        fs::create_dir(copy.path("journal")).unwrap();
        for entry in fs::read_dir(self.path("journal")).unwrap() {
            let from = entry.unwrap().path();
            // The owner may have removed it meanwhile.
            let _ = fs::copy(&from, copy.path("journal").join(from.file_name().unwrap()));
        }
        copy
    }

    /// The journal's files.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("journal")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "redb")).collect()
    }
}

pub fn world_of(tables: &Tables, handle: MigrationHandle) -> World {
    World::over(tables.clone(), handle, |layer| layer.failure_policy(FailurePolicy::AwaitBoth))
}

pub async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("it comes true");
}
