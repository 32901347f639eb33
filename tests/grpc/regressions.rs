//! One test for each mistake that was made once.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tower_migration::{
    Limits, Side, Stage,
    body::{SlowLeg, Streaming},
    protocol::grpc::Grpc,
    stage::SyncState,
};

use crate::{
    closing::{BIDI, DOWN, UP, count},
    fake::*,
    support::{INTEROP, proto::*},
};

const HALF: &str = "/grpc.testing.TestService/HalfDuplexCall";
const LIMIT: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(3);

type Log = Arc<Mutex<Vec<String>>>;

fn keyed() -> Grpc {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    [BIDI, UP, DOWN].iter().fold(grpc, |grpc, path| grpc.key(path, |_| "it").unwrap())
}

fn message(size: usize) -> Bytes {
    let payload = Some(Payload { r#type: 0, body: vec![0; size] });
    framed(&StreamingInputCallRequest { payload, ..Default::default() })
}

async fn at(stage: Stage, grpc: Grpc, old: Fake, new: Fake) -> Rig {
    let rig = Rig::new(grpc, old, new, |layer| layer).at(stage).await;
    rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
    rig
}

/// Writes down each message of a conversation when it comes, and all other calls
/// when they are whole.
fn logs(log: &Log) -> Fake {
    let log = Arc::clone(log);
    Fake::new(move |request: Req| {
        let log = Arc::clone(&log);
        async move {
            let name = request.headers().get("x-name").map_or("b", |name| name.to_str().unwrap());
            if name == "b" {
                let _ = request.into_body().collect().await;
                log.lock().unwrap().push("b".into());
                return Ok(says(&[message(1)], Code::Ok));
            }
            let name = name.to_owned();
            let (mut sender, body) = piecewise();
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut at = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    if frame.is_data() {
                        at += 1;
                        log.lock().unwrap().push(format!("{name}{at}"));
                    }
                }
                let _ = sender.send_trailers(status(Code::Ok)).await;
            });
            Ok(streams(body))
        }
    })
}

fn named(mut request: Req, name: &str) -> Req {
    request.headers_mut().insert("x-name", name.parse().unwrap());
    request
}

fn read(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

/// docs/grpc.md, "Order": "if one comes in between while an answer still
/// streams, the key is dirty".
#[tokio::test(start_paused = true)]
async fn a_write_that_comes_between_the_messages_of_a_conversation_leaves_the_key_dirty() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let (old, new) = (Log::default(), Log::default());
        let rig = at(stage, keyed(), logs(&old), logs(&new)).await;
        let (mut sender, body) = piecewise();
        sender.send_data(message(1)).await.unwrap();
        let answer = rig.send(named(call(BIDI, body), "a")).await.unwrap();
        let_run().await;
        let found =
            rig.ask(call(UP, tonic::body::Body::new(http_body_util::Full::new(message(1)))));
        assert_eq!(found.await.code, Some(Code::Ok));
        sender.send_data(message(2)).await.unwrap();
        drop(sender);
        assert_eq!(seen(answer).await.code, Some(Code::Ok));
        rig.assert_idle().await;
        assert_ne!(read(&old), read(&new), "they are apart");
        assert_eq!(rig.dirty(), ["it"], "{stage}: old {:?}, new {:?}", read(&old), read(&new));
    }
}

/// The same rule, the other way round: nothing came in between.
#[tokio::test(start_paused = true)]
async fn a_conversation_alone_on_its_key_is_clean_whatever_else_is_open() {
    let (old, new) = (Log::default(), Log::default());
    let rig = at(Stage::WriteBoth, keyed(), logs(&old), logs(&new)).await;
    // Something without a key, which stays open.
    let (mut open, body) = piecewise();
    open.send_data(message(1)).await.unwrap();
    let other = rig.send(named(call(HALF, body), "x")).await.unwrap();
    let (mut sender, body) = piecewise();
    sender.send_data(message(1)).await.unwrap();
    let answer = rig.send(named(call(BIDI, body), "a")).await.unwrap();
    let_run().await;
    sender.send_data(message(2)).await.unwrap();
    drop(sender);
    assert_eq!(seen(answer).await.code, Some(Code::Ok));
    let_run().await;
    assert_eq!(read(&old), read(&new));
    drop(open);
    assert_eq!(seen(other).await.code, Some(Code::Ok));
    rig.assert_idle().await;
    assert_eq!(rig.dirty(), [""; 0]);
}

