//! Steps, what they wait for and what they do to requests.

use super::*;

#[tokio::test(start_paused = true)]
async fn failures_during_the_backfill_are_counted_until_the_side_is_confirmed() {
    let handle = MigrationHandle::builder("x").dirty_keys(1).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(500, "new"), |l| l);
    rig.handle.advance().await.unwrap();
    rig.handle.settled().await;
    // /a and /b have been backfilled; then their writes fail on new
    for key in ["/a", "/b"] {
        rig.handle
            .copy_key(&key.into(), Side::Old, || async { Ok::<(), Infallible>(()) })
            .await
            .unwrap();
    }
    rig.ask(put("/a", "2")).await;
    rig.ask(put("/b", "2")).await; // does not fit
    rig.ask(post("/bulk", "2")).await; // no key
    rig.quiesce().await;
    rig.handle
        .copy_key(&"/a".into(), Side::Old, || async { Ok::<(), Infallible>(()) })
        .await
        .unwrap();
    // The operator's word is taken, but not without having been told.
    let status = rig.handle.status();
    assert_eq!(status.untracked_on_new, 2, "/b and /bulk");
    assert!(status.to_string().contains("2 writes failed on new without a dirty key"), "{status}");
    rig.handle.confirm_synced(Side::New).await.unwrap();
    assert_eq!(rig.handle.status().untracked_on_new, 0);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_dirty_while_a_step_waits_blocks_it() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, "new")).at(Stage::ReadNew).await;
    let (late, latch) = latched(409, "no");
    rig.new.becomes(&late);
    let service = rig.service.clone();
    let write = tokio::spawn(service.oneshot(put("/a", "v")));
    rig.quiesce().await; // old has applied it, new has not answered
    rig.handle.rollback().await.unwrap();
    let h = rig.handle.clone();
    let step = tokio::spawn(async move { h.move_to(Stage::OldOnly).await });
    rig.quiesce().await;
    assert!(!step.is_finished());
    latch.open();
    write.await.unwrap().unwrap();
    let moved = step.await.unwrap();
    assert!(moved.is_err(), "{moved:?}\n{}", rig.handle.status());
}

#[tokio::test(start_paused = true)]
async fn no_step_deadline_is_no_panic() {
    let handle = MigrationHandle::builder("x").step_deadline(Duration::MAX).build().unwrap();
    let r = tokio::spawn(async move { handle.advance().await.map(|m| m.to) }).await;
    assert!(r.is_ok(), "{r:?}");
}

#[tokio::test(start_paused = true)]
async fn a_very_long_linger_is_no_panic() {
    let handle = MigrationHandle::builder("x").linger(Duration::MAX).build().unwrap();
    let rig = Rig::on(handle, Fake::hangs(), Fake::says(200, ""), |l| l);
    let r = tokio::spawn(tokio::time::timeout(SECOND, rig.service.clone().oneshot(put("/a", ""))))
        .await;
    assert!(r.is_ok(), "dropping a one-sided write panicked: {:?}", r.map(|_| ()));
    assert!(!rig.handle.status().settled || rig.handle.status().on_old.writes == 0);
}

#[tokio::test(start_paused = true)]
async fn settled_waits_although_all_slots_are_in_use() {
    let rig = Rig::new(Fake::hangs(), Fake::hangs());
    rig.handle.force(Stage::WriteBoth, "start").await.unwrap();
    let mut writes = Vec::new();
    for n in 0..16 {
        let mut w = task::spawn(
            rig.service.clone().call(Request::put(format!("/{n}")).body(body("")).unwrap()),
        );
        let _ = w.poll();
        writes.push(w);
        let to =
            if rig.handle.stage() == Stage::OldOnly { Stage::WriteBoth } else { Stage::OldOnly };
        rig.handle.force(to, "frenzy").await.unwrap();
        // Where the order of keys ends, writes wait a moment for hanging legs.
        tokio::time::sleep(SECOND * 2).await;
    }
    let _last = writes.pop().unwrap(); // admitted at OldOnly, still running on old
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    writes.clear();
    tokio::time::sleep(SECOND * 3600).await;
    assert_eq!(rig.old.alive(), 1, "a write that knows only old still runs");
    let settled = tokio::time::timeout(SECOND, rig.handle.settled()).await;
    assert!(
        settled.is_err(),
        "settled() resolved; confirm_synced says {:?}",
        rig.handle.confirm_synced(Side::New).await
    );
}

