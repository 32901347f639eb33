//! One test for each bug that was found after the rest was written.

use crate::support::*;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service, ServiceExt};
use tower_migration::{
    BoxFuture, Event, FailurePolicy, FileStore, FlagStore, Limits, MemoryStore, MigrationHandle,
    MigrationLayer, Reason, Record, Side, Stage, Standing, StoreError,
    compare::Verdict,
    protocol::Head,
    reconcile::{CopyError, Key},
};

fn post(path: &str, t: &'static str) -> Req {
    Request::post(path).body(body(t)).unwrap()
}

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
async fn a_key_function_that_panics_on_a_read_does_not_fail_the_client() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.keys(|_: &Head<'_>, b: &Bytes| {
            let v: serde_json::Value = serde_json::from_slice(b).expect("json"); // fine for every write
            v["id"].as_str().map(str::to_owned)
        })
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(get("/a")).await.0, 200); // not sampled
    rig.handle.set_shadow_rate(1.0).unwrap();
    let service = rig.service.clone();
    let answer = tokio::spawn(service.oneshot(get("/a"))).await;
    assert!(
        answer.is_ok(),
        "switching shadow reads on fails the client's read: {:?}",
        answer.map(|_| ())
    );
}

fn trailered() -> Fake {
    Fake::new(|_| async {
        let mut t = http::HeaderMap::new();
        t.insert("grpc-status", "0".parse().unwrap());
        let b = Full::new(Bytes::from("x"))
            .with_trailers(std::future::ready(Some(Ok(t))))
            .map_err(|n: Infallible| match n {});
        Ok(http::Response::new(Body::new(b)))
    })
}
#[tokio::test(start_paused = true)]
async fn equal_answers_with_trailers_match() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let rig = Rig::with(trailered(), trailered(), |l| {
        l.limits(Limits::default().rereads(0)).unwrap().observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Match]);
}

