//! Bad configuration fails when it is given, and the flag outlives who holds it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tower_migration::{ConfigError, Limits, MigrationHandle, MigrationLayer, Stage, WriteOrder};

use crate::support::*;

#[test]
fn rates_that_are_no_rates_are_refused_and_change_nothing() {
    let handle = MigrationHandle::new("x");
    handle.set_shadow_rate(0.25).unwrap();
    for bad in [f64::NAN, -0.1, 1.000_001, f64::INFINITY, f64::NEG_INFINITY] {
        let error = handle.set_shadow_rate(bad).unwrap_err();
        assert!(matches!(error, ConfigError::Rate { .. }));
        assert!(error.to_string().contains("between 0 and 1"), "{error}");
    }
    assert!((handle.status().shadow_rate - 0.25).abs() < 1e-9);
    for good in [0.0, 1.0, f64::MIN_POSITIVE] {
        handle.set_shadow_rate(good).unwrap();
    }
}

#[test]
fn limits_of_zero_are_refused_by_name() {
    type Set = fn(Limits) -> Limits;
    let zero: [(&str, Set); 12] = [
        ("body", |l| l.body(0)),
        ("buffered_bytes", |l| l.buffered_bytes(0)),
        ("running_legs", |l| l.running_legs(0)),
        ("key_queue", |l| l.key_queue(0)),
        ("shadow_tasks", |l| l.shadow_tasks(0)),
        ("captured_body", |l| l.captured_body(0)),
        ("captured_bytes", |l| l.captured_bytes(0)),
        ("body_timeout", |l| l.body_timeout(Duration::ZERO)),
        ("ready_timeout", |l| l.ready_timeout(Duration::ZERO)),
        ("leg_timeout", |l| l.leg_timeout(Duration::ZERO)),
        ("abandon_after", |l| l.abandon_after(Duration::ZERO)),
        ("shadow_deadline", |l| l.shadow_deadline(Duration::ZERO)),
    ];
    for (name, set) in zero {
        let layer = MigrationLayer::new(MigrationHandle::new("x"), ());
        let error = layer.limits(set(Limits::default())).unwrap_err();
        assert_eq!(error, ConfigError::Zero { limit: name });
        assert!(error.to_string().contains(name), "{error}");
    }
    let layer = || MigrationLayer::new(MigrationHandle::new("x"), ());
    let error = layer().limits(Limits::default().body(usize::MAX)).unwrap_err();
    assert!(error.to_string().contains("buffered_bytes"), "{error}");
    assert!(layer().limits(Limits::default().captured_body(1 << 40)).is_err());
    assert!(layer().limits(Limits::default().running_legs(usize::MAX)).is_ok());
    assert!(layer().read_fallback(Duration::ZERO).is_err());
    for builder in [
        MigrationHandle::builder("x").dirty_keys(0),
        MigrationHandle::builder("x").recent_mismatches(0),
        MigrationHandle::builder("x").hold(Duration::ZERO),
        MigrationHandle::builder("x").step_deadline(Duration::ZERO),
    ] {
        assert!(builder.build().is_err());
    }
}

#[tokio::test]
async fn a_layer_goes_on_where_it_stands_when_its_handles_are_gone() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, "new")).at(Stage::ReadNew).await;
    let Rig { handle, old, service, .. } = rig;
    drop(handle);
    let answer = tower::ServiceExt::oneshot(service.clone(), put("/a", "")).await.unwrap();
    assert_eq!(text(answer).await, "new");
    settle_tasks().await;
    assert_eq!(old.count(), 1);
}

#[tokio::test]
async fn a_handle_whose_layers_are_all_gone_still_moves_its_flag() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
    let handle = rig.handle.clone();
    drop(rig);
    assert_eq!(handle.advance().await.unwrap().to, Stage::WriteBoth);
    handle.settled().await;
    handle.shutdown().await;
}

#[test]
fn the_text_of_debug_shows_where_it_stands() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
    assert!(format!("{:?}", rig.handle).contains("OldOnly"));
    assert!(format!("{:?}", rig.service).contains("Migration"));
}

#[test]
fn a_request_needs_no_runtime_on_a_one_sided_stage() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(200, ""));
    let mut answer = tokio_test::task::spawn(rig.send(put("/a", "")));
    let answer = tokio_test::assert_ready!(answer.poll()).unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_dual_write_without_a_runtime_panics_before_either_side_has_seen_it() {
    for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
        let rig = Rig::with(Fake::says(200, ""), Fake::says(200, ""), |l| l.write_order(order));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(rig.walk(Stage::WriteBoth));
        let mut answer = tokio_test::task::spawn(rig.send(put("/a", "")));
        let polled = catch_unwind(AssertUnwindSafe(|| drop(answer.poll())));
        assert!(polled.is_err(), "as documented");
        drop(answer);
        assert_eq!((rig.old.count(), rig.new.count()), (0, 0), "{order:?}");
        assert_eq!(rig.dirty(), [""; 0], "{order:?}");
        assert_eq!(rig.handle.status().on_old.writes, 0);
    }
}

#[test]
fn stages_and_the_status_are_data() {
    for stage in Stage::ALL {
        let json = serde_json::to_string(&stage).unwrap();
        assert_eq!(json, format!("\"{stage}\""));
        assert_eq!(serde_json::from_str::<Stage>(&json).unwrap(), stage);
    }
    let status = serde_json::to_value(MigrationHandle::new("x").status()).unwrap();
    assert_eq!(status["stage"], "old-only");
    assert_eq!(status["authority"], "old");
    assert_eq!(status["sync"]["new"], "unsynced");
    assert_eq!(status["on_old"]["writes"], 0);
}
