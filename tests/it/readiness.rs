//! A ready service is used once, and the side that is not needed is not felt.

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_migration::{FailurePolicy, Limits, MigrationHandle, MigrationLayer, Side, Stage};

use crate::support::*;

#[tokio::test]
async fn the_unneeded_side_is_never_polled_or_called() {
    for (stage, unneeded) in [(Stage::OldOnly, Side::New), (Stage::NewOnly, Side::Old)] {
        let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
        rig.walk(stage).await;
        let dead = rig.side(unneeded);
        dead.becomes(&Fake::panics());
        dead.set_ready(false);
        let polled = dead.polled();
        for request in [get("/a"), put("/a", "")] {
            assert_eq!(rig.ask(request).await.0, 200);
        }
        rig.quiesce().await;
        assert_eq!((dead.polled(), dead.count()), (polled, 0), "{stage}");
    }
}

#[tokio::test]
async fn poll_ready_follows_the_authority_and_wakes_with_it() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    rig.new.set_ready(false);
    let mut service = rig.service.clone();
    let mut ready = task::spawn(service.ready());
    assert_ready!(ready.poll()).unwrap();
    drop(ready);

    rig.old.set_ready(false);
    let mut service = rig.service.clone();
    let mut ready = task::spawn(service.ready());
    assert_pending!(ready.poll());
    rig.old.set_ready(true);
    assert!(ready.is_woken());
    assert_ready!(ready.poll()).unwrap();
}

#[tokio::test]
async fn a_read_does_not_wait_for_the_other_sides_readiness() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, "").never_ready());
    let rig = rig.at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    assert_eq!(rig.ask(get("/a")).await.1, "old");
    assert_eq!(rig.ask(put("/a", "")).await.1, "old");
}

#[tokio::test]
async fn a_flip_between_poll_ready_and_call_is_handled_inside_the_future() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, "new")).at(Stage::WriteBoth).await;
    let mut service = rig.service.clone();
    service.ready().await.unwrap();
    // Ready on old; from here on new is the authority, and not ready yet.
    rig.walk(Stage::NewOnly).await;
    rig.new.set_ready(false);
    let mut answer = task::spawn(service.call(get("/a")));
    assert_pending!(answer.poll());
    rig.new.set_ready(true);
    assert!(answer.is_woken());
    let answer = assert_ready!(answer.poll()).unwrap();
    assert_eq!(text(answer).await, "new");
    assert_eq!(rig.old.count(), 0);
}

#[tokio::test]
async fn a_reservation_on_a_side_that_is_not_needed_any_more_is_given_back() {
    let handle = MigrationHandle::new("limits");
    let old = ConcurrencyLimit::new(Fake::says(200, "old"), 1);
    let new = ConcurrencyLimit::new(Fake::says(200, "new"), 1);
    let mut service = MigrationLayer::new(handle.clone(), new)
        .noise(tower_migration::compare::Noise::off())
        .layer(old.clone());
    service.ready().await.unwrap();
    handle.force(Stage::NewOnly, "test").await.unwrap();
    let mut other = old;
    let mut probe = task::spawn(other.ready());
    assert_pending!(probe.poll(), "the permit is taken");
    let _ = service.call(get("/a")).await.unwrap();
    assert!(probe.is_woken());
    assert_ready!(probe.poll()).unwrap();
}

#[tokio::test]
async fn a_permit_taken_by_poll_ready_is_used_by_that_call() {
    // With a limit of one, a service that polled a clone again would wait for
    // its own permit for ever.
    let handle = MigrationHandle::new("limits");
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let limited = |fake: &Fake| ConcurrencyLimit::new(fake.clone(), 1);
    let layer =
        MigrationLayer::new(handle.clone(), limited(&new)).failure_policy(FailurePolicy::AwaitBoth);
    let mut service = layer.layer(limited(&old));
    for stage in Stage::ALL {
        if handle.stage() != stage {
            if stage == Stage::ReadNew {
                handle.confirm_synced(Side::New).await.unwrap();
            }
            handle.move_to(stage).await.unwrap();
        }
        for request in [get("/a"), put("/a", ""), get("/a"), put("/a", "")] {
            let answer = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(text(answer).await, stage.authority().as_str());
        }
    }
    assert!(handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn an_error_of_the_authoritys_readiness_is_the_services_own() {
    let (mock, mut handle) = tower_test::mock::pair::<Req, Res>();
    handle.send_error("broken");
    let layer = MigrationLayer::new(MigrationHandle::new("x"), mock.clone());
    let mut service = layer.layer(mock);
    let error = service.ready().await.expect_err("an error");
    assert_eq!(error.to_string(), "broken");
}

#[tokio::test(start_paused = true)]
async fn the_other_leg_waits_for_readiness_within_its_own_limit() {
    let rig = Rig::with(Fake::says(200, ""), Fake::says(200, "").never_ready(), |layer| {
        layer.limits(Limits::default().ready_timeout(SECOND * 2)).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    rig.ask(put("/slow", "")).await;
    tokio::time::sleep(SECOND).await;
    rig.new.set_ready(true);
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 1, "ready in time");
    assert!(rig.handle.dirty_keys().is_empty());

    rig.new.set_ready(false);
    rig.ask(put("/late", "")).await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(rig.new.count(), 1);
    assert_eq!(rig.dirty(), ["/late"]);
}

#[tokio::test]
async fn by_hand_with_two_mocks_each_step_a_line() {
    use tower_test::mock;
    let handle = MigrationHandle::new("mocks");
    let (old, mut on_old) = mock::pair::<Req, Res>();
    let (new, mut on_new) = mock::pair::<Req, Res>();
    let mut service = MigrationLayer::new(handle.clone(), new)
        .noise(tower_migration::compare::Noise::off())
        .layer(old);
    handle.advance().await.unwrap();

    let mut write = task::spawn(service.ready().await.unwrap().call(put("/a", "v")));
    assert_pending!(write.poll());
    let (_, reply) = on_old.next_request().await.unwrap();
    reply.send_response(answer(200, "old"));
    assert!(write.is_woken());
    assert_eq!(assert_ready!(write.poll()).unwrap().status(), 200);
    let (_, reply) = on_new.next_request().await.unwrap();
    assert!(handle.dirty_keys().is_empty());
    reply.send_error("lost");
    settle_tasks().await;
    assert_eq!(handle.dirty_keys().len(), 1);
}

#[test]
fn auto_traits() {
    fn all<T: Clone + Send + Sync>() {}
    fn send<T: Send>() {}
    all::<MigrationHandle>();
    all::<MigrationLayer<Fake>>();
    type Sided = tower::util::BoxCloneSyncService<Req, Res, tower_migration::BoxError>;
    all::<tower_migration::Migration<Sided, Sided>>();
    send::<<tower_migration::Migration<Fake, Fake> as Service<Req>>::Future>();
    // Neither more nor less than the inner services.
    fn clone_only<S: Clone>(old: S) {
        let layer = MigrationLayer::new(MigrationHandle::new("x"), old.clone());
        drop(layer.layer(old));
    }
    clone_only(std::rc::Rc::new(()));
}