#[tokio::test(start_paused = true)]
async fn no_shadow_deadline_is_no_panic_for_the_client() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.limits(Limits::default().shadow_deadline(Duration::MAX)).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let answer = tokio::spawn(rig.service.clone().oneshot(get("/a"))).await;
    assert!(answer.is_ok(), "the client's read panicked");
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
async fn buffered_bytes_bounds_the_bodies_of_legs_that_timed_out() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let (old, new) = (Fake::hangs(), Fake::says(200, ""));
    let rig = Rig::with(old, new, |l| {
        l.limits(
            Limits::default()
                .body(1 << 20)
                .buffered_bytes(2 << 20)
                .running_legs(4)
                .leg_timeout(Duration::from_millis(10)),
        )
        .unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    let big: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    for n in 0..50 {
        let r = rig.ask(Request::put(format!("/{n}")).body(body(big)).unwrap()).await;
        if r.0 == 503 {
            return;
        }
        assert_eq!(r.0, 504);
    }
    let _ = &ALIVE;
    panic!(
        "{} legs hold a body of 1 MiB each, of at most 2 MiB together; limit of running legs 4",
        rig.old.alive()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_creates_answer_does_not_hold_the_key() {
    let more = Latch::default();
    let at = more.clone();
    let old = Fake::new(move |call| {
        let at = at.clone();
        async move {
            if call.method != http::Method::POST {
                return Ok(answer(200, "old"));
            }
            let s = futures_util::stream::unfold(0, move |n| {
                let at = at.clone();
                async move {
                    match n {
                        0 => Some((Ok(http_body::Frame::data(Bytes::from("a"))), 1)),
                        1 => {
                            at.passed().await;
                            Some((Ok(http_body::Frame::data(Bytes::from("b"))), 2))
                        }
                        _ => None,
                    }
                }
            });
            let mut r = http::Response::new(Body::new(StreamBody::new(s)));
            *r.status_mut() = http::StatusCode::CREATED;
            r.headers_mut().insert("location", "/a".parse().unwrap());
            Ok(r)
        }
    });
    // The hook declines: the other leg of the create is not run.
    let rig = Rig::with(old, Fake::says(200, "new"), |l| {
        l.limits(Limits::default().running_legs(1))
            .unwrap()
            .failure_policy(FailurePolicy::AwaitBoth)
    })
    .at(Stage::WriteBoth)
    .await;
    // one running leg: the create below gets no permit
    let (late, latch) = latched(200, "new");
    let fast = Fake::says(200, "new");
    rig.new.becomes(&late);
    let first = tokio::spawn(rig.service.clone().oneshot(put("/other", "")));
    rig.quiesce().await;
    let created = rig.send(post("/", "")).await.unwrap();
    assert_eq!(created.status(), 201);
    latch.open();
    first.await.unwrap().unwrap();
    rig.new.becomes(&fast);
    let began = tokio::time::Instant::now();
    let r = rig.ask(put("/a", "v")).await;
    assert!(
        began.elapsed() < SECOND,
        "{r:?} after {:?}, new saw {} calls",
        began.elapsed(),
        rig.new.count()
    );
    drop(created);
}

#[tokio::test(start_paused = true)]
async fn a_list_with_a_trailing_slash_that_races_a_write_is_inconclusive() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let (new, latch) = latched(200, "v2");
    let rig = Rig::with(Fake::says(200, "v1"), new, |l| {
        l.limits(Limits::default().rereads(0)).unwrap().observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/airports/")).await;
    rig.quiesce().await;
    rig.ask(put("/airports/EDDF", "v2")).await;
    latch.open();
    rig.handle.shutdown().await;
    assert!(matches!(verdicts.lock().unwrap()[..], [Verdict::Inconclusive(_)]), "{verdicts:?}");
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
async fn a_late_key_that_was_written_meanwhile_is_not_clean() {
    // upserting stores; old answers the create late, new runs it late
    let (o, n) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(String::new())));
    let (go_old, go_new) = (Latch::default(), Latch::default());
    let make = |row: Arc<Mutex<String>>, go: Latch, before: bool| {
        Fake::new(move |call| {
            let (row, go) = (row.clone(), go.clone());
            async move {
                let create = call.method == http::Method::POST;
                if create && !before {
                    go.passed().await;
                }
                *row.lock().unwrap() = String::from_utf8(call.body.to_vec()).unwrap();
                if create && before {
                    go.passed().await;
                }
                let mut r = answer(if create { 201 } else { 200 }, "");
                if create {
                    r.headers_mut().insert("location", "/a".parse().unwrap());
                }
                Ok(r)
            }
        })
    };
    let rig =
        Rig::new(make(o.clone(), go_old.clone(), true), make(n.clone(), go_new.clone(), false))
            .at(Stage::WriteBoth)
            .await;
    let create = tokio::spawn(rig.service.clone().oneshot(post("/", "v1")));
    rig.quiesce().await;
    rig.ask(put("/a", "v2")).await; // somebody who saw it in a list
    rig.quiesce().await;
    go_old.open();
    rig.quiesce().await;
    go_new.open();
    create.await.unwrap().unwrap();
    rig.handle.shutdown().await;
    let (o, n) = (o.lock().unwrap().clone(), n.lock().unwrap().clone());
    assert!(o == n || !rig.dirty().is_empty(), "old {o}, new {n}, dirty {:?}", rig.dirty());
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
async fn a_one_sided_authority_first_hook_panic_reaches_nobody() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.other_leg(|_r, _a| panic!("hook"))
    })
    .at(Stage::WriteBoth)
    .await;
    let answer = tokio::spawn(rig.service.clone().oneshot(put("/a", ""))).await;
    assert!(answer.is_ok(), "the authority had applied it; the client got a dead connection");
}
#[tokio::test(start_paused = true)]
async fn a_late_key_function_panic_reaches_nobody() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.keys_with_answer(
            |h: &Head<'_>, _: &Bytes| h.uri.path().to_owned(),
            |_: &Head<'_>, _, h: &http::HeaderMap| {
                h.get("location").expect("always there").to_str().unwrap().to_owned()
            },
        )
    })
    .at(Stage::WriteBoth)
    .await;
    let answer = tokio::spawn(rig.service.clone().oneshot(put("/a", ""))).await;
    assert!(answer.is_ok(), "the authority had applied it; the client got a dead connection");
}

#[tokio::test(start_paused = true)]
async fn readiness_and_key_order_do_not_deadlock() {
    use tower::{Layer, limit::GlobalConcurrencyLimitLayer};
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let handle = MigrationHandle::new("x");
    let layer =
        MigrationLayer::new(handle.clone(), new.clone()).failure_policy(FailurePolicy::AwaitBoth);
    let service = layer.layer(limit.layer(old.clone()));
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.advance().await.unwrap();
    let slow = |ms: u64| {
        let s = futures_util::stream::unfold(0, move |n| async move {
            match n {
                0 => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Some((Ok(http_body::Frame::data(Bytes::from("x"))), 1))
                }
                _ => None,
            }
        });
        Request::put("/k").body(Body::new(StreamBody::new(s))).unwrap()
    };
    // admitted at read-new; its body comes a little later
    let y = tokio::spawn(service.clone().oneshot(slow(10)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.rollback().await.unwrap();
    // admitted at write-both, with old's only permit; its body comes later still
    let began = tokio::time::Instant::now();
    let x = tokio::spawn(service.clone().oneshot(slow(20)));
    let (_x, _y) = (x.await.unwrap(), y.await.unwrap());
    assert!(
        began.elapsed() < SECOND,
        "took {:?}, dirty {:?}",
        began.elapsed(),
        handle.dirty_keys()
    );
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_ignores_the_body_is_not_a_client_that_hung_up() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let make = || {
        tower::service_fn(|r: Req| async move {
            drop(r);
            Ok::<_, tower_migration::BoxError>(answer(200, "x"))
        })
    };
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), make())
        .classify(|_: &Head<'_>| tower_migration::Operation::Read)
        .observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        });
    let service = tower::Layer::layer(&layer, make());
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.set_shadow_rate(1.0).unwrap();
    let r = service.oneshot(post("/search", "q")).await.unwrap();
    text(r).await;
    handle.shutdown().await;
    assert_ne!(
        verdicts.lock().unwrap()[0].reason(),
        Some("client_gone"),
        "the client read everything"
    );
}

