//! A share of the keys reads new already.

use tokio_test::{assert_pending, task};
use tower_migration::{
    FailurePolicy, MemoryStore, MigrationHandle, Reason, Side, Stage,
    protocol::Head,
    reconcile::{Key, RightSide},
    stage::{Share, partition},
};

use crate::support::*;

fn both() -> Rig {
    Rig::new(Fake::says(200, "old"), Fake::says(200, "new"))
}

/// Two paths: one that half of the keys cover, and one that they do not.
fn paths(store: &MemoryStore) -> (String, String) {
    let half = Share::new(0.5).unwrap();
    let seed = store.record().seed;
    let find = |covered: bool| {
        let mut paths = (0..).map(|n| format!("/{n}"));
        paths.find(|path| half.covers(partition(seed, path)) == covered).unwrap()
    };
    (find(true), find(false))
}

async fn ramped(old: Fake, new: Fake, policy: FailurePolicy) -> (Rig, MemoryStore) {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("test", store.clone()).await.unwrap();
    let rig = Rig::on(handle, old, new, |layer| layer.failure_policy(policy));
    rig.walk(Stage::WriteBoth).await;
    rig.handle.ramp(0.5).await.unwrap();
    (rig, store)
}

#[tokio::test]
async fn covered_keys_read_new_and_the_others_read_old() {
    let rig = both().at(Stage::WriteBoth).await;
    let mut before = 0;
    for share in [0.0, 0.1, 0.5, 0.9, 1.0] {
        let moved = rig.handle.ramp(share).await.unwrap();
        assert_eq!((moved.from, moved.to), (Stage::WriteBoth, Stage::WriteBoth));
        assert!((moved.ramp - share).abs() < 1e-4);
        let mut ahead = 0;
        for key in 0..400 {
            let path = format!("/airports/{key}");
            let (_, first) = rig.ask(get(&path)).await;
            assert_eq!(rig.ask(get(&path)).await.1, first, "the same way each time");
            ahead += i32::from(first == "new");
        }
        let found = f64::from(ahead) / 400.0;
        assert!((found - share).abs() < 0.1, "{share}: {found}");
        assert!(ahead >= before);
        before = ahead;
    }
    assert_eq!(before, 400);
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    let options = http::Request::options("/airports/1").body(body("")).unwrap();
    assert_eq!(rig.ask(options).await.1, "old", "a request without a key stays");
}

#[tokio::test]
async fn a_write_goes_to_both_and_its_key_decides_who_answers() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, store) = ramped(old, new, FailurePolicy::AuthorityWins).await;
    let (ahead, behind) = paths(&store);
    for (path, side, stage) in
        [(ahead, Side::New, Stage::ReadNew), (behind, Side::Old, Stage::WriteBoth)]
    {
        let (status, text) = rig.ask(put(&path, "x")).await;
        assert_eq!((status, &*text), (200, side.as_str()));
        for on in Side::ALL {
            let calls = rig.side(on).calls();
            let call = calls.last().unwrap();
            assert_eq!(call.uri.path(), path);
            let dispatch = call.dispatch.unwrap();
            assert_eq!((dispatch.stage, dispatch.side), (stage, on));
        }
    }
    let status = rig.handle.status();
    assert_eq!(status.on_old.writes + status.on_new.writes, 0);
    assert!(status.settled);
    assert!(status.to_string().contains("ramp: 0.5"), "{status}");
}

#[tokio::test]
async fn while_a_ramp_lasts_nothing_is_acknowledged_that_is_not_on_both_sides() {
    for policy in [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth] {
        for sick in Side::ALL {
            let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
            let (rig, store) = ramped(old, new, policy).await;
            rig.side(sick).becomes(&Fake::says(500, ""));
            let (ahead, behind) = paths(&store);
            for (path, right) in [(ahead, Side::New), (behind, Side::Old)] {
                let (status, text) = rig.ask(put(&path, "x")).await;
                assert_eq!(status, 503, "{text}");
                assert!(text.contains("partial-write"));
                let dirty = rig.handle.dirty_keys();
                let key = dirty.iter().find(|dirty| dirty.key.as_str() == path).unwrap();
                assert_eq!(key.right, RightSide::Is(right));
            }
            // A write that was admitted before the end of the ramp keeps its word.
            let (status, _) = rig.ask(http::Request::post("/").body(body("")).unwrap()).await;
            assert_eq!(status, 503);
        }
    }
}

