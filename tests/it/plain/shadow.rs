//! Reads that are compared.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tower::ServiceExt;
use tower_layer::Layer;
use tower_migration::{
    InFlight, Limits, MigrationLayer, Role, Side, Stage,
    compare::{Diff, InconclusiveReason, SkipReason, Verdict},
    protocol::Plain,
};

use super::store::*;
use crate::support::{Latch, settle_tasks};

fn rows(old: &str, new: &str) -> (Store, Store) {
    (Store::well().with("a", old), Store::well().with("a", new))
}

#[tokio::test(start_paused = true)]
async fn equal_answers_match_on_both_two_sided_stages() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let (old, new) = rows("v", "v");
        let rig = Rig::new(old, new).at(stage).await;
        assert_eq!(rig.verdict_of(get("a")).await, Verdict::Match);
        let other = stage.authority().other();
        let leg = rig.side(other).calls()[0].leg.unwrap();
        assert_eq!((leg.role, leg.side, leg.stage), (Role::Shadow, other, stage));
        let mine = rig.side(stage.authority()).calls()[0].leg.unwrap();
        assert_eq!((mine.role, mine.side), (Role::Authority, stage.authority()));
        let status = rig.handle.status();
        let running = |on: &InFlight| on.reads + on.shadows;
        assert_eq!([running(&status.on_old), running(&status.on_new)], [0, 0], "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mismatch_can_be_read() {
    let (old, new) = rows("v", "w");
    let protocol = protocol().name(|call| format!("{:?}", call.op));
    let rig = Rig::with(old, new, protocol, |layer| layer).at(Stage::WriteBoth).await;
    let verdict = rig.verdict_of(get("a")).await;
    let text = r#"mismatch: response: "Row(\"v\")" against "Row(\"w\")""#;
    assert_eq!(verdict.to_string(), text);
    assert_eq!([rig.old.count(), rig.new.count()], [3, 3], "read two times again");
    let [mismatch] = &rig.handle.recent_mismatches()[..] else { panic!("one mismatch") };
    assert_eq!(&*mismatch.request, r#"Get("a")"#);
    assert_eq!((mismatch.keys.to_string().as_str(), mismatch.authority), ("/a", Side::Old));
}

#[tokio::test(start_paused = true)]
async fn what_is_observed_is_compared_and_nothing_else() {
    let length = |answer: &Answer| match answer {
        Answer::Row(row) => row.len(),
        _ => 0,
    };
    for (new, differs) in [("123", false), ("1234", true)] {
        let (old, new) = rows("abc", new);
        let protocol = Plain::observing(classify, StoreError::Layer, length).keys(key);
        let rig = Rig::with(old, new, protocol, |layer| layer).at(Stage::WriteBoth).await;
        let verdict = rig.verdict_of(get("a")).await;
        let expected = if differs { r#"mismatch: response: "3" against "4""# } else { "match" };
        assert_eq!(verdict.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparer_of_ones_own_says_what_differs() {
    let (old, new) = rows("abc", "xbz");
    let protocol = Plain::comparing(
        classify,
        StoreError::Layer,
        |answer: &Answer| format!("{answer:?}"),
        |mine: &String, theirs: &String| {
            let letters = |at| (mine.as_bytes()[at] as char, theirs.as_bytes()[at] as char);
            let at = |at| {
                Diff::when(letters(at).0 != letters(at).1, "letter", letters(at).0, letters(at).1)
            };
            at(5).and(at(6)).and(at(7))
        },
    );
    let rig = Rig::with(old, new, protocol.keys(key), |layer| layer).at(Stage::WriteBoth).await;
    let verdict = rig.verdict_of(get("a")).await;
    assert_eq!(
        verdict.to_string(),
        r#"mismatch: letter: "a" against "x"; letter: "c" against "z""#
    );
}

#[tokio::test(start_paused = true)]
async fn only_applied_answers_are_compared() {
    for (reply, reason) in [
        (Ok(Answer::Rejected), SkipReason::AuthorityRefused),
        (Err(StoreError::NotFound), SkipReason::AuthorityRefused),
        (Err(StoreError::Broken), SkipReason::AuthorityFailed),
    ] {
        let rig = Rig::new(Store::says(reply), Store::well()).at(Stage::WriteBoth).await;
        let verdict = rig.verdict_of(get("a")).await;
        assert_eq!(verdict, Verdict::Skipped(reason));
        assert_eq!(rig.new.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_the_key_meanwhile_makes_a_difference_inconclusive() {
    for (write, raced) in [("a", true), ("b", false)] {
        let (old, new) = rows("v", "w");
        let latch = Latch::default();
        let rig = Rig::with(old, new, protocol(), |layer| {
            layer.limits(Limits::default().rereads(0)).unwrap()
        });
        let rig = rig.at(Stage::WriteBoth).await;
        rig.new.becomes(Way::At(latch.clone()));
        rig.handle.set_shadow_rate(1.0).unwrap();
        rig.send(get("a")).await.unwrap();
        rig.send(put(write, "v")).await.unwrap();
        latch.open();
        rig.handle.shutdown().await;
        let verdict = rig.verdicts.lock().unwrap().pop().unwrap();
        assert_eq!(verdict == Verdict::Inconclusive(InconclusiveReason::Raced), raced, "{verdict}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_of_a_shadowed_read_waits_for_nobody() {
    for way in [Way::Hangs, Way::Panics, Way::Says(Err(StoreError::Broken))] {
        let rig =
            Rig::new(Store::well().with("a", "v"), Store::new(way)).at(Stage::WriteBoth).await;
        rig.handle.set_shadow_rate(1.0).unwrap();
        let mut read = tokio_test::task::spawn(rig.send(get("a")));
        let answer = tokio_test::assert_ready!(read.poll());
        assert_eq!(answer, Ok(Answer::Row("v".to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_raced_by_its_rows() {
    let (old, new) = rows("v", "v");
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    assert_eq!(rig.verdict_of(Op::List.into()).await, Verdict::Match);
    rig.handle.mark_dirty(&"/a".into(), Side::Old);
    let verdict = rig.verdict_of(Op::List.into()).await;
    assert_eq!(verdict, Verdict::Skipped(SkipReason::Dirty));
}

#[tokio::test(start_paused = true)]
async fn a_reads_name_is_made_once_however_many_want_it() {
    let (old, new) = rows("v", "w");
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let protocol = protocol().name(move |call| {
        counted.fetch_add(1, Ordering::Relaxed);
        format!("{:?}", call.op)
    });
    let rig = Rig::with(old, new, protocol, |layer| layer).at(Stage::WriteBoth).await;
    assert!(matches!(rig.verdict_of(get("a")).await, Verdict::Mismatch(_)));
    // The report, the log, the mismatch that is remembered, and the observer.
    assert_eq!(made.load(Ordering::Relaxed), 1);
    assert_eq!(&*rig.handle.recent_mismatches()[0].request, r#"Get("a")"#);
    assert_eq!(
        &*rig.handle.report().routes[0].places[0].example.as_ref().unwrap().request,
        r#"Get("a")"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_is_not_named_for_nobody() {
    let (old, new) = rows("v", "v");
    let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    // Nobody observes this one.
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let protocol = protocol().name(move |_| counted.fetch_add(1, Ordering::Relaxed).to_string());
    let layer = MigrationLayer::with_protocol(rig.handle.clone(), rig.new.clone(), protocol);
    layer.layer(rig.old.clone()).oneshot(get("a")).await.unwrap();
    settle_tasks().await;
    let report = rig.handle.report();
    assert_eq!((report.routes[0].compared, report.routes[0].matched), (1, 1));
    assert_eq!(made.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_panics_costs_the_name_and_not_the_comparison() {
    let boom = |_: &Call| std::panic::resume_unwind(Box::new("on purpose"));
    for (theirs, differs) in [("v", false), ("w", true)] {
        let (old, new) = rows("v", theirs);
        let protocol = protocol().name(boom);
        let rig = Rig::with(old, new, protocol, |layer| layer).at(Stage::WriteBoth).await;
        let verdict = rig.verdict_of(get("a")).await;
        assert_eq!(matches!(verdict, Verdict::Mismatch(_)), differs, "{verdict}");
        assert_eq!(verdict == Verdict::Match, !differs, "{verdict}");
    }
}
