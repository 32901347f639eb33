//! Writes whose answers stream, under each failure policy.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    response::sse::{Event, Sse},
    routing::{post, put},
};
use futures_util::{StreamExt, TryStreamExt};
use http::StatusCode;
use tower_migration::{FailurePolicy, Limits, MigrationLayer, Stage, WriteOrder};

use super::{Faucet, POLICIES, Rig, Seat, Wire, chunk, soon, until, whole};
use crate::support::Latch;

const CHUNKS: usize = 4;

struct Streams {
    rig: Rig,
    /// Of the authority and of the other side.
    faucets: [Faucet; 2],
    /// The other side does not even give its head before this is open.
    other: Latch,
}

impl Streams {
    async fn at(
        stage: Stage,
        set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
    ) -> Self {
        let faucets = [Faucet::new(), Faucet::new()];
        let other = Latch::default();
        let side = |seat: Seat| {
            let is_other = seat.side != stage.authority();
            let faucet = faucets[usize::from(is_other)].clone();
            let latch = other.clone();
            let give = async move || {
                if is_other {
                    latch.passed().await;
                }
                // Fused: see `ends` for bodies that are not.
                let events = faucet.stream(CHUNKS).fuse();
                Sse::new(events.map_ok(|text| Event::default().data(text)))
            };
            let quick = async || "quick";
            Router::new()
                .route("/events", post(give.clone()))
                .route("/key", put(give))
                .route("/quick", put(quick).get(quick))
        };
        let rig = Rig::with(side, set, whole).await.at(stage).await;
        Self { rig, faucets, other }
    }

    /// The client's answer so far has been waited for by nobody: it comes
    /// chunk by chunk.
    async fn comes_by_chunks(&self, body: &mut hyper::body::Incoming) {
        for n in 0..CHUNKS {
            self.faucets[0].pour(1);
            assert_eq!(chunk(body).await, Some(format!("data: chunk {n}\n\n")));
        }
        assert_eq!(chunk(body).await, None);
    }

    /// Time for anything that could happen by now to happen: requests go there
    /// and back.
    async fn meanwhile(&self) {
        for wire in Wire::BOTH {
            for _ in 0..5 {
                let request = self.rig.request("GET", "/quick").body(Body::empty()).unwrap();
                assert_eq!(self.rig.ask(wire, request).await.0, StatusCode::OK);
            }
        }
    }

    async fn ends_clean(&self) {
        soon("the rest", self.rig.handle.shutdown()).await;
        self.rig.is_clean();
        assert!(
            self.rig.handle.status().sync.new.is_synced()
                || self.rig.handle.stage() == Stage::OldOnly
        );
    }
}

#[tokio::test]
async fn of_one_side_come_chunk_by_chunk_under_every_policy() {
    for stage in [Stage::OldOnly, Stage::NewOnly] {
        for policy in POLICIES {
            for wire in Wire::BOTH {
                let streams = Streams::at(stage, |layer| layer.failure_policy(policy)).await;
                let request = streams.rig.request("POST", "/events").body(Body::from("x")).unwrap();
                let mut body = streams.rig.send(wire, request).await.into_body();
                streams.comes_by_chunks(&mut body).await;
                assert_eq!(streams.faucets[1].opened(), 0, "the other side is not needed");
            }
        }
    }
}

#[tokio::test]
async fn of_two_sides_come_chunk_by_chunk_while_the_other_side_has_not_answered() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
            for wire in Wire::BOTH {
                let set = |layer: MigrationLayer<Router>| {
                    layer.failure_policy(FailurePolicy::AuthorityWins).write_order(order)
                };
                let streams = Streams::at(stage, set).await;
                let request = streams.rig.request("POST", "/events").body(Body::from("x")).unwrap();
                let mut body = streams.rig.send(wire, request).await.into_body();
                streams.comes_by_chunks(&mut body).await;
                assert_eq!(streams.faucets[1].opened(), 0, "{stage} {order:?} {wire:?}");
                // The other side's answer is read to its end, for nobody.
                streams.other.open();
                streams.faucets[1].pour(CHUNKS);
                until("the other side's end", || streams.faucets[1].ended() == 1).await;
                streams.ends_clean().await;
            }
        }
    }
}

/// Not only for its head: a handler that streams may still be writing.
#[tokio::test]
async fn with_a_policy_that_waits_the_head_waits_for_the_end_of_the_other_sides_answer() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for policy in [FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth] {
            for wire in Wire::BOTH {
                let streams = Streams::at(stage, |layer| layer.failure_policy(policy)).await;
                let Streams { rig, faucets, other } = &streams;
                let request = rig.request("POST", "/events").body(Body::from("x")).unwrap();
                let mut answer = tokio::spawn(rig.clients[wire as usize].request(request));
                until("the authority's head", || faucets[0].opened() == 1).await;
                streams.meanwhile().await;
                assert!(!answer.is_finished(), "before the other side has answered");
                other.open();
                faucets[1].pour(CHUNKS - 1);
                until("the other side's head", || faucets[1].opened() == 1).await;
                streams.meanwhile().await;
                assert!(!answer.is_finished(), "while the other side's answer streams");
                faucets[1].pour(1);
                let answer = soon("the head", &mut answer).await.unwrap().unwrap();
                assert_eq!(faucets[1].ended(), 1);
                // From here on as always.
                streams.comes_by_chunks(&mut answer.into_body()).await;
                streams.ends_clean().await;
            }
        }
    }
}

