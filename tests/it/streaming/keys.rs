//! Two uploads of one key, and uploads for which there is no room.

use tokio::time::{Instant, sleep};
use tower_migration::{Limits, body::SlowLeg};

use super::*;
use crate::support::put;

/// Old reads as it comes, new only once the gate is open; two writes of one key.
async fn queued(streaming: Streaming) -> (Rig, Gate, [Feed; 2], [Sent; 2]) {
    let (new, gate) = gated();
    let rig = Rig::with(Stage::WriteBoth, stores(), new, streaming, &|layer| layer).await;
    let ((feed, first), (next, second)) = (upload("/a"), upload("/a"));
    let first = rig.send(first);
    settle_tasks().await;
    let second = rig.send(second);
    settle_tasks().await;
    (rig, gate, [feed, next], [first, second])
}

#[tokio::test(start_paused = true)]
async fn on_each_side_one_after_the_other() {
    let (rig, gate, [mut feed, mut next], [first, second]) = queued(Streaming::new()).await;
    next.gives("second");
    next.ends();
    settle_tasks().await;
    assert_eq!((rig.old.seen().len(), rig.new.seen().len()), (1, 1));
    feed.gives("first");
    feed.ends();
    assert_eq!(first.status().await, 200);
    assert_eq!(second.status().await, 200, "new still reads the first");
    assert_eq!((rig.old.seen().len(), rig.new.seen().len()), (2, 1));
    gate.open();
    settle_tasks().await;
    for side in rig.sides() {
        let all: Vec<_> = side.seen().into_iter().map(|seen| seen.data).collect();
        assert_eq!(all, [&b"first"[..], b"second"]);
    }
    assert!(rig.dirty().is_empty());
    rig.is_quiet().await;
}

/// The patience counts for a leg that waits for its turn as for one that is
/// slow: what keeps its side busy is that side's own.
#[tokio::test(start_paused = true)]
async fn a_leg_that_waits_for_its_turn_holds_back_and_is_cut_off() {
    let streaming = Streaming::new().lag(4).slow_leg(SlowLeg::Hold(Duration::from_secs(10)));
    for opens in [true, false] {
        let (rig, gate, [mut feed, mut next], [first, second]) = queued(streaming).await;
        feed.gives("1st");
        feed.ends();
        assert_eq!(first.status().await, 200);
        (0..3).for_each(|_| next.gives("second"));
        next.ends();
        let began = Instant::now();
        sleep(Duration::from_secs(9)).await;
        assert_eq!(rig.old.seen()[1].data, b"second", "held back");
        if opens {
            gate.open();
        }
        assert_eq!(second.status().await, 200);
        assert_eq!(began.elapsed().as_secs(), if opens { 9 } else { 10 });
        gate.open();
        settle_tasks().await;
        assert_eq!(rig.new.seen()[0].data, b"1st");
        let end = if opens { End::Whole } else { End::CutOff };
        assert_eq!(rig.new.seen()[1].end, Some(end));
        assert_eq!(rig.dirty().is_empty(), opens);
        assert_eq!(rig.in_flight(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_uploaded_slowly_keeps_its_next_write_waiting_for_a_legs_time_only() {
    let (rig, gate, [mut feed, mut next], [first, second]) = queued(Streaming::new()).await;
    gate.open();
    next.gives("second");
    next.ends();
    let began = Instant::now();
    assert_eq!(second.status().await, 504, "as a write that was collected");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(!first.has_answer());
    feed.gives("first");
    feed.ends();
    assert_eq!(first.status().await, 200);
    settle_tasks().await;
    // It was late, and went on.
    for side in rig.sides() {
        let all: Vec<_> = side.seen().into_iter().map(|seen| seen.data).collect();
        assert_eq!(all, [&b"first"[..], b"second"]);
    }
    assert_eq!(rig.dirty(), ["/a"]);
    rig.handle.settled().await;
    assert_eq!(rig.in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_room_for_the_other_leg_nothing_is_read_or_nobody_is_held_back() {
    for policy in POLICIES {
        for limits in [Limits::default().running_legs(1), Limits::default().key_queue(1)] {
            let (new, gate) = gated();
            let set = |layer: MigrationLayer<_>| {
                layer.failure_policy(policy).limits(limits.clone()).unwrap()
            };
            let streaming = Streaming::new().lag(4);
            let rig = Rig::with(Stage::WriteBoth, stores(), new, streaming, &set).await;
            let (_feed, first) = upload("/a");
            let _first = rig.send(first);
            settle_tasks().await;
            // Of the same key, if that is what there is no room for.
            let path = if limits_the_key(&limits) { "/a" } else { "/b" };
            let (mut next, second) = upload(path);
            (0..9).for_each(|_| next.gives("second"));
            next.ends();
            let began = Instant::now();
            let second = rig.send(second);
            settle_tasks().await;
            if policy == FailurePolicy::RequireBoth {
                let (status, problem) = second.answer().await;
                assert_eq!(status, 503);
                assert!(problem.contains("overloaded"), "{problem}");
                assert_eq!((rig.old.seen().len(), rig.new.seen().len()), (1, 1));
                assert!(rig.dirty().is_empty());
            } else if path == "/b" {
                assert_eq!(second.status().await, 200);
                assert_eq!(began.elapsed(), Duration::ZERO, "held back by nobody");
                assert_eq!(rig.old.seen()[1].data.len(), 54);
                assert_eq!((rig.new.seen().len(), rig.dirty()), (1, vec!["/b".to_owned()]));
            } else {
                assert!(!second.has_answer(), "the authority waits for its turn");
            }
            gate.open();
        }
    }
}

fn limits_the_key(limits: &Limits) -> bool {
    format!("{limits:?}").contains("key_queue: 1,")
}

#[tokio::test(start_paused = true)]
async fn many_uploads_share_one_budget_and_none_stands_still() {
    const CHUNK: &[u8] = &[7; 1000];
    let (new, gate) = gated();
    let set = |layer: MigrationLayer<_>| {
        layer.limits(Limits::default().body(1000).buffered_bytes(4000)).unwrap()
    };
    let patience = SlowLeg::Hold(Duration::from_secs(10));
    let streaming = Streaming::new().lag(1 << 20).slow_leg(patience);
    let rig = Rig::with(Stage::WriteBoth, stores(), new, streaming, &set).await;
    let mut uploads = Vec::new();
    for n in 0..8 {
        let (feed, request) = upload(&format!("/{n}"));
        (0..10).for_each(|_| feed.gives(CHUNK));
        uploads.push((rig.send(request), feed));
        settle_tasks().await;
    }
    // The first has taken it all. One chunk each is beyond it, or nobody could
    // ever go on.
    let read: Vec<_> = rig.old.seen().iter().map(|seen| seen.data.len() / 1000).collect();
    assert_eq!(read, [5, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(rig.send(put("/small", "no room")).status().await, 503);
    gate.open();
    for (sent, mut feed) in uploads {
        feed.ends();
        assert_eq!(sent.status().await, 200);
    }
    settle_tasks().await;
    for side in rig.sides() {
        assert!(side.seen().iter().all(|seen| seen.data.len() == 10_000));
    }
    assert!(rig.dirty().is_empty());
    assert_eq!(rig.send(put("/small", "room")).status().await, 200);
    rig.is_quiet().await;
}
