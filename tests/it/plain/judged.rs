//! What judged answers count as: in metrics, for gates, and for the automatic
//! rollback.

use std::collections::HashMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower_migration::{
    AutoRollback, MigrationHandle, Reason, Side, Stage, compare::Verdict, gates::MaxErrorShare,
    reconcile::Key,
};

use super::store::*;
use crate::support::{SECOND, settle_tasks};

fn errors() -> AutoRollback {
    AutoRollback::new().error_share(0.2).window(SECOND * 10).min_samples(10)
}

/// `requests_total`, by the values of its labels.
fn requests(rig: &Rig, snapshotter: &Snapshotter) -> HashMap<String, u64> {
    rig.handle.publish_metrics();
    let mut all = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if let (DebugValue::Counter(n), "tower_migration_requests_total") = (value, key.name()) {
            let labels = key.labels().filter(|label| label.key() != "migration");
            let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
            all.insert(labels.join(" "), n);
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_leg_counts_as_what_its_answer_was_judged_to_be() {
    for (stage, side) in
        [(Stage::OldOnly, "old"), (Stage::WriteBoth, "old"), (Stage::NewOnly, "new")]
    {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        rig.sent(put("a", "v")).await.unwrap();
        rig.sent(get("a")).await.unwrap();
        rig.sent(get("none")).await.unwrap_err();
        rig.sent(Op::Add("a".to_owned(), "w".to_owned()).into()).await.unwrap_err();
        rig.old.becomes(Way::Says(Err(StoreError::Broken)));
        rig.new.becomes(Way::Says(Err(StoreError::Broken)));
        rig.sent(get("a")).await.unwrap_err();
        rig.sent(put("a", "v")).await.unwrap_err();
        let counted = requests(&rig, &snapshotter);
        for operation in ["read", "write"] {
            for outcome in ["applied", "refused", "unknown"] {
                let labels = format!("{side} authority {operation} {outcome}");
                assert_eq!(counted.get(&labels), Some(&1), "{stage} {labels} in {counted:#?}");
            }
        }
        if stage == Stage::WriteBoth {
            for outcome in ["applied", "refused", "unknown"] {
                let labels = format!("new other write {outcome}");
                assert_eq!(counted.get(&labels), Some(&1), "{labels} in {counted:#?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_error_does_not_roll_back_and_a_real_one_does() {
    let handle = MigrationHandle::builder("rows").auto_rollback(errors()).build().unwrap();
    let rig = Rig::on(handle, Store::well(), Store::well(), protocol(), |layer| layer);
    let rig = rig.at(Stage::ReadNew).await;
    let looked_at = || async {
        tokio::time::sleep(SECOND * 11 / 10).await;
        settle_tasks().await;
    };
    for rate in [0.0, 1.0] {
        rig.handle.set_shadow_rate(rate).unwrap();
        for _ in 0..30 {
            assert_eq!(rig.sent(get("none")).await, Err(StoreError::NotFound));
            assert_eq!(rig.sent(delete("none")).await, Err(StoreError::NotFound));
        }
        looked_at().await;
        assert_eq!(rig.handle.stage(), Stage::ReadNew, "rate {rate}");
    }
    rig.new.becomes(Way::Says(Err(StoreError::Broken)));
    for _ in 0..60 {
        rig.sent(get("a")).await.unwrap_err();
    }
    looked_at().await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn the_error_gate_counts_what_was_judged_unknown_and_nothing_else() {
    for (reply, passes) in [(Err(StoreError::Exists), true), (Err(StoreError::Broken), false)] {
        let handle = MigrationHandle::builder("rows")
            .gate(MaxErrorShare::new(0.5).unwrap())
            .build()
            .unwrap();
        let (old, new) = (Store::says(Err(StoreError::Exists)), Store::says(reply.clone()));
        let rig = Rig::on(handle, old, new, protocol(), |layer| layer);
        let rig = rig.at(Stage::WriteBoth).await;
        for _ in 0..12 {
            rig.sent(put("a", "v")).await.unwrap_err();
        }
        let key = Key::from("/a");
        if !passes {
            let copied = rig.handle.copy_key(&key, Side::Old, || async { Ok::<_, StoreError>(()) });
            assert!(copied.await.unwrap().cleaned);
        }
        match rig.handle.advance().await {
            Ok(_) => assert!(passes, "{reply:?}"),
            Err(blocked) => {
                assert!(!passes, "{blocked}");
                assert!(matches!(blocked.reasons(), [Reason::Gate { .. }]), "{blocked}");
            }
        }
    }
}

/// A row that new does not have is the very thing that a shadow read is to find.
#[tokio::test(start_paused = true)]
async fn a_shadow_that_is_refused_is_a_mismatch_and_no_failure_of_the_side() {
    let rig = Rig::new(Store::well().with("a", "v"), Store::well()).at(Stage::WriteBoth).await;
    let verdict = rig.verdict_of(get("a")).await;
    let Verdict::Mismatch(diff) = &verdict else { panic!("{verdict}") };
    assert!(diff.to_string().contains("NotFound"), "{diff}");
    let shadows = rig.handle.evidence().other_shadows;
    assert_eq!((shadows.unknown, shadows.refused), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_with_an_unknown_error_is_a_failure_of_the_side() {
    let old = Store::well().with("a", "v");
    let rig = Rig::new(old, Store::says(Err(StoreError::Broken))).at(Stage::WriteBoth).await;
    let verdict = rig.verdict_of(get("a")).await;
    assert_eq!(verdict.to_string(), "failed (error)");
    assert_eq!(rig.handle.evidence().other_shadows.unknown, 1);
}
