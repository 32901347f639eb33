//! Sides that are slow, or that stop reading.

use tokio::time::{Instant, advance, sleep};
use tower_migration::{Limits, body::SlowLeg};

use super::*;
use crate::support::Latch;

const CHUNK: &str = "12345678";

/// Streams of which the sides are one chunk apart at most.
fn near(slow: SlowLeg) -> Streaming {
    Streaming::new().lag(CHUNK.len()).slow_leg(slow)
}

fn hold(seconds: u64) -> Streaming {
    near(SlowLeg::Hold(Duration::from_secs(seconds)))
}

fn short(layer: MigrationLayer<Reader>) -> MigrationLayer<Reader> {
    let limits = Limits::default()
        .leg_timeout(Duration::from_secs(5))
        .abandon_after(Duration::from_secs(20));
    layer.limits(limits).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_slow_other_side_holds_the_authority_back() {
    let (new, gate) = gated();
    let rig = Rig::with(Stage::WriteBoth, stores(), new, hold(10), &|layer| layer).await;
    let (mut feed, request) = upload("/a");
    let sent = rig.send(request);
    (0..3).for_each(|_| feed.gives(CHUNK));
    feed.ends();
    settle_tasks().await;
    assert_eq!((rig.old.data().len(), rig.new.data().len()), (8, 0));
    sleep(Duration::from_secs(9)).await;
    assert_eq!(rig.old.data().len(), 8);
    gate.open();
    assert_eq!(sent.status().await, 200);
    settle_tasks().await;
    assert_eq!(rig.new.data(), rig.old.data());
    assert!(rig.dirty().is_empty());
    rig.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn by_default_only_a_client_who_waits_for_both_is_held_up() {
    for policy in POLICIES {
        let (new, gate) = gated();
        let set = |layer: MigrationLayer<_>| layer.failure_policy(policy);
        let streaming = Streaming::new().lag(CHUNK.len());
        let rig = Rig::with(Stage::WriteBoth, stores(), new, streaming, &set).await;
        let (mut feed, request) = upload("/a");
        let sent = rig.send(request);
        (0..3).for_each(|_| feed.gives(CHUNK));
        feed.ends();
        settle_tasks().await;
        if policy == FailurePolicy::AuthorityWins {
            assert_eq!(sent.status().await, 200, "at once");
            gate.open();
            settle_tasks().await;
            assert_eq!((rig.old.data().len(), rig.new.one().end), (24, Some(End::CutOff)));
            assert_eq!(rig.dirty(), ["/a"]);
        } else {
            assert_eq!(rig.old.data().len(), 8, "{policy:?}");
            gate.open();
            assert_eq!(sent.status().await, 200);
            assert_eq!(rig.new.data(), rig.old.data());
            assert!(rig.dirty().is_empty());
        }
        rig.is_quiet().await;
    }
}

/// The rest of its answer may take as long as the authority's: it is waited for until
/// that has said how it went, and `leg_timeout` longer.
#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_is_given_up_once_the_authority_has_said() {
    let new = reads(0, Then::Endless);
    let rig = Rig::with(Stage::WriteBoth, stores(), new, Streaming::new(), &short).await;
    let (mut feed, request) = upload("/a");
    let sent = rig.send(request);
    for _ in 0..4 {
        feed.gives(CHUNK);
        sleep(Duration::from_secs(3)).await;
    }
    feed.ends();
    assert_eq!(sent.status().await, 200);
    sleep(Duration::from_secs(4)).await;
    assert!(rig.dirty().is_empty(), "twelve seconds, and four");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.dirty(), ["/a"]);
    // Until it is abandoned it may still land.
    sleep(Duration::from_secs(60)).await;
    rig.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_stalls_is_cut_off_and_the_authority_has_it_all() {
    for policy in POLICIES {
        for patience in [10, 0] {
            let (new, gate) = gated();
            let set = |layer: MigrationLayer<_>| layer.failure_policy(policy);
            let streaming = if patience == 0 { near(SlowLeg::CutOff) } else { hold(patience) };
            let rig = Rig::with(Stage::WriteBoth, stores(), new, streaming, &set).await;
            let (mut feed, request) = upload("/a");
            let sent = rig.send(request);
            (0..3).for_each(|_| feed.gives(CHUNK));
            feed.ends();
            let began = Instant::now();
            if policy != FailurePolicy::AuthorityWins {
                sleep(Duration::from_secs(20)).await;
                assert_eq!(rig.old.one().end, Some(End::Whole), "and waits for new's answer");
                assert!(!sent.has_answer());
                gate.open();
            }
            let told = if policy == FailurePolicy::RequireBoth { 503 } else { 200 };
            assert_eq!(sent.status().await, told, "{policy:?}");
            if policy == FailurePolicy::AuthorityWins {
                assert_eq!(began.elapsed().as_secs(), patience);
                gate.open();
            }
            settle_tasks().await;
            assert_eq!((rig.old.data().len(), rig.old.one().end), (24, Some(End::Whole)));
            assert_eq!((rig.new.data().len(), rig.new.one().end), (0, Some(End::CutOff)));
            assert_eq!(rig.dirty(), ["/a"], "{policy:?}");
            assert_eq!(rig.in_flight(), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_cut_off_is_so_whatever_it_answers() {
    let (new, gate) = gated();
    let new = new.on_error(Then::Answer(200));
    let rig = Rig::with(Stage::WriteBoth, stores(), new, hold(1), &|layer| layer).await;
    let (mut feed, request) = upload("/a");
    let sent = rig.send(request);
    (0..3).for_each(|_| feed.gives(CHUNK));
    feed.ends();
    assert_eq!(sent.status().await, 200);
    gate.open();
    settle_tasks().await;
    assert_eq!(rig.new.one().end, Some(End::CutOff));
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test(start_paused = true)]
async fn the_other_side_waits_for_a_slow_authority() {
    for slow in [SlowLeg::CutOff, SlowLeg::Hold(Duration::ZERO)] {
        let (old, gate) = gated();
        let rig = Rig::with(Stage::WriteBoth, old, stores(), near(slow), &|layer| layer).await;
        let (mut feed, request) = upload("/a");
        let sent = rig.send(request);
        (0..9).for_each(|_| feed.gives(CHUNK));
        feed.ends();
        for n in 0..9 {
            sleep(Duration::from_secs(25)).await;
            assert_eq!((rig.old.data().len(), rig.new.data().len()), (n * 8, n * 8 + 8));
            gate.lets_one_through();
            settle_tasks().await;
        }
        gate.open();
        assert_eq!(sent.status().await, 200);
        settle_tasks().await;
        assert_eq!(rig.old.data(), rig.new.data());
        assert!(rig.dirty().is_empty());
        rig.is_quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_stops_reading_is_waited_for_as_long_as_any() {
    for client_stays in [true, false] {
        let (old, new) = (reads(1, Then::Hang), stores());
        let rig = Rig::with(Stage::WriteBoth, old, new, near(SlowLeg::default()), &short).await;
        let (feed, request) = upload("/a");
        let sent = rig.send(request);
        (0..9).for_each(|_| feed.gives(CHUNK));
        settle_tasks().await;
        let began = Instant::now();
        assert_eq!((rig.old.data().len(), rig.new.data().len()), (8, 16));
        if client_stays {
            assert_eq!(sent.status().await, 504);
            assert_eq!(began.elapsed().as_secs(), 5);
        } else {
            sent.hangs_up().await;
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(rig.in_flight(), (1, 1), "the legs go on");
        sleep(Duration::from_secs(20)).await;
        settle_tasks().await;
        assert_eq!(rig.dirty().is_empty(), client_stays, "the other may still come to an end");
        if client_stays {
            // Old is given up: new gets the rest.
            assert_eq!(rig.new.data().len(), 72);
            drop(feed);
            settle_tasks().await;
            assert_eq!(rig.dirty(), ["/a"]);
        }
        rig.shuts_down().await;
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
        assert_eq!(rig.in_flight(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_other_side_that_stops_reading_costs_the_client_its_patience() {
    let (old, new) = (stores(), reads(1, Then::Hang));
    let rig = Rig::with(Stage::WriteBoth, old, new, hold(3), &short).await;
    let (mut feed, request) = upload("/a");
    let sent = rig.send(request);
    (0..9).for_each(|_| feed.gives(CHUNK));
    feed.ends();
    let began = Instant::now();
    assert_eq!(sent.status().await, 200);
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!((rig.old.data().len(), rig.new.data().len()), (72, 8));
    rig.shuts_down().await;
    assert_eq!(rig.dirty(), ["/a"]);
    // Cut off, waited for, given up, lingered.
    assert_eq!(began.elapsed().as_secs(), 3 + 5 + 20 + 1);
}

#[tokio::test(start_paused = true)]
async fn both_stop_reading_and_the_client_leaves() {
    for asked_first in [false, true] {
        // Asked once, for what has not come, and never again.
        let side = || if asked_first { stores() } else { reads(1, Then::Hang) };
        let rig = Rig::with(Stage::WriteBoth, side(), side(), hold(3), &short).await;
        let (feed, request) = upload("/a");
        let sent = rig.send(request);
        feed.gives(CHUNK);
        settle_tasks().await;
        sent.hangs_up().await;
        let began = Instant::now();
        rig.shuts_down().await;
        assert_eq!(rig.dirty(), ["/a"]);
        assert_eq!(began.elapsed().as_secs(), 5 + 20 + 1, "{asked_first}");
        assert!(feed.is_dropped());
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_leg_runs_from_the_end_of_the_body() {
    for (takes, told) in [(4, 200), (6, 504)] {
        let slow = Reader { chunks: usize::MAX, ..reads(0, Then::Answer(200)) };
        let (old, gate) = (slow, Latch::default());
        let at = gate.clone();
        let old = tower::ServiceBuilder::new()
            .map_future(move |leg| {
                let at = at.clone();
                async move {
                    let answer: Result<Res, BoxError> = leg.await;
                    at.passed().await;
                    answer
                }
            })
            .service(old);
        let handle = MigrationHandle::new("x");
        handle.advance().await.unwrap();
        let layer = MigrationLayer::new(handle.clone(), old.clone());
        let limits = Limits::default().leg_timeout(Duration::from_secs(5));
        let layer = layer.limits(limits).unwrap().stream_bodies(Streaming::new()).unwrap();
        let (mut feed, request) = upload("/a");
        let sent = tokio::spawn(layer.layer(old).oneshot(request));
        for _ in 0..100 {
            // A client that needs a minute for each chunk.
            advance(Duration::from_secs(60)).await;
            feed.gives(CHUNK);
            settle_tasks().await;
        }
        assert!(!sent.is_finished(), "how long it takes is the server's business");
        feed.ends();
        settle_tasks().await;
        let began = Instant::now();
        tokio::spawn(async move {
            sleep(Duration::from_secs(takes)).await;
            gate.open();
        });
        assert_eq!(sent.await.unwrap().unwrap().status(), told);
        assert_eq!(began.elapsed().as_secs(), takes.min(5));
        handle.shutdown().await;
        // New may be over its time as well.
        assert_eq!(handle.dirty_keys().len(), usize::from(told == 504));
    }
}
