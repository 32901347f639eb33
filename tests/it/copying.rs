//! One key made equal on both sides while writes of it go on.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Request};
use tokio::time::sleep;
use tokio_test::{assert_pending, task};
use tower::Service;
use tower_migration::{
    FailurePolicy, Side, Stage,
    reconcile::{CopyError, Key, RightSide},
};

use crate::support::*;

type Rows = Arc<Mutex<BTreeMap<String, i64>>>;

/// A store of numbers: PUT sets, PATCH adds, DELETE removes.
fn store(latency: impl Fn(u64) -> u64 + Send + Sync + 'static) -> (Fake, Rows) {
    let rows = Rows::default();
    let kept = Arc::clone(&rows);
    let calls = std::sync::atomic::AtomicU64::new(0);
    let fake = Fake::new(move |call| {
        let n = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let (kept, pause) = (Arc::clone(&kept), latency(n));
        async move {
            sleep(Duration::from_millis(pause)).await;
            let key = call.uri.path().to_owned();
            let number = std::str::from_utf8(&call.body)?.parse().unwrap_or(0);
            let mut rows = kept.lock().unwrap();
            match call.method {
                Method::PUT => drop(rows.insert(key, number)),
                Method::PATCH => *rows.entry(key).or_default() += number,
                _ => drop(rows.remove(&key)),
            }
            Ok(answer(200, ""))
        }
    });
    (fake, rows)
}

fn add(path: &str, number: i64) -> Req {
    Request::patch(path).body(body(number.to_string())).unwrap()
}

