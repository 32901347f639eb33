//! Copies, what they meet, and what a dead process leaves to them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_copy_does_not_wait_for_an_unrelated_leg_on_its_target() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::hangs());
    rig.handle.advance().await.unwrap();
    assert_eq!(rig.ask(post("/search-index", "")).await.0, 200); // its source leg has ended
    let copied = tokio::time::timeout(
        SECOND * 200,
        rig.handle.copy_key(&"/a".into(), Side::Old, || async { Ok::<(), Infallible>(()) }),
    )
    .await;
    assert!(copied.is_ok(), "no key at all can be copied, for minutes");
}

#[tokio::test(start_paused = true)]
async fn a_copy_gets_through_a_steady_load_of_creates() {
    let slow = |loc: bool| {
        Fake::new(move |_| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut r = answer(201, "");
            if loc {
                r.headers_mut().insert("location", "/z".parse().unwrap());
            }
            Ok(r)
        })
    };
    let rig = Rig::new(slow(false), slow(false));
    rig.handle.advance().await.unwrap();
    let s = rig.service.clone();
    let load = tokio::spawn(async move {
        loop {
            tokio::spawn(s.clone().oneshot(post("/things", "")));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    tokio::time::sleep(SECOND).await;
    let copied = tokio::time::timeout(
        SECOND * 60,
        rig.handle.copy_key(&"/a".into(), Side::Old, || async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<(), Infallible>(())
        }),
    )
    .await;
    load.abort();
    assert!(matches!(copied, Ok(Ok(_))), "100 creates a second: {copied:?}");
}

#[tokio::test(start_paused = true)]
async fn an_absorbed_leg_agrees_with_a_refusal() {
    let (old, let_old) = latched(409, "no");
    let rig = Rig::with(old, Fake::says(200, "new"), |layer| {
        layer.failure_policy(FailurePolicy::RequireBoth)
    })
    .at(Stage::WriteBoth)
    .await;
    let key = Key::from("/a");
    let again = Arc::new(AtomicUsize::new(0));
    let gate = Latch::default();
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::Old, || {
        let (again, gate) = (Arc::clone(&again), gate.clone());
        async move {
            if again.fetch_add(1, Ordering::SeqCst) == 0 {
                gate.passed().await;
            }
            Ok::<(), Infallible>(())
        }
    }));
    assert_pending!(copying.poll());
    let write = tokio::spawn(rig.service.clone().oneshot(put("/a", "1")));
    rig.quiesce().await;
    let_old.open();
    rig.quiesce().await;
    gate.open();
    assert_eq!(copying.await.unwrap().absorbed, 1);
    let answer = write.await.unwrap().unwrap();
    assert_eq!(answer.status(), 409, "a plain refusal, and no partial write");
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_copy_to_the_authority_does_not_outlive_its_two_sided_stage() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    let (key, gate) = (Key::from("/a"), Latch::default());
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::Old, || {
        let gate = gate.clone();
        async move {
            gate.passed().await;
            Ok::<(), Infallible>(())
        }
    }));
    assert_pending!(copying.poll());
    let mut step = task::spawn(rig.handle.advance());
    assert_pending!(step.poll(), "at new-only nothing keeps the copy from overwriting a write");
    rig.quiesce().await;
    assert_pending!(step.poll());
    // It lets no new one in meanwhile.
    let other = Key::from("/b");
    let mut late =
        task::spawn(rig.handle.copy_key(&other, Side::Old, || async { Ok::<(), Infallible>(()) }));
    assert_pending!(late.poll());
    gate.open();
    copying.await.unwrap();
    assert_eq!(step.await.unwrap().to, Stage::NewOnly);
    assert_eq!(late.await, Err(CopyError::OneSided(Stage::NewOnly)));
}

