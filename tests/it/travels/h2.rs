//! Many streams on one connection of HTTP/2.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::StatusCode,
    routing::put,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, channel::Channel};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle};
use tower_migration::{Limits, MigrationLayer, Side, Stage};

use super::{Rig, Seat, soon, text, until, whole};
use crate::support::Latch;

/// One connection, and the task that drives it.
pub(super) async fn connect(rig: &Rig) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = soon("a connection", TcpStream::connect(rig.address)).await.unwrap();
    let (client, driver) =
        soon("a handshake", handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
    (client, tokio::spawn(driver))
}

#[tokio::test]
async fn many_concurrent_streams_run_beside_each_other() {
    const STREAMS: usize = 80;
    let latch = Latch::default();
    let side = |seat: Seat| {
        let latch = latch.clone();
        let any = async move |Path(id): Path<usize>, body: String| {
            seat.note(format!("{id} {body}"));
            latch.passed().await;
            format!("{id} {body}")
        };
        Router::new().route("/{id}", put(any.clone()).get(any))
    };
    let rig = Rig::with(
        side,
        |layer| layer.limits(Limits::default().shadow_tasks(STREAMS)).unwrap(),
        whole,
    )
    .await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let (client, _driver) = connect(&rig).await;
        latch.close();
        let requests: Vec<_> = (0..STREAMS)
            .map(|id| {
                // Writes and reads, of different things.
                let (method, body) = if id % 2 == 0 { ("PUT", "body") } else { ("GET", "") };
                let request =
                    rig.request(method, &format!("/{id}")).body(Body::from(body)).unwrap();
                let mut client = client.clone();
                tokio::spawn(async move { client.send_request(request).await })
            })
            .collect();
        // Nothing is answered before all of them are under way.
        let authority = rig.seat(stage.authority());
        until("all of them to be under way", || authority.noted() == STREAMS).await;
        latch.open();
        for (id, request) in requests.into_iter().enumerate() {
            let answer = soon("an answer", request).await.unwrap().unwrap();
            let body = if id % 2 == 0 { "body" } else { "" };
            assert_eq!(answer.status(), StatusCode::OK, "{stage} {id}");
            assert_eq!(text(answer).await, format!("{id} {body}"), "{stage}");
        }
        for seat in rig.reached() {
            until("the other side to see them", || seat.noted() == STREAMS).await;
            seat.take();
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

/// What an upload has taken of the connection's window is given back.
#[tokio::test]
async fn uploads_that_are_refused_leave_the_connection_as_it_was() {
    const CHUNK: usize = 64 << 10;
    let side = |seat: Seat| {
        let take = async move |body: Bytes| seat.note(body.len().to_string());
        // Answers without having read anything.
        let refuse = async |_: Request| StatusCode::FORBIDDEN;
        Router::new().route("/take", put(take)).route("/refuse", put(refuse).get(refuse))
    };
    let set = |layer: MigrationLayer<Router>| layer.limits(Limits::default().body(CHUNK)).unwrap();
    let rig = Rig::with(side, set, whole).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let (mut client, _driver) = connect(&rig).await;
        // Four times the window of a connection.
        for n in 0..64 {
            let two = stage.is_two_sided();
            let (path, refused) = if two {
                ("/take", StatusCode::PAYLOAD_TOO_LARGE)
            } else {
                ("/refuse", StatusCode::FORBIDDEN)
            };
            // Its length is not known before.
            let (mut sender, body) = Channel::<Bytes>::new(4);
            let request = rig.request("PUT", path).body(Body::new(body)).unwrap();
            let answer = tokio::spawn(client.send_request(request));
            for _ in 0..2 {
                // The server may have said no by now.
                let _ = soon("to send", sender.send_data(Bytes::from(vec![7; CHUNK]))).await;
            }
            let answer = soon("a refusal", answer).await.unwrap().unwrap();
            assert_eq!(answer.status(), refused, "{stage} {n}");
            drop(text(answer).await);
        }
        let request = rig.request("PUT", "/take").body(Body::from(vec![7; CHUNK])).unwrap();
        let answer = soon("an answer", client.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{stage}");
        rig.saw(&CHUNK.to_string()).await;
    }
    rig.is_clean();
}

/// Copies of one body are read at each side's own pace.
#[tokio::test]
async fn a_side_that_does_not_read_holds_up_nobody_on_its_connection() {
    let side = |seat: Seat| {
        let take = async move |request: Request| {
            if seat.side == Side::New {
                seat.note("unread");
                return StatusCode::OK;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seat.note(body.len().to_string());
            StatusCode::OK
        };
        Router::new().route("/{id}", put(take))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let (client, _driver) = connect(&rig).await;
        let sent = (0..8).map(|id| {
            let body = Body::from(vec![7; 1 << 20]);
            let request = rig.request("PUT", &format!("/{id}")).body(body).unwrap();
            let mut client = client.clone();
            async move { client.send_request(request).await.unwrap().status() }
        });
        let answers = soon("all answers", join_all(sent)).await;
        assert!(answers.iter().all(|status| *status == StatusCode::OK), "{stage} {answers:?}");
        for seat in rig.reached() {
            let seen = if seat.side == Side::New { "unread" } else { "1048576" };
            assert_eq!(seat.take(), [seen; 8], "{} {stage}", seat.side);
        }
    }
    rig.is_clean();
}
