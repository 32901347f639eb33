//! Closures that panic: they cost what they were for.

use tower::ServiceExt;
use tower_migration::{
    Dispatch, FailurePolicy, LegDetail, Outcome, Role, Stage, WriteOrder,
    compare::{FailReason, Verdict},
    protocol::Plain,
};

use super::store::*;
use crate::support::settle_tasks;

/// Without the panic hook: a report would say nothing.
fn boom<T>() -> T {
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// Every closure but those that no request can do without.
fn all_panic() -> Protocol {
    Plain::observing(classify, StoreError::Layer, |_: &Answer| boom())
        .keys(|_: &Call| boom::<String>())
        .answer_keys(|_, _| boom::<String>())
        .ramp_by(|_: &Call| boom::<String>())
        .judge(|_| boom())
        .done_when(|_, _| boom())
        .name(|_| boom())
        .prepare(|_| boom())
        .other_leg(|_, _| boom())
}

#[tokio::test]
async fn requests_that_did_not_ask_for_them_are_served() {
    for stage in Stage::ALL {
        let (old, new) = (Store::well().with("a", "v"), Store::well().with("a", "v"));
        let rig = Rig::with(old, new, all_panic(), |layer| layer).at(stage).await;
        for _ in 0..2 {
            let read = tokio::spawn(rig.service.clone().oneshot(get("a")));
            assert_eq!(read.await.unwrap(), Ok(Answer::Row("v".to_owned())), "{stage}");
            // Sampled: what is to be compared cannot be had.
            rig.handle.set_shadow_rate(1.0).unwrap();
        }
        if !stage.is_two_sided() {
            let write = tokio::spawn(rig.service.clone().oneshot(put("a", "w")));
            assert_eq!(write.await.unwrap(), Ok(Answer::Done), "{stage}");
        }
    }
}

#[tokio::test]
async fn a_ramp_does_not_cover_what_it_cannot_tell() {
    let (old, new) = (Store::well().with("a", "old"), Store::well().with("a", "new"));
    let rig = Rig::with(old, new, all_panic(), |layer| layer).at(Stage::WriteBoth).await;
    rig.handle.ramp(1.0).await.unwrap();
    let read = tokio::spawn(rig.service.clone().oneshot(get("a")));
    assert_eq!(read.await.unwrap(), Ok(Answer::Row("old".to_owned())));
}

#[tokio::test]
async fn judges_that_panic_leave_the_outcome_unknown() {
    for policy in [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth] {
        let protocol = Plain::new(classify, StoreError::Layer).keys(key).judge(|_| boom());
        let rig = Rig::with(Store::well(), Store::well(), protocol, |l| l.failure_policy(policy));
        let rig = rig.at(Stage::WriteBoth).await;
        let write = tokio::spawn(rig.service.clone().oneshot(put("a", "v")));
        assert_eq!(write.await.unwrap(), Ok(Answer::Done), "the client has its answer");
        settle_tasks().await;
        assert_eq!(rig.new.row("a").as_deref(), Some("v"));
        assert_eq!(rig.dirty(), ["/a"]);
        let seen = rig.disagreements.lock().unwrap();
        assert_eq!(seen[0].authority_leg.outcome, Outcome::Unknown);
        assert_eq!(seen[0].authority_leg.detail, LegDetail::Code(0));
    }
}

#[tokio::test]
async fn done_when_that_panics_leaves_it_to_judge() {
    let protocol = protocol().done_when(|_, _| boom());
    let rig = Rig::with(Store::well().with("a", "v"), Store::well(), protocol, |l| l);
    let rig = rig.at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(delete("a")));
    assert_eq!(write.await.unwrap(), Ok(Answer::Done));
    settle_tasks().await;
    assert_eq!(rig.dirty(), ["/a"], "applied against refused");
}

#[tokio::test]
async fn a_name_that_panics_is_the_types() {
    let protocol = protocol().name(|_| boom());
    let rig = Rig::with(Store::well(), Store::says(Err(StoreError::Broken)), protocol, |l| l);
    let rig = rig.at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(put("a", "v")));
    assert_eq!(write.await.unwrap(), Ok(Answer::Done));
    settle_tasks().await;
    assert!(rig.disagreements.lock().unwrap()[0].request.ends_with("store::Call"));
}

