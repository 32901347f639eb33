//! The flag that goes back by itself, and when it must not.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio_test::{assert_pending, task};
use tower_migration::{
    Alarm, AlarmReason, AutoRollback, Blocked, ConfigError, FileStore, Limits, MigrationHandle,
    MigrationLayer, Reason, Side, Stage,
};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

/// More than a fifth of at least ten requests within ten seconds.
fn errors() -> AutoRollback {
    AutoRollback::new().error_share(0.2).window(SECOND * 10).min_samples(10)
}

/// A rig at `ReadNew`, both sides well.
async fn watched(
    config: AutoRollback,
    set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
) -> Rig {
    let handle = MigrationHandle::builder("test").auto_rollback(config).build().unwrap();
    Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), set).at(Stage::ReadNew).await
}

async fn reads(rig: &Rig, times: usize) {
    for _ in 0..times {
        rig.ask(get("/a")).await;
    }
}

/// Until the counters have been looked at, and what follows has been done.
async fn looked_at() {
    tokio::time::sleep(SECOND * 11 / 10).await;
    settle_tasks().await;
}

fn rolled_back(blocked: &Blocked) -> &Alarm {
    match blocked.reasons() {
        [Reason::RolledBack { alarm }] => alarm,
        _ => panic!("{blocked}"),
    }
}

/// What is published under `name`, summed over its labels.
fn published(rig: &Rig, snapshotter: &Snapshotter, name: &str) -> f64 {
    rig.handle.publish_metrics();
    let name = format!("tower_migration_{name}");
    let all = snapshotter.snapshot().into_vec();
    let values =
        all.iter().filter(|(key, ..)| key.key().name() == name).map(|(.., value)| match value {
            DebugValue::Counter(n) => *n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        });
    values.sum()
}

fn recorder() -> (DebuggingRecorder, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    (recorder, snapshotter)
}

#[tokio::test(start_paused = true)]
async fn it_goes_back_once_and_stays_until_it_is_re_armed() {
    let (recorder, snapshotter) = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let rig = watched(errors(), |layer| layer).await;
    reads(&rig, 12).await;
    rig.new.becomes(&Fake::says(500, "new"));
    reads(&rig, 4).await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew, "never on a request's own path");
    assert!(rig.handle.status().auto_rollback.is_none());
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(rig.ask(get("/a")).await, (200, "old".to_owned()));

    let status = rig.handle.status();
    let alarm = status.auto_rollback.clone().unwrap();
    assert_eq!((alarm.reason, alarm.stage), (AlarmReason::Errors, Stage::ReadNew));
    assert_eq!((alarm.samples, alarm.window, alarm.slower_than), (16, SECOND * 10, None));
    assert!((alarm.measured - 0.25).abs() < 1e-12 && (alarm.threshold - 0.2).abs() < 1e-12);
    assert!(alarm.at.elapsed().unwrap() < Duration::from_secs(60));
    assert!(status.alarm.is_none(), "it could go back, so there is nothing else to do");
    let page = status.to_string();
    let line = "ROLLED BACK BY ITSELF from read-new, 0 s ago: new failed 25.0 % of 16 requests \
                within 10s, 20.0 % is allowed; rearm()";
    assert!(page.contains(line), "{page}");
    assert_eq!(serde_json::to_value(&status).unwrap()["auto_rollback"]["reason"], "errors");
    assert_eq!(published(&rig, &snapshotter, "auto_rollbacks_total") as u64, 1);
    assert_eq!(published(&rig, &snapshotter, "alarm") as u64, 1, "until somebody has seen it");

    // New is well again, and automation asks for the step: not before a person
    // has looked.
    rig.new.becomes(&Fake::says(200, "new"));
    tokio::time::sleep(SECOND * 120).await;
    for step in [rig.handle.advance().await, rig.handle.move_to(Stage::ReadNew).await] {
        let blocked = step.unwrap_err();
        assert_eq!(rolled_back(&blocked), &alarm);
        assert!(blocked.to_string().contains("then rearm()"), "{blocked}");
    }
    assert_eq!(rig.handle.rearm(), Some(alarm));
    assert_eq!(rig.handle.rearm(), None);
    assert!(rig.handle.status().auto_rollback.is_none());
    assert_eq!(published(&rig, &snapshotter, "alarm") as u64, 0);
    rig.handle.advance().await.unwrap();
    reads(&rig, 20).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    // Armed again.
    rig.new.becomes(&Fake::errs());
    for _ in 0..20 {
        rig.send(get("/a")).await.unwrap_err();
    }
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(published(&rig, &snapshotter, "auto_rollbacks_total") as u64, 2);
}

