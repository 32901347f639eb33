//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Moves 28,298 airports from SQLite to redb and back while clients read and write them.

Usage: cargo run --release --example migrate_airports -- [OPTIONS]

Options:
  --seconds N   length of the whole run, at least 10 (default 40). With --chaos it may
                take twice as long, since restarts take what they take
  --clients N   clients that read and write all the time, 1 to 512 (default 16)
  --seed N      for what the clients do and which requests fail (default 1)
  --chaos       the service is a process that is killed and started again and again,
                in every stage; both sides fail and are slow, clients hang up. An even
                seed asks for RequireBoth, an odd one for AwaitBoth. Every fourteenth
                airport takes part
  --kills N     with --chaos: kills in each stage, 1 to 100 (default: what the time
                allows)
  --defects     five defects in what new answers: writes to both, copies, compares each
                read and prints the report. --seconds is for all of that
  --verdicts PATH
                with --defects: append each read that did not match to this file, one
                line of JSON (default: airports.ndjson in the temporary directory)
  --serve       no clients: stay up with a page to move the flag by hand
  --help        this text

The exit status is 0 only if no acknowledged write was lost, no key differs and
no client saw an error that was not injected. With --chaos all errors are, and each
key that differs after a kill has to be a dirty one. With --defects it is 0 only if
each of the five was found.
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) seconds: u64,
    pub(crate) clients: u32,
    pub(crate) seed: u64,
    pub(crate) chaos: bool,
    pub(crate) kills: Option<u32>,
    /// Not for people: be the service that `--chaos` kills, over the files there.
    pub(crate) service: Option<PathBuf>,
    pub(crate) defects: bool,
    /// Where `--defects` keeps what was found.
    pub(crate) verdicts: Option<PathBuf>,
    pub(crate) serve: bool,
    pub(crate) help: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            seconds: 40,
            clients: 16,
            seed: 1,
            chaos: false,
            kills: None,
            service: None,
            defects: false,
            verdicts: None,
            serve: false,
            help: false,
        }
    }
}

impl Args {
    pub(crate) fn parse(mut parser: Parser) -> Result<Self, lexopt::Error> {
        let mut args = Self::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("seconds") => args.seconds = parser.value()?.parse()?,
                Arg::Long("clients") => args.clients = parser.value()?.parse()?,
                Arg::Long("seed") => args.seed = parser.value()?.parse()?,
                Arg::Long("chaos") => args.chaos = true,
                Arg::Long("kills") => args.kills = Some(parser.value()?.parse()?),
                Arg::Long("service") => args.service = Some(parser.value()?.into()),
                Arg::Long("defects") => args.defects = true,
                Arg::Long("verdicts") => args.verdicts = Some(parser.value()?.into()),
                Arg::Long("serve") => args.serve = true,
                Arg::Long("help") | Arg::Short('h') => args.help = true,
                _ => return Err(arg.unexpected()),
            }
        }
        if !(10..=3600).contains(&args.seconds) {
            return Err("--seconds: 10 to 3600 expected".into());
        }
        if !(1..=512).contains(&args.clients) {
            return Err("--clients: 1 to 512 expected".into());
        }
        if args.kills.is_some_and(|kills| !(1..=100).contains(&kills)) {
            return Err("--kills: 1 to 100 expected".into());
        }
        if args.verdicts.is_some() && !args.defects {
            return Err("--verdicts: only with --defects".into());
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        Args::parse(Parser::from_args(args)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_and_checked() {
        assert_eq!(parse(&[]), Ok(Args::default()));
        let args = parse(&["--seconds", "15", "--clients=64", "--seed", "5", "--serve"]);
        let expected = Args { seconds: 15, clients: 64, seed: 5, serve: true, ..Args::default() };
        assert_eq!(args, Ok(expected));
        let args = parse(&["--chaos", "--kills", "3"]);
        assert_eq!(args, Ok(Args { chaos: true, kills: Some(3), ..Args::default() }));
        assert!(parse(&["--chaos", "--kills", "0"]).is_err());
        let args = parse(&["--defects", "--verdicts", "found"]);
        let verdicts = Some("found".into());
        assert_eq!(args, Ok(Args { defects: true, verdicts, ..Args::default() }));
        assert!(parse(&["--verdicts", "found"]).is_err());
        assert!(parse(&["--seconds", "9"]).is_err());
        assert!(parse(&["--clients", "0"]).is_err());
        assert!(parse(&["--what"]).is_err_and(|error| error.contains("--what")));
    }
}