#[tokio::test]
async fn late_keys_that_panic_leave_the_side_suspect() {
    let protocol = protocol().answer_keys(|_, _| boom::<String>());
    let rig = Rig::with(Store::well(), Store::well(), protocol, |l| l).at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(create("v")));
    assert_eq!(write.await.unwrap(), Ok(Answer::Created("1".to_owned())));
    settle_tasks().await;
    assert_eq!(rig.handle.status().sync.new.as_str(), "suspect");
}

/// Neither side may see a write of which nobody knows what it is about.
#[tokio::test]
async fn keys_that_panic_fail_the_write_before_either_side_has_seen_it() {
    let protocol = protocol().keys(|call: &Call| match &call.op {
        Op::Put(id, _) if id == "bad" => boom(),
        _ => key(call),
    });
    let rig = Rig::with(Store::well(), Store::well(), protocol, |l| l).at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(put("bad", "v")));
    assert!(write.await.unwrap_err().is_panic());
    assert_eq!([rig.old.count(), rig.new.count()], [0, 0]);
    assert_eq!(rig.sent(put("a", "v")).await, Ok(Answer::Done));
    let status = rig.handle.status();
    assert_eq!([status.on_old.writes, status.on_new.writes], [0, 0]);
    assert!(status.sync.new.is_synced());
}

#[tokio::test]
async fn a_hook_that_panics_leaves_the_other_leg_out() {
    let protocol = protocol().other_leg(|_, _| boom());
    let rig = Rig::with(Store::well(), Store::well(), protocol, |layer| {
        layer.write_order(WriteOrder::AuthorityFirst)
    });
    let rig = rig.at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(put("a", "v")));
    assert_eq!(write.await.unwrap(), Ok(Answer::Done));
    settle_tasks().await;
    assert_eq!(rig.new.count(), 0);
    assert_eq!(rig.dirty(), ["/a"]);
}

/// The sides have nothing to do with it, so it must not count against new.
#[tokio::test(start_paused = true)]
async fn observe_and_compare_that_panic_are_failures_of_the_comparer() {
    let observed = |bad: &'static str| {
        Plain::observing(classify, StoreError::Layer, move |answer: &Answer| match answer {
            Answer::Row(row) if row == bad => boom(),
            other => other.clone(),
        })
    };
    let compared =
        Plain::comparing(classify, StoreError::Layer, Answer::clone, |_: &Answer, _: &Answer| {
            boom()
        });
    for protocol in [observed("old"), observed("new"), compared] {
        let (old, new) = (Store::well().with("a", "old"), Store::well().with("a", "new"));
        let rig = Rig::with(old, new, protocol, |layer| layer).at(Stage::WriteBoth).await;
        let verdict = rig.verdict_of(get("a")).await;
        assert_eq!(verdict, Verdict::Failed(FailReason::ComparerPanicked));
        let shadows = rig.handle.evidence().other_shadows;
        assert_eq!((shadows.applied, shadows.unknown), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_panics_does_not_stop_a_comparison() {
    let (old, new) = (Store::well().with("a", "v"), Store::well().with("a", "v"));
    let rig = Rig::with(old, new, protocol().name(|_| boom()), |l| l).at(Stage::WriteBoth).await;
    assert_eq!(rig.verdict_of(get("a")).await, Verdict::Match);
}

/// "Any other closure's is logged and costs what the closure was for"; and a
/// shadow read never fails the client.
#[tokio::test]
async fn a_setter_of_dispatch_that_panics_fails_no_client() {
    let protocol = || protocol().dispatch(|_, _| boom(), |_| None);
    let (old, new) = (Store::well().with("a", "v"), Store::well().with("a", "v"));
    let rig = Rig::with(old, new, protocol(), |layer| layer).at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let read = tokio::spawn(rig.service.clone().oneshot(get("a"))).await;
    assert_eq!(read.ok(), Some(Ok(Answer::Row("v".to_owned()))), "a sampled read");
}

/// The same for a write: neither documented as one that may reach the
/// client, nor as before either side has seen it.
#[tokio::test]
async fn a_setter_of_dispatch_that_panics_for_one_leg_does_not_split_a_write() {
    let protocol = protocol().dispatch(
        |_, leg: Dispatch| {
            if leg.role == Role::Authority {
                boom::<()>();
            }
        },
        |_| None,
    );
    let rig =
        Rig::with(Store::well(), Store::well(), protocol, |layer| layer).at(Stage::WriteBoth).await;
    let write = tokio::spawn(rig.service.clone().oneshot(put("a", "w"))).await;
    settle_tasks().await;
    assert_eq!(rig.old.row("a"), rig.new.row("a"), "{write:?}, dirty: {:?}", rig.dirty());
}