#[tokio::test(start_paused = true)]
async fn the_way_back_further_is_free_while_it_is_not_re_armed() {
    let rig = watched(errors(), |layer| layer).await;
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    looked_at().await;
    assert_eq!(rig.handle.rollback().await.unwrap().to, Stage::OldOnly);
    assert_eq!(rig.handle.advance().await.unwrap().to, Stage::WriteBoth);
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rolled_back(&rig.handle.advance().await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_unless_it_is_switched_on() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(500, "")).at(Stage::ReadNew).await;
    reads(&rig, 500).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    let status = rig.handle.status();
    assert!(status.alarm.is_none() && status.auto_rollback.is_none());
}

#[tokio::test(start_paused = true)]
async fn too_few_samples_or_too_few_failures_say_nothing() {
    let rig = watched(errors(), |layer| layer).await;
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 9).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew, "nine");
    // They leave the window.
    tokio::time::sleep(SECOND * 11).await;
    reads(&rig, 9).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew, "nine again");
    rig.new.becomes(&Fake::says(404, ""));
    reads(&rig, 36).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew, "a fifth, and refusals are no failures");
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 1).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn the_window_starts_anew_at_each_change_of_stage() {
    let rig = watched(errors(), |layer| layer).await;
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 9).await;
    looked_at().await;
    rig.handle.advance().await.unwrap();
    rig.handle.rollback().await.unwrap();
    rig.handle.confirm_synced(Side::Old).await.unwrap();
    reads(&rig, 9).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    reads(&rig, 1).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn writes_errors_panics_and_timeouts_are_failures_of_new() {
    let sides = [Fake::says(503, ""), Fake::errs(), Fake::panics(), Fake::hangs()];
    for (n, new) in sides.iter().enumerate() {
        let rig = watched(errors(), |layer| {
            layer.limits(Limits::default().leg_timeout(MS * 100)).unwrap()
        })
        .await;
        rig.new.becomes(new);
        for at in 0..10 {
            let path = format!("/{at}");
            let _ = rig.send(put(&path, "")).await;
        }
        looked_at().await;
        assert_eq!(rig.handle.stage(), Stage::WriteBoth, "writes, side {n}");
        let alarm = rig.handle.status().auto_rollback.unwrap();
        assert_eq!((alarm.reason, alarm.samples), (AlarmReason::Errors, 10));
        assert_eq!(rig.dirty().len(), 10, "as after any emergency exit");
    }
    for new in &sides[..3] {
        let rig = watched(errors(), |layer| layer).await;
        rig.new.becomes(new);
        for _ in 0..10 {
            let _ = AssertUnwindSafe(rig.send(get("/a"))).catch_unwind().await;
        }
        looked_at().await;
        assert_eq!(rig.handle.stage(), Stage::WriteBoth, "reads");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_answers_are_a_reason_where_they_are_timed() {
    let config = || {
        let slow = AutoRollback::new().slow_share(MS * 400, 0.5);
        slow.window(SECOND * 60).min_samples(10)
    };
    let slow = Fake::new(|_| async {
        tokio::time::sleep(MS * 500).await;
        Ok(answer(200, "slow"))
    });
    for (timed, stage) in [(true, Stage::WriteBoth), (false, Stage::ReadNew)] {
        let rig = watched(config(), |layer| layer.durations(timed)).await;
        reads(&rig, 10).await;
        rig.new.becomes(&slow);
        reads(&rig, 10).await;
        looked_at().await;
        assert_eq!(rig.handle.stage(), Stage::ReadNew, "half of them");
        reads(&rig, 1).await;
        looked_at().await;
        assert_eq!(rig.handle.stage(), stage, "timed: {timed}");
        if let Some(alarm) = rig.handle.status().auto_rollback {
            assert_eq!((alarm.reason, alarm.samples), (AlarmReason::Latency, 21));
            assert_eq!(alarm.slower_than, Some(MS * 400));
            let text = alarm.to_string();
            assert!(text.contains("took longer than 400ms for 52.4 % of 21 requests"), "{text}");
        }
    }
    // Dual writes are always timed.
    let rig = watched(config(), |layer| layer).await;
    rig.new.becomes(&slow);
    for _ in 0..10 {
        rig.ask(put("/a", "")).await;
    }
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn clients_that_hang_up_on_a_new_that_hangs_are_a_reason_if_one_says_so() {
    for (config, stage) in
        [(errors().hang_up_share(0.5), Stage::WriteBoth), (errors(), Stage::ReadNew)]
    {
        let rig = watched(config, |layer| layer).await;
        reads(&rig, 10).await;
        rig.new.becomes(&Fake::hangs());
        for n in 0..11 {
            if n == 10 {
                looked_at().await;
                assert_eq!(rig.handle.stage(), Stage::ReadNew, "half of them");
            }
            let mut read = task::spawn(rig.send(get("/a")));
            assert_pending!(read.poll());
        }
        looked_at().await;
        assert_eq!(rig.handle.stage(), stage);
        if let Some(alarm) = rig.handle.status().auto_rollback {
            assert_eq!((alarm.reason, alarm.samples), (AlarmReason::HungUp, 21));
            assert!(alarm.to_string().starts_with("clients hung up on 52.4 % of 21 requests"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_old_is_unsynced_there_is_only_an_alarm() {
    let rig = watched(errors(), |layer| layer).await;
    rig.handle.advance().await.unwrap();
    rig.handle.rollback().await.unwrap();
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    let status = rig.handle.status();
    assert!(status.auto_rollback.is_none());
    let alarm = status.alarm.clone().unwrap();
    assert_eq!((alarm.reason, alarm.stage), (AlarmReason::Errors, Stage::ReadNew));
    assert!(status.to_string().contains("ALARM at read-new, 0 s ago: new failed 100.0 %"));
    // Once old is known to be whole, the way is open.
    rig.handle.confirm_synced(Side::Old).await.unwrap();
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    let status = rig.handle.status();
    assert!(status.alarm.is_none() && status.auto_rollback.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_suspect_old_is_good_enough_as_it_is_for_an_operator() {
    let rig = watched(errors(), MigrationLayer::without_keys).await;
    rig.new.becomes(&Fake::says(500, ""));
    for _ in 0..10 {
        rig.ask(put("/a", "")).await;
        rig.quiesce().await;
    }
    assert_eq!(rig.handle.status().sync.old.as_str(), "suspect");
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn in_new_only_there_is_only_an_alarm_and_it_ends_when_new_is_well() {
    let (recorder, snapshotter) = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let rig = watched(errors(), |layer| layer).await;
    rig.handle.advance().await.unwrap();
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    looked_at().await;
    let raised = rig.handle.status().alarm;
    assert_eq!(raised.as_ref().unwrap().stage, Stage::NewOnly);
    for _ in 0..20 {
        reads(&rig, 10).await;
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(rig.handle.stage(), Stage::NewOnly);
    let status = rig.handle.status();
    assert_eq!(status.alarm, raised, "said once");
    assert!(status.auto_rollback.is_none());
    assert_eq!(published(&rig, &snapshotter, "alarm") as u64, 1);
    assert_eq!(published(&rig, &snapshotter, "auto_rollbacks_total") as u64, 0);
    rig.new.becomes(&Fake::says(200, ""));
    for second in 0..25 {
        reads(&rig, 10).await;
        tokio::time::sleep(SECOND).await;
        if second == 14 {
            assert!(rig.handle.status().alarm.is_some(), "not calm for a whole window yet");
        }
    }
    assert!(rig.handle.status().alarm.is_none());
    assert_eq!(published(&rig, &snapshotter, "alarm") as u64, 0);
    // An alarm stands in nobody's way.
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 60).await;
    looked_at().await;
    assert!(rig.handle.status().alarm.is_some());
    assert!(rig.handle.rearm().is_some(), "and can be acknowledged");
    assert!(rig.handle.status().alarm.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_flag_that_is_forced_to_read_new_again_is_not_taken_back_a_second_time() {
    let rig = watched(errors(), |layer| layer).await;
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    rig.handle.force(Stage::ReadNew, "I know better").await.unwrap();
    for _ in 0..5 {
        reads(&rig, 10).await;
        looked_at().await;
    }
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    let status = rig.handle.status();
    assert!(status.alarm.is_some() && status.auto_rollback.is_some());
    assert!(rig.handle.rearm().is_some());
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::ReadNew, "what came before rearm() does not count");
    reads(&rig, 10).await;
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn an_operators_own_rollback_ends_the_alarm_and_closes_nothing() {
    let rig = watched(errors(), |layer| layer).await;
    rig.handle.advance().await.unwrap();
    rig.handle.rollback().await.unwrap();
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    looked_at().await;
    assert!(rig.handle.status().alarm.is_some());
    rig.handle.force(Stage::WriteBoth, "new is down").await.unwrap();
    looked_at().await;
    assert!(rig.handle.status().alarm.is_none());
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.advance().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_gives_way_and_the_flag_goes_back_once() {
    let (recorder, snapshotter) = recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let rig = watched(errors(), |layer| layer).await;
    let (old, latch) = latched(200, "old");
    rig.old.becomes(&old);
    rig.ask(put("/a", "")).await;
    // Another epoch, so that the leg on old is an earlier one.
    let handle = rig.handle.clone();
    let mut orderly = task::spawn(handle.move_to(Stage::WriteBoth));
    assert_pending!(orderly.poll(), "it waits for the leg on old");
    rig.new.becomes(&Fake::says(500, ""));
    reads(&rig, 10).await;
    for _ in 0..3 {
        looked_at().await;
    }
    assert!(orderly.is_woken());
    assert!(matches!(orderly.await.unwrap_err().reasons(), [Reason::Overtaken]));
    latch.open();
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(published(&rig, &snapshotter, "auto_rollbacks_total") as u64, 1);
    // There and back.
    assert_eq!(published(&rig, &snapshotter, "steps_total") as u64, 3);
}

#[test]
fn what_cannot_work_is_refused_when_the_handle_is_built() {
    let built = |config: AutoRollback| {
        MigrationHandle::builder("x").auto_rollback(config).build().unwrap_err()
    };
    let new = AutoRollback::new;
    for bad in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
        for config in
            [new().error_share(bad), new().slow_share(SECOND, bad), new().hang_up_share(bad)]
        {
            let error = built(config);
            assert!(matches!(error, ConfigError::OutOfRange { .. }), "{error:?}");
            assert!(error.to_string().contains("more than 0 and less than 1"), "{error}");
        }
    }
    let zero = |error, name| assert_eq!(error, ConfigError::Zero { limit: name });
    zero(built(errors().window(Duration::ZERO)), "auto_rollback.window");
    zero(built(errors().min_samples(0)), "auto_rollback.min_samples");
    zero(built(new().slow_share(Duration::ZERO, 0.5)), "auto_rollback.slow_share");
    for window in [MS * 999, SECOND * 3_601] {
        assert!(matches!(built(errors().window(window)), ConfigError::OutOfRange { .. }));
    }
    let none = built(new());
    assert!(matches!(none, ConfigError::Missing { .. }));
    assert_eq!(none.to_string(), "a threshold of auto_rollback is missing");
}

#[tokio::test(start_paused = true)]
async fn a_ramp_on_which_new_fails_is_ended() {
    let handle = MigrationHandle::builder("test").auto_rollback(errors()).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer)
        .at(Stage::WriteBoth)
        .await;
    rig.handle.ramp(1.0).await.unwrap();
    rig.new.becomes(&Fake::says(500, "new"));
    reads(&rig, 12).await;
    looked_at().await;
    let status = rig.handle.status();
    assert_eq!((status.stage, status.ramp), (Stage::WriteBoth, 0.0), "{status}");
    assert_eq!(rig.ask(get("/a")).await, (200, "old".to_owned()));
    rolled_back(&rig.handle.ramp(0.1).await.unwrap_err());
    rolled_back(&rig.handle.advance().await.unwrap_err());
    assert!(rig.handle.rearm().is_some());
    rig.handle.ramp(0.1).await.unwrap();
}

/// On a real clock: the file's locks are looked at by threads.
#[tokio::test]
async fn a_follower_raises_an_alarm_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = || FileStore::create_or_open(dir.path().join("x.flag"));
    let owner = on_disk("x", store()).await;
    owner.advance().await.unwrap();
    owner.confirm_synced(Side::New).await.unwrap();
    owner.advance().await.unwrap();
    let config = errors().window(SECOND);
    let builder = MigrationHandle::builder("x").hold(DISK).auto_rollback(config);
    let follower = builder.open(store().unwrap()).await.unwrap();
    let rig = Rig::on(follower, Fake::says(200, "old"), Fake::says(500, "new"), |layer| layer);
    while rig.handle.status().alarm.is_none() {
        reads(&rig, 12).await;
        tokio::time::sleep(MS * 20).await;
    }
    let status = rig.handle.status();
    assert_eq!(status.stage, Stage::ReadNew);
    assert!(status.auto_rollback.is_none(), "{status}");
}
