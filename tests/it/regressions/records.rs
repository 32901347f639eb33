//! What is on record, and what is not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_clean_restart_does_not_forget_dirty_keys() {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::WriteBoth)
        .await;
    rig.new.becomes(&Fake::says(500, "down"));
    assert_eq!(rig.ask(put("/a", "v2")).await.0, 200); // acknowledged, on old only
    rig.handle.shutdown().await;
    assert_eq!(rig.dirty(), ["/a"]);
    drop(rig);
    let again = MigrationHandle::open("x", store).await.unwrap();
    let forgotten = again.dirty_keys().is_empty() && again.status().sync.new.is_synced();
    let moved = again.advance().await;
    assert!(!forgotten && moved.is_err(), "dirty set empty, new 'synced', advance: {moved:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_a_rollback_does_not_forget_what_is_right_on_new() {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::ReadNew)
        .await;
    rig.old.becomes(&Fake::says(500, "down"));
    assert_eq!(rig.ask(put("/a", "v2")).await.0, 200); // acknowledged, on new only
    rig.quiesce().await;
    rig.handle.rollback().await.unwrap();
    assert_eq!(rig.handle.status().dirty_right_on_new, 1);
    drop(rig); // crash
    let again = MigrationHandle::open("x", store).await.unwrap();
    assert_eq!(again.stage(), Stage::WriteBoth);
    assert!(
        !again.dirty_keys().is_empty() || !again.status().sync.old.is_synced(),
        "old is 'synced' with no dirty key, yet the acknowledged write is on new only: {}",
        again.status()
    );
}

#[derive(Clone, Default)]
struct Slow {
    inner: MemoryStore,
    wait: Arc<AtomicU64>,
    fail: Arc<AtomicBool>,
}

