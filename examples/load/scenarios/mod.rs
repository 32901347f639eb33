//! What is compared with what.

mod by_hand;
mod dual_write;
mod memory;
mod one_sided;
mod saturation;
mod shadow;

use std::net::SocketAddr;

use tower_migration::BoxError;

use crate::{
    args::Args,
    clients::{Ask, Clients, Load, Pace, Seen},
    plot::Plot,
    servers::Servers,
    statistics::Median,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    OneSided,
    DualWrite,
    Shadow,
    Saturation,
    Memory,
}

impl Scenario {
    pub(crate) const ALL: [Self; 5] =
        [Self::OneSided, Self::DualWrite, Self::Shadow, Self::Saturation, Self::Memory];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneSided => "one-sided",
            Self::DualWrite => "dual-write",
            Self::Shadow => "shadow",
            Self::Saturation => "saturation",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn run(
        self,
        args: &Args,
        servers: &Servers,
        plot: &mut Plot,
    ) -> Result<(), BoxError> {
        match self {
            Self::OneSided => one_sided::run(args, servers, plot),
            Self::DualWrite => dual_write::run(args, servers, plot),
            Self::Shadow => shadow::run(args, servers, plot),
            Self::Saturation => saturation::run(args, servers, plot),
            Self::Memory => memory::run(args, servers, plot),
        }
    }
}

/// What is loaded under which name.
pub(crate) type Contender = (&'static str, SocketAddr);

/// The turns of each contender, in the order of the contenders.
pub(crate) struct Turns(Vec<Vec<Seen>>);

impl Turns {
    /// Loads each in turn, each round in another order: what a turn leaves behind must
    /// not always meet the same one.
    fn take(args: &Args, contenders: &[Contender], ask: Ask, pace: Pace) -> Result<Self, BoxError> {
        let clients = Clients::start()?;
        let mut turns: Vec<_> = contenders.iter().map(|_| Vec::new()).collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut order: Vec<_> = (0..contenders.len()).collect();
        for _ in 0..args.rounds {
            random.shuffle(&mut order);
            for &at in &order {
                let load = Load {
                    to: contenders[at].1,
                    ask,
                    pace,
                    connections: args.connections,
                    length: args.turn,
                };
                let seen = clients.load(load);
                turns[at].push(seen.map_err(|why| format!("{}: {why}", contenders[at].0))?);
            }
        }
        Ok(Self(turns))
    }

    fn of(&self, contender: usize, value: impl Fn(&Seen) -> f64) -> Vec<f64> {
        self.0[contender].iter().map(value).collect()
    }

    fn median(&self, contender: usize, value: impl Fn(&Seen) -> f64) -> f64 {
        Median::of(self.of(contender, value)).value
    }

    /// Against another contender, turn by turn.
    fn ratio(&self, contender: usize, base: usize, value: impl Fn(&Seen) -> f64 + Copy) -> Median {
        Median::of_ratios(&self.of(contender, value), &self.of(base, value))
    }

    /// In milliseconds, over all turns together: what a turn's own hides if it happens
    /// in few of them.
    fn overall(&self, contender: usize, quantile: f64) -> f64 {
        self.latency(contender).value_at_quantile(quantile) as f64 / 1e6
    }

    /// All turns of one contender together.
    pub(crate) fn latency(&self, contender: usize) -> hdrhistogram::Histogram<u64> {
        let mut turns = self.0[contender].iter();
        let mut all = turns.next().expect("one round at least").latency.clone();
        turns.for_each(|turn| all.add(&turn.latency).expect("of one kind"));
        all
    }
}
