//! Streams that are closed against some resistance.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Code;
use tower_migration::{FailurePolicy, Side, Stage};

use crate::{
    closing::{BIDI, DOWN, GRACE, LONG, closed, grpc, holds, message, next, notes, open, rig},
    fake::*,
    support::go,
};

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_holds_up_nobody() {
    for stage in [Stage::OldOnly, Stage::WriteBoth] {
        for path in [BIDI, DOWN] {
            let rig = rig(grpc(true), holds(&notes()), holds(&notes())).at(stage).await;
            let (sender, request) = open(path).await;
            // Not polled from here on.
            let answer = rig.send(request).await.unwrap();
            let_run().await;
            let handle = rig.handle.clone();
            handle.confirm_synced(Side::New).await.ok();
            let step = tokio::spawn(async move { handle.advance().await });
            let_run().await;
            let settled = timeout(GRACE + Duration::from_secs(3), rig.handle.settled()).await;
            assert!(settled.is_ok(), "{stage} {path}: {}", rig.handle.status());
            let _ = step.await;
            let found = seen(answer).await;
            assert_eq!(found.code, Some(Code::Unavailable), "{stage} {path}");
            assert_eq!(found.data, Bytes::new(), "what was not read is not read now");
            rig.assert_idle().await;
            assert!((closed(&rig.handle) - 1.0).abs() < 0.1, "{stage} {path}");
            drop(sender);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_gets_nothing_more_of_a_stream_that_was_closed() {
    for stage in [Stage::OldOnly, Stage::WriteBoth, Stage::ReadNew] {
        let (mine, theirs) = (notes(), notes());
        let rig = rig(grpc(true), holds(&mine), holds(&theirs)).at(stage).await;
        rig.handle.confirm_synced(Side::New).await.ok();
        let (sender, request) = open(BIDI).await;
        let mut sender = sender.unwrap();
        let sent = rig.send(request);
        let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
        let_run().await;
        let handle = rig.handle.clone();
        let step = tokio::spawn(async move { handle.move_to(next(stage)).await });
        assert_eq!(client.await.unwrap().code, Some(Code::Unavailable), "{stage}");
        let _ = sender.send_data(message()).await;
        let _ = step.await;
        rig.handle.settled().await;
        let _ = sender.send_data(message()).await;
        let_run().await;
        let legs = if stage == Stage::OldOnly { vec![mine] } else { vec![mine, theirs] };
        for leg in legs {
            let notes = leg.lock().unwrap();
            let [first, second] = &notes[..] else { panic!("{stage}: {notes:?}") };
            assert_eq!(first, "data", "{stage}");
            assert!(second.contains("the migration layer ended this request"), "{second}");
        }
        rig.assert_idle().await;
    }
}

/// An authority that answers late, but before the grace period is over, ends
/// when the other leg does, and its client hears why.
#[tokio::test(start_paused = true)]
async fn a_late_head_does_not_hide_why_the_stream_was_closed() {
    // Ends its answer with what its request ended with.
    let late = |pause: Duration| {
        Fake::new(move |request: Req| async move {
            tokio::time::sleep(pause).await;
            let (mut sender, body) = piecewise();
            tokio::spawn(async move {
                let code = match request.into_body().collect().await {
                    Ok(_) => Code::Ok,
                    Err(_) => Code::Internal,
                };
                sender.send_data(message()).await.unwrap();
                sender.send_trailers(status(code)).await.unwrap();
            });
            Ok(streams(body))
        })
    };
    for (mine, theirs) in [(2, 0), (0, 2), (1, 1)] {
        let (mine, theirs) = (Duration::from_secs(mine), Duration::from_secs(theirs));
        let rig = rig(grpc(true), late(mine), late(theirs)).at(Stage::WriteBoth).await;
        rig.handle.confirm_synced(Side::New).await.unwrap();
        let (sender, request) = open(BIDI).await;
        let sent = rig.send(request);
        let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
        let_run().await;
        let handle = rig.handle.clone();
        let step = tokio::spawn(async move { handle.advance().await });
        let found = timeout(LONG, client).await.unwrap().unwrap();
        assert_eq!(found.code, Some(Code::Unavailable), "{mine:?} {theirs:?}: {}", found.text);
        assert!(found.text.contains("migrated: reconnect"), "{}", found.text);
        let _ = step.await;
        rig.assert_idle().await;
        assert!((closed(&rig.handle) - 1.0).abs() < 0.1, "{mine:?}: {}", closed(&rig.handle));
        drop(sender);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_can_be_tried_again_after_the_mending() {
    let rig = rig(grpc(true).key(BIDI, |_| "it").unwrap(), holds(&notes()), holds(&notes()));
    let rig = rig.at(Stage::WriteBoth).await;
    rig.handle.confirm_synced(Side::New).await.unwrap();
    let (sender, request) = open(BIDI).await;
    let sent = rig.send(request);
    let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
    let_run().await;
    assert!(rig.handle.advance().await.is_err(), "its key is dirty");
    assert_eq!(client.await.unwrap().code, Some(Code::Unavailable));
    for dirty in rig.handle.dirty_keys() {
        let nothing = || async { Ok::<_, std::convert::Infallible>(()) };
        rig.handle.copy_key(&dirty.key, Side::Old, nothing).await.unwrap();
    }
    go(&rig.handle, Stage::NewOnly).await;
    drop(sender);
}

/// A handler that streams on after its client has hung up is closed as well.
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_client_holds_up_nobody_either() {
    for policy in [FailurePolicy::AuthorityWins, FailurePolicy::RequireBoth] {
        let grpc = grpc(true).key(DOWN, |_| "it").unwrap();
        let rig =
            Rig::new(grpc, holds(&notes()), holds(&notes()), |layer| layer.failure_policy(policy));
        let rig = rig.at(Stage::WriteBoth).await;
        rig.handle.confirm_synced(Side::New).await.unwrap();
        let (_, request) = open(DOWN).await;
        let mut answer = rig.send(request).await.unwrap();
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
        drop(answer);
        tokio::time::sleep(GRACE).await;
        assert_eq!(rig.handle.status().on_old.writes, 1, "it runs on, for it may be writing");
        let handle = rig.handle.clone();
        let step = tokio::spawn(async move { handle.advance().await });
        let_run().await;
        let settled = timeout(GRACE + Duration::from_secs(3), rig.handle.settled()).await;
        assert!(settled.is_ok(), "{}", rig.handle.status());
        let _ = step.await;
        rig.assert_idle().await;
        assert_eq!(rig.dirty(), ["it"]);
        assert!((closed(&rig.handle) - 1.0).abs() < 0.1);
    }
}
