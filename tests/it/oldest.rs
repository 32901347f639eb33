//! Which write a refused step and the status name.

use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, task};
use tower::{Service, ServiceExt};
use tower_migration::{
    BoxError, FailurePolicy, Limits, MigrationHandle, OldestWrite, Reason, Side, Stage, WriteOrder,
    reconcile::Key,
};

use crate::support::*;

fn fine() -> Fake {
    Fake::says(200, "")
}

fn oldest(rig: &Rig) -> Option<OldestWrite> {
    rig.handle.status().oldest_write
}

fn page(rig: &Rig) -> String {
    oldest(rig).map_or_else(|| "none".into(), |oldest| oldest.to_string())
}

/// Goes back by one stage, at once, so that what runs is of an earlier epoch.
async fn step_back(rig: &Rig) {
    rig.handle.rollback().await.unwrap();
}

/// An answer that sends its head and no more until the latch is open.
fn streams() -> (Fake, Latch) {
    let latch = Latch::default();
    let at = latch.clone();
    let fake = Fake::new(move |_| {
        let at = at.clone();
        let chunks = futures_util::stream::unfold(Some(at), |at| async move {
            at?.passed().await;
            Some((Ok::<_, BoxError>(http_body::Frame::data(Bytes::from("end"))), None))
        });
        async { Ok(http::Response::new(Body::new(StreamBody::new(chunks)))) }
    });
    (fake, latch)
}

