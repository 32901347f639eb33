//! axum's limit on bodies, beside the layer's own.

use axum::{Router, body::Body, extract::DefaultBodyLimit, routing::post};
use bytes::Bytes;
use http::StatusCode;
use tower_migration::{FailurePolicy, Limits, MigrationLayer, Side, Stage};

use super::{Rig, Seat, Wire, keep, whole};

const MEBIBYTE: usize = 1 << 20;

fn takes(seat: Seat) -> Router {
    let take = async move |body: Bytes| seat.note(body.len().to_string());
    Router::new().route("/", post(take.clone()).put(take.clone())).route("/search", post(take))
}

async fn post_to(rig: &Rig, wire: Wire, path: &str, length: usize) -> StatusCode {
    let request = rig.request("POST", path).body(Body::from(vec![7; length])).unwrap();
    rig.ask(wire, request).await.0
}

#[tokio::test]
async fn set_outside_of_the_layer_or_inside_of_both_sides_it_holds_for_both() {
    for outside in [true, false] {
        let side = |seat| match outside {
            true => takes(seat),
            false => takes(seat).layer(DefaultBodyLimit::max(8)),
        };
        let put_it = |layered| match outside {
            true => whole(layered).layer(DefaultBodyLimit::max(8)),
            false => whole(layered),
        };
        let rig = Rig::with(side, keep, put_it).await;
        for stage in Stage::ALL {
            rig.walk(stage).await;
            for wire in Wire::BOTH {
                for path in ["/", "/search"] {
                    assert_eq!(post_to(&rig, wire, path, 8).await, 200, "{stage} {wire:?} {path}");
                    rig.saw("8").await;
                    assert_eq!(post_to(&rig, wire, path, 9).await, 413, "{stage} {wire:?} {path}");
                }
            }
        }
        rig.handle.shutdown().await;
        rig.is_clean();
    }
}

#[tokio::test]
async fn on_one_side_alone_what_it_refuses_is_a_split_write() {
    for strict in Side::ALL {
        for policy in [FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth] {
            let side = |seat: Seat| match seat.side == strict {
                true => takes(seat).layer(DefaultBodyLimit::max(8)),
                false => takes(seat),
            };
            let set = |layer: MigrationLayer<Router>| layer.failure_policy(policy);
            let rig = Rig::with(side, set, whole).await;
            for stage in Stage::ALL {
                rig.walk(stage).await;
                let request = rig.request("PUT", "/").body(Body::from("nine long")).unwrap();
                let (status, problem) = rig.ask(Wire::H1, request).await;
                let two = stage.is_two_sided();
                if two && policy == FailurePolicy::RequireBoth {
                    assert_eq!(status, 503, "{strict} {stage}");
                    assert!(problem.contains("partial-write"), "{problem}");
                } else {
                    let expected = if stage.authority() == strict { 413 } else { 200 };
                    assert_eq!(status, expected, "{strict} {stage} {policy:?}");
                }
                let dirty = rig.handle.dirty_keys();
                assert_eq!(dirty.len(), usize::from(two), "{strict} {stage} {dirty:?}");
                for key in dirty {
                    let copy = || async { Ok::<_, std::convert::Infallible>(()) };
                    rig.handle.copy_key(&key.key, stage.authority(), copy).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn switched_off_inside_the_layers_own_limit_holds_for_dual_writes_alone() {
    let side = |seat| takes(seat).layer(DefaultBodyLimit::disable());
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            // Reads are streamed, however long.
            assert_eq!(post_to(&rig, wire, "/search", 3 * MEBIBYTE).await, 200, "{stage} {wire:?}");
            let status = post_to(&rig, wire, "/", 3 * MEBIBYTE).await;
            assert_eq!(status, if stage.is_two_sided() { 413 } else { 200 }, "{stage} {wire:?}");
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
    let [old, new] = &rig.seats;
    assert_eq!(
        (old.noted(), new.noted()),
        (6, 6),
        "each is read from in three stages and written to in one; no shadow has so long a body"
    );
}

#[tokio::test]
async fn a_larger_limit_of_the_layer_lets_both_sides_see_a_large_body() {
    let side = |seat| takes(seat).layer(DefaultBodyLimit::disable());
    let set =
        |layer: MigrationLayer<Router>| layer.limits(Limits::default().body(4 * MEBIBYTE)).unwrap();
    let rig = Rig::with(side, set, whole).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            assert_eq!(post_to(&rig, wire, "/", 3 * MEBIBYTE).await, 200, "{stage} {wire:?}");
            rig.saw(&(3 * MEBIBYTE).to_string()).await;
        }
    }
}
