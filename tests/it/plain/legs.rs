//! What a service can know of its leg, layers applied twice, ramps, and sides
//! that are not ready.

use std::task::{Context, Poll};

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    Limits, MemoryStore, Migration, MigrationHandle, MigrationLayer, Role, Side, Stage,
    stage::{Share, partition},
};

use super::store::*;
use crate::support::{SECOND, settle_tasks};

#[tokio::test]
async fn a_service_knows_its_leg_where_there_is_more_than_one() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        rig.sent(put("a", "v")).await.unwrap();
        for role in [Role::Authority, Role::Other] {
            let side =
                if role == Role::Authority { stage.authority() } else { stage.authority().other() };
            let leg = rig.side(side).calls()[0].leg.unwrap();
            assert_eq!((leg.stage, leg.side, leg.role), (stage, side, role));
        }
    }
    for stage in [Stage::OldOnly, Stage::NewOnly] {
        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        rig.sent(put("a", "v")).await.unwrap();
        assert_eq!(rig.side(stage.authority()).calls()[0].leg, None, "handed on untouched");
    }
}

/// A layered service as an inner one.
#[derive(Clone)]
struct Inner(Migration<Store, Store, Protocol>);

impl Service<Call> for Inner {
    type Response = Answer;
    type Error = StoreError;
    type Future = <Migration<Store, Store, Protocol> as Service<Call>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        self.0.call(call)
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_applied_twice_runs_each_leg_once() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        rig.handle.set_shadow_rate(1.0).unwrap();
        let layer = MigrationLayer::with_protocol(rig.handle.clone(), rig.new.clone(), protocol())
            .noise(tower_migration::compare::Noise::off());
        let twice = layer.layer(Inner(rig.service.clone()));
        assert_eq!(twice.clone().oneshot(put("a", "v")).await, Ok(Answer::Done));
        settle_tasks().await;
        assert_eq!([rig.old.count(), rig.new.count()], [1, 1], "{stage} write");
        assert_eq!(twice.oneshot(get("a")).await, Ok(Answer::Row("v".to_owned())));
        rig.handle.shutdown().await;
        assert_eq!([rig.old.count(), rig.new.count()], [2, 2], "{stage} read and shadow");
        assert!(rig.handle.dirty_keys().is_empty());
    }
}

#[tokio::test]
async fn two_migrations_may_be_nested() {
    let rig = Rig::new(Store::well(), Store::well()).at(Stage::WriteBoth).await;
    let handle = MigrationHandle::new("another");
    handle.advance().await.unwrap();
    let third = Store::well();
    let outer = MigrationLayer::with_protocol(handle, third.clone(), protocol());
    let service = outer.layer(rig.service.clone());
    assert_eq!(service.oneshot(put("a", "v")).await, Ok(Answer::Done));
    settle_tasks().await;
    assert_eq!([rig.old.count(), rig.new.count(), third.count()], [1, 1, 1]);
}

#[tokio::test]
async fn a_ramp_goes_by_the_keys_or_by_what_ramp_by_says() {
    for by_value in [false, true] {
        let store = MemoryStore::new();
        let handle = MigrationHandle::open("rows", store.clone()).await.unwrap();
        let mut protocol = protocol();
        if by_value {
            protocol = protocol.ramp_by(|_: &Call| "everything".to_owned());
        }
        let rig = Rig::on(handle, Store::well(), Store::well(), protocol, |layer| layer);
        let rig = rig.at(Stage::WriteBoth).await;
        rig.handle.ramp(0.5).await.unwrap();
        let (half, seed) = (Share::new(0.5).unwrap(), store.record().seed);
        let mut sides = [0, 0];
        for n in 0..40 {
            let id = n.to_string();
            rig.sent(put(&id, "v")).await.unwrap();
            let by = if by_value { "everything".to_owned() } else { format!("/{id}") };
            let side = if half.covers(partition(seed, &by)) { Side::New } else { Side::Old };
            sides[side as usize] += 1;
            let leg = rig.side(side).calls().pop().unwrap().leg.unwrap();
            assert_eq!((leg.side, leg.role), (side, Role::Authority), "a write of {id}");
            let before = rig.side(side).count();
            rig.sent(get(&id)).await.unwrap();
            assert_eq!(rig.side(side).count(), before + 1, "a read of {id}");
        }
        assert_eq!(sides.contains(&0), by_value, "{sides:?}");
        assert_eq!(rig.dirty(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn readiness_follows_the_authority_and_the_other_side_is_waited_for_apart() {
    let rig = Rig::new(Store::well(), Store::well()).at(Stage::WriteBoth).await;
    rig.new.set_ready(false);
    assert_eq!(rig.sent(put("a", "v")).await, Ok(Answer::Done), "new is not felt");
    assert_eq!(rig.new.count(), 0);
    rig.new.set_ready(true);
    settle_tasks().await;
    assert_eq!(rig.new.row("a").as_deref(), Some("v"));
    assert_eq!(rig.dirty(), Vec::<String>::new());

    rig.old.set_ready(false);
    let mut read = task::spawn(rig.service.clone().oneshot(get("a")));
    assert_pending!(read.poll());
    rig.old.set_ready(true);
    assert!(read.is_woken());
    assert_eq!(assert_ready!(read.poll()), Ok(Answer::Row("v".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_never_ready_costs_its_leg_only() {
    let new = Store::well();
    new.set_ready(false);
    let rig = Rig::with(Store::well(), new, protocol(), |layer| {
        layer.limits(Limits::default().ready_timeout(SECOND)).unwrap()
    });
    let rig = rig.at(Stage::WriteBoth).await;
    assert_eq!(rig.sent(put("a", "v")).await, Ok(Answer::Done));
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(rig.dirty(), ["/a"]);
    assert_eq!(rig.new.count(), 0);
}

#[tokio::test]
async fn a_request_need_not_be_sync_and_may_be_sent_from_any_thread() {
    fn is_sync<T: Sync>() {}
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    is_sync::<Migration<Store, Store, Protocol>>();
    let rig = Rig::new(Store::well(), Store::well()).at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    for call in [put("a", "v"), get("a")] {
        let future = is_send(rig.service.clone().oneshot(call));
        tokio::spawn(future).await.unwrap().unwrap();
    }
}