/// A copy reads the source in the middle of a write that still streams its
/// answer, and overwrites what the other leg had whole.
#[tokio::test(start_paused = true)]
async fn a_copy_in_the_middle_of_a_streaming_write_does_not_leave_the_sides_apart_unseen() {
    let side = |log: &Log, pause: u64| {
        let log = Arc::clone(log);
        Fake::new(move |request: Req| {
            let log = Arc::clone(&log);
            async move {
                let _ = request.into_body().collect().await;
                log.lock().unwrap().push("first".into());
                let (mut sender, body) = piecewise();
                tokio::spawn(async move {
                    let _ = sender.send_data(message(1)).await;
                    sleep(Duration::from_secs(pause)).await;
                    log.lock().unwrap().push("second".into());
                    let _ = sender.send_trailers(status(Code::Ok)).await;
                });
                Ok(streams(body))
            }
        })
    };
    let (old, new) = (Log::default(), Log::default());
    let rig = at(Stage::WriteBoth, keyed(), side(&old, 5), side(&new, 0)).await;
    let answer = rig.send(unary(DOWN, &StreamingOutputCallRequest::default())).await.unwrap();
    let client = tokio::spawn(seen(answer));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(read(&new), ["first", "second"]);
    let key = tower_migration::reconcile::Key::from("it");
    let copied = timeout(
        LIMIT,
        rig.handle.copy_key(&key, Side::Old, || async {
            let state = read(&old);
            *new.lock().unwrap() = state;
            Ok::<_, Infallible>(())
        }),
    );
    let copied = copied.await.unwrap();
    assert_eq!(client.await.unwrap().code, Some(Code::Ok));
    rig.assert_idle().await;
    assert!(
        read(&old) == read(&new) || rig.dirty() == ["it"],
        "{copied:?}: old {:?}, new {:?}, dirty {:?}",
        read(&old),
        read(&new),
        rig.dirty()
    );
}

/// `Limits::buffered_bytes`: "the bodies of all dual writes together".
#[tokio::test(start_paused = true)]
async fn first_messages_that_are_waited_for_count_as_buffered() {
    let limits = || Limits::default().body(1 << 20).buffered_bytes(1 << 20);
    let fine = || Fake::answers(|| says(&[message(1)], Code::Ok));
    let rig = Rig::new(keyed(), fine(), fine(), |layer| layer.limits(limits()).unwrap());
    let rig = rig.at(Stage::WriteBoth).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let (mut sender, body) = piecewise();
        // All but the last bytes of a message of nearly the limit.
        sender.send_data(message(1_000_000).slice(..900_000)).await.unwrap();
        let client = tokio::spawn(rig.send(call(UP, body)));
        open.push((sender, client));
    }
    let_run().await;
    let waiting = open.iter().filter(|(_, client)| !client.is_finished()).count();
    let gauge = count(&rig.handle, "tower_migration_buffered_bytes");
    assert!(
        waiting <= 1,
        "{waiting} requests keep 900 kB each (twice); the limit of all is 1 MiB, the gauge says {gauge}"
    );
}

/// design, section 3: "a shadow read never delays … the client's answer".
#[tokio::test(start_paused = true)]
async fn a_sampled_read_is_not_delayed_for_its_key() {
    let grpc = || Grpc::new().key(BIDI, |_| "it").unwrap().reads([BIDI]).unwrap();
    let mut took = Vec::new();
    for rate in [0.0, 1.0] {
        let log = Log::default();
        let rig = at(Stage::WriteBoth, grpc(), logs(&log), logs(&log)).await;
        rig.handle.set_shadow_rate(rate).unwrap();
        let (sender, body) = piecewise();
        let began = Instant::now();
        let answer = rig.send(named(call(BIDI, body), "a")).await.unwrap();
        took.push(began.elapsed());
        drop(sender);
        assert_eq!(seen(answer).await.code, Some(Code::Ok));
    }
    assert!(took[1] < Duration::from_millis(100), "unsampled {:?}, sampled {:?}", took[0], took[1]);
}

