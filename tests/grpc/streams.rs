//! Streams whose ends do not do what one would like.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Code;
use tower_migration::{
    FailurePolicy, Side, Stage, WriteOrder,
    body::{SlowLeg, Streaming},
    protocol::grpc::Grpc,
};

use crate::{
    closing::{BIDI, UP},
    fake::*,
    support::{INTEROP, proto::*},
};

const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(5);

fn keyed() -> Grpc {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    grpc.key(UP, |_| "it").unwrap().key(BIDI, |_| "it").unwrap()
}

fn message(size: usize) -> Bytes {
    let payload = Some(Payload { r#type: 0, body: vec![0; size] });
    framed(&StreamingInputCallRequest { payload, ..Default::default() })
}

fn fine() -> Res {
    says(&[framed(&StreamingInputCallResponse::default())], Code::Ok)
}

/// How much a side has read, and how that ended.
type Read = Arc<Mutex<(usize, Option<bool>)>>;

/// Reads all, then answers well, or with `INTERNAL` if the request broke off.
fn reads_all(read: &Read) -> Fake {
    let read = Arc::clone(read);
    Fake::new(move |request: Req| {
        let read = Arc::clone(&read);
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => read.lock().unwrap().0 += frame.data_ref().map_or(0, Bytes::len),
                    Err(_) => {
                        read.lock().unwrap().1 = Some(false);
                        return Ok(only(Code::Internal));
                    }
                }
            }
            read.lock().unwrap().1 = Some(true);
            Ok(fine())
        }
    })
}

/// Reads the first chunk, keeps the rest, and answers only after a long time.
fn stops_reading() -> Fake {
    Fake::new(|request: Req| async move {
        let mut body = request.into_body();
        let _ = body.frame().await;
        tokio::time::sleep(PAUSE * 3).await;
        drop(body);
        Ok(fine())
    })
}

/// Reads the first chunk and answers.
fn answers_early(code: Code) -> Fake {
    Fake::new(move |request: Req| async move {
        let mut body = request.into_body();
        let _ = body.frame().await;
        Ok(only(code))
    })
}

async fn at(stage: Stage, grpc: Grpc, mine: Fake, theirs: Fake) -> Rig {
    let (old, new) = match stage.authority() {
        Side::Old => (mine, theirs),
        Side::New => (theirs, mine),
    };
    let rig = Rig::new(grpc, old, new, |layer| layer).at(stage).await;
    rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
    rig
}

/// Sends so many messages, then ends the request. How many were taken.
async fn send(sender: &mut Sender, times: usize) -> usize {
    for sent in 0..times {
        if sender.send_data(message(1_000)).await.is_err() {
            return sent;
        }
    }
    times
}

const TWO_SIDED: [Stage; 2] = [Stage::WriteBoth, Stage::ReadNew];

