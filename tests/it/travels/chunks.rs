//! Answers that stream: each chunk reaches the client while the handler holds
//! back the next.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::sse::{Event, Sse},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header;
use http_body_util::{BodyExt, channel::Channel};
use tower_migration::{Limits, MigrationLayer, Side, Stage};

use super::{Faucet, Rig, Seat, Wire, chunk, keep, soon, until, whole};

const CHUNKS: usize = 5;

/// A rig and the faucets of its two sides, at a stage.
async fn streaming(
    stage: Stage,
    set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
) -> (Rig, [Faucet; 2]) {
    let faucets = [Faucet::new(), Faucet::new()];
    let side = |seat: Seat| {
        let faucet = faucets[usize::from(seat.side == Side::New)].clone();
        let events = faucet.clone();
        let plain = async move || faucet.body(CHUNKS);
        // Read to its end: what the authority has not read cannot be shadowed.
        let events = async move |_: Bytes| {
            Sse::new(events.stream(CHUNKS).map_ok(|text| Event::default().data(text)))
        };
        Router::new()
            .route("/chunks", get(plain.clone()))
            .route("/events", get(events.clone()))
            .route("/search", post(events))
    };
    (Rig::with(side, set, whole).await.at(stage).await, faucets)
}

fn of(faucets: &[Faucet; 2], side: Side) -> &Faucet {
    &faucets[usize::from(side == Side::New)]
}

#[tokio::test]
async fn of_a_read_come_one_by_one_whatever_the_shadow_does() {
    for (method, path) in [("GET", "/chunks"), ("GET", "/events"), ("POST", "/search")] {
        for stage in Stage::ALL {
            for rate in [0.0, 1.0] {
                for wire in Wire::BOTH {
                    // Nothing is poured for the other side, ever.
                    let (rig, faucets) = streaming(stage, keep).await;
                    rig.handle.set_shadow_rate(rate).unwrap();
                    let authority = of(&faucets, stage.authority());
                    let request = rig.request(method, path);
                    let body = if method == "GET" { "" } else { "query" };
                    let request = request.body(Body::from(body)).unwrap();
                    let answer = rig.send(wire, request).await;
                    assert!(!answer.headers().contains_key(header::CONTENT_LENGTH));
                    let mut body = answer.into_body();
                    for n in 0..CHUNKS {
                        authority.pour(1);
                        let expected = match path {
                            "/chunks" => format!("chunk {n}"),
                            _ => format!("data: chunk {n}\n\n"),
                        };
                        let seen = chunk(&mut body).await;
                        assert_eq!(seen, Some(expected), "{stage} {rate} {wire:?} {path}");
                    }
                    assert_eq!(chunk(&mut body).await, None);
                    assert_eq!(authority.ended(), 1);
                    if rate > 0.0 && stage.is_two_sided() {
                        let other = of(&faucets, stage.authority().other());
                        until("the shadow read", || other.opened() == 1).await;
                        assert_eq!(other.ended(), 0, "the shadow still holds back everything");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn of_a_read_and_of_its_shadow_are_compared_when_both_have_ended() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for wire in Wire::BOTH {
            let (rig, faucets) = streaming(stage, keep).await;
            let request = rig.request("GET", "/events").body(Body::empty()).unwrap();
            let answer = rig.send(wire, request).await;
            faucets.iter().for_each(|faucet| faucet.pour(CHUNKS));
            soon("the answer", answer.into_body().collect()).await.unwrap();
            until("a verdict", || rig.handle.evidence().shadows.matches == 1).await;
            rig.is_clean();
        }
    }
}

#[tokio::test]
async fn of_an_answer_beyond_the_shadows_deadline_go_on_and_the_shadow_ends() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for wire in Wire::BOTH {
            let limits = Limits::default().shadow_deadline(Duration::from_millis(20));
            let (rig, faucets) = streaming(stage, |layer| layer.limits(limits).unwrap()).await;
            let (authority, other) =
                (of(&faucets, stage.authority()), of(&faucets, stage.authority().other()));
            let request = rig.request("GET", "/events").body(Body::empty()).unwrap();
            let mut body = rig.send(wire, request).await.into_body();
            authority.pour(1);
            assert!(chunk(&mut body).await.is_some());
            // The other side's stream is not kept open beside the client's.
            until("the shadow's end", || other.opened() == 1 && other.running() == 0).await;
            let shadows =
                || rig.handle.status().on_old.shadows + rig.handle.status().on_new.shadows;
            until("no shadow", || shadows() == 0).await;
            for _ in 1..CHUNKS {
                authority.pour(1);
                assert!(chunk(&mut body).await.is_some(), "{stage} {wire:?}");
            }
            assert_eq!(chunk(&mut body).await, None);
        }
    }
}

/// The head came in time and said 200; that the stream goes on is nobody's
/// failure.
#[tokio::test]
async fn an_event_stream_that_outlasts_the_shadows_deadline_is_no_failure_of_the_other_side() {
    let limits = Limits::default().shadow_deadline(Duration::from_millis(20));
    let (rig, faucets) = streaming(Stage::WriteBoth, |layer| layer.limits(limits).unwrap()).await;
    let request = rig.request("GET", "/events").body(Body::empty()).unwrap();
    let body = rig.send(Wire::H1, request).await.into_body();
    faucets.iter().for_each(|faucet| faucet.pour(1));
    let verdicts = || {
        let shadows = rig.handle.evidence().shadows;
        shadows.skipped + shadows.failed
    };
    until("a verdict", || verdicts() == 1).await;
    let evidence = rig.handle.evidence();
    assert_eq!(evidence.other_shadows.unknown, 0, "{evidence}");
    assert_eq!((evidence.shadows.skipped, evidence.shadows.failed), (1, 0), "{evidence}");
    drop(body);
}

/// A request and its answer that stream at the same time.
#[tokio::test]
async fn of_an_echo_come_back_while_the_request_is_still_being_sent() {
    let side = |_| {
        let echo = async |request: Request| request.into_body();
        Router::new().route("/echo", post(echo)).route("/search", post(echo))
    };
    for path in ["/search", "/echo"] {
        let rig = Rig::new(side).await;
        for stage in Stage::ALL {
            rig.walk(stage).await;
            if path == "/echo" && stage.is_two_sided() {
                // A dual write is collected first: no answer before its end.
                continue;
            }
            for wire in Wire::BOTH {
                let (mut sender, body) = Channel::<Bytes>::new(1);
                let request = rig.request("POST", path).body(Body::new(body)).unwrap();
                let mut answer = rig.send(wire, request).await.into_body();
                for n in 0..CHUNKS {
                    sender.send_data(Bytes::from(n.to_string())).await.unwrap();
                    assert_eq!(chunk(&mut answer).await, Some(n.to_string()), "{stage} {wire:?}");
                }
                drop(sender);
                assert_eq!(chunk(&mut answer).await, None);
            }
        }
        rig.handle.shutdown().await;
        rig.is_clean();
        let evidence = rig.handle.evidence();
        assert_eq!(evidence.shadows.skipped, 0, "{evidence}");
    }
}
