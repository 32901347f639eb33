//! Moves a real data set from one store to another under live traffic.
//!
//! ```sh
//! cargo run --release --example migrate_airports
//! ```
//!
//! The data are 28,298 airports. The old store is SQLite with a normalised
//! schema, the new one redb with a document per airport; both are behind an axum
//! router with the same REST interface. One service listens on a port of this
//! machine, with the migration layer between it and the two routers. Clients
//! read and write over HTTP from the first second to the last, many of them the
//! same few airports, while the example walks the whole way: write to both, copy,
//! shadow reads, read from new, a fault in new, the emergency exit, repair, read
//! from new again, new alone.
//!
//! The clients remember what they were told. At the end the two stores are
//! compared key by key, and new with what the clients know.
//!
//! | file | what |
//! |---|---|
//! | `world` | the stores, the routers, **the layer** |
//! | `walk` | **the way**, step by step |
//! | `copy` | `copy_key` over all keys, and over dirty ones |
//! | `serve` | `--serve`: routes to move the flag by hand |
//! | `clients`, `ops`, `wire` | who asks for what, and how |
//! | `history` | what was acknowledged, and what may be read after it |
//! | `faults` | requests that fail on purpose |
//! | `check`, `stats`, `console`, `report` | what is measured and shown |
//! | `model`, `old`, `new`, `seed` | the airports and the two stores |

mod args;
mod check;
mod clients;
mod console;
mod copy;
mod faults;
mod history;
mod model;
mod new;
mod old;
mod ops;
mod report;
mod seed;
mod serve;
mod stats;
#[cfg(test)]
mod tests;
mod walk;
mod wire;
mod world;

use std::{process::ExitCode, time::Duration};

use indicatif::HumanCount;
use lexopt::Parser;
use tokio::time::timeout;
use tower_migration::{BoxError, Stage};

use crate::{
    args::{Args, HELP},
    clients::Clients,
    console::Console,
    model::{ApiError, Store},
    ops::Rows,
    walk::Walk,
    world::{World, serve},
};

/// The data set. It lies in the repository, not in the published package.
const CSV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airports.csv");

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(Parser::from_env()) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    if args.help {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    // Quiet unless asked: the layer warns of each write whose legs disagree,
    // and there will be many, on purpose.
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<bool, BoxError> {
    let console = Console::new();
    let rows = Rows::new(seed::read(CSV)?);
    let dir = tempfile::tempdir()?;
    let world = World::build(dir.path(), rows, args.seed)?;
    let failed = |error: ApiError| format!("cannot count: {error:?}");
    console.say(format!(
        "old: SQLite with {} airports; new: redb with {}",
        HumanCount(world.old.len().map_err(failed)?),
        HumanCount(world.new.len().map_err(failed)?)
    ));
    if args.serve {
        serve::stay_up(world).await?;
        return Ok(true);
    }
    // Whatever hangs, this ends.
    let limit = Duration::from_secs(args.seconds * 2 + 90);
    timeout(limit, migrate(args, &world, &console)).await.map_err(|_| {
        let status = world.migration.status();
        format!("not done after {limit:?}; the flag:\n{status}")
    })?
}

async fn migrate(args: Args, world: &World, console: &Console) -> Result<bool, BoxError> {
    let (address, server) = serve(world.router()).await?;
    world.stats().enter(Stage::OldOnly, "old alone");
    let clients = Clients::start(world, address, args.clients, args.seed);
    let ticker = console.tick(world, Duration::from_secs(args.seconds.div_ceil(40).max(2)));
    let walked = Walk::new(world, console, &clients, args).run(address).await;
    ticker.abort();
    let compared = match walked {
        Ok(compared) => compared,
        Err(error) => {
            clients.stop().await?;
            return Err(error);
        }
    };

    let guard = clients.pause().await;
    check::quiet(world).await?;
    world.stats().leave();
    let verified = check::verify(world).await?;
    drop(guard);
    let well = report::report(world, clients.wrong_reads(), &compared, &verified);
    clients.stop().await?;
    world.migration.shutdown().await;
    server.abort();
    Ok(well)
}