/// Copies the key's row from `from` to `to`, taking its time.
async fn copy(key: &str, from: &Rows, to: &Rows) -> Result<(), Infallible> {
    let row = from.lock().unwrap().get(key).copied();
    sleep(Duration::from_millis(5)).await;
    match row {
        Some(row) => drop(to.lock().unwrap().insert(key.to_owned(), row)),
        None => drop(to.lock().unwrap().remove(key)),
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_where_it_could_be_undone() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
    let key = Key::from("/a");
    let copy = || async { Ok::<(), Infallible>(()) };
    assert_eq!(
        rig.handle.copy_key(&key, Side::Old, copy).await,
        Err(CopyError::OneSided(Stage::OldOnly))
    );
    let (old, latch) = latched(200, "");
    rig.old.becomes(&old);
    let write = tokio::spawn(rig.service.clone().call(put("/a", "")));
    rig.quiesce().await;
    rig.handle.advance().await.unwrap();
    assert_eq!(rig.handle.copy_key(&key, Side::Old, copy).await, Err(CopyError::NotSettled));
    latch.open();
    drop(write.await.unwrap().unwrap());
    assert!(rig.handle.copy_key(&key, Side::Old, copy).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dirty_key_is_mended_from_the_side_that_is_right_only() {
    let ((old, in_old), (new, in_new)) = (store(|_| 1), store(|_| 1));
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    let healthy = rig.new.clone();
    let broken = Fake::says(500, "");
    let good = Fake::new(|_| async { Ok(answer(200, "")) });
    good.becomes(&healthy);
    rig.new.becomes(&broken);
    rig.ask(put("/a", "7")).await;
    rig.quiesce().await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Is(Side::Old));
    rig.new.becomes(&good);
    let key = Key::from("/a");
    let wrong = rig.handle.copy_key(&key, Side::New, || copy("/a", &in_new, &in_old)).await;
    assert_eq!(wrong, Err(CopyError::WrongWay(Side::Old)));
    let copied = rig.handle.copy_key(&key, Side::Old, || copy("/a", &in_old, &in_new)).await;
    assert!(copied.unwrap().cleaned);
    assert!(rig.handle.dirty_keys().is_empty());
    assert_eq!(*in_old.lock().unwrap(), *in_new.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_or_is_cut_off_leaves_the_key_dirty() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    let failed = rig.handle.copy_key(&"/a".into(), Side::Old, || async { Err("no") }).await;
    assert_eq!(failed, Err(CopyError::Failed("no")));
    assert_eq!(rig.dirty(), ["/a"]);
    let key = Key::from("/b");
    let mut cut = task::spawn(rig.handle.copy_key(
        &key,
        Side::Old,
        std::future::pending::<Result<(), Infallible>>,
    ));
    assert_pending!(cut.poll());
    drop(cut);
    assert_eq!(rig.dirty(), ["/a", "/b"]);
    assert_eq!(rig.handle.status().on_new.writes, 1, "it may still land");
    sleep(Duration::from_millis(1_001)).await;
    assert_eq!(rig.handle.status().on_new.writes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_not_copied_either_way() {
    let rig = Rig::new(Fake::says(500, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    rig.handle.rollback().await.unwrap();
    rig.old.becomes(&Fake::says(200, ""));
    rig.new.becomes(&Fake::says(500, ""));
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    let copy = || async { Ok::<(), Infallible>(()) };
    for from in Side::ALL {
        let refused = rig.handle.copy_key(&"/a".into(), from, copy).await;
        assert_eq!(refused, Err(CopyError::Conflict));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_overlaps_the_read_makes_it_read_again() {
    // The source is slow: the copy's first read comes before its write lands.
    let ((old, in_old), (new, in_new)) = (store(|_| 3), store(|_| 1));
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    in_old.lock().unwrap().insert("/a".into(), 1);
    let handle = rig.handle.clone();
    let copying = tokio::spawn({
        let (in_old, in_new) = (Arc::clone(&in_old), Arc::clone(&in_new));
        async move { handle.copy_key(&"/a".into(), Side::Old, || copy("/a", &in_old, &in_new)).await }
    });
    sleep(Duration::from_millis(1)).await;
    rig.ask(add("/a", 10)).await;
    let copied = copying.await.unwrap().unwrap();
    assert_eq!(copied.attempts, 2);
    assert_eq!(copied.absorbed, 1, "the increment is not applied a second time");
    rig.handle.shutdown().await;
    assert_eq!(in_old.lock().unwrap()["/a"], 11);
    assert_eq!(in_new.lock().unwrap()["/a"], 11);
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn clients_of_the_source_never_wait_for_a_copy() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    let key = Key::from("/a");
    let mut copying = task::spawn(rig.handle.copy_key(
        &key,
        Side::Old,
        std::future::pending::<Result<(), Infallible>>,
    ));
    assert_pending!(copying.poll());
    assert_eq!(rig.ask(put("/a", "")).await.0, 200);
    rig.quiesce().await;
    assert_eq!((rig.old.count(), rig.new.count()), (1, 0), "the leg on the target waits");
    drop(copying);
    // What the copy has sent may still land, so the leg waits for the linger.
    sleep(Duration::from_millis(1_001)).await;
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flip_of_the_authority_waits_for_a_copy() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    let key = Key::from("/a");
    let latch = Latch::default();
    let at = latch.clone();
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::Old, || {
        let at = at.clone();
        async move {
            at.passed().await;
            Ok::<(), Infallible>(())
        }
    }));
    assert_pending!(copying.poll());
    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.advance());
    assert_pending!(step.poll());
    latch.open();
    copying.await.unwrap();
    assert_eq!(step.await.unwrap().to, Stage::ReadNew);
}

#[tokio::test(start_paused = true)]
async fn writes_without_a_key_do_not_starve_a_copy() {
    let rig = Rig::new(Fake::says(200, ""), Fake::hangs()).at(Stage::WriteBoth).await;
    // One after the other, there is always one under way.
    let post = || Request::post("/things").body(body("")).unwrap();
    rig.ask(post()).await;
    let copy = || async { Ok::<(), Infallible>(()) };
    let copied = tokio::time::timeout(SECOND, async {
        rig.handle.copy_key(&"/things/1".into(), Side::Old, copy).await
    });
    assert_eq!(copied.await.expect("no waiting").unwrap().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_a_copy_of_its_key_overlapped_is_dirty() {
    use http::header::LOCATION;
    // New is done with the create when the copy finds nothing on old and
    // removes it there; then old creates it.
    let created = |gate: Latch| {
        Fake::new(move |_| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                let mut created = answer(201, "");
                created.headers_mut().insert(LOCATION, "/things/1".parse().unwrap());
                Ok(created)
            }
        })
    };
    let (let_old, let_new) = (Latch::default(), Latch::default());
    let_new.open();
    let rig = Rig::new(created(let_old.clone()), created(let_new)).at(Stage::WriteBoth).await;
    let post = Request::post("/things").body(body("")).unwrap();
    let write = tokio::spawn(rig.service.clone().call(post));
    rig.quiesce().await;
    let copy = || async { Ok::<(), Infallible>(()) };
    rig.handle.copy_key(&"/things/1".into(), Side::Old, copy).await.unwrap();
    let_old.open();
    assert_eq!(write.await.unwrap().unwrap().status(), 201);
    rig.quiesce().await;
    assert_eq!(rig.dirty(), ["/things/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_towards_the_authority_keeps_a_write_from_meeting_itself() {
    // Both sides refuse to create what is there.
    let store = || {
        let rows = Rows::default();
        let kept = Arc::clone(&rows);
        let fake = Fake::new(move |call| {
            let kept = Arc::clone(&kept);
            async move {
                let new = kept.lock().unwrap().insert(call.uri.path().to_owned(), 1).is_none();
                Ok(answer(if new { 201 } else { 409 }, ""))
            }
        });
        (fake, rows)
    };
    let ((old, in_old), (new, in_new)) = (store(), store());
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    let latch = Latch::default();
    let key = Key::from("/a");
    let mut copying = task::spawn(rig.handle.copy_key(&key, Side::New, || {
        let (latch, in_old, in_new) = (latch.clone(), Arc::clone(&in_old), Arc::clone(&in_new));
        async move {
            latch.passed().await;
            copy("/a", &in_new, &in_old).await
        }
    }));
    assert_pending!(copying.poll());
    let write = tokio::spawn(rig.service.clone().call(put("/a", "1")));
    rig.quiesce().await;
    latch.open();
    copying.await.unwrap();
    assert_eq!(write.await.unwrap().unwrap().status(), 201, "it is the one that created it");
    rig.handle.shutdown().await;
    assert!(rig.handle.dirty_keys().is_empty());
}

/// Writers and copiers on few keys; sets, increments and deletions; in the end
/// both stores are the same.
#[tokio::test(start_paused = true)]
async fn copies_that_race_writers_leave_the_two_stores_equal() {
    for seed in 0..30_u64 {
        let latency = move |salt: u64| {
            move |n: u64| fastrand::Rng::with_seed(seed ^ ((n + salt) * 7919)).u64(0..12)
        };
        let ((old, in_old), (new, in_new)) = (store(latency(1)), store(latency(1_000_000)));
        let rig = Rig::with(old, new, |layer| layer.failure_policy(FailurePolicy::AuthorityWins));
        for n in 0..4 {
            in_old.lock().unwrap().insert(format!("/{n}"), 1_000 * n);
        }
        rig.handle.advance().await.unwrap();
        let mut tasks = Vec::new();
        for writer in 0..4_u64 {
            let service = rig.service.clone();
            tasks.push(tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed * 100 + writer);
                for _ in 0..30 {
                    let path = format!("/{}", random.u8(0..4));
                    let number = random.i64(0..100).to_string();
                    let method = match random.u8(0..10) {
                        0 => Method::DELETE,
                        1..=4 => Method::PUT,
                        _ => Method::PATCH,
                    };
                    let request =
                        Request::builder().method(method).uri(path).body(body(number)).unwrap();
                    let answer = service.clone().call(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    drop(answer);
                    sleep(Duration::from_millis(random.u64(0..20))).await;
                }
            }));
        }
        for _ in 0..3 {
            for n in 0..4 {
                let key = format!("/{n}");
                let copied = rig
                    .handle
                    .copy_key(&Key::from(key.as_str()), Side::Old, || copy(&key, &in_old, &in_new))
                    .await;
                assert!(copied.is_ok(), "{copied:?}");
                sleep(Duration::from_millis(30)).await;
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        rig.handle.shutdown().await;
        assert_eq!(*in_old.lock().unwrap(), *in_new.lock().unwrap(), "seed {seed}");
        assert!(rig.handle.dirty_keys().is_empty(), "seed {seed}: {:?}", rig.dirty());
    }
}
