//! Where requests go, what their keys do, and whom the client hears.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use tokio_test::{assert_pending, assert_ready, task};
use tower::Service;
use tower_migration::{
    FailurePolicy, LegDetail, Limits, Outcome, Role, Side, Stage, WriteOrder,
    protocol::Plain,
    telemetry::{LegFault, Refused, SkippedLeg},
};

use super::store::*;
use crate::support::{SECOND, settle_tasks};

const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth];

#[tokio::test]
async fn each_stage_sends_reads_and_writes_where_the_table_says() {
    for (stage, reads, writes) in [
        (Stage::OldOnly, [1, 0], [1, 0]),
        (Stage::WriteBoth, [1, 0], [1, 1]),
        (Stage::ReadNew, [0, 1], [1, 1]),
        (Stage::NewOnly, [0, 1], [0, 1]),
    ] {
        let rig = Rig::new(Store::well().with("a", "old"), Store::well().with("a", "new"));
        let rig = rig.at(stage).await;
        let served = stage.authority().as_str();
        assert_eq!(rig.sent(get("a")).await, Ok(Answer::Row(served.to_owned())));
        assert_eq!([rig.old.count(), rig.new.count()], reads, "{stage} read");

        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        assert_eq!(rig.sent(put("a", "v")).await, Ok(Answer::Done));
        assert_eq!([rig.old.count(), rig.new.count()], writes, "{stage} write");
        for side in Side::ALL {
            let expected = (writes[side as usize] == 1).then(|| "v".to_owned());
            assert_eq!(rig.side(side).row("a"), expected, "{stage} {side}");
        }
        assert_eq!(rig.dirty(), Vec::<String>::new());
        let status = rig.handle.status();
        assert_eq!([status.on_old.writes, status.on_new.writes], [0, 0], "{stage}");
    }
}

#[tokio::test]
async fn an_unneeded_side_may_be_dead_in_the_one_sided_stages() {
    for (stage, dead) in [(Stage::OldOnly, Side::New), (Stage::NewOnly, Side::Old)] {
        let rig = Rig::new(Store::well(), Store::well()).at(stage).await;
        rig.side(dead).becomes(Way::Panics);
        rig.side(dead).set_ready(false);
        assert_eq!(rig.sent(put("a", "v")).await, Ok(Answer::Done));
        assert_eq!(rig.sent(get("a")).await, Ok(Answer::Row("v".to_owned())));
        assert_eq!(rig.side(dead).count(), 0);
    }
}

#[tokio::test]
async fn all_outcomes_under_all_policies() {
    let ways = [
        (Ok(Answer::Done), Outcome::Applied),
        (Err(StoreError::Exists), Outcome::Refused),
        (Ok(Answer::Rejected), Outcome::Refused),
        (Err(StoreError::Broken), Outcome::Unknown),
    ];
    for policy in POLICIES {
        for (mine, said) in &ways {
            for (theirs, other) in &ways {
                let name = format!("{policy:?}: {mine:?} against {theirs:?}");
                let (old, new) = (Store::says(mine.clone()), Store::says(theirs.clone()));
                let rig = Rig::with(old, new, protocol(), |layer| layer.failure_policy(policy))
                    .at(Stage::WriteBoth)
                    .await;
                let got = rig.sent(put("a", "v")).await;
                let agree = said == other && *said != Outcome::Unknown;
                let partial = policy == FailurePolicy::RequireBoth && !agree;
                let expected = if partial {
                    Err(StoreError::Layer(Refused::PartialWrite))
                } else {
                    mine.clone()
                };
                assert_eq!(got, expected, "{name}");
                let dirty: &[&str] = if agree { &[] } else { &["/a"] };
                assert_eq!(rig.dirty(), dirty, "{name}");
                assert_eq!([rig.old.count(), rig.new.count()], [1, 1], "{name}");
            }
        }
    }
}

#[tokio::test]
async fn without_judge_an_error_is_an_unknown_outcome() {
    let protocol = Plain::new(classify, StoreError::Layer).keys(key);
    let refuses = || Store::says(Err(StoreError::Exists));
    let rig = Rig::with(refuses(), refuses(), protocol, |layer| layer).at(Stage::WriteBoth).await;
    assert_eq!(rig.sent(put("a", "v")).await, Err(StoreError::Exists));
    assert_eq!(rig.dirty(), ["/a"], "nobody said that nothing was written");
}