#[tokio::test(start_paused = true)]
async fn a_side_that_stops_reading_is_cut_off_at_once_or_after_a_while() {
    for stage in TWO_SIDED {
        for hold in [false, true] {
            let slow = if hold { SlowLeg::Hold(PAUSE) } else { SlowLeg::CutOff };
            let grpc = keyed().streaming(Streaming::new().lag(4_000).slow_leg(slow)).unwrap();
            let read = Read::default();
            let rig = at(stage, grpc, reads_all(&read), stops_reading()).await;
            let (mut sender, body) = piecewise();
            let began = tokio::time::Instant::now();
            let client = tokio::spawn({
                let sent = rig.send(call(UP, body));
                async move { seen(sent.await.unwrap()).await }
            });
            assert_eq!(send(&mut sender, 200).await, 200);
            drop(sender);
            let found = timeout(LIMIT, client).await.unwrap().unwrap();
            assert_eq!(found.code, Some(Code::Ok));
            let took = began.elapsed();
            assert_eq!(took >= PAUSE, hold, "{took:?}");
            assert!(took < PAUSE * 2, "{took:?}");
            assert_eq!(*read.lock().unwrap(), (200 * message(1_000).len(), Some(true)));
            rig.assert_idle().await;
            assert_eq!(rig.dirty(), ["it"], "{stage} {hold}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_stops_reading_is_waited_for() {
    for stage in TWO_SIDED {
        let slow = SlowLeg::Hold(Duration::from_millis(1));
        let grpc = keyed().streaming(Streaming::new().lag(4_000).slow_leg(slow)).unwrap();
        let read = Read::default();
        // Slow, but it reads on in the end.
        let slow = Fake::new(|request: Req| async move {
            let mut body = request.into_body();
            let _ = body.frame().await;
            tokio::time::sleep(PAUSE).await;
            while let Some(Ok(_)) = body.frame().await {}
            Ok(fine())
        });
        let rig = at(stage, grpc, slow, reads_all(&read)).await;
        let (mut sender, body) = piecewise();
        sender.send_data(message(9)).await.unwrap();
        let sent = rig.send(call(UP, body));
        let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
        // What is here when the call begins is taken as one piece.
        let_run().await;
        let sending = tokio::spawn(async move { send(&mut sender, 200).await });
        tokio::time::sleep(PAUSE / 2).await;
        let (far, _) = *read.lock().unwrap();
        assert!(far <= 8_000, "within the lag: {far}");
        assert_eq!(sending.await.unwrap(), 200);
        assert_eq!(client.await.unwrap().code, Some(Code::Ok));
        rig.assert_idle().await;
        assert_eq!(read.lock().unwrap().1, Some(true));
        assert_eq!(rig.dirty(), [""; 0], "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_answers_before_the_end_does_not_stop_the_other() {
    for stage in TWO_SIDED {
        for path in [UP, BIDI] {
            // The other side turns the call away, the authority reads on.
            let read = Read::default();
            let rig =
                at(stage, keyed(), reads_all(&read), answers_early(Code::InvalidArgument)).await;
            let (mut sender, body) = piecewise();
            sender.send_data(message(9)).await.unwrap();
            let sent = rig.send(call(path, body));
            let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
            let_run().await;
            assert_eq!(send(&mut sender, 100).await, 100);
            drop(sender);
            assert_eq!(client.await.unwrap().code, Some(Code::Ok));
            rig.assert_idle().await;
            assert_eq!(read.lock().unwrap().1, Some(true));
            assert_eq!(rig.dirty(), ["it"], "{stage}");

            // The authority does, and the other side reads on.
            let read = Read::default();
            let rig =
                at(stage, keyed(), answers_early(Code::InvalidArgument), reads_all(&read)).await;
            let (mut sender, body) = piecewise();
            sender.send_data(message(9)).await.unwrap();
            let found = rig.ask(call(path, body)).await;
            assert_eq!((found.code, found.early), (Some(Code::InvalidArgument), true));
            assert_eq!(send(&mut sender, 100).await, 100);
            drop(sender);
            rig.assert_idle().await;
            assert_eq!(read.lock().unwrap().1, Some(true));
            assert_eq!(rig.dirty(), ["it"], "{stage}");

            // Both do.
            let early = || answers_early(Code::InvalidArgument);
            let rig = at(stage, keyed(), early(), early()).await;
            let (mut sender, body) = piecewise();
            sender.send_data(message(9)).await.unwrap();
            assert_eq!(rig.ask(call(path, body)).await.code, Some(Code::InvalidArgument));
            rig.assert_idle().await;
            assert!(send(&mut sender, 100).await < 100, "nobody reads it any more");
            // What they have done before they refused is not known.
            assert_eq!(rig.dirty(), ["it"], "{stage}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_see_a_stream_break_off_and_its_key_is_dirty() {
    for stage in TWO_SIDED {
        for policy in
            [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth]
        {
            let (mine, theirs) = (Read::default(), Read::default());
            let rig = Rig::new(keyed(), reads_all(&mine), reads_all(&theirs), |layer| {
                layer.failure_policy(policy)
            });
            let rig = rig.at(stage).await;
            rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
            let (mut sender, body) = piecewise();
            sender.send_data(message(9)).await.unwrap();
            let sent = rig.send(call(UP, body));
            let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
            let_run().await;
            sender.abort("reset".into());
            let found = client.await.unwrap();
            let code = match policy {
                FailurePolicy::RequireBoth => Code::Unavailable,
                _ => Code::Internal,
            };
            assert_eq!(found.code, Some(code), "{policy:?}");
            rig.assert_idle().await;
            for read in [mine, theirs] {
                assert_eq!(*read.lock().unwrap(), (message(9).len(), Some(false)));
            }
            assert_eq!(rig.dirty(), ["it"], "{stage} {policy:?}");
            timeout(LIMIT, rig.handle.settled()).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_off_is_seen_by_no_side() {
    for stage in TWO_SIDED {
        // Known to be unary; and of a stream, before its first message is here.
        for path in ["/grpc.testing.TestService/UnaryCall", UP, BIDI] {
            let rig = at(stage, keyed(), Fake::hangs(), Fake::hangs()).await;
            let (mut sender, body) = piecewise();
            sender.send_data(message(100).slice(..50)).await.unwrap();
            let sent = rig.send(call(path, body));
            let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
            let_run().await;
            sender.abort("reset".into());
            assert_eq!(client.await.unwrap().code, Some(Code::Cancelled), "{path}");
            rig.assert_idle().await;
            assert_eq!((rig.old.count(), rig.new.count()), (0, 0), "{path}");
            assert_eq!(rig.dirty(), [""; 0]);
            assert!(rig.handle.status().settled);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_any_more_runs_to_its_end_on_both_sides() {
    for stage in TWO_SIDED {
        // Given up before the head, and in the middle of the answer.
        for headless in [true, false] {
            let side = move || {
                Fake::new(move |request: Req| async move {
                    let _ = request.into_body().collect().await;
                    if headless {
                        tokio::time::sleep(PAUSE).await;
                        return Ok(fine());
                    }
                    let (mut sender, body) = piecewise();
                    tokio::spawn(async move {
                        sender.send_data(message(9)).await.unwrap();
                        tokio::time::sleep(PAUSE).await;
                        sender.send_data(message(9)).await.unwrap();
                        sender.send_trailers(status(Code::Ok)).await.unwrap();
                    });
                    Ok(streams(body))
                })
            };
            let path = "/grpc.testing.TestService/StreamingOutputCall";
            let grpc = keyed().key(path, |_| "it").unwrap();
            let rig = at(stage, grpc, side(), side()).await;
            let sent =
                rig.send(call(path, tonic::body::Body::new(http_body_util::Full::new(message(9)))));
            let client = tokio::spawn(async move {
                let mut answer = sent.await.unwrap();
                let _ = answer.body_mut().frame().await;
                std::future::pending::<()>().await;
            });
            tokio::time::sleep(PAUSE / 2).await;
            client.abort();
            let_run().await;
            assert_eq!(rig.handle.status().on_old.writes, 1);
            assert_eq!(rig.handle.status().on_new.writes, 1);
            rig.assert_idle().await;
            assert_eq!(rig.dirty(), [""; 0], "{stage} {headless}");
            assert_eq!((rig.old.count(), rig.new.count()), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_reaches_both_legs_and_shadows() {
    let grpc = keyed().reads(["/grpc.testing.TestService/EmptyCall"]).unwrap();
    let rig = at(Stage::WriteBoth, grpc, Fake::answers(fine), Fake::answers(fine)).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    for path in
        [UP, BIDI, "/grpc.testing.TestService/UnaryCall", "/grpc.testing.TestService/EmptyCall"]
    {
        let mut request = unary(path, &Empty {});
        request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
        request.headers_mut().insert("x-mine", "1".parse().unwrap());
        assert_eq!(rig.ask(request).await.code, Some(Code::Ok));
        rig.assert_idle().await;
        for side in [&rig.old, &rig.new] {
            let call = side.calls().pop().unwrap();
            assert_eq!(call.path, path);
            assert_eq!(call.headers["grpc-timeout"], "50m");
            assert_eq!(call.headers["x-mine"], "1");
            assert_eq!(call.headers["te"], "trailers");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_cannot_be_had_with_the_authority_first() {
    let rig = Rig::new(keyed(), Fake::answers(fine), Fake::answers(fine), |layer| {
        layer.write_order(WriteOrder::AuthorityFirst)
    });
    let rig = rig.at(Stage::WriteBoth).await;
    let (mut sender, body) = piecewise();
    sender.send_data(message(9)).await.unwrap();
    let found = timeout(LIMIT, rig.ask(call(BIDI, body))).await.unwrap();
    assert_eq!(found.code, Some(Code::DeadlineExceeded));
    assert_eq!((rig.old.count(), rig.new.count()), (0, 0), "and nothing is half done");
    rig.assert_idle().await;
    // One that has sent all is as any other.
    let (mut sender, body) = piecewise();
    sender.send_data(message(9)).await.unwrap();
    drop(sender);
    assert_eq!(rig.ask(call(BIDI, body)).await.code, Some(Code::Ok));
    rig.assert_idle().await;
    assert_eq!((rig.old.count(), rig.new.count()), (1, 1));
    assert_eq!(rig.dirty(), [""; 0]);
}