#[tokio::test(start_paused = true)]
async fn a_one_sided_write_that_timed_out_inside_lingers() {
    let landed = Arc::new(AtomicBool::new(false));
    let l = landed.clone();
    let old = Fake::new(move |_| {
        let l = l.clone();
        async move {
            let job = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                l.store(true, Ordering::SeqCst);
            });
            match tokio::time::timeout(Duration::from_millis(100), job).await {
                Ok(_) => Ok(answer(200, "")),
                Err(_) => Err("elapsed".into()),
            }
        }
    });
    let rig = Rig::new(old, Fake::says(200, ""));
    rig.send(put("/a", "")).await.unwrap_err();
    rig.handle.advance().await.unwrap();
    rig.handle.settled().await;
    assert!(
        landed.load(Ordering::SeqCst),
        "settled, the backfill may begin, and the write lands on old afterwards"
    );
}
// linger of an abandoned leg does not outlast its mark

#[tokio::test(start_paused = true)]
async fn the_exit_names_dirty_keys_and_keyless_writes_too() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, "new")).at(Stage::ReadNew).await;
    rig.old.becomes(&Fake::says(500, "down"));
    rig.ask(put("/a", "v2")).await;
    rig.quiesce().await;
    let moved = rig.handle.rollback().await.unwrap();
    assert_eq!(rig.dirty(), ["/a"]);
    assert_eq!(moved.tainted, [Key::from("/a")]);
}
// a store that panics once while the exit is put on record

#[tokio::test(start_paused = true)]
async fn a_step_that_is_kept_and_not_polled_holds_nothing_up() {
    let (new, _, permits) = stepped();
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    rig.ask(put("/first", "")).await;
    rig.quiesce().await;
    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.advance());
    assert_pending!(step.poll());
    let under_way = tokio::spawn(rig.service.clone().oneshot(put("/second", "")));
    rig.quiesce().await;
    permits.add_permits(1);
    rig.quiesce().await;
    assert_pending!(step.poll());
    assert!(rig.handle.status().holding);
    // From here on nobody polls it.
    let held = tokio::spawn(rig.service.clone().oneshot(put("/third", "")));
    tokio::time::sleep(SECOND * 2).await;
    assert!(!rig.handle.status().holding, "1 s at most");
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    permits.add_permits(5);
    under_way.await.unwrap().unwrap();
    rig.quiesce().await;
    assert!(step.await.is_err());
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_kept_and_not_polled_does_not_close_the_exit() {
    let (old, _latch) = latched(200, "old");
    let rig = Rig::new(old, Fake::says(200, "new")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "1")).await;
    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.move_to(Stage::WriteBoth));
    assert_pending!(step.poll());
    let exit = tokio::time::timeout(SECOND, rig.handle.rollback());
    assert_eq!(exit.await.expect("no waiting").unwrap().to, Stage::WriteBoth);
    drop(step);
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn failures_on_new_do_not_keep_old_from_draining() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(500, ""));
    let rig = rig.at(Stage::NewOnly).await;
    rig.ask(put("/a", "")).await;
    let began = tokio::time::Instant::now();
    rig.handle.drained(Side::Old).await;
    assert!(began.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_fails_after_the_flip_to_new_only_leaves_no_mark() {
    let (old, latch) = latched(500, "");
    let rig = Rig::new(old, Fake::says(200, "")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "")).await;
    rig.handle.advance().await.unwrap();
    latch.open();
    rig.quiesce().await;
    assert!(rig.handle.dirty_keys().is_empty(), "old is stale as a whole");
}

// The next ones were found by the model checker, see `tests/model`.

#[tokio::test(start_paused = true)]
async fn a_write_under_the_emergency_exit_that_old_does_not_take_is_not_acknowledged() {
    let ((old, on_old), (new, on_new)) = (latched(500, "old"), latched(200, "new"));
    let rig = Rig::new(old, new).at(Stage::ReadNew).await;
    let mut write = task::spawn(rig.service.clone().oneshot(put("/a", "1")));
    assert_pending!(write.poll());
    rig.handle.rollback().await.unwrap();
    on_new.open();
    on_old.open();
    rig.quiesce().await;
    // Reads go to old. The dirty key dies with the process, and then nobody
    // would know that new had it.
    let answer = assert_ready!(write.poll()).unwrap();
    assert_eq!(answer.status(), 503);
    assert!(text(answer).await.contains("partial-write"));
}

#[tokio::test(start_paused = true)]
async fn an_exit_while_the_client_waits_for_old_counts_as_well() {
    let (old, on_old) = latched(500, "old");
    let rig = Rig::with(old, Fake::says(200, "new"), |layer| {
        layer.failure_policy(FailurePolicy::AwaitBoth)
    })
    .at(Stage::ReadNew)
    .await;
    let mut write = task::spawn(rig.service.clone().oneshot(put("/a", "1")));
    assert_pending!(write.poll());
    rig.quiesce().await;
    assert_pending!(write.poll(), "new has answered");
    rig.handle.rollback().await.unwrap();
    on_old.open();
    rig.quiesce().await;
    assert_eq!(assert_ready!(write.poll()).unwrap().status(), 503);
}