/// Answers at once, and reads on in a task.
fn answers_and_reads_on(log: &Log, pause: Duration) -> Fake {
    let log = Arc::clone(log);
    Fake::new(move |request: Req| {
        let log = Arc::clone(&log);
        async move {
            let mut body = request.into_body();
            let _ = body.frame().await;
            tokio::spawn(async move {
                sleep(pause).await;
                let mut read = 0;
                loop {
                    match body.frame().await {
                        Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                        Some(Err(error)) => {
                            log.lock().unwrap().push(format!("{error}"));
                            return;
                        }
                        None => break,
                    }
                }
                log.lock().unwrap().push(format!("read {read}"));
            });
            Ok(only(Code::Ok))
        }
    })
}

/// "one that answers before the body has ended", and "cut off and counted
/// (dirty or un-synced)".
#[tokio::test(start_paused = true)]
async fn a_side_that_has_answered_and_is_cut_off_leaves_the_key_dirty() {
    let (old, new) = (Log::default(), Log::default());
    let streaming = Streaming::new().lag(4_000).slow_leg(SlowLeg::CutOff);
    let grpc = keyed().streaming(streaming).unwrap();
    let slow = answers_and_reads_on(&new, Duration::from_secs(5));
    let rig = at(Stage::WriteBoth, grpc, answers_and_reads_on(&old, Duration::ZERO), slow).await;
    let (mut sender, body) = piecewise();
    sender.send_data(message(9)).await.unwrap();
    assert_eq!(rig.ask(call(UP, body)).await.code, Some(Code::Ok));
    for _ in 0..200 {
        sender.send_data(message(1_000)).await.unwrap();
    }
    drop(sender);
    sleep(Duration::from_secs(20)).await;
    rig.assert_idle().await;
    assert_ne!(read(&old), read(&new));
    assert_eq!(rig.dirty(), ["it"], "old {:?}, new {:?}", read(&old), read(&new));
}

/// docs/streams.md, "Steps": "a write's request that still arrives: … `settled()`
/// waits for it".
#[tokio::test(start_paused = true)]
async fn a_request_that_still_arrives_holds_up_settling() {
    for stage in [Stage::WriteBoth] {
        let (old, new) = (Log::default(), Log::default());
        let side = |log| answers_and_reads_on(log, Duration::ZERO);
        let rig = Rig::new(keyed(), side(&old), side(&new), |layer| layer).at(stage).await;
        let (mut sender, body) = piecewise();
        sender.send_data(message(9)).await.unwrap();
        assert_eq!(rig.ask(call(UP, body)).await.code, Some(Code::Ok));
        rig.handle.move_to(Stage::OldOnly).await.unwrap();
        let settled = timeout(GRACE, rig.handle.settled()).await.is_ok();
        sender.send_data(message(1_000)).await.unwrap();
        drop(sender);
        let_run().await;
        assert!(!settled, "{stage}: settled, and then old has {:?}", read(&old));
    }
}

