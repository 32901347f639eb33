//! Gates: what they see, what they refuse, and when they are asked.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower::Service;
use tower_migration::{
    Blocked, ConfigError, HandleBuilder, Limits, MigrationHandle, Reason, Side, Stage,
    gates::{
        Confidence, Evidence, Gate, MaxErrorShare, MaxMismatchShare, MaxSlowdown, MinComparisons,
        named,
    },
};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

/// Answers 200 after so long.
fn after(wait: Duration, text: &'static str) -> Fake {
    Fake::new(move |_| async move {
        tokio::time::sleep(wait).await;
        Ok(answer(200, text))
    })
}

/// A rig with gates, at `WriteBoth`, new confirmed, every read shadowed.
async fn gated(old: Fake, new: Fake, gates: impl FnOnce(HandleBuilder) -> HandleBuilder) -> Rig {
    let handle = gates(MigrationHandle::builder("test")).build().unwrap();
    let rig =
        Rig::on(handle, old, new, |layer| layer.limits(Limits::default().rereads(0)).unwrap());
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.walk(Stage::WriteBoth).await;
    rig
}

async fn read(rig: &Rig, times: usize) {
    for _ in 0..times {
        assert_eq!(rig.ask(get("/a")).await.0, 200);
        rig.quiesce().await;
    }
    // For a side that takes its time.
    tokio::time::sleep(SECOND).await;
}

/// The names and words of the gates that refused; every reason must be one.
fn refused(blocked: &Blocked) -> Vec<(&str, &str)> {
    let reasons = blocked.reasons().iter().map(|reason| match reason {
        Reason::Gate { gate, says } => (gate.as_str(), says.as_str()),
        other => panic!("{other} is no gate"),
    });
    reasons.collect()
}

#[tokio::test(start_paused = true)]
async fn a_minimum_of_comparisons_is_waited_for() {
    let gates = |b: HandleBuilder| b.gate(MinComparisons::new(3).unwrap());
    let rig = gated(Fake::says(200, "a"), Fake::says(200, "a"), gates).await;
    read(&rig, 2).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    let says = "2 shadow reads were compared, 3 are needed";
    assert_eq!(refused(&blocked), [("minimum of comparisons", says)]);
    assert!(blocked.to_string().contains(says), "{blocked}");
    assert!(blocked.to_string().contains("force"), "what would lift it: {blocked}");
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert!(!rig.handle.status().stepping);
    read(&rig, 1).await;
    assert_eq!(rig.handle.advance().await.unwrap().to, Stage::ReadNew);
}

#[tokio::test(start_paused = true)]
async fn too_many_mismatches_are_refused_and_so_are_too_few_reads_to_know() {
    // Without a mismatch 3 reads rule out one half, at 95 %.
    let gates = |b: HandleBuilder| b.gate(MaxMismatchShare::new(0.5).unwrap());
    let rig = gated(Fake::says(200, "a"), Fake::says(200, "a"), gates).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.starts_with("no comparisons yet"), "{blocked}");
    read(&rig, 2).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.starts_with("0 mismatches in 2 comparisons: up to 57.5 %"));
    read(&rig, 1).await;
    assert_eq!(rig.handle.status().gates[0].refuses, None);
    rig.new.becomes(&Fake::says(200, "b"));
    read(&rig, 2).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.contains("2 mismatches in 5 comparisons"), "{blocked}");
    rig.new.becomes(&Fake::says(200, "a"));
    read(&rig, 10).await;
    rig.handle.advance().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_side_that_fails_its_legs_does_not_become_the_authority() {
    let gates = |b: HandleBuilder| {
        let gate = MaxErrorShare::new(0.4).unwrap();
        b.gate(gate.confidence(Confidence::P90))
    };
    let rig = gated(Fake::says(200, ""), Fake::says(503, ""), gates).await;
    read(&rig, 2).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.contains("2 failures in 2 legs on new"), "{blocked}");
    assert!(blocked.to_string().contains("at 90 % confidence"), "{blocked}");
    rig.new.becomes(&Fake::says(200, ""));
    read(&rig, 10).await;
    assert_eq!(rig.handle.evidence().other_shadows.unknown, 2);
    assert!(rig.handle.advance().await.is_ok());

    // To `NewOnly` it is old's failures that count.
    rig.old.becomes(&Fake::errs());
    read(&rig, 3).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.contains("3 failures in 3 legs on old"), "{blocked}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_much_slower_does_not_become_the_authority() {
    let gates = |b: HandleBuilder| b.gate(MaxSlowdown::new(2.0).unwrap());
    let rig = gated(after(MS * 20, ""), after(MS * 90, ""), gates).await;
    read(&rig, 99).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert_eq!(refused(&blocked)[0].1, "99 reads of old were timed, 100 are needed");
    read(&rig, 1).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(refused(&blocked)[0].1.starts_with("p99 of new is "), "{blocked}");

    let rig = gated(after(MS * 20, ""), after(MS * 30, ""), gates).await;
    read(&rig, 100).await;
    assert!(rig.handle.advance().await.is_ok());
    // The other way round now: new answers, old is the shadow.
    read(&rig, 100).await;
    assert!(rig.handle.advance().await.is_ok(), "{}", rig.handle.evidence());
}

