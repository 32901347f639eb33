//! Writing streams that keep a step waiting, and are broken off.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Code;
use tower_migration::{
    FailurePolicy, MigrationHandle, Reason, Side, Stage, protocol::grpc::Grpc, stage::SyncState,
};

use crate::{
    fake::*,
    support::{INTEROP, proto::*},
};

pub const BIDI: &str = "/grpc.testing.TestService/FullDuplexCall";
pub const DOWN: &str = "/grpc.testing.TestService/StreamingOutputCall";
pub const UP: &str = "/grpc.testing.TestService/StreamingInputCall";
const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
pub const GRACE: Duration = Duration::from_secs(3);
pub const LONG: Duration = Duration::from_secs(600);

pub fn grpc(closes: bool) -> Grpc {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    if closes { grpc.close_streams_after(GRACE).unwrap() } else { grpc }
}

pub fn message() -> Bytes {
    framed(&StreamingOutputCallRequest::default())
}

/// Reads its request in a task, for as long as it lasts, and answers with one
/// message and no end. Notes each chunk, and how the request ended.
pub fn holds(notes: &Arc<Mutex<Vec<String>>>) -> Fake {
    let notes = Arc::clone(notes);
    Fake::new(move |request: Req| {
        let notes = Arc::clone(&notes);
        async move {
            let (mut sender, body) = piecewise();
            sender.send_data(message()).await.unwrap();
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    let note = match frame {
                        Ok(frame) if frame.is_data() => "data".to_owned(),
                        Ok(_) => continue,
                        Err(error) => format!("error: {error}"),
                    };
                    let failed = note != "data";
                    notes.lock().unwrap().push(note);
                    if failed {
                        break;
                    }
                }
                // A request that has ended is no reason to end the answer.
                std::future::pending::<()>().await;
                drop(sender);
            });
            Ok(streams(body))
        }
    })
}

/// Reads its request to its end, or its error, before it answers.
fn reads_first() -> Fake {
    Fake::new(|request: Req| async move {
        match request.into_body().collect().await {
            Ok(_) => Ok(says(&[framed(&StreamingInputCallResponse::default())], Code::Ok)),
            Err(_) => Ok(only(Code::Internal)),
        }
    })
}

pub fn rig(grpc: Grpc, old: Fake, new: Fake) -> Rig {
    Rig::new(grpc, old, new, |layer| layer)
}

pub fn notes() -> Arc<Mutex<Vec<String>>> {
    Arc::default()
}

/// What opens a write of this kind; the sender keeps its request open.
pub async fn open(path: &str) -> (Option<Sender>, Req) {
    let (mut sender, body) = piecewise();
    sender.send_data(message()).await.unwrap();
    let request = call(path, body);
    ((path != DOWN).then_some(sender), request)
}

/// The step that a write opened at `stage` keeps waiting.
pub fn next(stage: Stage) -> Stage {
    *Stage::ALL.iter().find(|next| **next > stage).unwrap()
}

pub fn closed(handle: &MigrationHandle) -> f64 {
    count(handle, "tower_migration_closed_streams_total")
}