#[tokio::test]
async fn a_split_write_in_a_ramp_stays_refused_after_the_other_side_became_suspect() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, _) = ramped(old, new, FailurePolicy::RequireBoth).await;
    rig.new.becomes(&Fake::says(500, ""));
    let post = || http::Request::post("/").body(body("")).unwrap();
    assert_eq!(rig.ask(post()).await.0, 503);
    assert_eq!(rig.handle.status().sync.new.as_str(), "suspect");
    // Outside of a ramp `RequireBoth` would be `AwaitBoth` from here on.
    assert_eq!(rig.ask(post()).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn each_change_of_the_share_waits_for_the_writes_before_it_and_holds_the_others() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let rig = Rig::with(old, new, |layer| layer.failure_policy(FailurePolicy::AwaitBoth))
        .at(Stage::WriteBoth)
        .await;
    let (slow, latch) = latched(200, "new");
    for share in [0.3, 0.1, 0.0] {
        rig.new.becomes(&slow);
        let mut first = task::spawn(rig.send(put("/a", "1")));
        assert_pending!(first.poll());
        rig.quiesce().await;
        let epoch = rig.handle.status().epoch;
        let mut step = task::spawn(rig.handle.ramp(share));
        assert_pending!(step.poll());
        rig.quiesce().await;
        assert_pending!(step.poll());
        // Raised meanwhile: an epoch of its own, and no other share yet.
        let during = rig.handle.status();
        assert!(during.epoch > epoch && (during.ramp - share).abs() > 1e-3);
        latch.open();
        first.await.unwrap();
        assert!((step.await.unwrap().ramp - share).abs() < 1e-4);
        assert!(rig.handle.status().epoch > during.epoch);
        latch.close();
    }
}

#[tokio::test]
async fn advance_completes_a_ramp_and_rollback_ends_it() {
    let rig = both().at(Stage::WriteBoth).await;
    rig.handle.ramp(0.2).await.unwrap();
    let moved = rig.handle.advance().await.unwrap();
    assert_eq!((moved.to, moved.ramp), (Stage::ReadNew, 0.0));
    rig.handle.move_to(Stage::WriteBoth).await.unwrap();

    rig.handle.ramp(0.2).await.unwrap();
    let ended = rig.handle.rollback().await.unwrap();
    assert_eq!((ended.from, ended.to, ended.ramp), (Stage::WriteBoth, Stage::WriteBoth, 0.0));
    assert_eq!(rig.handle.status().ramp, 0.0);
    // Only the next one leads further back.
    assert_eq!(rig.handle.rollback().await.unwrap().to, Stage::OldOnly);
}

#[tokio::test(start_paused = true)]
async fn rollback_ends_a_ramp_at_once_whatever_hangs() {
    let (old, _latch) = latched(200, "old");
    let (rig, store) =
        ramped(Fake::says(200, "old"), Fake::says(200, "new"), FailurePolicy::AwaitBoth).await;
    let (ahead, _) = paths(&store);
    rig.old.becomes(&old);
    let mut write = task::spawn(rig.send(put(&ahead, "x")));
    assert_pending!(write.poll());
    rig.quiesce().await;
    let began = tokio::time::Instant::now();
    rig.handle.rollback().await.unwrap();
    assert_eq!(began.elapsed(), std::time::Duration::ZERO);
    rig.old.becomes(&Fake::says(200, "old"));
    assert_eq!(rig.ask(get(&ahead)).await.1, "old");
    // Nobody was told that it is there: old does not have it.
    assert_pending!(write.poll());
}

#[tokio::test]
async fn what_a_ramp_needs() {
    let rig = both();
    let why = |blocked: tower_migration::Blocked| format!("{:?}", blocked.reasons());
    assert!(why(rig.handle.ramp(0.5).await.unwrap_err()).contains("NoRamp"));
    rig.handle.advance().await.unwrap();
    assert!(why(rig.handle.ramp(0.5).await.unwrap_err()).contains("NotSynced"));
    for share in [-0.1, 1.1, f64::NAN] {
        assert!(why(rig.handle.ramp(share).await.unwrap_err()).contains("Config"));
    }
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.new.becomes(&Fake::says(500, ""));
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    let blocked = rig.handle.ramp(0.5).await.unwrap_err();
    assert!(matches!(blocked.reasons(), [Reason::DirtyKeys { right: Side::Old, count: 1, .. }]));
    copy(&rig, "/a", Side::Old).await;
    rig.handle.ramp(0.5).await.unwrap();

    let jump = rig.handle.move_to(Stage::OldOnly).await.unwrap_err();
    assert!(matches!(jump.reasons(), [Reason::Ramping]), "{jump}");
    assert_eq!(rig.handle.move_to(Stage::WriteBoth).await.unwrap().ramp, rig.handle.status().ramp);
    rig.handle.force(Stage::WriteBoth, "no more").await.unwrap();
    assert_eq!(rig.handle.status().ramp, 0.0);
}