#[tokio::test(start_paused = true)]
async fn all_reasons_come_at_once_those_that_are_built_in_too() {
    let handle = MigrationHandle::builder("test")
        .gate(MinComparisons::new(1).unwrap())
        .gate(named("open", |_: &Evidence| Ok(())))
        .gate(MaxErrorShare::new(0.1).unwrap())
        .gate(named("shut", |_: &Evidence| Err("not today".into())))
        .build()
        .unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    // Those that come with the crate have nothing to judge at `OldOnly`.
    let blocked = rig.handle.advance().await.unwrap_err();
    assert_eq!(refused(&blocked), [("shut", "not today")]);
    rig.handle.force(Stage::WriteBoth, "asks no gate").await.unwrap();
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(matches!(blocked.reasons()[0], Reason::NotSynced { .. }), "{blocked}");
    assert_eq!(blocked.reasons().len(), 4, "{blocked}");
    rig.handle.confirm_synced(Side::New).await.unwrap();
    let blocked = rig.handle.advance().await.unwrap_err();
    let names: Vec<_> = refused(&blocked).iter().map(|(gate, _)| *gate).collect();
    assert_eq!(names, ["minimum of comparisons", "error share", "shut"]);

    let page = rig.handle.status().to_string();
    for line in [
        "  gate minimum of comparisons refuses: 0 shadow reads were compared, 1 are needed\n",
        "  gate open lets the next step pass\n",
        "  gate shut refuses: not today\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let json = serde_json::to_value(rig.handle.status()).unwrap();
    assert_eq!(json["gates"][3]["gate"], "shut");
    rig.handle.force(Stage::NewOnly, "test").await.unwrap();
    assert!(rig.handle.status().gates.is_empty(), "no step is left");
}

#[tokio::test(start_paused = true)]
async fn closures_boxes_and_nothing_at_all_are_gates() {
    let boxed: Vec<Box<dyn Gate>> =
        vec![Box::new(()), Box::new(named("boxed", |_: &Evidence| Err("1".into())))];
    let mut builder = MigrationHandle::builder("test").gate(|seen: &Evidence| {
        assert_eq!((seen.from, seen.to), (Stage::OldOnly, Stage::WriteBoth));
        Err("2".into())
    });
    for gate in boxed {
        builder = builder.gate(gate);
    }
    assert!(format!("{builder:?}").contains("\"boxed\""));
    let handle = builder.build().unwrap();
    let blocked = handle.advance().await.unwrap_err();
    let [(closure, "2"), ("boxed", "1")] = refused(&blocked)[..] else { panic!("{blocked}") };
    assert!(closure.contains("closures_boxes_and_nothing"), "says where it stands: {closure}");
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_panics_refuses() {
    struct Nameless;
    impl Gate for Nameless {
        fn name(&self) -> Cow<'_, str> {
            std::panic::resume_unwind(Box::new("on purpose"))
        }
        fn check(&self, _: &Evidence) -> Result<(), String> {
            Ok(())
        }
    }
    let handle = MigrationHandle::builder("test")
        .gate(Nameless)
        .gate(named("broken", |_: &Evidence| std::panic::resume_unwind(Box::new("on purpose"))))
        .build()
        .unwrap();
    let blocked = handle.advance().await.unwrap_err();
    assert_eq!(refused(&blocked), [("broken", "it panicked")]);
    assert_eq!(handle.stage(), Stage::OldOnly);
    assert!(!handle.status().stepping, "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn gates_are_asked_once_before_the_hold_and_only_on_the_way_to_new() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = {
        let asked = Arc::clone(&asked);
        move |_: &Evidence| {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let handle = MigrationHandle::builder("test").gate(count).build().unwrap();
    let asked = || asked.swap(0, Ordering::SeqCst);
    let (new, _, permits) = stepped();
    let rig = Rig::on(handle, Fake::says(200, ""), new, |layer| layer);
    rig.handle.advance().await.unwrap();
    assert_eq!(asked(), 1);
    rig.handle.confirm_synced(Side::New).await.unwrap();

    // A write from before the step, then one from before the hold.
    rig.ask(put("/a", "")).await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.move_to(Stage::ReadNew).await });
    rig.quiesce().await;
    assert_eq!(asked(), 1, "nothing of an earlier epoch runs");
    let write = tokio::spawn(rig.service.clone().call(put("/b", "")));
    rig.quiesce().await;
    permits.add_permits(1);
    rig.quiesce().await;
    assert_eq!(asked(), 0);
    permits.add_permits(5);
    write.await.unwrap().unwrap();
    assert_eq!(step.await.unwrap().unwrap().to, Stage::ReadNew);
    rig.ask(get("/a")).await;
    assert_eq!(asked(), 0, "neither during the hold nor for a request");

    assert!(!rig.handle.status().gates.is_empty());
    assert_eq!(asked(), 1, "the status asks");
    rig.handle.move_to(Stage::ReadNew).await.unwrap();
    rig.handle.rollback().await.unwrap();
    rig.quiesce().await;
    rig.handle.move_to(Stage::OldOnly).await.unwrap();
    rig.handle.force(Stage::NewOnly, "test").await.unwrap();
    rig.handle.rollback().await.unwrap();
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    assert_eq!(asked(), 0, "the way back is free");
}

#[tokio::test(start_paused = true)]
async fn evidence_is_counted_from_the_present_stage_on() {
    let rig = gated(after(MS * 10, "a"), after(MS * 40, "b"), |b| b).await;
    read(&rig, 3).await;
    assert_eq!(rig.ask(put("/a", "")).await.0, 200);
    rig.handle.settled().await;
    tokio::time::sleep(SECOND).await;
    let seen = rig.handle.evidence();
    assert_eq!((seen.from, seen.to, seen.other()), (Stage::WriteBoth, Stage::ReadNew, Side::New));
    assert_eq!((seen.shadows.mismatches, seen.shadows.compared()), (3, 3));
    assert_eq!((seen.other_shadows.applied, seen.other_shadows.total()), (3, 3));
    assert_eq!((seen.other_writes.applied, seen.other_writes.total()), (1, 1));
    assert!(seen.lasted >= SECOND);
    let near = |took: Option<Duration>, exact: Duration| {
        let off = took.unwrap().as_secs_f64() / exact.as_secs_f64() - 1.0;
        assert!(off.abs() <= 0.125, "{took:?} for {exact:?}");
    };
    for (side, exact) in [(Side::Old, MS * 10), (Side::New, MS * 40)] {
        assert_eq!(seen.timing(side).reads.count(), 3, "{side}");
        assert_eq!(seen.timing(side).writes.count(), 1, "{side}");
        near(seen.quantile(side, 0.99), exact);
        near(seen.timing(side).writes.quantile(0.5), exact);
    }
    let page = seen.to_string();
    assert!(page.contains("0 match, 3 mismatch"), "{page}");
    assert!(page.contains("writes on new: 1 applied"), "{page}");

    rig.handle.advance().await.unwrap();
    let anew = rig.handle.evidence();
    assert_eq!(anew, {
        let mut none = Evidence::new(Stage::ReadNew, Stage::NewOnly);
        none.lasted = anew.lasted;
        none
    });
    assert!(anew.lasted < SECOND);
    read(&rig, 2).await;
    let seen = rig.handle.evidence();
    assert_eq!((seen.other(), seen.shadows.mismatches), (Side::Old, 2));
    near(seen.quantile(Side::New, 0.5), MS * 40);
    near(seen.quantile(Side::Old, 0.5), MS * 10);
    // And back: nothing of the first stay is left.
    rig.handle.rollback().await.unwrap();
    assert_eq!(rig.handle.evidence().shadows.compared(), 0);
}

#[test]
fn gates_that_cannot_work_are_refused_when_they_are_made() {
    let range = |error: ConfigError| {
        assert!(matches!(error, ConfigError::OutOfRange { .. }), "{error:?}");
        assert!(error.to_string().contains("must be"), "{error}");
    };
    assert_eq!(MinComparisons::new(0).unwrap_err(), ConfigError::Zero { limit: "MinComparisons" });
    for bad in [0.0, 1.0, -0.5, 7.0, f64::NAN] {
        range(MaxMismatchShare::new(bad).unwrap_err());
        range(MaxErrorShare::new(bad).unwrap_err());
        range(MaxSlowdown::new(1.5).unwrap().quantile(bad).unwrap_err());
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        range(MaxSlowdown::new(bad).unwrap_err());
    }
    assert!(MaxSlowdown::new(1.5).unwrap().min_samples(0).is_err());
}
