//! When an answer has ended. A server knows before the body says so: after
//! `content-length` bytes (HTTP/1.1), or after trailers, it drops the body and
//! does not poll it again.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer, Stage};

use super::{Faucet, Rig, Seat, Wire, keep, soon, trailers::with_trailers, until, whole};

type Ends = fn() -> Response;

/// What a proxy or a file server answers: a stream whose length is in a header.
fn length_in_a_header() -> Response {
    let chunks = futures_util::stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>));
    let body = Body::from_stream(chunks);
    Response::builder().header(header::CONTENT_LENGTH, 4).body(body).unwrap()
}

/// What a server of gRPC answers, if its body does not know that trailers are
/// the last frame.
fn trailers_at_the_end() -> Response {
    Response::builder()
        .header(header::TRAILER, "x-sum")
        .body(with_trailers(&["abcd"], "7"))
        .unwrap()
}

/// What most handlers answer.
fn a_plain_text() -> Response {
    "abcd".into_response()
}

/// A stream that says that it has ended when it is asked for more.
fn a_stream() -> Response {
    let chunks = futures_util::stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>));
    Body::from_stream(chunks).into_response()
}

fn side(give: Ends) -> impl Fn(Seat) -> Router {
    move |_| {
        let give = async move || give();
        Router::new().route("/", get(give).put(give))
    }
}

fn request(rig: &Rig, method: &str) -> http::Request<Body> {
    // Without `te`, trailers are not sent over HTTP/1.1.
    rig.request(method, "/").header(header::TE, "trailers").body(Body::empty()).unwrap()
}

/// A write of a one-sided stage whose client has got everything can land no
/// more, so nobody waits a linger for it.
async fn has_ended_after_its_last_byte(give: Ends) {
    for wire in Wire::BOTH {
        // Longer than anybody waits.
        let handle =
            MigrationHandle::builder("travels").linger(Duration::from_secs(3_600)).build().unwrap();
        let rig = Rig::on(handle, side(give), keep, whole).await;
        assert_eq!(rig.ask(wire, request(&rig, "PUT")).await.1, "abcd");
        rig.handle.advance().await.unwrap();
        until("no write", || rig.writes() == (0, 0)).await;
        let settled = tokio::time::timeout(Duration::from_secs(2), rig.handle.settled()).await;
        assert!(settled.is_ok(), "{wire:?}: the write is believed to be able to land still");
    }
}

/// A read whose client has got everything is compared.
async fn is_compared(give: Ends) {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for wire in Wire::BOTH {
            let rig = Rig::new(side(give)).await.at(stage).await;
            assert_eq!(rig.ask(wire, request(&rig, "GET")).await.1, "abcd");
            soon("a verdict", rig.handle.shutdown()).await;
            let shadows = rig.handle.evidence().shadows;
            assert_eq!((shadows.matches, shadows.skipped), (1, 0), "{stage} {wire:?}");
        }
    }
}

#[tokio::test]
async fn a_write_answered_with_a_text_or_a_stream_has_ended_after_its_last_byte() {
    has_ended_after_its_last_byte(a_plain_text).await;
    has_ended_after_its_last_byte(a_stream).await;
}

#[tokio::test]
async fn a_read_answered_with_a_text_or_a_stream_is_compared() {
    is_compared(a_plain_text).await;
    is_compared(a_stream).await;
}

#[tokio::test]
async fn a_write_answered_with_a_length_in_a_header_has_ended_after_its_last_byte() {
    has_ended_after_its_last_byte(length_in_a_header).await;
}

#[tokio::test]
async fn a_write_answered_with_trailers_has_ended_after_them() {
    has_ended_after_its_last_byte(trailers_at_the_end).await;
}

#[tokio::test]
async fn a_read_answered_with_a_length_in_a_header_is_compared() {
    is_compared(length_in_a_header).await;
}

#[tokio::test]
async fn a_read_answered_with_trailers_is_compared() {
    is_compared(trailers_at_the_end).await;
}

/// A body may panic if it is polled after its end, as `futures`' `unfold` does.
#[tokio::test]
async fn an_answer_that_was_read_ahead_is_not_polled_after_its_end() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for wire in Wire::BOTH {
            let faucet = Faucet::new();
            faucet.pour(6);
            let side = |_: Seat| {
                let faucet = faucet.clone();
                Router::new().route("/", get("").put(async move || faucet.body(3)))
            };
            let set = |layer: MigrationLayer<Router>| {
                layer
                    .failure_policy(FailurePolicy::AuthorityWins)
                    .other_leg(|request, _| Some(request))
            };
            let rig = Rig::with(side, set, whole).await.at(stage).await;
            let answer = soon("it", rig.clients[wire as usize].request(request(&rig, "PUT"))).await;
            let answer = answer.unwrap_or_else(|error| panic!("{stage} {wire:?}: {error:?}"));
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(super::text(answer).await, "chunk 0chunk 1chunk 2");
            soon("the rest", rig.handle.shutdown()).await;
            rig.is_clean();
        }
    }
}
