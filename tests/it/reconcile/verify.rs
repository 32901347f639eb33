//! Comparing all keys.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use tokio::time::sleep;
use tower::Service;
use tower_migration::{
    FailurePolicy, MigrationHandle, Side,
    compare::Diff,
    reconcile::{Key, Rows, Sweep, SweepError, Uncounted, Verify},
    stage::SyncState,
};

use super::world::*;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn it_names_what_differs_and_mends_it_if_asked_to() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..50).map(|key| (key, 1)));
    world.tables.fill(Side::New, (0..50).map(|key| (key, 1)));
    world.tables.fill(Side::New, [(3, 9), (70, 1)]);
    world.tables.newer().remove(&name(4));
    world.advance().await;
    let report = world.verify().run().await.unwrap();
    assert_eq!((report.equal, report.differ, report.mended), (48, 3, 0));
    assert_eq!((report.synced, report.uncounted), (false, Some(Uncounted::Differences)));
    let mut differing: Vec<_> = report.differing.iter().map(ToString::to_string).collect();
    differing.sort();
    assert_eq!(
        differing,
        [
            "/0003: row: \"one\" against \"another\"",
            "/0004: row: \"there\" against \"missing\"",
            "/0070: row: \"missing\" against \"there\"",
        ]
    );
    assert_eq!(report.fields.get("row"), Some(&3));
    assert_eq!(world.tables.writes(Side::New), 0);
    assert!(world.rig.dirty().is_empty());

    let report = world.verify().mend().keep(1).run().await.unwrap();
    assert_eq!((report.equal, report.mended, report.synced), (48, 3, true), "{report}");
    assert_eq!(report.differing.len(), 1, "as many as were to be kept");
    world.tables.assert_equal();
    assert_eq!(world.tables.writes(Side::Old), 0);
    world.advance().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_one_lifts_what_makes_a_side_suspect() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1), (9, 1)]);
    world.advance().await;
    world.backfill().run().await.unwrap();
    let well = served(&world.tables, Side::New, |_| 0);
    world.rig.new.becomes(&Fake::says(500, ""));
    world.rig.ask(change(Method::POST, 9, 0)).await;
    sleep(SECOND).await;
    world.rig.new.becomes(&well);
    assert_eq!(world.handle().status().sync.new, SyncState::Suspect);
    assert_eq!(world.handle().status().untracked_on_new, 1);
    // The write that went wrong has left new with a row that old has deleted.
    let report = world.verify().run().await.unwrap();
    assert_eq!((report.differ, report.synced), (1, false));
    let report = world.verify().mend().run().await.unwrap();
    assert!(report.synced, "{report}");
    assert_eq!(world.handle().status().sync.new, SyncState::Synced);
    assert_eq!(world.handle().status().untracked_on_new, 0);
}

/// Ten keys, written all the time, on sides that are slow each in its own way.
#[tokio::test(start_paused = true)]
async fn there_is_no_false_alarm_however_busy_the_keys_are() {
    for seed in 0..20_u64 {
        let tables = Tables::default();
        tables.fill(Side::Old, (0..10).map(|key| (key, 1)));
        tables.fill(Side::New, (0..10).map(|key| (key, 1)));
        let world = World::over(tables.clone(), MigrationHandle::new("test"), |layer| {
            layer.failure_policy(FailurePolicy::AuthorityWins)
        });
        for (side, salt) in [(Side::Old, 1), (Side::New, 1_000_003)] {
            let latency =
                move |n: u64| fastrand::Rng::with_seed(seed ^ ((n + salt) * 7_919)).u64(0..30);
            world.rig.side(side).becomes(&served(&tables, side, latency));
        }
        tables.slow.store(3, Ordering::SeqCst);
        world.advance().await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..8_u64)
            .map(|writer| {
                let (service, stop) = (world.rig.service.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed * 100 + writer);
                    while !stop.load(Ordering::SeqCst) {
                        let method = match random.u8(0..6) {
                            0 => Method::DELETE,
                            1..4 => Method::PUT,
                            _ => Method::PATCH,
                        };
                        let request = change(method, random.u32(0..10), random.i64(0..100));
                        let answer = service.clone().call(request).await.unwrap();
                        assert!(answer.status() != StatusCode::INTERNAL_SERVER_ERROR);
                        drop(answer);
                        sleep(Duration::from_millis(random.u64(0..10))).await;
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let sweep = Sweep::new().concurrency(4);
            let report = world.verify().sweep(sweep).run().await.unwrap();
            assert_eq!((report.differ, report.failed), (0, 0), "seed {seed}: {report}");
        }
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        world.handle().shutdown().await;
        tables.assert_equal();
    }
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_heals_by_itself_is_none() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    world.advance().await;
    // A replica of new that lags.
    let tables = world.tables.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(100)).await;
        tables.fill(Side::New, [(1, 1)]);
    });
    let report = world.verify().run().await.unwrap();
    assert_eq!((report.equal, report.differ), (1, 0));
    // With less patience it is one.
    world.tables.newer().clear();
    let report = world.verify().rereads(0, Duration::from_millis(1)).run().await.unwrap();
    assert_eq!((report.equal, report.differ), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn dirty_keys_are_counted_and_not_compared() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1), (2, 1)]);
    world.tables.fill(Side::New, [(2, 1)]);
    world.advance().await;
    world.handle().mark_dirty(&name(1).into(), Side::Old);
    let report = world.verify().run().await.unwrap();
    assert_eq!((report.equal, report.dirty, report.differ), (1, 1, 0));
    assert!(report.synced, "dirty keys aside");
    assert!(world.handle().advance().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn at_a_one_sided_stage_there_is_nothing_to_verify() {
    let world = World::new();
    assert!(matches!(world.verify().run().await, Err(SweepError::OneSided(_))));
}

/// Rows with fields of their own.
#[derive(Clone)]
struct Fields;

impl Rows for Fields {
    type Row = (u32, u32);
    type Error = String;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<(u32, u32)>, String> {
        let number: u32 = key.as_str()[1..].parse().map_err(|_| "no number".to_owned())?;
        let new = u32::from(side == Side::New);
        Ok(Some((number % 2 * new, if number == 3 { new } else { 0 })))
    }

    async fn write(&self, _: Side, _: &Key, _: Option<&(u32, u32)>) -> Result<(), String> {
        unreachable!("a verify does not write")
    }

    fn differ(&self, key: &Key, a: Option<&(u32, u32)>, b: Option<&(u32, u32)>) -> Diff {
        let (Some(a), Some(b)) = (a, b) else {
            return Diff::of("row", a.is_some(), b.is_some());
        };
        Diff::when(a.0 != b.0, "/odd", a.0, b.0)
            .and(Diff::when(a.1 != b.1, "/three", a.1, b.1))
            .and(Diff::when(a.0 != b.0, format!("/name/{key}"), a.0, b.0))
    }
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_counted_by_field_up_to_a_bound() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..1_000).map(|key| (key, 1)));
    world.advance().await;
    let verify = Verify::new(world.handle(), Fields).listing(world.tables.clone());
    let report = verify.rereads(0, Duration::ZERO).run().await.unwrap();
    assert_eq!((report.differ, report.differing.len()), (500, 100));
    assert_eq!((report.fields["/odd"], report.fields["/three"]), (500, 1));
    assert_eq!(report.fields.len(), 257);
    assert_eq!(report.fields["(others)"], 500 - 254);
}