#[tokio::test]
async fn a_disagreement_says_what_each_leg_answered() {
    let rig = Rig::with(
        Store::well(),
        Store::says(Err(StoreError::Exists)),
        protocol().name(|call| format!("{:?}", call.op)),
        |layer| layer,
    );
    let rig = rig.at(Stage::WriteBoth).await;
    rig.sent(put("a", "v")).await.unwrap();
    let seen = rig.disagreements.lock().unwrap();
    let [d] = &seen[..] else { panic!("one disagreement") };
    assert_eq!((&*d.request, d.keys.to_string().as_str()), (r#"Put("a", "v")"#, "/a"));
    assert_eq!(d.authority_leg.outcome, Outcome::Applied);
    assert_eq!(d.other_leg.outcome, Outcome::Refused);
    assert_eq!(d.other_leg.detail, LegDetail::Error("Exists".to_owned()));
}

#[tokio::test]
async fn a_delete_that_finds_nothing_has_done_what_was_asked() {
    for policy in POLICIES {
        for (old_has, new_has) in [(true, false), (false, true), (false, false)] {
            let store = |has| if has { Store::well().with("a", "v") } else { Store::well() };
            let rig = Rig::with(store(old_has), store(new_has), protocol(), |layer| {
                layer.failure_policy(policy)
            });
            let rig = rig.at(Stage::WriteBoth).await;
            let expected = if old_has { Ok(Answer::Done) } else { Err(StoreError::NotFound) };
            assert_eq!(rig.sent(delete("a")).await, expected, "{policy:?}");
            assert_eq!(rig.dirty(), Vec::<String>::new(), "{policy:?}");
            assert!(rig.disagreements.lock().unwrap().is_empty(), "{policy:?}");
        }
    }
    let rig = Rig::new(Store::well(), Store::says(Err(StoreError::NotFound)));
    let rig = rig.at(Stage::WriteBoth).await;
    rig.sent(put("a", "v")).await.unwrap();
    assert_eq!(rig.dirty(), ["/a"], "but only a delete has");
}

#[tokio::test]
async fn writes_of_one_key_run_in_the_same_order_on_both_sides() {
    let (old, latch) = Store::latched();
    let rig = Rig::new(old, Store::well()).at(Stage::WriteBoth).await;
    let mut writes: Vec<_> = ["1", "2", "3"]
        .map(|value| task::spawn(rig.service.clone().call(put("a", value))))
        .into_iter()
        .collect();
    let mut apart = task::spawn(rig.service.clone().call(put("b", "x")));
    for write in &mut writes {
        assert_pending!(write.poll());
    }
    assert_pending!(apart.poll());
    settle_tasks().await;
    assert_eq!(rig.old.count(), 2, "the first of the key, and another key's");
    latch.open();
    for write in &mut writes {
        settle_tasks().await;
        assert_eq!(assert_ready!(write.poll()), Ok(Answer::Done));
    }
    assert_eq!(assert_ready!(apart.poll()), Ok(Answer::Done));
    settle_tasks().await;
    for store in [&rig.old, &rig.new] {
        let of_key = |call: Call| match call.op {
            Op::Put(id, value) if id == "a" => Some(value),
            _ => None,
        };
        let values: Vec<_> = store.calls().into_iter().filter_map(of_key).collect();
        assert_eq!(values, ["1", "2", "3"]);
    }
    assert_eq!(rig.old.rows(), rig.new.rows());
}

#[tokio::test]
async fn a_write_without_a_key_makes_the_side_suspect_when_it_fails() {
    let protocol = Plain::new(classify, StoreError::Layer).judge(judge);
    let rig = Rig::with(Store::well(), Store::says(Err(StoreError::Broken)), protocol, |l| l);
    let rig = rig.at(Stage::WriteBoth).await;
    rig.sent(put("a", "v")).await.unwrap();
    assert!(rig.dirty().is_empty());
    assert_eq!(rig.handle.status().sync.new.as_str(), "suspect");
}

#[tokio::test]
async fn late_keys_that_agree_are_clean_and_those_that_differ_are_dirty() {
    let rig = Rig::new(Store::well(), Store::well()).at(Stage::WriteBoth).await;
    assert_eq!(rig.sent(create("v")).await, Ok(Answer::Created("1".to_owned())));
    assert_eq!(rig.dirty(), Vec::<String>::new());

    let named = |prefix| Store::new(Way::Names(prefix));
    let rig = Rig::new(named("o"), named("n")).at(Stage::WriteBoth).await;
    assert_eq!(rig.sent(create("v")).await, Ok(Answer::Created("o1".to_owned())));
    assert_eq!(rig.dirty(), ["/n1", "/o1"], "two things were made");

    let rig = Rig::new(Store::well(), Store::says(Err(StoreError::Broken)));
    let rig = rig.at(Stage::WriteBoth).await;
    rig.sent(create("v")).await.unwrap();
    assert_eq!(rig.dirty(), ["/1"], "the failed leg is known by its late key");
}

#[tokio::test]
async fn prepare_runs_once_for_a_dual_write_and_for_nothing_else() {
    let ids = Arc::new(AtomicU32::new(0));
    let next = Arc::clone(&ids);
    let protocol = protocol().prepare(move |call| {
        call.stamp.set(next.fetch_add(1, Ordering::Relaxed) + 1);
    });
    let rig = Rig::with(Store::well(), Store::well(), protocol, |layer| layer);
    rig.sent(put("a", "v")).await.unwrap();
    assert_eq!(ids.load(Ordering::Relaxed), 0, "a one-sided write is handed on untouched");
    rig.walk(Stage::WriteBoth).await;
    rig.sent(get("a")).await.unwrap();
    assert_eq!(ids.load(Ordering::Relaxed), 0);
    rig.sent(put("a", "v")).await.unwrap();
    assert_eq!(ids.load(Ordering::Relaxed), 1);
    for store in [&rig.old, &rig.new] {
        assert_eq!(store.calls().last().unwrap().stamp.get(), 1, "both got the same");
    }
}

#[tokio::test]
async fn the_other_leg_can_be_built_from_the_authoritys_answer() {
    let protocol = protocol().other_leg(|call, answer| match (call.op, answer) {
        (Op::Create(value), Answer::Created(id)) => Some(put(id, &value)),
        _ => None,
    });
    let rig = Rig::with(Store::new(Way::Names("id")), Store::well(), protocol, |layer| {
        layer.write_order(WriteOrder::AuthorityFirst)
    });
    let rig = rig.at(Stage::WriteBoth).await;
    assert_eq!(rig.sent(create("v")).await, Ok(Answer::Created("id1".to_owned())));
    assert_eq!(rig.new.row("id1").as_deref(), Some("v"));
    let [call] = &rig.new.calls()[..] else { panic!("one call") };
    assert_eq!(call.leg.unwrap().role, Role::Other, "it is marked as the other leg");
    assert_eq!(rig.dirty(), Vec::<String>::new());

    rig.sent(put("a", "v")).await.unwrap();
    assert_eq!(rig.new.row("a"), None);
    assert_eq!(rig.dirty(), ["/a"], "the hook gave none");
    let seen = rig.disagreements.lock().unwrap();
    assert_eq!(seen[0].other_leg.detail, LegDetail::Skipped(SkippedLeg::HookDeclined));
}

#[tokio::test]
async fn authority_first_leaves_the_other_side_alone_unless_it_was_applied() {
    for (reply, dirty) in [
        (Err(StoreError::Exists), false),
        (Ok(Answer::Rejected), false),
        (Err(StoreError::Broken), true),
    ] {
        let rig = Rig::with(Store::says(reply.clone()), Store::well(), protocol(), |layer| {
            layer.write_order(WriteOrder::AuthorityFirst)
        });
        let rig = rig.at(Stage::WriteBoth).await;
        assert_eq!(rig.sent(put("a", "v")).await, reply);
        assert_eq!(rig.new.count(), 0);
        assert_eq!(!rig.dirty().is_empty(), dirty, "{reply:?}");
    }
}

#[tokio::test]
async fn authority_first_deletes_on_the_other_side_what_the_authority_does_not_have() {
    for policy in POLICIES {
        let rig = Rig::with(Store::well(), Store::well().with("a", "left over"), protocol(), |l| {
            l.write_order(WriteOrder::AuthorityFirst).failure_policy(policy)
        });
        let rig = rig.at(Stage::WriteBoth).await;
        assert_eq!(rig.sent(delete("a")).await, Err(StoreError::NotFound));
        assert_eq!(rig.new.row("a"), None, "{policy:?}");
        assert_eq!(rig.dirty(), Vec::<String>::new(), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_layer_answers_itself_is_made_by_refuse() {
    let limits = || {
        Limits::default().ready_timeout(SECOND).leg_timeout(SECOND * 2).abandon_after(SECOND * 9)
    };
    for (way, ready, refused, fault) in [
        (Way::Hangs, true, Refused::AuthorityTimeout, LegFault::Timeout),
        (Way::Panics, true, Refused::AuthorityPanicked, LegFault::Panicked),
        (Way::Well, false, Refused::AuthorityNotReady, LegFault::NotReady),
    ] {
        let old = Store::new(way);
        old.set_ready(ready);
        let rig = Rig::with(old, Store::well(), protocol(), |l| l.limits(limits()).unwrap());
        let rig = rig.at(Stage::WriteBoth).await;
        // Called without `poll_ready`: as if the flag had flipped in between.
        let reply = rig.service.clone().call(put("a", "v")).await;
        assert_eq!(reply, Err(StoreError::Layer(refused)));
        tokio::time::sleep(SECOND * 20).await;
        assert_eq!(rig.dirty(), ["/a"]);
        let seen = rig.disagreements.lock().unwrap();
        assert_eq!(seen[0].authority_leg.detail, LegDetail::Fault(fault));
    }

    let (new, latch) = Store::latched();
    let rig = Rig::with(Store::well(), new, protocol(), |layer| {
        layer.limits(limits().running_legs(1)).unwrap().failure_policy(FailurePolicy::RequireBoth)
    });
    let rig = rig.at(Stage::WriteBoth).await;
    let first = tokio::spawn(rig.service.clone().call(put("a", "v")));
    settle_tasks().await;
    assert_eq!(rig.send(put("b", "v")).await, Err(StoreError::Layer(Refused::Overloaded)));
    assert_eq!(rig.old.row("b"), None, "refused before either side has seen it");
    latch.open();
    assert_eq!(first.await.unwrap(), Ok(Answer::Done));
}

#[tokio::test]
async fn both_legs_run_on_when_the_client_leaves() {
    let ((old, on_old), (new, on_new)) = (Store::latched(), Store::latched());
    let rig = Rig::with(old, new, protocol(), |l| l.failure_policy(FailurePolicy::AwaitBoth));
    let rig = rig.at(Stage::WriteBoth).await;
    let mut write = task::spawn(rig.service.clone().call(put("a", "v")));
    assert_pending!(write.poll());
    drop(write);
    settle_tasks().await;
    let status = rig.handle.status();
    assert_eq!([status.on_old.writes, status.on_new.writes], [1, 1]);
    on_old.open();
    on_new.open();
    settle_tasks().await;
    let status = rig.handle.status();
    assert_eq!([status.on_old.writes, status.on_new.writes], [0, 0]);
    assert_eq!([rig.old.row("a"), rig.new.row("a")], [Some("v".to_owned()), Some("v".to_owned())]);
    assert_eq!(rig.dirty(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_is_named_by_its_type_or_by_the_closure() {
    for (named, expected) in [(false, "store::Call"), (true, "a put of /a")] {
        let mut protocol = protocol();
        if named {
            protocol = protocol.name(|call| format!("a put of {}", key(call).unwrap()));
        }
        let rig = Rig::with(Store::new(Way::Hangs), Store::well(), protocol, |layer| layer);
        let rig = rig.at(Stage::WriteBoth).await;
        let mut write = task::spawn(rig.service.clone().call(put("a", "v")));
        assert_pending!(write.poll());
        rig.handle.rollback().await.unwrap();
        let oldest = rig.handle.status().oldest_write.unwrap().to_string();
        assert!(oldest.contains(expected), "{oldest}");
    }
}

#[tokio::test]
async fn a_closure_sees_the_request_as_the_authority_got_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let protocol = protocol().prepare(|call| call.stamp.set(7)).keys(move |call: &Call| {
        sink.lock().unwrap().push(call.stamp.get());
        format!("stamp {}", call.stamp.get())
    });
    let rig = Rig::with(Store::well(), Store::says(Err(StoreError::Broken)), protocol, |l| l);
    let rig = rig.at(Stage::WriteBoth).await;
    rig.sent(put("a", "v")).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [7]);
    assert_eq!(rig.dirty(), ["stamp 7"]);
}
