//! Clients that reset their stream, and go on with the next on the same
//! connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    routing::{get, post, put},
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::channel::Channel;
use hyper::client::conn::http2::SendRequest;
use tower_migration::{MigrationHandle, MigrationLayer, Stage};

use super::{Faucet, POLICIES, Rig, chunk, h2::connect, keep, soon, until, whole};
use crate::support::Latch;

/// What became of the handlers of one side.
#[derive(Clone, Default)]
struct Handled {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Guard(Handled, bool);

impl Drop for Guard {
    fn drop(&mut self) {
        let Self(handled, ended) = self;
        let count = if *ended { &handled.ended } else { &handled.dropped };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handled {
    fn counts(&self) -> [usize; 3] {
        [&self.begun, &self.ended, &self.dropped].map(|count| count.load(Ordering::SeqCst))
    }
}

/// Two sides that wait at a latch, and then answer in three chunks.
struct Held {
    rig: Rig,
    latch: Latch,
    faucets: [Faucet; 2],
    handled: [Handled; 2],
}

impl Held {
    async fn at(
        stage: Stage,
        set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
    ) -> Self {
        let latch = Latch::default();
        let faucets = [Faucet::new(), Faucet::new()];
        let handled = <[Handled; 2]>::default();
        // Longer than anybody waits: what lingers shows.
        let handle =
            MigrationHandle::builder("travels").linger(Duration::from_secs(3_600)).build().unwrap();
        let side = |seat: super::Seat| {
            let at = usize::from(seat.side == tower_migration::Side::New);
            let (latch, faucet, handled) =
                (latch.clone(), faucets[at].clone(), handled[at].clone());
            let take = async move |body: Bytes| {
                handled.begun.fetch_add(1, Ordering::SeqCst);
                let mut guard = Guard(handled, false);
                drop(body);
                latch.passed().await;
                guard.1 = true;
                faucet.body(3)
            };
            Router::new()
                .route("/", put(take.clone()).get(take.clone()))
                .route("/search", post(take))
                .route("/quick", get(async || "quick"))
        };
        let rig = Rig::on(handle, side, set, whole).await.at(stage).await;
        Self { rig, latch, faucets, handled }
    }

    fn of<'a, T>(&self, both: &'a [T; 2]) -> &'a T {
        &both[usize::from(self.rig.handle.stage().authority() == tower_migration::Side::New)]
    }

    fn reached(&self) -> usize {
        self.rig.reached().len()
    }

    fn sum(&self, at: usize) -> usize {
        self.handled.iter().map(|handled| handled.counts()[at]).sum()
    }

    /// The server has seen the reset, and has had time to do what it does then:
    /// frames of one connection are read in their order.
    async fn reset_was_seen(&self, client: &SendRequest<Body>) {
        for _ in 0..5 {
            let request = self.rig.request("GET", "/quick").body(Body::empty()).unwrap();
            let mut client = client.clone();
            let answer = soon("a quick answer", client.send_request(request)).await.unwrap();
            assert_eq!(super::text(answer).await, "quick");
        }
    }

