//! The command line.

use std::{path::PathBuf, time::Duration};

use lexopt::{Arg, Parser, ValueExt};

use crate::scenarios::Scenario;

pub(crate) const HELP: &str = "\
Loads an old, a new and several layered axum services, and compares them.

Usage: cargo run --release --example load -- [OPTIONS] [SCENARIO]...

Scenarios (default: all but memory):
  one-sided    throughput at saturation, and the p99 at half of that, without the
               layer and with it
  dual-write   what a client waits for, with sides that take a millisecond
  shadow       what a client of a sampled read waits for, whatever the other side does
  saturation   throughput while each read is shadowed and compared, against a
               tokio::spawn by hand, a quick one and a careful one
  memory       the process's memory at full load, with the other side hanging

Options:
  --rounds N       turns of each contender (default 101), interleaved; an interval of confidence
                   needs 6
  --millis N       length of one turn (default 100): short, so that what else the machine does
                   meets all contenders alike
  --connections N  1 to 1024 (default 64)
  --minutes N      of the scenario memory (default 10)
  --plot PATH      the drawing (default target/load.svg)
  --short          one turn of 50 ms, and three seconds of memory: does it run?
  --help           this text

Latencies count from when a request was due, not from when it could be sent. The
exit status is 0 if every request was answered as it should.
";

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    pub(crate) connections: usize,
    pub(crate) memory: Duration,
    pub(crate) plot: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Args {
    pub(crate) fn parse(mut parser: Parser) -> Result<Self, lexopt::Error> {
        let mut args = Self {
            scenarios: Vec::new(),
            rounds: 101,
            turn: Duration::from_millis(100),
            connections: 64,
            memory: Duration::from_secs(600),
            plot: Some(PathBuf::from("target/load.svg")),
            help: false,
        };
        let mut short = false;
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("rounds") => args.rounds = positive(&mut parser)?,
                Arg::Long("millis") => {
                    args.turn = Duration::from_millis(positive(&mut parser)? as u64);
                }
                Arg::Long("connections") => args.connections = positive(&mut parser)?.min(1024),
                Arg::Long("minutes") => {
                    args.memory = Duration::from_secs(60 * positive(&mut parser)? as u64);
                }
                Arg::Long("plot") => args.plot = Some(parser.value()?.into()),
                Arg::Long("short") => short = true,
                Arg::Long("help") | Arg::Short('h') => args.help = true,
                Arg::Value(name) => {
                    let named = |scenario: &&Scenario| name == scenario.name();
                    let found = Scenario::ALL.iter().find(named);
                    args.scenarios.push(*found.ok_or(format!("no such scenario: {name:?}"))?);
                }
                other => return Err(other.unexpected()),
            }
        }
        if args.scenarios.is_empty() {
            let all = Scenario::ALL.into_iter();
            args.scenarios = all.filter(|it| short || *it != Scenario::Memory).collect();
        }
        if short {
            args.rounds = 1;
            args.turn = Duration::from_millis(50);
            args.memory = Duration::from_secs(3);
        }
        Ok(args)
    }
}

fn positive(parser: &mut Parser) -> Result<usize, lexopt::Error> {
    match parser.value()?.parse()? {
        0 => Err("a number above 0 is needed".into()),
        number => Ok(number),
    }
}
