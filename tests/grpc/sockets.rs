//! What only real connections do: limits of a server's own, streams that are
//! reset, clients that come again.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, body::Body, service::Routes};
use tower_migration::{MigrationHandle, Side, Stage, protocol::grpc::Grpc};

use crate::{
    closing::{BIDI, DOWN, UP, count},
    fake::{Req, Sender, assert_idle, call, framed, piecewise, unary},
    interop::{Interop, SLEEP},
    support::{
        INTEROP, connect, go,
        proto::{
            test_service_client::TestServiceClient, test_service_server::TestServiceServer, *,
        },
        serve,
    },
};

const LIMIT: Duration = Duration::from_secs(20);
const UNARY: &str = "/grpc.testing.TestService/UnaryCall";

fn grpc() -> Grpc {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    [UNARY, UP, DOWN, BIDI].iter().fold(grpc, |grpc, path| grpc.key(path, |_| "it").unwrap())
}

fn handle() -> MigrationHandle {
    let handle = MigrationHandle::builder("sockets").linger(Duration::from_millis(50));
    handle.build().unwrap()
}

async fn start(
    stage: Stage,
    grpc: Grpc,
    old: Routes,
    new: Routes,
) -> (MigrationHandle, SocketAddr) {
    let handle = handle();
    let address = serve(&handle, grpc, old, new).await;
    go(&handle, stage).await;
    if stage.is_two_sided() {
        handle.confirm_synced(stage.authority().other()).await.unwrap();
    }
    (handle, address)
}

fn dirty(handle: &MigrationHandle) -> Vec<String> {
    handle.dirty_keys().iter().map(|dirty| dirty.key.as_str().to_owned()).collect()
}

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; size] })
}

#[tokio::test]
async fn a_message_that_is_too_large_for_one_side_alone_leaves_the_key_dirty() {
    let whole = || Routes::new(Interop::default().served());
    let limited: [(bool, fn() -> Routes); 2] = [
        (true, || {
            Routes::new(TestServiceServer::new(Interop::default()).max_decoding_message_size(1_000))
        }),
        (false, || {
            Routes::new(TestServiceServer::new(Interop::default()).max_encoding_message_size(1_000))
        }),
    ];
    for (sent, limited) in limited {
        for authority in [true, false] {
            for large in [true, false] {
                let what = format!("sent: {sent} authority: {authority} large: {large}");
                let (old, new) =
                    if authority { (limited(), whole()) } else { (whole(), limited()) };
                let (handle, address) = start(Stage::WriteBoth, grpc(), old, new).await;
                let mut client = TestServiceClient::new(connect(address).await);
                let size = if large { 5_000 } else { 500 };
                let (asked, given) = if sent { (size, 0) } else { (0, size) };
                let request = SimpleRequest {
                    response_size: i32::try_from(given).unwrap(),
                    payload: payload(asked),
                    ..Default::default()
                };
                let unary = client.unary_call(request).await;
                assert_eq!(unary.is_err(), authority && large, "{what} {unary:?}");
                assert_idle(&handle).await;
                let wanted: &[&str] = if large { &["it"] } else { &[] };
                assert_eq!(dirty(&handle), wanted, "{what}");
                for key in handle.dirty_keys() {
                    let nothing = || async { Ok::<_, std::convert::Infallible>(()) };
                    handle.copy_key(&key.key, Side::Old, nothing).await.unwrap();
                }
                // Both ways, the second message only.
                let ask = |asked, given: usize| {
                    let size = i32::try_from(given).unwrap();
                    let response_parameters =
                        vec![ResponseParameters { size, ..Default::default() }];
                    StreamingOutputCallRequest {
                        response_parameters,
                        payload: payload(asked),
                        ..Default::default()
                    }
                };
                let messages = tokio_stream::iter([ask(1, 1), ask(asked, given)]);
                let mut answers = client.full_duplex_call(messages).await.unwrap().into_inner();
                let mut seen = 0;
                let end = loop {
                    match answers.message().await {
                        Ok(Some(_)) => seen += 1,
                        Ok(None) => break None,
                        Err(status) => break Some(status.code()),
                    }
                };
                assert_eq!(end.is_some(), authority && large, "{what} {end:?}");
                assert!(seen == 2 || (authority && large && seen < 2), "{what} {seen}");
                assert_idle(&handle).await;
                assert_eq!(dirty(&handle), wanted, "{what}");
            }
        }
    }
}

