//! What a stream that is open does to the flag.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    response::sse::{Event, Sse},
    routing::get,
};
use futures_util::{FutureExt, TryStreamExt};
use http_body_util::BodyExt;
use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer, Reason, Side, Stage};

use super::{Faucet, Rig, Seat, Wire, chunk, soon, until, whole};

const CHUNKS: usize = 8;

/// Two sides with an event stream each, for reads and for writes.
async fn rig(handle: MigrationHandle) -> (Rig, [Faucet; 2]) {
    let faucets = [Faucet::new(), Faucet::new()];
    let side = |seat: Seat| {
        let faucet = faucets[usize::from(seat.side == Side::New)].clone();
        let give = async move || {
            Sse::new(faucet.stream(CHUNKS).map_ok(|text| Event::default().data(text)))
        };
        Router::new().route("/events", get(give.clone()).put(give))
    };
    let set = |layer: MigrationLayer<Router>| {
        layer.failure_policy(FailurePolicy::AuthorityWins).name_writes(true)
    };
    let rig = Rig::on(handle, side, set, whole).await;
    rig.handle.set_shadow_rate(0.0).unwrap();
    (rig, faucets)
}

fn quick_to_give_up() -> MigrationHandle {
    let limit = Duration::from_millis(50);
    MigrationHandle::builder("travels").hold(limit).step_deadline(limit).build().unwrap()
}

#[tokio::test]
async fn an_event_stream_of_a_read_holds_up_no_step_and_lives_through_all_of_them() {
    for wire in Wire::BOTH {
        let (rig, [faucet, _]) = rig(MigrationHandle::new("travels")).await;
        rig.handle.set_shadow_rate(1.0).unwrap();
        let request = rig.request("GET", "/events").body(Body::empty()).unwrap();
        let mut body = rig.send(wire, request).await.into_body();
        for (n, stage) in Stage::ALL.into_iter().enumerate() {
            rig.walk(stage).await;
            soon("to settle", rig.handle.settled()).await;
            faucet.pour(1);
            assert_eq!(chunk(&mut body).await, Some(format!("data: chunk {n}\n\n")), "{stage}");
        }
        // And back.
        soon("a step", rig.handle.move_to(Stage::ReadNew)).await.unwrap();
        faucet.pour(1);
        assert!(chunk(&mut body).await.is_some());
        // It is counted all the same, for the day old is switched off.
        assert_eq!(rig.handle.status().on_old.reads, 1);
        assert!(rig.handle.drained(Side::Old).now_or_never().is_none());
        drop(body);
        soon("old to be drained", rig.handle.drained(Side::Old)).await;
    }
}

#[tokio::test]
async fn a_streaming_answer_to_a_one_sided_write_is_waited_for_by_settled_alone() {
    for wire in Wire::BOTH {
        let (rig, [faucet, _]) = rig(MigrationHandle::new("travels")).await;
        let request = rig.request("PUT", "/events").body(Body::from("x")).unwrap();
        let mut body = rig.send(wire, request).await.into_body();
        // The step itself does not wait, but it is not settled.
        soon("a step", rig.handle.advance()).await.unwrap();
        assert!(rig.handle.settled().now_or_never().is_none());
        let status = rig.handle.status();
        let oldest = status.oldest_write.unwrap();
        assert!(oldest.answered, "{oldest}");
        assert_eq!(oldest.route.as_deref(), Some(uri(&rig, wire).as_str()));
        faucet.pour(CHUNKS - 1);
        for _ in 1..CHUNKS {
            assert!(chunk(&mut body).await.is_some());
        }
        assert!(rig.handle.settled().now_or_never().is_none());
        faucet.pour(1);
        assert!(chunk(&mut body).await.is_some());
        assert_eq!(chunk(&mut body).await, None);
        soon("to settle", rig.handle.settled()).await;
    }
}

/// A route is named as the client sent it.
fn uri(rig: &Rig, wire: Wire) -> String {
    match wire {
        Wire::H1 => "PUT /events".to_owned(),
        Wire::H2 => format!("PUT http://{}/events", rig.address),
    }
}

#[tokio::test]
async fn a_streaming_answer_to_a_dual_write_refuses_the_flip_and_is_named() {
    for wire in Wire::BOTH {
        for slow in Side::ALL {
            let (rig, faucets) = rig(quick_to_give_up()).await;
            rig.walk(Stage::WriteBoth).await;
            let [old, new] = &faucets;
            // One side streams on, the other has ended.
            let (slow_one, quick) = if slow == Side::Old { (old, new) } else { (new, old) };
            quick.pour(CHUNKS);
            slow_one.pour(1);
            let request = rig.request("PUT", "/events").body(Body::from("x")).unwrap();
            let answer = rig.send(wire, request).await;
            let reading = tokio::spawn(answer.into_body().collect());
            until("the quick side's end", || quick.ended() == 1).await;
            until("the slow side's start", || slow_one.opened() == 1).await;
            let blocked = soon("a refusal", rig.handle.advance()).await.unwrap_err();
            let oldest = blocked.reasons().iter().find_map(|reason| match reason {
                Reason::NotSettled { oldest, .. } | Reason::HoldTooLong { oldest, .. } => {
                    oldest.clone()
                }
                _ => None,
            });
            let oldest = oldest.unwrap_or_else(|| panic!("{blocked}"));
            assert_eq!(oldest.side, Some(slow), "{blocked}");
            assert_eq!(oldest.route.as_deref(), Some(uri(&rig, wire).as_str()));
            // The other side's answer is nobody's, so it counts as not answered.
            assert_eq!(oldest.answered, slow == Side::Old, "{oldest}");
            slow_one.pour(CHUNKS);
            soon("the answer", reading).await.unwrap().unwrap();
            until("the write's end", || rig.writes() == (0, 0)).await;
            soon("a step", rig.handle.advance()).await.unwrap();
            rig.is_clean();
        }
    }
}

#[tokio::test]
async fn after_the_last_step_settled_waits_for_a_dual_writes_streams_on_both_sides() {
    let (rig, faucets) = rig(MigrationHandle::new("travels")).await;
    rig.walk(Stage::ReadNew).await;
    let request = rig.request("PUT", "/events").body(Body::from("x")).unwrap();
    let body = rig.send(Wire::H2, request).await.into_body();
    soon("a step", rig.handle.advance()).await.unwrap();
    let [old, new] = &faucets;
    new.pour(CHUNKS);
    soon("the answer", body.collect()).await.unwrap();
    assert!(rig.handle.settled().now_or_never().is_none(), "old's answer streams");
    old.pour(CHUNKS);
    soon("to settle", rig.handle.settled()).await;
}