    /// The connection is as good as before, and nothing is in flight.
    async fn goes_on(&self, mut client: SendRequest<Body>, method: &str) {
        self.latch.open();
        self.faucets.iter().for_each(|faucet| faucet.pour(64));
        let request = self.rig.request(method, "/").body(Body::empty()).unwrap();
        let answer = soon("the next answer", client.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(super::text(answer).await, "chunk 0chunk 1chunk 2");
        let idle = || {
            let status = self.rig.handle.status();
            [status.on_old, status.on_new].iter().all(|side| side.writes == 0 && side.reads == 0)
        };
        until("nothing to be in flight", idle).await;
    }
}

#[tokio::test]
async fn before_the_bodys_end_a_dual_write_has_never_been() {
    for stage in Stage::ALL {
        let held = Held::at(stage, keep).await;
        let (mut client, _driver) = connect(&held.rig).await;
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
        let request = held.rig.request("PUT", "/").body(Body::new(body)).unwrap();
        let answer = tokio::spawn(client.send_request(request));
        sender.send_data(Bytes::from("half")).await.unwrap();
        until("the write to be in flight", || held.rig.writes() != (0, 0)).await;
        // What the client's program breaks off, hyper resets.
        sender.abort(std::io::Error::other("gone"));
        assert!(soon("an end", answer).await.unwrap().is_err(), "{stage}");
        until("the write to be gone", || held.rig.writes() == (0, 0)).await;
        assert_eq!(held.sum(0), 0, "no handler has had the whole body: {stage}");
        held.goes_on(client, "PUT").await;
        if stage.is_two_sided() {
            // No side has seen it, so nothing of it can still land.
            soon("a step", held.rig.handle.advance()).await.unwrap();
            soon("to settle", held.rig.handle.settled()).await;
        }
        held.rig.is_clean();
    }
}

#[tokio::test]
async fn while_the_handlers_run_a_dual_write_runs_to_its_end() {
    for stage in Stage::ALL {
        for policy in POLICIES {
            let held = Held::at(stage, |layer| layer.failure_policy(policy)).await;
            let (mut client, _driver) = connect(&held.rig).await;
            let request = held.rig.request("PUT", "/").body(Body::from("body")).unwrap();
            let answer = tokio::spawn(client.send_request(request));
            until("the handlers to begin", || held.sum(0) == held.reached()).await;
            answer.abort();
            assert!(soon("an end", answer).await.unwrap_err().is_cancelled());
            held.reset_was_seen(&client).await;
            if stage.is_two_sided() {
                held.latch.open();
                held.faucets.iter().for_each(|faucet| faucet.pour(3));
                until("both to end", || held.faucets.iter().all(|f| f.ended() == 1)).await;
                assert_eq!((held.sum(1), held.sum(2)), (2, 0), "{stage} {policy:?}");
            } else {
                // As without the layer.
                until("the handler to be dropped", || held.sum(2) == 1).await;
            }
            held.goes_on(client, "PUT").await;
            held.rig.is_clean();
        }
    }
}

#[tokio::test]
async fn while_the_answer_streams_the_rest_of_a_dual_writes_is_read_all_the_same() {
    for stage in Stage::ALL {
        for policy in POLICIES {
            let held = Held::at(stage, |layer| layer.failure_policy(policy)).await;
            let (mut client, _driver) = connect(&held.rig).await;
            held.latch.open();
            held.of(&held.faucets).pour(1);
            let other = usize::from(stage.authority() == tower_migration::Side::Old);
            held.faucets[other].pour(3);
            let request = held.rig.request("PUT", "/").body(Body::from("body")).unwrap();
            let answer = soon("a head", client.send_request(request)).await.unwrap();
            let mut body = answer.into_body();
            assert_eq!(chunk(&mut body).await.as_deref(), Some("chunk 0"));
            drop(body);
            held.reset_was_seen(&client).await;
            let authority = held.of(&held.faucets);
            if stage.is_two_sided() {
                // Only now: nobody reads for the client any more.
                authority.pour(2);
                until("the answer's end", || authority.ended() == 1).await;
                until("the write's end", || held.rig.writes() == (0, 0)).await;
            } else {
                until("the stream to be dropped", || authority.running() == 0).await;
                assert_eq!(authority.ended(), 0);
            }
            held.goes_on(client, "PUT").await;
            held.rig.is_clean();
        }
    }
}

#[tokio::test]
async fn before_the_bodys_end_a_read_with_a_body_ends_at_once_and_is_not_shadowed() {
    for stage in Stage::ALL {
        let held = Held::at(stage, keep).await;
        let (mut client, _driver) = connect(&held.rig).await;
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
        let request = held.rig.request("POST", "/search").body(Body::new(body)).unwrap();
        let answer = tokio::spawn(client.send_request(request));
        sender.send_data(Bytes::from("half")).await.unwrap();
        let reads =
            || held.rig.handle.status().on_old.reads + held.rig.handle.status().on_new.reads;
        until("the read to be in flight", || reads() == 1).await;
        sender.abort(std::io::Error::other("gone"));
        assert!(soon("an end", answer).await.unwrap().is_err(), "{stage}");
        until("the read to be gone", || reads() == 0).await;
        assert_eq!(held.sum(0), 0, "no handler has had the whole body: {stage}");
        held.goes_on(client, "PUT").await;
        soon("the shadows to end", held.rig.handle.shutdown()).await;
        assert_eq!(held.sum(0), held.reached(), "{stage}: the write alone");
        held.rig.is_clean();
    }
}

#[tokio::test]
async fn a_read_that_is_reset_ends_at_once_and_compares_nothing() {
    for stage in Stage::ALL {
        // While the handler runs.
        let held = Held::at(stage, keep).await;
        let (mut client, _driver) = connect(&held.rig).await;
        let request = held.rig.request("GET", "/").body(Body::empty()).unwrap();
        let answer = tokio::spawn(client.send_request(request));
        until("the handler to begin", || held.sum(0) == 1).await;
        answer.abort();
        until("the handler to be dropped", || held.sum(2) == 1).await;
        held.goes_on(client.clone(), "GET").await;

        // While the answer streams.
        let held = Held::at(stage, keep).await;
        let (mut client, _driver) = connect(&held.rig).await;
        held.latch.open();
        held.faucets.iter().for_each(|faucet| faucet.pour(1));
        let request = held.rig.request("GET", "/").body(Body::empty()).unwrap();
        let answer = soon("a head", client.send_request(request)).await.unwrap();
        let mut body = answer.into_body();
        assert_eq!(chunk(&mut body).await.as_deref(), Some("chunk 0"));
        drop(body);
        let authority = held.of(&held.faucets);
        until("the stream to be dropped", || authority.running() == 0).await;
        assert_eq!(authority.ended(), 0);
        held.goes_on(client, "GET").await;
        soon("the shadows to end", held.rig.handle.shutdown()).await;
        held.rig.is_clean();
        let evidence = held.rig.handle.evidence();
        let two = u64::from(stage.is_two_sided());
        assert_eq!((evidence.shadows.skipped, evidence.shadows.matches), (two, two), "{stage}");
    }
}
