//! However long an answer is, little of it is in memory at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use tower_migration::{FailurePolicy, Limits, MigrationLayer, Stage};

use super::{POLICIES, Rig, Seat, Wire, soon, until, whole};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 192;

/// Chunks that are alive, and the most there ever were.
#[derive(Clone, Default)]
struct Alive {
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
}

struct Chunk(Vec<u8>, Alive);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.1.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Alive {
    fn chunk(&self) -> Bytes {
        self.made.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Chunk(vec![7; CHUNK], self.clone()))
    }

    fn body(&self) -> Body {
        let alive = self.clone();
        let chunks = (0..CHUNKS).map(move |_| Ok::<_, std::convert::Infallible>(alive.chunk()));
        Body::from_stream(stream::iter(chunks))
    }
}

async fn peak(
    method: &str,
    stage: Stage,
    wire: Wire,
    set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
) -> usize {
    let alive = Alive::default();
    let side = |seat: Seat| {
        let alive = alive.clone();
        let give = async move || {
            seat.note("");
            alive.body()
        };
        Router::new().route("/", get(give.clone()).put(give))
    };
    let limits = Limits::default().captured_body(4 * CHUNK);
    let set = |layer: MigrationLayer<Router>| set(layer.limits(limits).unwrap());
    let rig = Rig::with(side, set, whole).await.at(stage).await;
    let request = rig.request(method, "/").body(Body::empty()).unwrap();
    let mut body = rig.send(wire, request).await.into_body();
    let mut length = 0;
    while let Some(frame) = soon("a chunk", body.frame()).await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(length, CHUNK * CHUNKS);
    soon("the rest", rig.handle.shutdown()).await;
    until("all chunks to be gone", || alive.now.load(Ordering::SeqCst) == 0).await;
    if method == "PUT" {
        let sides = rig.reached().len();
        assert_eq!(alive.made.load(Ordering::SeqCst), sides * CHUNKS, "all of both sides'");
    }
    rig.is_clean();
    alive.peak.load(Ordering::SeqCst)
}

/// hyper itself holds a few of them on their way to the socket.
const FEW: usize = 24;

#[tokio::test]
async fn a_shadowed_read_holds_as_much_of_its_answers_as_may_be_captured() {
    for stage in Stage::ALL {
        for wire in Wire::BOTH {
            let peak = peak("GET", stage, wire, |layer| layer).await;
            assert!(peak <= FEW + 2 * 5, "{peak} of {CHUNKS} at {stage} {wire:?}");
        }
    }
}

#[tokio::test]
async fn a_write_holds_next_to_nothing_of_either_sides_answer() {
    for stage in Stage::ALL {
        for policy in POLICIES {
            for wire in Wire::BOTH {
                let peak = peak("PUT", stage, wire, |layer| layer.failure_policy(policy)).await;
                assert!(peak <= FEW, "{peak} of {CHUNKS} at {stage} {policy:?} {wire:?}");
            }
        }
    }
}

/// A hook that wants the whole answer gets none that is too long, and what was
/// read ahead until then is all that is held.
#[tokio::test]
async fn an_answer_that_is_read_ahead_is_held_up_to_the_limit() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let alive = Alive::default();
        let side = |_: Seat| {
            let alive = alive.clone();
            Router::new().route("/", get("").put(async move || alive.body()))
        };
        let limits = Limits::default().captured_body(4 * CHUNK);
        let set = |layer: MigrationLayer<Router>| {
            layer
                .failure_policy(FailurePolicy::AuthorityWins)
                .other_leg(|request, _| Some(request))
                .limits(limits)
                .unwrap()
        };
        let rig = Rig::with(side, set, whole).await.at(stage).await;
        rig.handle.set_shadow_rate(0.0).unwrap();
        let request = rig.request("PUT", "/").body(Body::empty()).unwrap();
        let answer = rig.send(Wire::H1, request).await;
        let length =
            soon("the answer", answer.into_body().collect()).await.unwrap().to_bytes().len();
        assert_eq!(length, CHUNK * CHUNKS);
        let peak = alive.peak.load(Ordering::SeqCst);
        assert!(peak <= FEW + 5, "{peak} of {CHUNKS} at {stage}");
    }
}