#[tokio::test]
async fn the_rate_reads_back_as_it_was_set() {
    let h = MigrationHandle::new("x");
    h.set_shadow_rate(0.1).unwrap();
    assert_eq!(h.status().shadow_rate, 0.1, "{}", h.status());
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_gave_up_gives_its_bytes_back() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let make = || {
        Fake::new(|call| async move {
            if call.uri.path() == "/b" {
                return Ok(answer(200, "12345678"));
            }
            let s = futures_util::stream::unfold(0, |n| async move {
                match n {
                    0 => Some((Ok(http_body::Frame::data(Bytes::from("12345678"))), 1)),
                    _ => {
                        std::future::pending::<()>().await;
                        None
                    }
                }
            });
            Ok(http::Response::new(Body::new(StreamBody::new(s))))
        })
    };
    let rig = Rig::with(make(), make(), |l| {
        l.limits(Limits::default().captured_body(24).captured_bytes(30)).unwrap().observer(
            move |e: &Event<'_>| {
                if let Event::Shadow(r) = e {
                    v.lock().unwrap().push(r.verdict.clone());
                }
            },
        )
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut r = rig.send(get("/a")).await.unwrap();
        r.body_mut().frame().await.unwrap().unwrap();
        open.push(r); // an event stream, open for hours
    }
    tokio::time::sleep(SECOND * 3600).await;
    assert_eq!(rig.handle.status().on_new.shadows, 0);
    verdicts.lock().unwrap().clear();
    rig.ask(get("/b")).await;
    rig.handle.shutdown().await;
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Match]);
}
// one-sided write that failed with a timeout of its own: it may still land
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
async fn a_fallback_read_is_not_stale() {
    // a write of the key ends between the authority's failure and the fallback: AuthorityWins, other leg still to come
    let (new, latch) = latched(200, "new");
    let rig = Rig::with(Fake::says(200, "old"), new, |l| l.read_fallback(SECOND).unwrap())
        .at(Stage::WriteBoth)
        .await;
    rig.ask(put("/a", "v2")).await; // acknowledged by old; new's leg still runs
    rig.old.becomes(&Fake::says(500, "down"));
    let (status, t) = rig.ask(get("/a")).await;
    latch.open();
    assert_eq!((status, t.as_str()), (500, "down"));
}
// list read without relation to the dirty key's path
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

/// On a real clock: the file's locks are looked at by threads.
#[tokio::test]
async fn a_follower_hears_that_an_exit_has_settled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let handle = MigrationHandle::open("x", FileStore::create(&path).unwrap()).await.unwrap();
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let rig = Rig::on(handle, old, new, |l| l).at(Stage::ReadNew).await;
    // Under way, and not yet in any order: nobody knows what it will do on old.
    let never_ends = Body::new(StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, tower_migration::BoxError>,
    >()));
    let mut write = task::spawn(rig.send(Request::put("/a").body(never_ends).unwrap()));
    assert_pending!(write.poll());
    assert!(rig.handle.rollback().await.unwrap().tainted.is_empty());

    let follower = MigrationHandle::open("x", FileStore::open(&path).unwrap()).await.unwrap();
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
    let handle = MigrationHandle::open("x", FileStore::create(&path).unwrap()).await.unwrap();
    let owner = Rig::on(handle, old.clone(), new.clone(), both);
    owner.handle.advance().await.unwrap();
    assert_eq!(owner.ask(put("/a", "v1")).await.0, 200);

    let handle = MigrationHandle::open("x", FileStore::open(&path).unwrap()).await.unwrap();
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
    let handle = MigrationHandle::open("x", FileStore::create(&path).unwrap()).await.unwrap();
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
    let follower = MigrationHandle::open("x", FileStore::open(&path).unwrap()).await.unwrap();
    assert_eq!(copying.load(Ordering::SeqCst), 0);
    for worker in workers {
        assert_eq!(worker.await.unwrap(), CopyError::Shared);
    }
    drop(follower);
}
