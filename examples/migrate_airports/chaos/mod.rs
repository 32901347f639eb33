//! `--chaos`: a service that is killed and started again and again while it migrates.
//!
//! The parent has the clients and their memory, the driver that moves the flag, and
//! the way to kill. The service is a process of its own (this program again): the
//! layer, both stores, the flag in a [`FileStore`](tower_migration::FileStore), the
//! dirty keys in a [`Journal`](tower_migration::reconcile::Journal), the backfill's
//! place in [`FileCheckpoints`](tower_migration::reconcile::FileCheckpoints), and a
//! [`Repair`](tower_migration::reconcile::Repair) that begins with it.
//!
//! | file | what |
//! |---|---|
//! | `service` | **the process that is killed** |
//! | `process` | it, as its parent sees it |
//! | `driver` | kills and restarts, and what is looked at between them |
//! | `way` | 0→1→2→3→2→1→0, with kills in each part |
//! | `tally` | what is counted, and said at the end |

mod driver;
mod process;
mod service;
mod tally;
mod way;

use std::{path::Path, time::Duration};

use indicatif::HumanCount;
use tokio::time::timeout;
use tower_migration::BoxError;

pub(crate) use self::process::{Program, this_program};
pub(crate) use self::service::service;
use self::{driver::Driver, process::Service};
use crate::{
    CSV,
    args::Args,
    clients::{Clients, Load},
    console::Console,
    new::Saves,
    ops::Rows,
    seed,
    witness::Witness,
    world::stores,
};

/// Every so many rows of the data set: each write to redb waits for the disk here,
/// and a backfill is to end although it is killed all the time.
const STEP: usize = 14;

/// Requests in a second, of all clients together: each write waits for the disk a few
/// times, and copies are to get on beside them.
const RATE: f64 = 1_200.0;

/// Of a hundred requests, so many are given up by their client.
const HANG_UPS: u8 = 3;

/// The whole way there and back. Answers whether all is well.
pub(crate) async fn run(
    args: &Args,
    console: &Console,
    program: Program,
) -> Result<bool, BoxError> {
    let rows = Rows::new(seed::read(CSV)?.into_iter().step_by(STEP).collect());
    let dir = tempfile::tempdir()?;
    load(dir.path(), &rows)?;
    console.say(format!(
        "chaos, seed {}: {} airports in SQLite; {:?}",
        args.seed,
        HumanCount(rows.all().len() as u64),
        service::policy(args.seed)
    ));
    let service = Service::start(program, dir.path(), args.seed, 0).await?;
    let witness = Witness::new(rows);
    let load = Load { clients: args.clients, seed: args.seed, rate: RATE, hang_ups: HANG_UPS };
    let clients = Clients::start(&witness, service.wire.clone(), load);
    // Whatever goes wrong for a client here was injected: what counts is the data.
    clients.expect_errors(true);
    let mut driver =
        Driver::new(args, console, (program, dir.path()), (&clients, &witness), service);
    // Whatever hangs, this ends.
    let limit = Duration::from_secs(args.seconds * 4 + 120);
    let walked = timeout(limit, driver.walk()).await;
    let walked = walked.unwrap_or_else(|_| Err(format!("not done after {limit:?}").into()));
    let tally = driver.end().await;
    let wrong = clients.wrong_reads().wrong.load(std::sync::atomic::Ordering::SeqCst);
    let hung_up = clients.hung_up();
    clients.stop().await?;
    witness.stats().leave();
    let well = tally.report(&witness, wrong, hung_up);
    walked.map(|()| well)
}

fn load(dir: &Path, rows: &Rows) -> Result<(), BoxError> {
    let (old, _) = stores(dir, Saves::Each)?;
    let loaded = old.load(rows.all().iter().cloned());
    loaded.map_err(|error| format!("cannot load old: {error:?}").into())
}
