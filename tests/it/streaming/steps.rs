//! The flag moves while an upload is under way.

use tokio::time::{Instant, sleep};

use super::*;

/// An upload that has sent its first half.
async fn under_way(stage: Stage) -> (Rig, Feed, Sent) {
    let rig = Rig::with(stage, stores(), stores(), Streaming::new(), &|layer| layer).await;
    let (feed, request) = upload("/a");
    let sent = rig.send(request);
    feed.gives("first ");
    settle_tasks().await;
    (rig, feed, sent)
}

/// Sends the rest, and sees it on both sides, under the stage it began in.
async fn completes(rig: &Rig, mut feed: Feed, sent: Sent, stage: Stage) {
    feed.gives("second");
    feed.ends();
    assert_eq!(sent.status().await, 200);
    settle_tasks().await;
    for side in rig.sides() {
        let seen = side.one();
        assert_eq!((seen.data.as_slice(), seen.end), (&b"first second"[..], Some(End::Whole)));
        assert_eq!(seen.dispatch.unwrap().stage, stage);
    }
    assert!(rig.dirty().is_empty());
    rig.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn steps_that_flip_at_once_leave_it_running_and_settle_after_it() {
    for (from, to) in [(Stage::WriteBoth, Stage::OldOnly), (Stage::ReadNew, Stage::NewOnly)] {
        let (rig, feed, sent) = under_way(from).await;
        rig.handle.move_to(to).await.unwrap();
        assert_eq!(rig.handle.stage(), to);
        sleep(Duration::from_secs(100)).await;
        let status = rig.handle.status();
        assert!(!status.settled);
        let oldest = status.oldest_write.unwrap();
        assert_eq!(oldest.route.as_deref(), Some("PUT /a"));
        assert!(oldest.age >= Duration::from_secs(100) && !oldest.answered, "{oldest}");
        completes(&rig, feed, sent, from).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_change_of_the_authority_waits_for_it_and_names_it() {
    let (rig, feed, sent) = under_way(Stage::WriteBoth).await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(blocked.to_string().contains("PUT /a"), "{blocked}");
    assert!(blocked.to_string().contains("for 10.0s"), "{blocked}");
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    completes(&rig, feed, sent, Stage::WriteBoth).await;
    rig.handle.advance().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_change_of_the_authority_follows_its_end() {
    let (rig, feed, sent) = under_way(Stage::WriteBoth).await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.advance().await });
    sleep(Duration::from_secs(5)).await;
    assert!(!step.is_finished());
    completes(&rig, feed, sent, Stage::WriteBoth).await;
    step.await.unwrap().unwrap();
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
}

#[tokio::test(start_paused = true)]
async fn the_emergency_exit_does_not_wait_and_loses_nothing() {
    let (rig, mut feed, sent) = under_way(Stage::ReadNew).await;
    rig.handle.rollback().await.unwrap();
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(rig.dirty(), ["/a"], "old may lack it");
    feed.gives("second");
    feed.ends();
    assert_eq!(sent.status().await, 200, "both sides have it");
    settle_tasks().await;
    for side in rig.sides() {
        assert_eq!(side.data(), "first second");
    }
    // Broken off instead, it is not acknowledged.
    let (rig, mut feed, sent) = under_way(Stage::ReadNew).await;
    rig.handle.rollback().await.unwrap();
    feed.breaks();
    assert_eq!(sent.status().await, 503);
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_it() {
    let (rig, feed, sent) = under_way(Stage::WriteBoth).await;
    let handle = rig.handle.clone();
    let shutdown = tokio::spawn(async move {
        handle.shutdown().await;
        Instant::now()
    });
    sleep(Duration::from_secs(1000)).await;
    assert!(!shutdown.is_finished());
    let now = Instant::now();
    completes(&rig, feed, sent, Stage::WriteBoth).await;
    assert_eq!(shutdown.await.unwrap(), now);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_lets_the_step_go_on() {
    let (rig, mut feed, sent) = under_way(Stage::WriteBoth).await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.advance().await });
    settle_tasks().await;
    sent.hangs_up().await;
    feed.breaks();
    let blocked = step.await.unwrap().unwrap_err();
    assert!(blocked.to_string().contains("dirty"), "{blocked}");
    assert_eq!(rig.dirty(), ["/a"]);
    assert_eq!(rig.in_flight(), (0, 0));
    for side in rig.sides() {
        assert_eq!(side.one().end, Some(End::Broken));
    }
}
