//! Same key, same order, on each side.

use std::sync::{Arc, Mutex};

use http::{Request, header};
use tokio_test::{assert_pending, task};
use tower::Service;
use tower_migration::{
    Event, FailurePolicy, LegDetail, Limits, Side, Stage, telemetry::SkippedLeg,
};

use crate::support::*;

#[tokio::test]
async fn writes_of_one_key_reach_each_side_one_after_the_other() {
    let (old, on_old, step_old) = stepped();
    let (new, on_new, step_new) = stepped();
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    let writes: Vec<_> = ["1", "2", "3"]
        .into_iter()
        .map(|text| tokio::spawn(rig.service.clone().call(put("/k", text))))
        .collect();
    rig.quiesce().await;
    assert_eq!(*on_old.lock().unwrap(), ["1"]);
    assert_eq!(*on_new.lock().unwrap(), ["1"]);
    // The slow side does not hold up the fast one.
    step_old.add_permits(3);
    rig.quiesce().await;
    assert_eq!(*on_old.lock().unwrap(), ["1", "2", "3"]);
    assert_eq!(*on_new.lock().unwrap(), ["1"]);
    for write in writes {
        assert_eq!(write.await.unwrap().unwrap().status(), 200);
    }
    for done in 2..=3 {
        step_new.add_permits(1);
        rig.quiesce().await;
        assert_eq!(on_new.lock().unwrap().len(), done);
    }
    step_new.add_permits(1);
    rig.quiesce().await;
    assert_eq!(*on_new.lock().unwrap(), ["1", "2", "3"]);
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn other_keys_do_not_wait() {
    let (old, on_old, _) = stepped();
    let rig = Rig::new(old, Fake::says(200, "")).at(Stage::WriteBoth).await;
    let mut hanging = Vec::new();
    for path in ["/a", "/b", "/a", "/c"] {
        hanging.push(tokio::spawn(rig.service.clone().call(put(path, path))));
        rig.quiesce().await;
    }
    assert_eq!(*on_old.lock().unwrap(), ["/a", "/b", "/c"]);
}

#[tokio::test]
async fn the_order_holds_across_a_change_of_roles() {
    let (old, on_old, step_old) = stepped();
    let rig = Rig::new(old, Fake::says(200, "")).at(Stage::ReadNew).await;
    // At 2 old is the other side: its leg is left behind.
    rig.ask(put("/k", "first")).await;
    rig.quiesce().await;
    let moved = rig.handle.rollback().await.unwrap();
    assert_eq!(moved.tainted.len(), 1, "{moved:?}");
    // At 1 old is the authority: the write waits for the earlier leg there.
    let write = tokio::spawn(rig.service.clone().call(put("/k", "second")));
    rig.quiesce().await;
    assert_eq!(*on_old.lock().unwrap(), ["first"]);
    step_old.add_permits(2);
    write.await.unwrap().unwrap();
    assert_eq!(*on_old.lock().unwrap(), ["first", "second"]);
}

#[tokio::test]
async fn a_create_whose_key_is_learned_late_is_in_order_with_what_follows() {
    let old = Fake::new(|call| async move {
        let mut response = answer(if call.method == "POST" { 201 } else { 200 }, "");
        response.headers_mut().insert(header::LOCATION, "/things/1".parse().unwrap());
        Ok(response)
    });
    let (new, on_new, step) = stepped();
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    rig.ask(Request::post("/things").body(body("create")).unwrap()).await;
    rig.ask(put("/things/1", "change")).await;
    rig.quiesce().await;
    assert_eq!(*on_new.lock().unwrap(), ["create"], "the change waits for the create");
    step.add_permits(2);
    rig.quiesce().await;
    assert_eq!(*on_new.lock().unwrap(), ["create", "change"]);
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn several_keys_wait_for_each_and_never_for_each_other() {
    let (old, on_old, step) = stepped();
    let rig = Rig::with(old, Fake::says(200, ""), |layer| {
        layer.keys(|head: &tower_migration::protocol::Head<'_>, _: &bytes::Bytes| {
            head.uri
                .path()
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect::<tower_migration::reconcile::Keys>()
        })
    })
    .at(Stage::WriteBoth)
    .await;
    let writes: Vec<_> = ["/a/b", "/b/a", "/b/c", "/c/a"]
        .into_iter()
        .map(|path| tokio::spawn(rig.service.clone().call(put(path, path))))
        .collect();
    rig.quiesce().await;
    assert_eq!(*on_old.lock().unwrap(), ["/a/b"]);
    step.add_permits(4);
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(*on_old.lock().unwrap(), ["/a/b", "/b/a", "/b/c", "/c/a"]);
}

#[tokio::test]
async fn a_key_whose_queue_is_full_turns_dirty_and_the_client_does_not_wait() {
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&skipped);
    let rig = Rig::with(Fake::says(200, ""), Fake::hangs(), |layer| {
        layer.limits(Limits::default().key_queue(2)).unwrap().observer(move |event: &Event<'_>| {
            if let Event::Disagreement(d) = event {
                sink.lock().unwrap().push(d.other_leg.detail.clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    for _ in 0..3 {
        assert_eq!(rig.ask(put("/k", "")).await.0, 200);
    }
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 1);
    assert_eq!(*skipped.lock().unwrap(), [LegDetail::Skipped(SkippedLeg::KeyQueue)]);
    assert_eq!(rig.dirty(), ["/k"]);
    assert_eq!(rig.ask(put("/other", "")).await.0, 200);
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 2, "another key is not concerned");
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_queue_does_not_break_it() {
    let (old, on_old, step) = stepped();
    let rig =
        Rig::with(old, Fake::says(200, ""), |layer| layer.failure_policy(FailurePolicy::AwaitBoth))
            .at(Stage::WriteBoth)
            .await;
    let first = tokio::spawn(rig.service.clone().call(put("/k", "1")));
    rig.quiesce().await;
    let mut second = task::spawn(rig.service.clone().call(put("/k", "2")));
    assert_pending!(second.poll());
    let third = tokio::spawn(rig.service.clone().call(put("/k", "3")));
    rig.quiesce().await;
    drop(second);
    step.add_permits(3);
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(*on_old.lock().unwrap(), ["1", "2", "3"], "it had begun, so it was run");
}

/// Two stores that keep the last body by key and take a different time for each
/// write; many writers on few keys.
#[tokio::test(start_paused = true)]
async fn racing_writers_leave_the_two_stores_equal() {
    type Store = Arc<Mutex<std::collections::BTreeMap<String, String>>>;
    let store = |seed: u64| {
        let rows = Store::default();
        let kept = Arc::clone(&rows);
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let fake = Fake::new(move |call| {
            let (kept, random) = (Arc::clone(&kept), Arc::clone(&random));
            async move {
                let pause = random.lock().unwrap().u64(0..20);
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                let text = String::from_utf8_lossy(&call.body).into_owned();
                kept.lock().unwrap().insert(call.uri.path().to_owned(), text);
                Ok(answer(200, ""))
            }
        });
        (fake, rows)
    };
    for policy in [FailurePolicy::AuthorityWins, FailurePolicy::RequireBoth] {
        let ((old, in_old), (new, in_new)) = (store(1), store(2));
        let rig = Rig::with(old, new, |layer| {
            let limits = Limits::default().key_queue(1_000);
            layer.limits(limits).unwrap().failure_policy(policy)
        })
        .at(Stage::WriteBoth)
        .await;
        let mut random = fastrand::Rng::with_seed(3);
        let mut writes = Vec::new();
        for n in 0..400 {
            let request =
                Request::put(format!("/{}", random.u8(0..4))).body(body(n.to_string())).unwrap();
            writes.push(tokio::spawn(rig.service.clone().call(request)));
            tokio::time::sleep(std::time::Duration::from_millis(random.u64(0..5))).await;
        }
        for write in writes {
            write.await.unwrap().unwrap();
        }
        rig.handle.shutdown().await;
        assert_eq!(*in_old.lock().unwrap(), *in_new.lock().unwrap(), "{policy:?}");
        assert_eq!(in_old.lock().unwrap().len(), 4);
        assert!(rig.handle.dirty_keys().is_empty());
        assert_eq!(rig.side(Side::Old).count(), 400);
    }
}