#[tokio::test(start_paused = true)]
async fn a_step_gives_up_on_a_copy_to_the_authority_that_does_not_end() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    let key = Key::from("/a");
    let copy = std::future::pending::<Result<(), Infallible>>;
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::Old, copy));
    assert_pending!(copying.poll());
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(matches!(blocked.reasons(), [Reason::NotSettled { writes: 1, .. }]), "{blocked}");
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    assert_eq!(rig.ask(put("/b", "")).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_had_sent_may_land_after_the_restart() {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    handle.advance().await.unwrap();
    drop(handle); // crash
    let again = MigrationHandle::open("x", store.clone()).await.unwrap();
    let copy = || async { Ok::<(), Infallible>(()) };
    let early = again.copy_key(&"/a".into(), Side::Old, copy).await;
    assert_eq!(early, Err(CopyError::NotSettled));
    let began = tokio::time::Instant::now();
    again.settled().await;
    assert_eq!(began.elapsed().as_secs(), 1, "as long as anything that was cut off");
    again.copy_key(&"/a".into(), Side::Old, copy).await.unwrap();
    again.shutdown().await;
    let clean = MigrationHandle::open("x", store).await.unwrap();
    clean.copy_key(&"/a".into(), Side::Old, copy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_waits_for_what_was_cut_off() {
    let rig = Rig::new(Fake::hangs(), Fake::says(200, ""));
    let mut write = task::spawn(rig.service.clone().oneshot(put("/a", "1")));
    assert_pending!(write.poll());
    drop(write);
    let began = tokio::time::Instant::now();
    rig.handle.shutdown().await;
    assert_eq!(began.elapsed().as_secs(), 1, "the next process would not know of it");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_key_comes_before_what_a_copy_that_was_cut_off_had_sent() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    let key = Key::from("/a");
    let pending = std::future::pending::<Result<(), Infallible>>;
    let mut cut = task::spawn(rig.handle.copy_key(&key, Side::Old, pending));
    assert_pending!(cut.poll());
    drop(cut);
    let began = tokio::time::Instant::now();
    let copy = || async { Ok::<(), Infallible>(()) };
    assert!(rig.handle.copy_key(&key, Side::Old, copy).await.unwrap().cleaned);
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_target_became_the_authority_takes_both_places() {
    let (new, on_new) = latched(200, "new");
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::ReadNew).await;
    let mut write = task::spawn(rig.service.clone().oneshot(put("/a", "1")));
    assert_pending!(write.poll());
    rig.quiesce().await;
    let (key, gate) = (Key::from("/a"), Latch::default());
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::New, || {
        let gate = gate.clone();
        async move {
            gate.passed().await;
            Ok::<(), Infallible>(())
        }
    }));
    assert_pending!(copying.poll(), "its source is busy");
    rig.handle.rollback().await.unwrap();
    on_new.open();
    assert_eq!(write.await.unwrap().status(), 200);
    rig.quiesce().await;
    assert_pending!(copying.poll());
    let before = rig.new.count();
    let mut next = task::spawn(rig.service.clone().oneshot(put("/a", "2")));
    assert_pending!(next.poll());
    rig.quiesce().await;
    assert_eq!(rig.new.count(), before, "on new it would be copied, and then run on old again");
    gate.open();
    copying.await.unwrap();
    assert_eq!(next.await.unwrap().status(), 200);
}

/// A side that keeps the last body of each path.
fn table() -> (Fake, Arc<Mutex<HashMap<String, Bytes>>>) {
    let rows: Arc<Mutex<HashMap<String, Bytes>>> = Arc::default();
    let at = Arc::clone(&rows);
    let fake = Fake::new(move |call| {
        let path = call.uri.path().to_owned();
        let mut rows = at.lock().unwrap();
        if call.method == http::Method::PUT {
            rows.insert(path.clone(), call.body);
        }
        let row = rows.get(&path).cloned().unwrap_or_default();
        async move { Ok(answer(200, row)) }
    });
    (fake, rows)
}

/// On a real clock, as above.
#[tokio::test]
async fn a_copy_beside_a_follower_loses_nothing_that_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let ((old, old_rows), (new, new_rows)) = (table(), table());
    let both = |l: MigrationLayer<Fake>| l.failure_policy(FailurePolicy::RequireBoth);
    let handle = on_disk("x", FileStore::create(&path)).await;
    let owner = Rig::on(handle, old.clone(), new.clone(), both);
    owner.handle.advance().await.unwrap();
    assert_eq!(owner.ask(put("/a", "v1")).await.0, 200);

    let handle = on_disk("x", FileStore::open(&path)).await;
    let follower = Rig::on(handle, old, new, both);
    let key = Key::from("/a");
    let copy = || async {
        let row = old_rows.lock().unwrap()["/a"].clone();
        assert_eq!(follower.ask(put("/a", "v2")).await.0, 200); // on both sides
        new_rows.lock().unwrap().insert("/a".into(), row);
        Ok::<(), Infallible>(())
    };
    assert_eq!(owner.handle.copy_key(&key, Side::Old, copy).await, Err(CopyError::Shared));
    assert_eq!(follower.handle.copy_key(&key, Side::Old, copy).await, Err(CopyError::Shared));
    assert_eq!(follower.ask(put("/a", "v2")).await.0, 200);
    follower.handle.shutdown().await;
    let copy = || async {
        let row = old_rows.lock().unwrap()["/a"].clone();
        new_rows.lock().unwrap().insert("/a".into(), row);
        Ok::<(), Infallible>(())
    };
    owner.handle.copy_key(&key, Side::Old, copy).await.unwrap();
    owner.handle.confirm_synced(Side::New).await.unwrap();
    owner.handle.advance().await.unwrap();
    assert_eq!(owner.ask(get("/a")).await.1, "v2");
}

/// On a real clock, as above.
#[tokio::test]
async fn a_follower_joins_between_the_copies_of_a_backfill_and_never_in_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let handle = on_disk("x", FileStore::create(&path)).await;
    handle.advance().await.unwrap();
    let copying = Arc::new(AtomicUsize::new(0));
    let backfill = |worker: usize| {
        let (handle, copying) = (handle.clone(), Arc::clone(&copying));
        async move {
            for n in 0.. {
                let copy = || async {
                    copying.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                    copying.fetch_sub(1, Ordering::SeqCst);
                    Ok::<(), Infallible>(())
                };
                let key = Key::from(format!("/{worker}/{n}"));
                if let Err(error) = handle.copy_key(&key, Side::Old, copy).await {
                    return error;
                }
            }
            unreachable!()
        }
    };
    let workers: Vec<_> = (0..4).map(|worker| tokio::spawn(backfill(worker))).collect();
    while copying.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let follower = on_disk("x", FileStore::open(&path)).await;
    assert_eq!(copying.load(Ordering::SeqCst), 0);
    for worker in workers {
        assert_eq!(worker.await.unwrap(), CopyError::Shared);
    }
    drop(follower);
}