pub fn count(handle: &MigrationHandle, name: &str) -> f64 {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    handle.publish_metrics();
    let all = snapshotter.snapshot().into_vec();
    let named = all.iter().filter(|(key, ..)| key.key().name() == name);
    named
        .map(|(.., value)| match value {
            metrics_util::debugging::DebugValue::Counter(n) => *n as f64,
            metrics_util::debugging::DebugValue::Gauge(n) => n.into_inner(),
            metrics_util::debugging::DebugValue::Histogram(values) => values.len() as f64,
        })
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_before_the_dual_writes_is_shown_and_closed() {
    for path in [BIDI, DOWN, UP] {
        let side = || if path == UP { reads_first() } else { holds(&notes()) };
        let rig = rig(grpc(true), side(), side());
        let (sender, request) = open(path).await;
        let client = tokio::spawn({
            let sent = rig.send(request);
            async move { seen(sent.await.unwrap()).await }
        });
        let_run().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(rig.handle.status().oldest_write.is_none(), "nothing is in its way yet");
        rig.handle.advance().await.unwrap();
        let status = rig.handle.status();
        assert_eq!((status.settled, status.earlier_writes), (false, 1), "{path}");
        let oldest = status.oldest_write.unwrap();
        assert_eq!(oldest.route.as_deref(), Some(path));
        assert_eq!(oldest.side, Some(Side::Old));
        assert!(oldest.age >= Duration::from_secs(5) && !oldest.at_least, "{oldest}");
        assert_eq!(oldest.answered, path != UP);
        let early = timeout(GRACE - Duration::from_secs(1), rig.handle.settled()).await;
        assert!(early.is_err() && !client.is_finished(), "{path}");
        // The rest of the grace, and the linger.
        timeout(Duration::from_secs(3), rig.handle.settled()).await.unwrap();
        let found = client.await.unwrap();
        assert_eq!(found.code, Some(Code::Unavailable), "{path}");
        assert!(found.text.contains("he service is being migrated: reconnect"), "{}", found.text);
        assert_eq!(found.early, path == UP);
        assert!(!found.broke);
        assert!((closed(&rig.handle) - 1.0).abs() < 0.1, "{path}");
        rig.assert_idle().await;
        assert!(rig.handle.status().oldest_write.is_none());
        assert_eq!(rig.new.count(), 0);
        drop(sender);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_the_dual_writes_is_closed_and_leaves_a_mark() {
    for (stage, path) in [Stage::WriteBoth, Stage::ReadNew]
        .into_iter()
        .flat_map(|stage| [BIDI, DOWN, UP].map(|path| (stage, path)))
    {
        for keyed in [true, false] {
            for policy in
                [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth]
            {
                let what = format!("{stage} {path} {keyed} {policy:?}");
                let side = || if path == UP { reads_first() } else { holds(&notes()) };
                let mut grpc = grpc(true);
                if keyed {
                    grpc = grpc.key(path, |_| "it").unwrap();
                }
                let rig = Rig::new(grpc, side(), side(), |layer| layer.failure_policy(policy));
                let rig = rig.at(stage).await;
                rig.handle.confirm_synced(Side::New).await.unwrap();
                let (sender, request) = open(path).await;
                let client = tokio::spawn({
                    let sent = rig.send(request);
                    async move { seen(sent.await.unwrap()).await }
                });
                let_run().await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert_eq!((rig.old.count(), rig.new.count()), (1, 1), "{what}");
                let step = tokio::spawn({
                    let handle = rig.handle.clone();
                    async move { handle.move_to(next(stage)).await }
                });
                let_run().await;
                let status = rig.handle.status();
                assert_eq!((status.settled, status.earlier_writes), (false, 2), "{what}");
                assert_eq!(status.oldest_write.unwrap().route.as_deref(), Some(path));
                tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
                assert!(!client.is_finished(), "{what}");
                let found = timeout(Duration::from_secs(3), client).await.unwrap().unwrap();
                assert_eq!(found.code, Some(Code::Unavailable), "{what}");
                assert!(found.text.contains("migrated: reconnect"), "{what}: {}", found.text);
                let moved = timeout(Duration::from_secs(10), step).await.unwrap().unwrap();
                rig.assert_idle().await;
                timeout(Duration::from_secs(10), rig.handle.settled()).await.unwrap();
                if stage == Stage::ReadNew {
                    // Old is not synced any more, whatever is on it.
                    assert_eq!(rig.dirty(), [""; 0], "{what}");
                } else if keyed {
                    assert_eq!(rig.dirty(), ["it"], "{what}");
                } else {
                    let sync = rig.handle.status().sync;
                    assert!([sync.old, sync.new].contains(&SyncState::Suspect), "{what}");
                }
                match (stage, moved) {
                    // What it left has to be mended first.
                    (Stage::WriteBoth, Err(blocked)) => {
                        let settled =
                            |reason: &Reason| !matches!(reason, Reason::NotSettled { .. });
                        assert!(blocked.reasons().iter().all(settled), "{what}: {blocked}");
                    }
                    (Stage::ReadNew, Ok(_)) => {}
                    (_, moved) => panic!("{what}: {moved:?}"),
                }
                assert!((closed(&rig.handle) - 1.0).abs() < 0.1, "{what}: {}", closed(&rig.handle));
                drop(sender);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_policy_nothing_is_closed() {
    for path in [BIDI, DOWN, UP] {
        let side = || if path == UP { reads_first() } else { holds(&notes()) };
        let rig = rig(grpc(false), side(), side());
        let (sender, request) = open(path).await;
        let client = tokio::spawn({
            let sent = rig.send(request);
            async move { seen(sent.await.unwrap()).await }
        });
        let_run().await;
        rig.handle.advance().await.unwrap();
        assert!(timeout(LONG, rig.handle.settled()).await.is_err(), "{path}");
        assert!(!client.is_finished(), "{path}");
        client.abort();
        drop(sender);
        timeout(LONG, rig.handle.settled()).await.unwrap();
        rig.assert_idle().await;
        assert!(closed(&rig.handle) < 0.5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_is_not_broken_off_however_long_it_takes() {
    for stage in [Stage::OldOnly, Stage::WriteBoth] {
        let slow = || {
            Fake::new(|_| async {
                tokio::time::sleep(GRACE * 4).await;
                Ok(says(&[framed(&SimpleResponse::default())], Code::Ok))
            })
        };
        let rig = rig(grpc(true), slow(), slow()).at(stage).await;
        let sent = rig.send(unary(UNARY, &SimpleRequest::default()));
        let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
        let_run().await;
        let handle = rig.handle.clone();
        handle.confirm_synced(Side::New).await.ok();
        drop(tokio::spawn(async move { handle.advance().await }));
        let found = client.await.unwrap();
        assert_eq!(found.code, Some(Code::Ok), "{stage}: {}", found.text);
        assert!(closed(&rig.handle) < 0.5);
        rig.assert_idle().await;
    }
}
