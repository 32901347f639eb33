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
//! from new again, new alone; and back: write to both, copy to old, read from old,
//! old alone.
//!
//! The clients remember what they were told. Where the way leaves a side behind the
//! two stores are compared key by key, and the one that stays with what the clients
//! know.
//!
//! With `--chaos` the service is a process of its own, with its flag, its dirty keys
//! and its backfill's checkpoints in files. It is killed (`kill -9`) several times in
//! each stage of the same way, while requests to either side fail and clients hang
//! up.
//!
//! With `--defects` new answers wrongly, in five ways and now and then, and the report
//! of the shadow reads has to name the place of each.
//!
//! | file | what |
//! |---|---|
//! | `world` | the stores, the routers, **the layer** |
//! | `sides` | **how copies read, write and list**: `Repair`, `Backfill`, `Verify` |
//! | `walk`, `there`, `back` | **the way**, step by step |
//! | `chaos` | `--chaos`: the service that is killed, and who kills it |
//! | `defects` | `--defects`: what goes wrong in new, and **how it is found** |
//! | `serve` | `--serve`: routes to move the flag by hand |
//! | `clients`, `ops`, `wire` | who asks for what, and how |
//! | `witness`, `history` | what was acknowledged, and what may be read after it |
//! | `faults` | requests that fail on purpose |
//! | `check`, `stats`, `console`, `report` | what is measured and shown |
//! | `model`, `old`, `new`, `seed` | the airports and the two stores |

mod args;
mod back;
mod chaos;
mod check;
mod clients;
mod console;
mod defects;
mod faults;
mod history;
mod model;
mod new;
mod old;
mod ops;
mod report;
mod seed;
mod serve;
mod sides;
mod stats;
#[cfg(test)]
mod tests;
mod there;
mod walk;
mod wire;
mod witness;
mod world;

use std::{process::ExitCode, time::Duration};

use indicatif::HumanCount;
use lexopt::Parser;
use tokio::time::timeout;
use tower_migration::{BoxError, Side, Stage};

use crate::{
    args::{Args, HELP},
    clients::{Clients, Load},
    console::Console,
    model::{ApiError, Store},
    ops::Rows,
    walk::Walk,
    wire::Wire,
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
    if let Some(dir) = args.service {
        return chaos::service(&dir, args.seed).await;
    }
    let console = Console::new();
    if args.chaos {
        return chaos::run(&args, &console, chaos::this_program).await;
    }
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
    let way = async {
        match args.defects {
            true => defects::run(&args, &world, &console).await,
            false => migrate(&args, &world, &console).await,
        }
    };
    timeout(limit, way).await.map_err(|_| {
        let status = world.migration.status();
        format!("not done after {limit:?}; the flag:\n{status}")
    })?
}

async fn migrate(args: &Args, world: &World, console: &Console) -> Result<bool, BoxError> {
    let (address, server) = serve(world.router()).await?;
    world.stats().enter(Stage::OldOnly, "old alone");
    // Once, for the whole way: it mends what goes wrong, whenever it does.
    let repairing = world.repair()?;
    let load = Load { clients: args.clients, seed: args.seed, rate: 2_500.0, hang_ups: 0 };
    let clients = Clients::start(&world.witness, Wire::to(address), load);
    let ticker = console.tick(world, Duration::from_secs(args.seconds.div_ceil(40).max(2)));
    let mut walk = Walk::new(world, console, &clients, args);
    let walked = walk.run(address).await;
    ticker.abort();
    let found = match walked {
        Ok(found) => found,
        Err(error) => {
            clients.stop().await?;
            return Err(error);
        }
    };

    world.stats().leave();
    let old = walk.remember(Side::Old).await?;
    let well = report::report(world, clients.wrong_reads(), &found, &old);
    clients.stop().await?;
    repairing.stop().await;
    world.migration.shutdown().await;
    server.abort();
    Ok(well)
}