#[tokio::test(start_paused = true)]
async fn a_step_names_the_leg_that_hangs_on_new() {
    let rig = Rig::new(fine(), Fake::hangs()).at(Stage::WriteBoth).await;
    assert_eq!(rig.ask(put("/airports/EDDF", "")).await.0, 200);
    sleep(SECOND * 2).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    let [Reason::NotSettled { writes: 1, oldest: Some(found), .. }] = blocked.reasons() else {
        panic!("{blocked}")
    };
    assert_eq!(found.route.as_deref(), Some("PUT /airports/EDDF"));
    assert_eq!((found.side, found.age), (Some(Side::New), SECOND * 12));
    assert!(!found.at_least && !found.answered);
    let text = blocked.to_string();
    assert!(text.contains("the oldest: PUT /airports/EDDF on new for 12.0s ("), "{text}");
    // The step opened an epoch before it gave up, so the status tells too.
    let status = rig.handle.status().to_string();
    assert!(status.contains("the oldest: PUT /airports/EDDF on new for 12.0s\n"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_step_names_the_leg_that_hangs_on_old() {
    for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
        let (old, latch) = latched(200, "");
        let rig =
            Rig::with(old, fine(), |layer| layer.write_order(order)).at(Stage::WriteBoth).await;
        let write = tokio::spawn(rig.service.clone().call(put("/a", "")));
        rig.quiesce().await;
        step_back(&rig).await;
        sleep(SECOND).await;
        assert_eq!(page(&rig), "PUT /a on old for 1.0s", "{order:?}");
        latch.open();
        write.await.unwrap().unwrap();
        rig.quiesce().await;
        assert_eq!(oldest(&rig), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_both_waits_for_the_side_that_is_named() {
    for policy in [FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth] {
        let (new, latch) = latched(200, "");
        let rig =
            Rig::with(fine(), new, |layer| layer.failure_policy(policy)).at(Stage::WriteBoth).await;
        let write = tokio::spawn(rig.service.clone().call(put("/a", "")));
        rig.quiesce().await;
        step_back(&rig).await;
        sleep(SECOND).await;
        // Old has answered; both its mark and new's are out.
        assert_eq!(rig.handle.status().earlier_writes, 2, "{policy:?}");
        assert_eq!(page(&rig), "PUT /a on new for 1.0s", "{policy:?}");
        latch.open();
        write.await.unwrap().unwrap();
        assert_eq!(oldest(&rig), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_takes_too_long_names_what_it_waited_for() {
    let (new, _, permits) = stepped();
    let rig = Rig::new(fine(), new).at(Stage::WriteBoth).await;
    rig.ask(put("/first", "")).await;
    rig.quiesce().await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.advance().await });
    rig.quiesce().await;
    let second = tokio::spawn(rig.service.clone().call(put("/second", "")));
    rig.quiesce().await;
    permits.add_permits(1);
    let blocked = step.await.unwrap().unwrap_err();
    let [Reason::HoldTooLong { oldest: Some(found), .. }] = blocked.reasons() else {
        panic!("{blocked}")
    };
    assert_eq!(found.to_string(), "PUT /second on new for 1.0s");
    let text = blocked.to_string();
    assert!(text.contains("held for 1.0s, the oldest: PUT /second on new"), "{text}");
    permits.add_permits(1);
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listing_goes_with_the_answer_to_its_end() {
    for stage in Stage::ALL {
        let ((old, more_old), (new, more_new)) = (streams(), streams());
        let rig = Rig::with(old, new, |layer| layer.name_writes(true)).at(stage).await;
        let response = rig.send(put("/a", "")).await.unwrap();
        // The other leg's answer is read by the layer itself.
        if stage.is_two_sided() {
            let other = if stage.authority() == Side::Old { &more_new } else { &more_old };
            other.open();
            rig.quiesce().await;
        }
        let open =
            |stage: Stage| if stage.authority() == Side::Old { &more_old } else { &more_new };
        rig.handle.force(stage.next().unwrap_or(Stage::ReadNew), "test").await.unwrap();
        sleep(SECOND * 4).await;
        let side = stage.authority();
        let expected = format!("PUT /a on {side} for 4.0s, its answer is still being sent");
        assert_eq!(page(&rig), expected, "{stage}");
        open(stage).open();
        assert_eq!(text(response).await, "end");
        rig.quiesce().await;
        assert_eq!(oldest(&rig), None, "{stage}");
        assert!(rig.handle.status().settled, "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_in_the_middle_of_the_answer_leaves_the_name() {
    let (old, latch) = streams();
    let rig = Rig::new(old, fine()).at(Stage::WriteBoth).await;
    drop(rig.send(put("/a", "")).await.unwrap());
    step_back(&rig).await;
    assert!(page(&rig).starts_with("PUT /a on old for"), "{}", page(&rig));
    latch.open();
    rig.quiesce().await;
    assert_eq!(oldest(&rig), None);
}

#[tokio::test(start_paused = true)]
async fn a_one_sided_write_is_known_by_its_age_at_least() {
    let rig = Rig::new(Fake::hangs(), fine());
    let mut write = task::spawn(rig.service.clone().call(put("/a", "")));
    assert_pending!(write.poll());
    sleep(SECOND * 2).await;
    assert_eq!(oldest(&rig), None, "it is of the present epoch");
    rig.handle.advance().await.unwrap();
    sleep(SECOND * 3).await;
    let found = oldest(&rig).unwrap();
    assert_eq!((found.age, found.at_least), (SECOND * 3, true), "from the flip on");
    assert_eq!((found.route.clone(), found.side), (None, Some(Side::Old)));
    let expected = "an unnamed write on old for at least 3.0s (name_writes tells its route)";
    assert_eq!(found.to_string(), expected);
    let blocked = rig.handle.confirm_synced(Side::New).await.unwrap_err();
    assert!(blocked.to_string().contains(expected), "{blocked}");
    drop(write);
    assert_eq!(oldest(&rig), None, "it lingers, and does not run");
    rig.handle.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_sided_write_can_be_known_by_its_name() {
    for ready in [true, false] {
        let rig = Rig::with(Fake::hangs(), fine(), |layer| layer.name_writes(true));
        let mut service = rig.service.clone();
        if ready {
            service.ready().await.unwrap();
        }
        let mut write = task::spawn(service.call(put("/a?b=c", "")));
        let mut read = task::spawn(rig.service.clone().call(get("/r")));
        assert_pending!(write.poll());
        assert_pending!(read.poll());
        sleep(SECOND * 2).await;
        rig.handle.advance().await.unwrap();
        sleep(SECOND * 3).await;
        assert_eq!(page(&rig), "PUT /a?b=c on old for 5.0s", "ready: {ready}");
        drop(write);
        assert_eq!(oldest(&rig), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_held_into_a_one_sided_stage_has_a_name_too() {
    let (new, _, permits) = stepped();
    let rig = Rig::with(fine(), new, |layer| layer.name_writes(true)).at(Stage::WriteBoth).await;
    let first = tokio::spawn(rig.service.clone().call(put("/first", "")));
    rig.quiesce().await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.advance().await });
    rig.quiesce().await;
    let second = tokio::spawn(rig.service.clone().call(put("/second", "")));
    rig.quiesce().await;
    permits.add_permits(1);
    rig.quiesce().await;
    assert!(rig.handle.status().holding);
    let mut held = task::spawn(rig.service.clone().call(put("/held", "")));
    assert_pending!(held.poll());
    // It is not polled until the flag has gone on to a one-sided stage.
    permits.add_permits(1);
    step.await.unwrap().unwrap();
    for write in [first, second] {
        write.await.unwrap().unwrap();
    }
    rig.handle.advance().await.unwrap();
    assert_pending!(held.poll());
    rig.handle.rollback().await.unwrap();
    assert!(page(&rig).starts_with("PUT /held on new for"), "{}", page(&rig));
    permits.add_permits(1);
    drop(held.await.unwrap());
    assert_eq!(oldest(&rig), None);
}

#[tokio::test(start_paused = true)]
async fn of_several_the_oldest_is_named() {
    let (old, latch) = latched(200, "");
    let rig = Rig::new(old, Fake::hangs());
    let unnamed = tokio::spawn(rig.service.clone().call(put("/unnamed", "")));
    rig.quiesce().await;
    rig.handle.advance().await.unwrap();
    for path in ["/a", "/b", "/c"] {
        sleep(SECOND).await;
        tokio::spawn(rig.service.clone().call(put(path, "")));
        rig.quiesce().await;
    }
    rig.handle.force(Stage::OldOnly, "test").await.unwrap();
    sleep(SECOND).await;
    assert_eq!(rig.handle.status().earlier_writes, 7);
    assert!(page(&rig).starts_with("an unnamed write on old for at least 4.0s"), "{}", page(&rig));
    latch.open();
    unnamed.await.unwrap().unwrap();
    rig.quiesce().await;
    assert_eq!(page(&rig), "PUT /a on new for 3.0s");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_body_does_not_come_is_named() {
    let rig = Rig::new(fine(), fine()).at(Stage::WriteBoth).await;
    let never_ends = Body::new(StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, BoxError>,
    >()));
    let request = Request::put("/upload").body(never_ends).unwrap();
    let mut write = task::spawn(rig.service.clone().call(request));
    assert_pending!(write.poll());
    step_back(&rig).await;
    sleep(SECOND).await;
    assert_eq!(page(&rig), "PUT /upload on old for 1.0s");
    drop(write);
    assert_eq!(oldest(&rig), None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_hangs_is_named() {
    let rig = Rig::new(fine(), fine()).at(Stage::WriteBoth).await;
    let key = Key::from("/airports/EDDF");
    let copy = || std::future::pending::<Result<(), BoxError>>();
    let mut copy = task::spawn(rig.handle.copy_key(&key, Side::Old, copy));
    assert_pending!(copy.poll());
    step_back(&rig).await;
    sleep(SECOND).await;
    assert_eq!(page(&rig), "copy /airports/EDDF on new for 1.0s");
    drop(copy);
    assert!(oldest(&rig).is_some(), "what it has sent may still land");
    sleep(SECOND * 2).await;
    assert_eq!(oldest(&rig), None);
}

/// Nothing stays listed, however a write ends.
#[tokio::test(start_paused = true)]
async fn whatever_has_ended_is_not_named_any_more() {
    let all: [fn() -> Fake; 8] = [
        fine,
        || Fake::says(422, ""),
        || Fake::says(500, ""),
        Fake::errs,
        Fake::panics,
        Fake::hangs,
        || fine().never_ready(),
        || {
            Fake::new(|_| async {
                let frames = futures_util::stream::iter([Err("cut".into())]);
                Ok(http::Response::new(Body::new(StreamBody::new(frames))))
            })
        },
    ];
    for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
        for (old_at, old) in all.iter().enumerate() {
            for (new_at, new) in all.iter().enumerate() {
                for client in ["stays", "leaves"] {
                    let case = format!("{order:?}, old {old_at}, new {new_at}, client {client}");
                    let limits = Limits::default()
                        .ready_timeout(SECOND)
                        .leg_timeout(SECOND * 2)
                        .abandon_after(SECOND * 3);
                    let set = |layer: tower_migration::MigrationLayer<Fake>| {
                        layer.write_order(order).name_writes(true).limits(limits).unwrap()
                    };
                    let handle = MigrationHandle::new("test");
                    handle.force(Stage::WriteBoth, "test").await.unwrap();
                    let rig = Rig::on(handle, old(), new(), set);
                    let mut write = task::spawn(rig.service.clone().call(put("/a", "")));
                    let ended = write.poll();
                    if client == "stays" && ended.is_pending() {
                        drop(write.await.map(|answer| answer.status()));
                    } else {
                        drop((write, ended));
                    }
                    rig.handle.force(Stage::OldOnly, "test").await.unwrap();
                    let began = Instant::now();
                    rig.handle.settled().await;
                    assert!(began.elapsed() < SECOND * 12, "{case}");
                    assert_eq!(oldest(&rig), None, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_named_any_more() {
    let limits = Limits::default().body(2).running_legs(1);
    let set = |layer: tower_migration::MigrationLayer<Fake>| {
        layer.failure_policy(FailurePolicy::RequireBoth).limits(limits).unwrap()
    };
    let (new, latch) = latched(200, "");
    let rig = Rig::with(fine(), new, set).at(Stage::WriteBoth).await;
    let first = tokio::spawn(rig.service.clone().call(put("/a", "")));
    rig.quiesce().await;
    assert_eq!(rig.ask(put("/b", "too long")).await.0, 413);
    assert_eq!(rig.ask(put("/c", "")).await.0, 503);
    step_back(&rig).await;
    assert_eq!(rig.handle.status().earlier_writes, 2);
    assert!(page(&rig).starts_with("PUT /a on new"), "{}", page(&rig));
    latch.open();
    first.await.unwrap().unwrap();
    assert_eq!(oldest(&rig), None);
}