async fn copy(rig: &Rig, key: &str, from: Side) {
    let done = || std::future::ready(Ok::<(), std::convert::Infallible>(()));
    rig.handle.copy_key(&Key::from(key), from, done).await.unwrap();
}

#[tokio::test]
async fn keys_that_a_ramp_left_dirty_are_copied_either_way() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, store) = ramped(old, new, FailurePolicy::AuthorityWins).await;
    let (ahead, behind) = paths(&store);
    rig.old.becomes(&Fake::says(500, ""));
    rig.ask(put(&ahead, "")).await;
    rig.old.becomes(&Fake::says(200, ""));
    rig.new.becomes(&Fake::says(500, ""));
    rig.ask(put(&behind, "")).await;
    let blocked = rig.handle.ramp(0.1).await.unwrap_err();
    assert_eq!(blocked.reasons().len(), 2, "{blocked}");
    copy(&rig, &ahead, Side::New).await;
    copy(&rig, &behind, Side::Old).await;
    rig.handle.ramp(0.1).await.unwrap();
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn a_ramp_outlives_a_restart_with_the_same_keys() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, store) = ramped(old.clone(), new.clone(), FailurePolicy::AuthorityWins).await;
    let (ahead, behind) = paths(&store);
    rig.handle.shutdown().await;
    drop(rig);
    let handle = MigrationHandle::open("test", store.clone()).await.unwrap();
    assert!((handle.status().ramp - 0.5).abs() < 1e-4);
    let rig = Rig::on(handle, old, new, |layer| layer);
    assert_eq!(rig.ask(get(&ahead)).await.1, "new");
    assert_eq!(rig.ask(get(&behind)).await.1, "old");
    assert!(rig.handle.status().sync.new.is_synced());
}

#[tokio::test]
async fn a_ramp_can_go_by_tenant() {
    let by = |head: &Head<'_>| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned);
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer.ramp_by(by))
        .at(Stage::WriteBoth)
        .await;
    rig.handle.ramp(0.5).await.unwrap();
    let request = |method: &str, tenant: Option<u32>, path: &str| {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(tenant) = tenant {
            request = request.header("x-tenant", tenant.to_string());
        }
        request.body(body("")).unwrap()
    };
    let mut seen = std::collections::HashSet::new();
    for tenant in 0..40 {
        let (_, first) = rig.ask(request("GET", Some(tenant), "/a")).await;
        for (method, path) in [("GET", "/b"), ("PUT", "/c"), ("POST", "/d")] {
            assert_eq!(rig.ask(request(method, Some(tenant), path)).await.1, first);
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2);
    assert_eq!(rig.ask(request("GET", None, "/a")).await.1, "old");
}

#[tokio::test]
async fn a_partition_function_that_panics_leaves_the_request_where_it_was() {
    let by = |_: &Head<'_>| -> Option<String> { std::panic::resume_unwind(Box::new("on purpose")) };
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer.ramp_by(by))
        .at(Stage::WriteBoth)
        .await;
    rig.handle.ramp(1.0).await.unwrap();
    assert_eq!(rig.ask(get("/a")).await, (200, "old".to_owned()));
    assert_eq!(rig.ask(put("/a", "")).await, (200, "old".to_owned()));
}

#[tokio::test]
async fn covered_reads_are_shadowed_to_old() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, store) = ramped(old, new, FailurePolicy::AuthorityWins).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let (ahead, behind) = paths(&store);
    for (path, authority) in [(ahead, Side::New), (behind, Side::Old)] {
        assert_eq!(rig.ask(get(&path)).await.1, authority.as_str());
        while rig.handle.recent_mismatches().last().is_none_or(|m| !m.request.contains(&path)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(rig.handle.recent_mismatches().last().unwrap().authority, authority);
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_not_ready_is_waited_for_by_its_own_keys_only() {
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let (rig, store) = ramped(old, new, FailurePolicy::AuthorityWins).await;
    let (ahead, behind) = paths(&store);
    rig.new.set_ready(false);
    let mut waits = task::spawn(rig.send(get(&ahead)));
    assert_pending!(waits.poll());
    assert_eq!(rig.ask(get(&behind)).await.1, "old");
    rig.new.set_ready(true);
    assert_eq!(text(waits.await.unwrap()).await, "new");
}
