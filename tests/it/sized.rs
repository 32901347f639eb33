//! Answers whose length is known: they have ended with their last byte, whoever
//! reads them, since a server over HTTP/1.1 asks for no more.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::timeout;
use tower::Layer;
use tower_migration::{MigrationHandle, MigrationLayer, Side, Stage, compare::Verdict};

use crate::{shadow::Shadowed, support::*};

fn data(text: &'static str) -> Result<Frame<Bytes>, tower_migration::BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A server over HTTP/1.1 whose answer has a length drops the body after its
/// last byte: trailers cannot be sent there.
#[tokio::test(start_paused = true)]
async fn a_sized_answer_whose_trailers_nobody_asks_for_matches() {
    let sized = || {
        Fake::new(|_| async {
            let mut trailers = HeaderMap::new();
            trailers.insert("digest", "x".parse().unwrap());
            let frames = futures_util::stream::iter([data("body"), Ok(Frame::trailers(trailers))]);
            let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
            response.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
            Ok(response)
        })
    };
    let s = Shadowed::new(sized(), sized()).await;
    let mut response = s.rig.send(get("/a")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Match);
}

/// The same over a real connection.
#[tokio::test]
async fn a_sized_answer_with_trailers_matches_over_http1() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let side = || {
        axum::Router::new().route(
            "/a",
            axum::routing::get(|| async {
                let mut trailers = HeaderMap::new();
                trailers.insert("digest", "x".parse().unwrap());
                let frames =
                    futures_util::stream::iter([data("body"), Ok(Frame::trailers(trailers))]);
                let body = axum::body::Body::new(StreamBody::new(frames));
                ([(header::CONTENT_LENGTH, "4")], body)
            }),
        )
    };
    let handle = MigrationHandle::new("sized");
    let layer =
        MigrationLayer::new(handle.clone(), side()).noise(tower_migration::compare::Noise::off());
    let app = axum::Router::new().fallback_service(layer.layer(side()));
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.set_shadow_rate(1.0).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /a HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("\r\n\r\nbody"), "{text}");
    timeout(SECOND * 10, handle.shutdown()).await.unwrap();
    let shadows = handle.evidence().shadows;
    assert_eq!(shadows.matches, 1, "{:?}", handle.recent_mismatches());
}

/// The authority's is known to be whole at its last byte; the other side's is
/// the same answer.
#[tokio::test(start_paused = true)]
async fn a_sized_answer_that_does_not_end_by_itself_matches() {
    use futures_util::StreamExt;
    let sized = || {
        Fake::new(|_| async {
            let frames = futures_util::stream::iter([data("body")]);
            let frames = frames.chain(futures_util::stream::pending());
            let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
            response.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
            Ok(response)
        })
    };
    let s = Shadowed::new(sized(), sized()).await;
    let mut response = s.rig.send(get("/a")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    // As a server does that has sent all.
    drop(response);
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Match);
}

/// In a one-sided stage the last byte of a sized answer is its end: so it should
/// be here, on both sides.
#[tokio::test(start_paused = true)]
async fn a_sized_answer_to_a_dual_write_ends_with_its_last_byte() {
    use futures_util::StreamExt;
    let sized = || {
        Fake::new(|_| async {
            let frames = futures_util::stream::iter([data("body")]);
            let frames = frames.chain(futures_util::stream::pending());
            let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
            response.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
            Ok(response)
        })
    };
    let rig = Rig::new(sized(), sized());
    for stage in [Stage::OldOnly, Stage::WriteBoth] {
        rig.walk(stage).await;
        let mut response = rig.send(put("/a", "x")).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        rig.handle.drained(Side::Old).await;
        rig.handle.drained(Side::New).await;
        assert!(rig.dirty().is_empty(), "{stage}");
    }
}
