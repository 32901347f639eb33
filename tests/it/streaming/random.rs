//! Any sides, any client, any policy: what must hold of all of them.

use fastrand::Rng;
use tokio::time::sleep;
use tower_migration::{Limits, body::SlowLeg};

use super::*;

/// `STREAMING_ROUNDS` for more, `STREAMING_SEED` for one of them.
const ROUNDS: u64 = 200;

fn side(rng: &mut Rng) -> (Reader, Gate) {
    let any = |rng: &mut Rng| {
        let all = [200, 200, 200, 400, 500];
        match rng.u8(..10) {
            0 => Then::Error,
            1 => Then::Panic,
            2 => Then::Hang,
            _ => Then::Answer(all[rng.usize(..all.len())]),
        }
    };
    let chunks = if rng.u8(..4) == 0 { rng.usize(..6) } else { usize::MAX };
    let (gated, gate) = gated();
    let gate_it = rng.bool();
    let (then, broken) = (any(rng), any(rng));
    (Reader { chunks, then, broken, gate: gated.gate.filter(|_| gate_it), ..gated }, gate)
}

struct Client {
    feed: Feed,
    sent: Option<Sent>,
    given: Vec<u8>,
    ended_well: bool,
    /// It says that it has so much: nobody needs to hear its end.
    length: Option<usize>,
}

impl Client {
    fn of(rig: &Rig, rng: &mut Rng, length: usize) -> Self {
        let is_sized = rng.bool();
        // One of two keys: some wait for their turn.
        let path = if rng.bool() { "/a" } else { "/b" };
        let (feed, request) = if is_sized { sized(path, length as u64) } else { upload(path) };
        let sent = Some(rig.send(request));
        let length = is_sized.then_some(length);
        Self { feed, sent, given: Vec::new(), ended_well: false, length }
    }

    async fn steps(&mut self, rng: &mut Rng, length: usize) {
        if self.feed.0.is_none() {
            return;
        }
        let left = length - self.given.len();
        match rng.u8(..40) {
            0 => self.feed.breaks(),
            1 => {
                if let Some(sent) = self.sent.take()
                    && !sent.has_answer()
                {
                    sent.hangs_up().await;
                }
            }
            // Ends too early, as a connection that is dropped.
            2 => self.ends(),
            _ if left == 0 => self.ends(),
            _ => {
                let chunk: Vec<_> = (0..rng.usize(..=left.min(6))).map(|_| rng.u8(..)).collect();
                self.given.extend_from_slice(&chunk);
                self.feed.gives(chunk);
            }
        }
    }

    fn ends(&mut self) {
        self.ended_well = true;
        self.feed.ends();
    }

    fn has_given_all(&self) -> bool {
        self.length.map_or(self.ended_well, |length| self.given.len() == length)
    }
}

async fn round(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let ((old, old_gate), (new, new_gate)) = (side(&mut rng), side(&mut rng));
    let policy = POLICIES[rng.usize(..3)];
    let patience = Duration::from_secs(rng.u64(..8));
    let slow = if rng.bool() { SlowLeg::CutOff } else { SlowLeg::Hold(patience) };
    let streaming = Streaming::new().lag(rng.usize(1..20)).slow_leg(slow).above(0);
    let limits = Limits::default()
        .body(8)
        .buffered_bytes(rng.usize(8..30))
        .leg_timeout(Duration::from_secs(5))
        .abandon_after(Duration::from_secs(20));
    let set =
        |layer: MigrationLayer<_>| layer.failure_policy(policy).limits(limits.clone()).unwrap();
    let stage = if rng.bool() { Stage::WriteBoth } else { Stage::ReadNew };
    let rig = Rig::with(stage, old, new, streaming, &set).await;
    let length = rng.usize(..40);
    let mut clients = Vec::new();
    for _ in 0..rng.usize(1..4) {
        clients.push(Client::of(&rig, &mut rng, length));
        settle_tasks().await;
    }
    for _ in 0..100 {
        let nth = rng.usize(..clients.len());
        clients[nth].steps(&mut rng, length).await;
        match rng.u8(..8) {
            0 => old_gate.lets_one_through(),
            1 => new_gate.lets_one_through(),
            2 => sleep(Duration::from_millis(rng.u64(..3000))).await,
            _ => settle_tasks().await,
        }
    }
    for client in &mut clients {
        if client.feed.0.is_some() {
            client.ends();
        }
    }
    old_gate.open();
    new_gate.open();
    for sent in clients.iter_mut().filter_map(|client| client.sent.take()) {
        // Everybody who is still there is told something.
        let told = sent.status().await;
        assert!([0, 200, 400, 500, 503, 504].contains(&told), "{told}");
    }
    rig.shuts_down().await;
    settle_tasks().await;
    assert_eq!(rig.in_flight(), (0, 0));

    for seen in rig.sides().into_iter().flat_map(Reader::seen) {
        if seen.end == Some(End::Whole) {
            let whole =
                clients.iter().any(|client| client.has_given_all() && client.given == seen.data);
            assert!(whole, "a part was taken for the whole");
        } else {
            let part = clients.iter().any(|client| client.given.starts_with(&seen.data));
            assert!(part, "something that nobody has sent");
        }
    }
    // What is clean and was read to its end by both is the same on both.
    let dirty = rig.dirty();
    for path in ["/a", "/b"].into_iter().filter(|path| !dirty.iter().any(|key| key == path)) {
        let [old, new] = rig.sides().map(|side| -> Vec<_> {
            side.seen().into_iter().filter(|seen| seen.path == path).collect()
        });
        assert_eq!(old.len(), new.len());
        for (old, new) in old.into_iter().zip(new) {
            let whole = |seen: &Seen| seen.end == Some(End::Whole) && seen.answered;
            if whole(&old) && whole(&new) {
                assert_eq!(old.data, new.data);
            }
            for seen in [&old, &new] {
                assert!(matches!(seen.end, Some(End::Whole | End::Left)), "{seen:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_no_part_is_taken_for_the_whole_and_nothing_is_left() {
    let set = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = set("STREAMING_ROUNDS").unwrap_or(ROUNDS);
    let (from, to) = set("STREAMING_SEED").map_or((0, rounds), |seed| (seed, seed + 1));
    for seed in from..to {
        let limit = Duration::from_secs(100_000);
        let round = tokio::time::timeout(limit, tokio::spawn(round(seed))).await;
        round
            .unwrap_or_else(|_| panic!("STREAMING_SEED={seed} stands still"))
            .unwrap_or_else(|error| panic!("STREAMING_SEED={seed}: {error}"));
    }
}