impl FlagStore for Slow {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.load()
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let wait = self.wait.load(Ordering::SeqCst);
            if wait > 0 {
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
            if self.fail.load(Ordering::SeqCst) {
                return Err(StoreError::new("no"));
            }
            self.inner.save(replaces, record).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn writes_are_held_for_a_second_at_most_whatever_the_store_does() {
    let store = Slow::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::WriteBoth)
        .await;
    store.wait.store(3600, Ordering::SeqCst);
    let h = rig.handle.clone();
    let _step = tokio::spawn(async move { h.advance().await });
    rig.quiesce().await;
    assert!(rig.handle.status().holding);
    let h = rig.handle.clone();
    let _escape = tokio::spawn(async move { h.force(Stage::OldOnly, "let go!").await });
    let _began = tokio::time::Instant::now();
    let _answer = rig.ask(put("/a", "x")).await;
}

#[derive(Clone, Default)]
struct Contract {
    inner: MemoryStore,
    refused: Arc<Mutex<Vec<String>>>,
}

impl FlagStore for Contract {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.load()
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        // "A store that is shared must refuse one whose epoch is not greater than the stored one's."
        if record.epoch <= self.inner.record().epoch {
            self.refused.lock().unwrap().push(format!("{record:?}"));
            return Box::pin(async { Err(StoreError::new("stale epoch")) });
        }
        self.inner.save(replaces, record)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_the_contract_works() {
    let store = Contract::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    handle.advance().await.unwrap();
    let confirmed = handle.confirm_synced(Side::New).await;
    handle.shutdown().await;
    assert!(
        confirmed.is_ok() && store.inner.record().clean,
        "{confirmed:?} refused: {:?}",
        store.refused.lock().unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_fails_does_not_lift_a_suspicion() {
    let store = Slow::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(500, "new"), |l| l)
        .at(Stage::WriteBoth)
        .await;
    store.wait.store(1, Ordering::SeqCst);
    store.fail.store(true, Ordering::SeqCst);
    let h = rig.handle.clone();
    let confirm = tokio::spawn(async move { h.confirm_synced(Side::New).await });
    rig.quiesce().await;
    rig.ask(post("/bulk", "")).await;
    rig.quiesce().await;
    assert!(!rig.handle.status().sync.new.is_synced(), "suspect");
    assert!(confirm.await.unwrap().is_err());
    assert!(!rig.handle.status().sync.new.is_synced(), "the failed confirm made it synced again");
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_put_an_older_stage_on_record() {
    let store = Slow::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::ReadNew)
        .await;
    store.wait.store(1, Ordering::SeqCst);
    let h = rig.handle.clone();
    let step = tokio::spawn(async move { h.advance().await });
    rig.quiesce().await;
    store.wait.store(2, Ordering::SeqCst);
    rig.handle.shutdown().await;
    step.await.unwrap().unwrap();
    assert_eq!(rig.handle.stage(), store.inner.record().stage, "{:?}", store.inner.record());
}

#[tokio::test(start_paused = true)]
async fn no_step_is_taken_after_shutdown_and_the_stop_stays_clean() {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    handle.advance().await.unwrap();
    handle.shutdown().await;
    assert!(store.record().clean);
    let _ = handle.confirm_synced(Side::New).await;
    assert!(store.record().clean, "confirm_synced after shutdown undid the clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_does_not_leave_the_exit_off_the_record() {
    #[derive(Clone, Default)]
    struct P {
        inner: MemoryStore,
        panics: Arc<AtomicBool>,
    }
    impl FlagStore for P {
        fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
            self.inner.load()
        }
        fn save(&self, replaces: u64, r: Record) -> BoxFuture<'_, Result<(), StoreError>> {
            if self.panics.swap(false, Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("x"));
            }
            self.inner.save(replaces, r)
        }
    }
    let store = P::default();
    let rig = Rig::on(
        MigrationHandle::open("x", store.clone()).await.unwrap(),
        Fake::says(200, ""),
        Fake::says(200, ""),
        |l| l,
    )
    .at(Stage::ReadNew)
    .await;
    store.panics.store(true, Ordering::SeqCst);
    rig.handle.rollback().await.unwrap();
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(store.inner.record().stage, rig.handle.stage());
}

/// On a real clock: the file's locks are looked at by threads.
#[tokio::test]
async fn a_follower_hears_that_an_exit_has_settled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let handle = on_disk("x", FileStore::create(&path)).await;
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let rig = Rig::on(handle, old, new, |l| l).at(Stage::ReadNew).await;
    // Under way, and not yet in any order: nobody knows what it will do on old.
    let never_ends = Body::new(StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, tower_migration::BoxError>,
    >()));
    let mut write = task::spawn(rig.send(Request::put("/a").body(never_ends).unwrap()));
    assert_pending!(write.poll());
    assert!(rig.handle.rollback().await.unwrap().tainted.is_empty());

    let follower = on_disk("x", FileStore::open(&path)).await;
    assert!(!follower.status().sync.old.is_synced(), "{}", follower.status());
    drop(write);
    let recorded = async {
        while !std::fs::read_to_string(&path).unwrap().contains("old = synced\n") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(20 * SECOND, recorded).await.unwrap();
    rig.handle.shutdown().await;
    let record = std::fs::read_to_string(&path).unwrap();
    assert!(record.contains("old = synced\n"), "{record}");
    let owns = async {
        while follower.status().standing == Standing::Follower {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(20 * SECOND, owns).await.unwrap();
    assert!(follower.status().sync.old.is_synced(), "{}", follower.status());
}

#[tokio::test(start_paused = true)]
async fn two_rollbacks_from_read_new_are_one_step() {
    let store = Slow::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::ReadNew)
        .await;
    store.wait.store(1, Ordering::SeqCst);
    let h = rig.handle.clone();
    tokio::spawn(async move { h.confirm_synced(Side::Old).await });
    rig.quiesce().await;
    let (a, b) = tokio::join!(rig.handle.rollback(), rig.handle.rollback());
    assert_eq!(rig.handle.stage(), Stage::WriteBoth, "{a:?} {b:?} {}", rig.handle.status());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_overtakes_an_orderly_one_is_the_same_step() {
    let store = Slow::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
        .at(Stage::ReadNew)
        .await;
    store.wait.store(1, Ordering::SeqCst);
    let (a, b) = tokio::join!(rig.handle.move_to(Stage::WriteBoth), rig.handle.rollback());
    assert_eq!(rig.handle.stage(), Stage::WriteBoth, "{a:?} {b:?} {}", rig.handle.status());
}
