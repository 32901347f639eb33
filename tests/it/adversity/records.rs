//! A flag that is not where its record says.

use super::*;

/// What `MemoryStore`'s own example does, with a `FileStore`.
#[tokio::test]
async fn a_record_behind_a_link_that_leads_nowhere_is_not_a_new_migration() {
    let (etc, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, real) = (etc.path().join("x.flag"), data.path().join("x.flag"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    // The first start, as in the README.
    std::fs::write(&real, "").unwrap();
    std::fs::remove_file(&real).unwrap();
    drop(FileStore::create_or_open(&real).unwrap());
    let handle = on_disk("x", FileStore::create_or_open(&link)).await;
    at(&handle, Stage::NewOnly).await;
    handle.shutdown().await;
    drop(handle);
    // The volume is not mounted at the next start.
    let away = tempfile::tempdir().unwrap();
    std::fs::rename(data.path(), away.path().join("data")).unwrap();
    match FileStore::create_or_open(&link) {
        Err(error) => eprintln!("{error:?}"),
        store => {
            let handle = on_disk("x", store).await;
            panic!("served at {} although the record says new-only", handle.stage());
        }
    }
}

/// Saves fail, loads do not.
#[derive(Clone)]
struct Full {
    inner: MemoryStore,
    full: Arc<AtomicBool>,
}

impl FlagStore for Full {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.load()
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(ready(Err(StoreError::of(StoreErrorKind::Full, "no room"))));
        }
        self.inner.save(replaces, record)
    }
}

/// Design: "If the record cannot be written (full disk) it flips all the same,
/// writes wait for both sides until the record is durable".
#[tokio::test(start_paused = true)]
async fn writes_wait_for_the_record_of_an_exit_after_a_step_was_put_back() {
    let store = Full { inner: MemoryStore::new(), full: Arc::default() };
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer);
    at(&rig.handle, Stage::ReadNew).await;
    store.full.store(true, Ordering::SeqCst);
    rig.handle.rollback().await.unwrap();
    rig.handle.force(Stage::OldOnly, "get me out of here").await.unwrap_err();
    let blocked = rig.handle.advance().await.unwrap_err();
    eprintln!("{blocked}");
    rig.new.becomes(&Fake::says(500, ""));
    let began = tokio::time::Instant::now();
    assert_eq!(rig.ask(put("/b", "x")).await.0, 200);
    let waited = began.elapsed();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(store.inner.record().stage, Stage::ReadNew, "a restart leads there");
    // What the process would find after kill -9: new is the authority, and trusted.
    let again = MigrationHandle::open("x", store.inner.clone()).await.unwrap();
    eprintln!("after a kill: {}", again.status());
    assert!(
        waited >= Duration::from_secs(1),
        "/b is on old alone, was acknowledged after {waited:?}, and the record says read-new"
    );
}

#[tokio::test]
async fn nobody_joins_at_the_stage_before_while_the_record_of_an_exit_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let owner = on_disk("x", FileStore::create_or_open(&path)).await;
    at(&owner, Stage::ReadNew).await;
    // The disk is full, as far as the store can tell.
    std::fs::create_dir_all(dir.path().join("x.flag.next/full")).unwrap();
    owner.rollback().await.unwrap();
    // Somebody makes sure.
    owner.force(Stage::WriteBoth, "sure").await.unwrap();
    let joined =
        timeout(Duration::from_secs(3), async { on_disk("x", FileStore::open(&path)).await }).await;
    if let Ok(follower) = joined {
        assert_eq!(
            follower.stage(),
            owner.stage(),
            "a follower serves at {} beside an owner at {}",
            follower.stage(),
            owner.stage()
        );
    }
}
