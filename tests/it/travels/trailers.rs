//! Trailers, of requests and of answers.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::Response,
    routing::{post, put},
};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower_migration::{BoxError, MigrationHandle, MigrationLayer, Stage, WriteOrder};

use super::{POLICIES, Rig, Seat, Wire, keep, raw::Raw, raw::header, soon, whole};

fn trailers(sum: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().unwrap(), sum.parse().unwrap())])
}

pub(super) fn with_trailers(chunks: &[&'static str], sum: &'static str) -> Body {
    let data = chunks.iter().map(|chunk| Frame::data(Bytes::from_static(chunk.as_bytes())));
    let frames: Vec<_> =
        data.chain([Frame::trailers(trailers(sum))]).map(Ok::<_, BoxError>).collect();
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// Nothing lingers: when an answer with trailers has ended is what `ends` is
/// about.
async fn rig(set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>) -> Rig {
    let handle = MigrationHandle::builder("travels").linger(Duration::ZERO).build().unwrap();
    Rig::on(handle, side, set, whole).await
}

/// Notes a body and its trailers, and answers with trailers of its own.
fn side(seat: Seat) -> Router {
    let take = async move |request: Request| {
        let body = request.into_body().collect().await.unwrap();
        let sum = body.trailers().map(|trailers| trailers["x-sum"].to_str().unwrap().to_owned());
        seat.note(format!("{sum:?} {:?}", body.to_bytes()));
        Response::builder().header("trailer", "x-sum").body(with_trailers(&["done"], "8")).unwrap()
    };
    Router::new()
        .route("/write", put(take.clone()))
        .route("/search", post(take.clone()))
        .route("/read", axum::routing::get(take))
}

#[tokio::test]
async fn of_a_request_over_http_2_reach_both_sides() {
    let rig = rig(keep).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for (method, path) in [("PUT", "/write"), ("POST", "/search")] {
            let body = with_trailers(&["ab", "cd"], "7");
            let request = rig.request(method, path).body(body).unwrap();
            assert_eq!(rig.ask(Wire::H2, request).await.0, 200, "{stage} {path}");
            rig.saw(r#"Some("7") b"abcd""#).await;
            // Trailers and nothing else.
            let request = rig.request(method, path).body(with_trailers(&[], "7")).unwrap();
            assert_eq!(rig.ask(Wire::H2, request).await.0, 200, "{stage} {path}");
            rig.saw(r#"Some("7") b"""#).await;
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn of_a_request_in_chunks_reach_both_sides() {
    let rig = rig(keep).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in ["PUT /write", "POST /search"] {
            let mut client = Raw::connect(&rig).await;
            // Twice on one connection: nothing of the first is left over.
            for _ in 0..2 {
                client
                    .send(format!(
                        "{path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
                         trailer: x-sum\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\nx-sum: 7\r\n\r\n"
                    ))
                    .await;
                let (head, chunks, _) = client.chunked().await;
                assert!(head.starts_with("HTTP/1.1 200"), "{stage} {path} {head}");
                assert_eq!(chunks, ["done"]);
                rig.saw(r#"Some("7") b"abcd""#).await;
            }
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn of_an_answer_reach_the_client_over_both_versions() {
    for policy in POLICIES {
        let set = |layer: MigrationLayer<Router>| layer.failure_policy(policy);
        let rig = rig(set).await;
        for stage in Stage::ALL {
            rig.walk(stage).await;
            for (method, path) in [("PUT", "/write"), ("GET", "/read")] {
                let request = rig.request(method, path).body(Body::empty()).unwrap();
                let answer = rig.send(Wire::H2, request).await;
                let body = soon("the answer", answer.into_body().collect()).await.unwrap();
                assert_eq!(body.trailers(), Some(&trailers("8")), "{stage} {path} {policy:?}");
                assert_eq!(body.to_bytes(), "done");

                let mut client = Raw::connect(&rig).await;
                client
                    .send(format!(
                        "{method} {path} HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\
                         content-length: 0\r\n\r\n"
                    ))
                    .await;
                let (head, chunks, trailers) = client.chunked().await;
                assert_eq!(header(&head, "trailer").as_deref(), Some("x-sum"));
                assert_eq!(chunks, ["done"]);
                assert_eq!(trailers, "x-sum: 8\r\n", "{stage} {path} {policy:?}");
            }
        }
        rig.handle.shutdown().await;
        rig.is_clean();
    }
}

/// The hook reads the answer ahead, and its request has the trailers too.
#[tokio::test]
async fn of_both_survive_an_answer_that_is_read_ahead() {
    let set = |layer: MigrationLayer<Router>| {
        layer
            .other_leg(|request, answer| {
                assert_eq!(answer.trailers, Some(trailers("8")));
                Some(request)
            })
            .write_order(WriteOrder::AuthorityFirst)
    };
    let rig = rig(set).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let request = rig.request("PUT", "/write").body(with_trailers(&["ab"], "7")).unwrap();
        let answer = rig.send(Wire::H2, request).await;
        let body = soon("the answer", answer.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers(), Some(&trailers("8")), "{stage}");
        assert_eq!(body.to_bytes(), "done");
        rig.saw(r#"Some("7") b"ab""#).await;
    }
    rig.is_clean();
}
