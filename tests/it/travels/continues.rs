//! `Expect: 100-continue`: the client sends its body when it is asked to.

use axum::{Router, body::Body, extract::Request, routing::post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tower_migration::{Limits, MigrationLayer, Stage};

use super::{Rig, Seat, raw::Raw, until, whole};

const PATHS: [&str; 2] = ["/write", "/search"];

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn is_two_sided_write(stage: Stage, path: &str) -> bool {
    stage.is_two_sided() && path == "/write"
}

#[tokio::test]
async fn the_interim_answer_comes_first_and_only_then_the_body_is_sent() {
    let side = |seat: Seat| {
        let take = async move |body: String| {
            seat.note(body);
            "done"
        };
        Router::new().route("/write", post(take.clone())).route("/search", post(take))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in PATHS {
            let mut client = Raw::connect(&rig).await;
            // Twice: the connection is as good as new after it.
            for body in ["half", "more"] {
                client.send(head(path, 4)).await;
                let interim = client.head().await.unwrap();
                assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n", "{stage} {path}");
                assert!(rig.seats.iter().all(|seat| seat.noted() == 0), "{stage} {path}");
                client.send(body).await;
                let (status, _, text) = client.answer().await.unwrap();
                assert_eq!((status, &*text), (200, "done"), "{stage} {path}");
                rig.saw(body).await;
            }
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

/// A body that is here already need not be asked for again by a side that
/// sends the request on.
#[tokio::test]
async fn copies_of_a_request_expect_nothing_any_more() {
    let side = |seat: Seat| {
        let take = async move |headers: HeaderMap, _: Bytes| {
            seat.note(format!("{}", headers.contains_key(header::EXPECT)));
        };
        Router::new().route("/write", post(take.clone())).route("/search", post(take))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in PATHS {
            let mut client = Raw::connect(&rig).await;
            client.send(head(path, 4)).await;
            client.head().await.unwrap();
            client.send("half").await;
            assert_eq!(client.answer().await.unwrap().0, 200);
            for seat in rig.reached() {
                until("both to see it", || seat.noted() == 1).await;
                let streams = seat.side == stage.authority() && !is_two_sided_write(stage, path);
                assert_eq!(seat.take(), [streams.to_string()], "{} {stage} {path}", seat.side);
            }
        }
    }
}

#[tokio::test]
async fn what_the_layer_refuses_by_its_length_is_never_asked_for() {
    let side = |seat: Seat| {
        let take = async move |body: String| seat.note(body);
        Router::new().route("/write", post(take.clone())).route("/search", post(take))
    };
    let set = |layer: MigrationLayer<Router>| layer.limits(Limits::default().body(4)).unwrap();
    let rig = Rig::with(side, set, whole).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in PATHS {
            let mut client = Raw::connect(&rig).await;
            client.send(head(path, 5)).await;
            if is_two_sided_write(stage, path) {
                let (status, _, problem) = client.answer().await.unwrap();
                assert_eq!(status, 413, "{stage}");
                assert!(problem.contains("body-too-large"), "{problem}");
                assert!(rig.seats.iter().all(|seat| seat.noted() == 0));
                // Whether the body still comes nobody knows, so this is its end.
                client.closes().await;
            } else {
                assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
                client.send("still").await;
                assert_eq!(client.answer().await.unwrap().0, 200, "{stage} {path}");
                rig.saw("still").await;
            }
        }
    }
    rig.is_clean();
}

/// A side that looks at the head and refuses (417, 401, 413) keeps the client
/// from sending the body, but for a dual write: that is read before either side
/// has seen it.
#[tokio::test]
async fn a_side_that_refuses_by_the_head_saves_the_body_except_in_a_dual_write() {
    for refusal in [StatusCode::EXPECTATION_FAILED, StatusCode::PAYLOAD_TOO_LARGE] {
        let side = |seat: Seat| {
            let refuse = async move |request: Request| {
                drop(request);
                seat.note("");
                (refusal, "no")
            };
            Router::new().route("/write", post(refuse.clone())).route("/search", post(refuse))
        };
        let rig = Rig::new(side).await;
        for stage in Stage::ALL {
            rig.walk(stage).await;
            for path in PATHS {
                let mut client = Raw::connect(&rig).await;
                client.send(head(path, 4)).await;
                if is_two_sided_write(stage, path) {
                    assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
                    client.send("half").await;
                }
                let (status, _, text) = client.answer().await.unwrap();
                assert_eq!((status, &*text), (refusal.as_u16(), "no"), "{stage} {path}");
                for seat in rig.reached() {
                    // A read that fails is not shadowed.
                    let other = seat.side != stage.authority();
                    let seen = usize::from(!other || is_two_sided_write(stage, path));
                    assert_eq!(seat.take().len(), seen, "{} {stage} {path}", seat.side);
                }
            }
        }
        rig.is_clean();
    }
}

/// A read whose body nobody reads has no copy to shadow, and is not asked for.
#[tokio::test]
async fn a_side_that_answers_a_read_without_its_body_never_asks_for_it() {
    let side = |seat: Seat| {
        let take = async move |request: Request| {
            seat.note("");
            drop(request);
            "done"
        };
        let late = async move |request: Request| {
            // Read while the answer is on its way.
            Body::new(request.into_body().map_err(axum::Error::new))
        };
        Router::new().route("/search", post(take)).route("/echo", post(late))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let mut client = Raw::connect(&rig).await;
        client.send(head("/search", 4)).await;
        let (status, _, text) = client.answer().await.unwrap();
        assert_eq!((status, &*text), (200, "done"), "{stage}");
        assert_eq!(rig.seat(stage.authority()).take().len(), 1);
        client.closes().await;
    }
    rig.handle.shutdown().await;
    let [old, new] = &rig.seats;
    assert_eq!((old.noted(), new.noted()), (0, 0), "no shadow of what was not read");
    rig.is_clean();
}