#[tokio::test]
async fn with_a_hook_that_wants_the_whole_answer_the_head_waits_for_the_authoritys_end() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let set = |layer: MigrationLayer<Router>| {
            layer.failure_policy(FailurePolicy::AuthorityWins).other_leg(|request, answer| {
                assert!(answer.body.ends_with(b"chunk 3\n\n"));
                Some(request)
            })
        };
        let streams = Streams::at(stage, set).await;
        let request = streams.rig.request("POST", "/events").body(Body::from("x")).unwrap();
        let mut answer = tokio::spawn(streams.rig.clients[0].request(request));
        streams.faucets[0].pour(CHUNKS - 1);
        until("the authority's head", || streams.faucets[0].opened() == 1).await;
        streams.meanwhile().await;
        assert!(!answer.is_finished(), "{stage}");
        streams.faucets[0].pour(1);
        let answer = soon("the head", &mut answer).await.unwrap().unwrap();
        assert_eq!(super::text(answer).await.matches("data: ").count(), CHUNKS);
        streams.other.open();
        streams.faucets[1].pour(CHUNKS);
        streams.ends_clean().await;
    }
}

/// A write whose answer never ends is none that can be awaited: it belongs
/// among the reads, or on a route of its own.
#[tokio::test]
async fn an_answer_on_the_other_side_that_outlasts_the_legs_timeout_makes_the_write_dirty() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for policy in POLICIES {
            let limits = Limits::default().leg_timeout(Duration::from_millis(50));
            let set = |layer: MigrationLayer<Router>| {
                layer.failure_policy(policy).limits(limits).unwrap()
            };
            let streams = Streams::at(stage, set).await;
            let Streams { rig, faucets, other } = &streams;
            other.open();
            let request = rig.request("PUT", "/key").body(Body::from("x")).unwrap();
            let answer = rig.send(Wire::H1, request).await;
            let expected = if policy == FailurePolicy::RequireBoth { 503 } else { 200 };
            assert_eq!(answer.status(), expected, "{stage} {policy:?}");
            until("the key to be dirty", || rig.handle.dirty_keys().len() == 1).await;
            // The authority's own stream is under no such limit.
            if expected == 200 {
                streams.comes_by_chunks(&mut answer.into_body()).await;
            } else {
                faucets[0].pour(CHUNKS);
                until("the authority's stream to be read for nobody", || faucets[0].running() == 0)
                    .await;
                assert_eq!(faucets[0].ended(), 1);
            }
            faucets[1].pour(CHUNKS);
            until("the other side's end", || faucets[1].ended() == 1).await;
        }
    }
}

#[tokio::test]
async fn the_same_of_a_write_without_a_key_unsyncs_the_side_that_streams_on() {
    let limits = Limits::default().leg_timeout(Duration::from_millis(50));
    let set = |layer: MigrationLayer<Router>| {
        layer.failure_policy(FailurePolicy::AuthorityWins).limits(limits).unwrap()
    };
    let streams = Streams::at(Stage::WriteBoth, set).await;
    streams.other.open();
    let request = streams.rig.request("POST", "/events").body(Body::from("x")).unwrap();
    let mut body = streams.rig.send(Wire::H1, request).await.into_body();
    until("new to be unsynced", || !streams.rig.handle.status().sync.new.is_synced()).await;
    streams.comes_by_chunks(&mut body).await;
}

/// Somebody has to say when it is enough, and what was not read is not known.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up_in_the_end_and_makes_the_write_dirty() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let limits = Limits::default().abandon_after(Duration::from_millis(50));
        let set = |layer: MigrationLayer<Router>| {
            layer.failure_policy(FailurePolicy::AuthorityWins).limits(limits).unwrap()
        };
        let streams = Streams::at(stage, set).await;
        let Streams { rig, faucets, other } = &streams;
        other.open();
        faucets[1].pour(CHUNKS);
        faucets[0].pour(1);
        let request = rig.request("PUT", "/key").body(Body::from("x")).unwrap();
        let mut body = rig.send(Wire::H2, request).await.into_body();
        assert!(chunk(&mut body).await.is_some());
        drop(body);
        until("the key to be dirty", || rig.handle.dirty_keys().len() == 1).await;
        until("the stream to be dropped", || faucets[0].running() == 0).await;
        assert_eq!(faucets[0].ended(), 0, "{stage}");
    }
}

#[tokio::test]
async fn the_next_write_of_the_key_does_not_wait_for_the_answer_to_be_read() {
    for stage in Stage::ALL {
        for side in [0, 1] {
            let set = |layer: MigrationLayer<Router>| {
                // One key for all.
                layer
                    .failure_policy(FailurePolicy::AuthorityWins)
                    .keys(|_: &tower_migration::protocol::Head<'_>, _: &bytes::Bytes| "one")
            };
            let streams = Streams::at(stage, set).await;
            let Streams { rig, faucets, other } = &streams;
            other.open();
            // The other side's leg ends with its answer, the authority's with its head.
            faucets[1].pour(CHUNKS * side);
            let request = rig.request("PUT", "/key").body(Body::from("x")).unwrap();
            let mut body = rig.send(Wire::H2, request).await.into_body();
            let request = rig.request("PUT", "/quick").body(Body::from("x")).unwrap();
            assert_eq!(rig.ask(Wire::H2, request).await.0, StatusCode::OK, "{stage} {side}");
            streams.comes_by_chunks(&mut body).await;
            faucets[1].pour(CHUNKS);
        }
    }
}
