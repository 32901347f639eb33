//! Verdicts that were wrong once.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, Request};
use tokio::time::sleep;
use tower_migration::{FailurePolicy, MigrationHandle, Side, WriteOrder};

use super::world::*;
use crate::support::*;

/// old = 1, new = 2, nobody knows. A PATCH +1 has run on old and is still to run on new.
/// Verify reads 2 and 2, calls the key equal, and puts on record that new is synced;
/// then the leg lands: 2 and 3.
#[tokio::test(start_paused = true)]
async fn an_increment_in_flight_does_not_make_a_difference_look_equal() {
    let tables = Tables::default();
    let old = served(&tables, Side::Old, |_| 0);
    let new = served(&tables, Side::New, |_| 200);
    let world =
        World { rig: Rig::on(MigrationHandle::new("test"), old, new, |layer| layer), tables };
    world.advance().await;
    world.tables.fill(Side::Old, [(1, 1)]);
    world.tables.fill(Side::New, [(1, 2)]);
    let (status, _) = world.rig.ask(change(Method::PATCH, 1, 1)).await;
    assert_eq!(status, 200);
    let report = world.verify().run().await.unwrap();
    sleep(SECOND).await;
    assert_eq!((world.tables.old()[&name(1)], world.tables.newer()[&name(1)]), (2, 3));
    assert!(world.handle().dirty_keys().is_empty());
    assert!(
        !report.synced && !world.handle().status().sync.get(Side::New).is_synced(),
        "the sides differ, nothing is dirty, and the verify said: {report}"
    );
}

/// As above, but with a whole increment between verify's two reads: old = 1, new = 0 (a
/// lost increment). No leg is slow.
#[tokio::test(start_paused = true)]
async fn an_increment_between_the_two_reads_does_not_make_a_difference_look_equal() {
    let world = Arc::new(World::new());
    world.advance().await;
    world.tables.fill(Side::Old, [(1, 1)]);
    world.tables.fill(Side::New, [(1, 0)]);
    world.tables.slow.store(10, Ordering::SeqCst);
    let verify = world.verify();
    let run = tokio::spawn(async move { verify.run().await.unwrap() });
    // The first read has ended at 10 ms, the second ends at 20 ms.
    sleep(Duration::from_millis(15)).await;
    world.rig.ask(change(Method::PATCH, 1, 1)).await;
    let report = run.await.unwrap();
    assert_eq!((world.tables.old()[&name(1)], world.tables.newer()[&name(1)]), (2, 1));
    assert!(!report.synced, "the sides differ, and the verify said: {report}");
}

/// A create without a key that is inserted at once and answered later on old, and is slow
/// on new: shadow reads count this as raced, Verify as a difference.
#[tokio::test(start_paused = true)]
async fn a_write_without_a_key_under_way_is_no_difference() {
    let tables = Tables::default();
    let creates = |side: Side, before: u64, after: u64| {
        let tables = tables.clone();
        Fake::new(move |_| {
            let tables = tables.clone();
            async move {
                sleep(Duration::from_millis(before)).await;
                tables.on(side).insert(name(1), 1);
                sleep(Duration::from_millis(after)).await;
                let mut made = answer(201, "");
                made.headers_mut().insert("location", name(1).parse().unwrap());
                Ok(made)
            }
        })
    };
    let rig = Rig::on(
        MigrationHandle::new("test"),
        creates(Side::Old, 0, 3_000),
        creates(Side::New, 2_000, 0),
        |layer| layer,
    );
    let world = World { rig, tables };
    world.advance().await;
    let create = Request::post("/").body(body("1")).unwrap();
    let create = tokio::spawn(tower::Service::call(&mut world.rig.service.clone(), create));
    sleep(Duration::from_millis(100)).await;
    let report = world.verify().run().await.unwrap();
    assert_eq!(create.await.unwrap().unwrap().status(), 201);
    sleep(SECOND * 5).await;
    world.tables.assert_equal();
    let dirty = world.rig.dirty();
    assert_eq!(report.differ, 0, "a false alarm: {report}; and it has made dirty: {dirty:?}");
    assert!(dirty.is_empty());
}

/// A key that is under constant increments with AuthorityFirst, equal on both sides at
/// each rest: no false alarm.
#[tokio::test(start_paused = true)]
async fn hot_increments_are_no_difference() {
    for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
        for (a, b) in [(0, 30), (30, 0), (7, 11)] {
            let tables = Tables::default();
            let old = served(&tables, Side::Old, move |_| a);
            let new = served(&tables, Side::New, move |_| b);
            let rig = Rig::on(MigrationHandle::new("test"), old, new, |layer| {
                layer.write_order(order).failure_policy(FailurePolicy::AuthorityWins)
            });
            let world = Arc::new(World { rig, tables });
            world.advance().await;
            world.tables.slow.store(3, Ordering::SeqCst);
            for side in Side::ALL {
                world.tables.fill(side, (0..20).map(|k| (k, 0)));
            }
            let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    let (world, stop) = (Arc::clone(&world), Arc::clone(&stop));
                    tokio::spawn(async move {
                        while !stop.load(Ordering::SeqCst) {
                            let patch = change(Method::PATCH, fastrand::u32(..3), 1);
                            let call = tower::Service::call(&mut world.rig.service.clone(), patch);
                            drop(call.await.unwrap());
                            sleep(Duration::from_millis(fastrand::u64(1..9))).await;
                        }
                    })
                })
                .collect();
            for _ in 0..5 {
                let report = world.verify().run().await.unwrap();
                assert_eq!(report.differ, 0, "{order:?} {a} {b}: {report}");
                sleep(Duration::from_millis(50)).await;
            }
            stop.store(true, Ordering::SeqCst);
            for w in writers {
                w.await.unwrap();
            }
            sleep(SECOND * 30).await;
            // A queue that overflowed says so, by its keys.
            let repairing = world.repair().start().unwrap();
            sleep(SECOND * 30).await;
            repairing.stop().await;
            assert!(world.handle().dirty_keys().is_empty());
            world.tables.assert_equal();
        }
    }
}