/// docs/grpc.md: `close_streams_after` "ends such calls a grace period after the
/// flag has moved on".
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_head_is_closed_in_every_stage() {
    let mut late = Vec::new();
    for stage in [Stage::OldOnly, Stage::WriteBoth, Stage::ReadNew] {
        for path in [DOWN, UP, BIDI] {
            let grpc = keyed().close_streams_after(GRACE).unwrap();
            let rig = Rig::new(grpc, Fake::hangs(), Fake::hangs(), |layer| layer);
            let rig = rig.at(stage).await;
            rig.handle.confirm_synced(stage.authority().other()).await.ok();
            // A whole request; its handler does not come to an answer.
            let request = unary(path, &StreamingOutputCallRequest::default());
            let sent = rig.send(request);
            let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
            let_run().await;
            let to = match stage {
                Stage::OldOnly => Stage::WriteBoth,
                Stage::WriteBoth => Stage::OldOnly,
                _ => Stage::NewOnly,
            };
            rig.handle.move_to(to).await.unwrap();
            let began = Instant::now();
            rig.handle.settled().await;
            let took = began.elapsed();
            let told = timeout(LIMIT, client).await.unwrap().unwrap();
            if took >= GRACE * 3 || !told.text.contains("reconnect") {
                late.push(format!("{stage} {path}: settled after {took:?}, told {:?}", told.code));
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

/// A read that takes longer to send than the fallback's limit is served as
/// without the fallback.
#[tokio::test(start_paused = true)]
async fn a_streaming_read_is_not_failed_by_a_read_fallback() {
    let grpc = || Grpc::new().descriptors(INTEROP).unwrap().reads([UP]).unwrap();
    let fine = || Fake::answers(|| says(&[message(1)], Code::Ok));
    let rig = Rig::new(grpc(), fine(), fine(), |layer| layer.read_fallback(GRACE).unwrap());
    let rig = rig.at(Stage::WriteBoth).await;
    let (mut sender, body) = piecewise();
    sender.send_data(message(9)).await.unwrap();
    let sent = rig.send(call(UP, body));
    let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
    sleep(GRACE * 2).await;
    let _ = sender.send_data(message(9)).await;
    drop(sender);
    let found = client.await.unwrap();
    assert_eq!(found.code, Some(Code::Ok), "{}", found.text);
}

/// docs/grpc.md, "Legs in time": `leg_timeout` runs "for the other side's answer
/// from the end of the authority's". A client that waits for the call's status
/// before it ends its own half is normal in a call that goes both ways.
#[tokio::test(start_paused = true)]
async fn a_call_that_the_authority_ends_early_is_not_held_for_ever_by_the_other_side() {
    use tower_migration::FailurePolicy::{AwaitBoth, RequireBoth};
    let mut hung = Vec::new();
    for policy in [AwaitBoth, RequireBoth] {
        for code in [Code::Ok, Code::InvalidArgument] {
            for in_trailers in [false, true] {
                let ends = Fake::new(move |request: Req| async move {
                    let mut body = request.into_body();
                    let _ = body.frame().await;
                    drop(body);
                    Ok(if in_trailers { says_late(&[message(1)], code) } else { only(code) })
                });
                let log = Log::default();
                let rig = Rig::new(keyed(), ends, logs(&log), |layer| layer.failure_policy(policy));
                let rig = rig.at(Stage::WriteBoth).await;
                rig.handle.confirm_synced(Side::New).await.unwrap();
                let (mut sender, body) = piecewise();
                sender.send_data(message(9)).await.unwrap();
                let sent = rig.send(named(call(BIDI, body), "a"));
                let client = async move { seen(sent.await.unwrap()).await };
                if timeout(Duration::from_secs(3600), client).await.is_err() {
                    let status = rig.handle.status();
                    let writes = (status.on_old.writes, status.on_new.writes);
                    hung.push((policy, code, in_trailers, writes));
                }
                drop(sender);
            }
        }
    }
    assert!(hung.is_empty(), "no status after an hour: {hung:?}");
}

/// design, section 3: "Bounded everywhere". A client that sends chunks of no
/// bytes before its first message.
#[tokio::test(start_paused = true)]
async fn empty_chunks_before_the_first_message_are_not_kept_without_end() {
    struct Chunk(Arc<()>);
    impl AsRef<[u8]> for Chunk {
        fn as_ref(&self) -> &[u8] {
            assert!(Arc::strong_count(&self.0) > 0);
            &[]
        }
    }
    const SENT: usize = 300_000;
    let fine = || Fake::answers(|| says(&[message(1)], Code::Ok));
    let rig = at(Stage::WriteBoth, keyed(), fine(), fine()).await;
    let alive = Arc::new(());
    let counted = Arc::clone(&alive);
    let mut left = SENT;
    let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |_| {
        if left == 0 {
            return std::task::Poll::Pending;
        }
        left -= 1;
        let chunk = Bytes::from_owner(Chunk(Arc::clone(&counted)));
        let frame = http_body::Frame::data(chunk);
        std::task::Poll::Ready(Some(Ok::<_, tower_migration::BoxError>(frame)))
    }));
    let client = tokio::spawn(rig.send(call(UP, tonic::body::Body::new(body))));
    let_run().await;
    let kept = Arc::strong_count(&alive).saturating_sub(2);
    assert!(
        kept < 10_000,
        "{kept} chunks of one request are kept; finished: {}",
        client.is_finished()
    );
}

/// record.rs: "A write … of the key that did not know of this write may have come
/// before it on one side and after it on the other." A call that has one key from
/// its request and learns another from its answer.
#[tokio::test(start_paused = true)]
async fn a_key_learned_late_is_doubted_if_another_write_of_it_came_in_between() {
    use crate::support::{AIRPORTS, airports::Airport};
    const PUT: &str = "/airports.v1.Airports/Put";
    const IMPORT: &str = "/airports.v1.Airports/Import";
    let side = |log: &Log, before: u64, after: u64| {
        let log = Arc::clone(log);
        Fake::new(move |request: Req| {
            let log = Arc::clone(&log);
            async move {
                let import = request.uri().path() == IMPORT;
                let _ = request.into_body().collect().await;
                if import {
                    sleep(Duration::from_secs(before)).await;
                }
                log.lock().unwrap().push(if import { "import" } else { "put" }.into());
                if import {
                    sleep(Duration::from_secs(after)).await;
                }
                let answer = Airport { code: "L".into(), ..Default::default() };
                Ok(says(&[framed(&answer)], Code::Ok))
            }
        })
    };
    let mut found = Vec::new();
    for keyed in [false, true] {
        let (old, new) = (Log::default(), Log::default());
        let mut grpc = Grpc::new().descriptors(AIRPORTS).unwrap().key(PUT, |_| "L").unwrap();
        if keyed {
            grpc = grpc.key(IMPORT, |_| "A").unwrap();
        }
        let grpc = grpc.answer_key_of(IMPORT, |answer: &Airport| answer.code.clone()).unwrap();
        let rig = at(Stage::WriteBoth, grpc, side(&old, 0, 2), side(&new, 5, 0)).await;
        let first = tokio::spawn({
            let sent = rig.send(unary(IMPORT, &Airport { code: "A".into(), ..Default::default() }));
            async move { seen(sent.await.unwrap()).await }
        });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.ask(unary(PUT, &Airport::default())).await.code, Some(Code::Ok));
        assert_eq!(first.await.unwrap().code, Some(Code::Ok));
        rig.assert_idle().await;
        assert_ne!(read(&old), read(&new));
        found.push((keyed, rig.dirty().contains(&"L".to_owned())));
    }
    assert_eq!(found, [(false, true), (true, true)], "(has a key of its own, L is dirty)");
}

/// `Grpc::glance` knows "a page that is served beside gRPC"; `Grpc::judge` does
/// not: a `POST` beside gRPC (axum and tonic in one router) that both sides answer
/// with 200 counts as failed on both.
#[tokio::test(start_paused = true)]
async fn a_post_that_is_served_beside_grpc_and_goes_well_on_both_sides_is_clean() {
    use tower_migration::FailurePolicy::{AuthorityWins, RequireBoth};
    let mut found = Vec::new();
    for policy in [AuthorityWins, RequireBoth] {
        let page = || {
            Fake::new(|request: Req| async move {
                let _ = request.into_body().collect().await;
                let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from("done")));
                Ok(http::Response::builder()
                    .header("content-type", "text/plain")
                    .body(body)
                    .unwrap())
            })
        };
        let rig = Rig::new(keyed(), page(), page(), |layer| layer.failure_policy(policy));
        let rig = rig.at(Stage::WriteBoth).await;
        rig.handle.confirm_synced(Side::New).await.unwrap();
        let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from("form")));
        let request = http::Request::post("http://here/hook").body(body).unwrap();
        let answer = rig.ask(request).await;
        rig.assert_idle().await;
        found.push((policy, answer.code, answer.data, rig.handle.status().sync.new));
    }
    let clean = found.iter().all(|(_, code, data, sync)| {
        code.is_none() && data == "done" && *sync == SyncState::Synced
    });
    assert!(clean, "{found:?}");
}