async fn plain(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let (send, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    send
}

async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, reached).await.expect("it comes to that");
}

fn loads(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

fn input() -> Bytes {
    framed(&StreamingInputCallRequest { payload: payload(9), ..Default::default() })
}

#[tokio::test]
async fn a_client_that_resets_its_stream_leaves_nothing_half_done_unseen() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let (old, new) = (Interop::default(), Interop::default());
        let (handle, address) =
            start(stage, grpc(), Routes::new(old.served()), Routes::new(new.served())).await;
        let mut client = plain(address).await;
        let calls = || (old.calls(), new.calls());
        let part = input().slice(..3);

        // Before the first message is whole: no side has seen it.
        for path in [UNARY, UP] {
            let (sender, answer) = begin(&mut client, path, &part).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.abort("reset".into());
            assert!(answer.await.unwrap().is_err());
            assert_idle(&handle).await;
            assert_eq!(calls(), (0, 0), "{path}");
        }
        assert_eq!(dirty(&handle), [""; 0]);

        // While it waits for the answer to all that it has sent: nothing is lost.
        let mut request = unary(UNARY, &SimpleRequest::default());
        request.headers_mut().insert(SLEEP, 200.into());
        let answer = tokio::spawn(client.send_request(request));
        until(|| calls() == (1, 1)).await;
        answer.abort();
        assert_idle(&handle).await;
        assert_eq!(dirty(&handle), [""; 0]);

        // In the middle of the answer.
        let parameter = ResponseParameters { size: 100_000, ..Default::default() };
        let request = StreamingOutputCallRequest {
            response_parameters: vec![parameter; 20],
            ..Default::default()
        };
        let mut answer = client.send_request(unary(DOWN, &request)).await.unwrap();
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
        drop(answer);
        assert_idle(&handle).await;
        assert_eq!(calls(), (2, 2));
        assert_eq!(dirty(&handle), [""; 0]);

        // In the middle of the request, which both sides are reading.
        let (mut sender, answer) = begin(&mut client, UP, &input()).await;
        until(|| (loads(&old.messages), loads(&new.messages)) == (2, 2)).await;
        sender.send_data(part.clone()).await.unwrap();
        sender.abort("reset".into());
        assert!(answer.await.unwrap().is_err());
        assert_idle(&handle).await;
        assert_eq!((loads(&old.ended), loads(&new.ended)), (0, 0));
        assert_eq!(dirty(&handle), ["it"], "{stage}");
        timeout(LIMIT, handle.settled()).await.unwrap();
    }
}

/// What is no message: too short, with a flag that there is not, and one that
/// says nothing to the method.
#[tokio::test]
async fn malformed_requests_end_as_without_the_layer() {
    let bare = crate::support::serve_bare(Routes::new(Interop::default().served())).await;
    let bad: [&[u8]; 5] =
        [b"\0\0", b"\x07\0\0\0\0", b"\0\0\0\0\x09abc", b"\0\0\0\0\x02\xff\xff", b""];
    for stage in Stage::ALL {
        let side = || Routes::new(Interop::default().served());
        let (handle, address) = start(stage, grpc(), side(), side()).await;
        let (mut wanted, mut found) = (plain(bare).await, plain(address).await);
        for bytes in bad {
            for path in [UNARY, UP, DOWN, BIDI] {
                let ask =
                    || call(path, Body::new(http_body_util::Full::new(Bytes::from_static(bytes))));
                let wanted = said(wanted.send_request(ask()).await.unwrap()).await;
                let found = said(found.send_request(ask()).await.unwrap()).await;
                assert_eq!(found, wanted, "{stage} {path} {bytes:?}");
            }
        }
        assert_idle(&handle).await;
        timeout(LIMIT, handle.settled()).await.unwrap();
    }
}

