//! Random chunks, random interleavings; polled only when somebody was woken, so
//! that a wake-up that is missing is a test that fails.

use super::*;

/// Names the seed of a run that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

struct Run {
    random: fastrand::Rng,
    fan: Fan,
    source: Source,
    readers: [Option<Reader>; 2],
    /// Whether its last poll gave something, so that it may poll again.
    eager: [bool; 2],
    read: [Vec<u8>; 2],
    trailers: [bool; 2],
    ended: [bool; 2],
    all: Vec<u8>,
    known_length: bool,
    lag: usize,
    longest: usize,
}

impl Run {
    fn check(&self) {
        // Without any lag, one chunk at a time passes.
        let most = self.lag.max(1) - 1 + self.longest;
        assert!(kept(&self.fan) <= most, "{} kept, not {most}", kept(&self.fan));
        for lane in [0, 1] {
            let Some(reader) = &self.readers[lane] else { continue };
            assert!(self.all.starts_with(&self.read[lane]));
            let left = (self.all.len() - self.read[lane].len()) as u64;
            let hint = reader.0.size_hint();
            assert!(hint.lower() <= left && hint.upper().is_none_or(|upper| upper >= left));
            if self.known_length {
                assert_eq!(hint.exact(), Some(left));
            }
            if reader.is_end_stream() {
                assert_eq!(left, 0);
            }
        }
    }

    fn poll(&mut self, lane: usize) {
        let Some(reader) = &mut self.readers[lane] else { return };
        let got = reader.poll();
        self.eager[lane] = got != Got::Nothing;
        match got {
            Got::Nothing => {}
            Got::Data(data) => self.read[lane].extend_from_slice(&data),
            Got::Trailers(_) => self.trailers[lane] = true,
            Got::End => {
                self.ended[lane] = true;
                self.eager[lane] = false;
            }
            got => panic!("{got:?}"),
        }
        self.check();
    }

    fn may_poll(&self, lane: usize) -> bool {
        self.readers[lane]
            .as_ref()
            .is_some_and(|reader| !self.ended[lane] && (self.eager[lane] || reader.is_woken()))
    }
}

fn start(seed: u64) -> (Run, VecDeque<Step>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let longest = random.usize(1..20);
    let chunks: Vec<Bytes> = (0..random.usize(..30))
        .map(|_| (0..random.usize(..=longest)).map(|_| random.u8(..)).collect())
        .collect();
    let all: Vec<u8> = chunks.concat();
    let known_length = random.bool();
    let lag = random.usize(..60);
    let mut steps: VecDeque<Step> = VecDeque::new();
    let ahead = if random.bool() { random.usize(..=chunks.len()) } else { 0 };
    // What has been read before is within the limit, or the layer had not.
    let mut first = Vec::new();
    let mut first_bytes = 0;
    for (index, chunk) in chunks.into_iter().enumerate() {
        if index < ahead && first_bytes + chunk.len() <= lag && steps.is_empty() {
            first_bytes += chunk.len();
            first.push(Frame::data(chunk));
        } else {
            if random.u8(..8) == 0 {
                steps.push_back(Step::Yield);
            }
            steps.push_back(Step::Data(chunk));
        }
    }
    if random.bool() {
        steps.push_back(Step::Trailers(checksum()));
    }
    let source = Source::default();
    source.script().knows_end = random.bool();
    source.script().left = known_length.then(|| (all.len() - first_bytes) as u64);
    let limit = if random.bool() { usize::MAX } else { random.usize(..100) };
    let lease = budget().lease(limit);
    let streaming = holding().lag(lag);
    let (fan, branches) = fan_out(first, source.body(), streaming, lease);
    let readers = branches.map(|branch| Some(Reader(spawn(branch))));
    let run = Run {
        random,
        fan,
        source,
        readers,
        eager: [true; 2],
        read: Default::default(),
        trailers: [false; 2],
        ended: [false; 2],
        all,
        known_length,
        lag,
        longest,
    };
    (run, steps)
}

fn run(seed: u64) {
    let (mut run, mut steps) = start(seed);
    let trailers = matches!(steps.back(), Some(Step::Trailers(_)));
    // In every other run somebody goes at some moment.
    let (mut until_drop, goes) = (run.random.usize(..60), run.random.usize(..2));
    let drops = run.random.bool();
    let mut favoured = 0;
    loop {
        run.check();
        if drops && until_drop == 0 {
            run.readers[goes] = None;
        }
        until_drop = until_drop.wrapping_sub(1);
        if run.random.u8(..10) == 0 {
            favoured = run.random.usize(..2);
        }
        let lane = if run.random.u8(..4) == 0 { 1 - favoured } else { favoured };
        let ready = [run.may_poll(0), run.may_poll(1)];
        let more = !run.source.script().ended;
        if more && (ready == [false; 2] || run.random.u8(..3) == 0) {
            match steps.pop_front() {
                Some(step) => run.source.does(step),
                None => run.source.ends(),
            }
        } else if ready[lane] {
            run.poll(lane);
        } else if ready[1 - lane] {
            run.poll(1 - lane);
        } else {
            break;
        }
    }
    for lane in [0, 1] {
        if run.readers[lane].is_some() {
            assert!(run.ended[lane], "{lane} waits for ever");
            assert_eq!(run.read[lane], run.all);
            assert_eq!(run.trailers[lane], trailers);
        }
    }
    assert!(run.source.is_dropped() || run.readers.iter().all(Option::is_none));
}

#[tokio::test(start_paused = true)]
async fn both_get_the_same_whatever_the_order() {
    let runs = std::env::var("FAN_RUNS").ok().and_then(|runs| runs.parse().ok());
    for seed in 0..runs.unwrap_or(3_000) {
        let name = Seed(seed);
        run(name.0);
    }
}