/// The status of an answer, and its text.
async fn said(answer: http::Response<hyper::body::Incoming>) -> Vec<String> {
    let (parts, body) = answer.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    ["grpc-status", "grpc-message"]
        .iter()
        .flat_map(|name| parts.headers.get(*name).or_else(|| trailers.get(*name)))
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

type Answer = tokio::task::JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>>;

async fn begin(client: &mut SendRequest<Body>, path: &str, first: &Bytes) -> (Sender, Answer) {
    let (mut sender, body) = piecewise();
    sender.send_data(first.clone()).await.unwrap();
    let request: Req = call(path, body);
    (sender, tokio::spawn(client.send_request(request)))
}

#[tokio::test]
async fn a_client_that_is_told_to_come_again_is_served_by_the_new_stage() {
    for stage in [Stage::OldOnly, Stage::WriteBoth] {
        let (old, new) = (Interop::default(), Interop::default());
        let grpc = Grpc::new().descriptors(INTEROP).unwrap();
        let grpc = grpc.close_streams_after(Duration::from_millis(100)).unwrap();
        let routes = |side: &Interop| Routes::new(side.served());
        let (handle, address) = start(stage, grpc, routes(&old), routes(&new)).await;
        let mut client = TestServiceClient::new(connect(address).await);

        let (tell, told) = tokio::sync::mpsc::channel(1);
        let open = client.full_duplex_call(ReceiverStream::new(told)).await;
        let mut answers = open.unwrap().into_inner();
        let ask = || StreamingOutputCallRequest {
            response_parameters: vec![ResponseParameters { size: 9, ..Default::default() }],
            ..Default::default()
        };
        tell.send(ask()).await.unwrap();
        assert!(answers.message().await.unwrap().is_some());
        let (up_tell, up_told) = tokio::sync::mpsc::channel(1);
        let mut up_client = client.clone();
        let up = tokio::spawn(async move {
            up_client.streaming_input_call(ReceiverStream::new(up_told)).await
        });
        up_tell.send(StreamingInputCallRequest::default()).await.unwrap();
        until(|| loads(&old.messages) == 2).await;

        let step = tokio::spawn({
            let handle = handle.clone();
            async move { handle.advance().await }
        });
        let status = timeout(LIMIT, answers.message()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{stage}");
        assert_eq!(status.message(), "the service is being migrated: reconnect");
        let status = timeout(LIMIT, up).await.unwrap().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{stage}");
        assert!(status.message().contains("reconnect"), "{}", status.message());
        let _ = step.await.unwrap();
        timeout(LIMIT, handle.settled()).await.unwrap();
        assert_idle(&handle).await;
        assert!((count(&handle, "tower_migration_closed_streams_total") - 2.0).abs() < 0.1);

        // What it goes on sending on the closed streams reaches no side.
        let seen = || (loads(&old.messages), loads(&new.messages));
        let before = seen();
        for _ in 0..3 {
            let _ = tell.try_send(ask());
            let _ = up_tell.try_send(StreamingInputCallRequest::default());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(seen(), before, "{stage}");

        // Unary calls have gone on; and it may come again.
        client.unary_call(SimpleRequest::default()).await.unwrap();
        let again = client.full_duplex_call(tokio_stream::iter([ask()])).await;
        let mut answers = again.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        assert!(answers.message().await.unwrap().is_none());
        assert_idle(&handle).await;
        assert_eq!(seen(), (before.0 + 1, before.1 + 1), "{stage}");
    }
}
