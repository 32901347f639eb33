//! Moves airports from SQLite to PostgreSQL while two processes write them.
//!
//! ```sh
//! cargo run --example postgres                          # a throw-away server
//! cargo run --example postgres -- --url postgres://...  # your own
//! ```
//!
//! The layer orders the writes and copies of *its* process. A second process knows
//! nothing of that order: its write can be on both sides by the time that a copy of
//! the row as it was before arrives. Only the store can tell the two apart, so every
//! row has a **version**:
//!
//! - The authority counts it up in the statement that writes the row, and answers it.
//! - The other side is given the row *with* that version ([`AuthorityFirst`], and
//!   `other_leg` in `service`), and takes it only if its own is lower: `ON CONFLICT …
//!   DO UPDATE … WHERE airports.version < excluded.version`.
//! - Copies write the same way (`rows`), so a late one changes nothing.
//! - A deletion is a write too: what it leaves is a row with a version and no name.
//!
//! The example starts itself a second time as the other process, copies with a
//! [`Backfill`] while both write, and compares with a [`Verify`]. Then it compares the
//! two stores with code of its own, and new with every write that was acknowledged to
//! either process. It exits with 1 if a key differs or a write is missing, and with 2
//! if there is no PostgreSQL to work with.
//!
//! | file | what |
//! |---|---|
//! | `store` | **the statements**, which are the same for both stores |
//! | `sqlite`, `postgres` | the two stores |
//! | `service` | the stores as services, and **the layer** around them |
//! | `rows` | how copies read, write and list |
//! | `walk` | **the way**, step by step, and the checks |
//! | `clients` | who writes, and what they were told |
//! | `writer` | the other process |
//! | `cluster` | the throw-away server |
//! | `tests` | the way; and what goes missing without the version |
//!
//! [`AuthorityFirst`]: tower_migration::WriteOrder::AuthorityFirst
//! [`Backfill`]: tower_migration::reconcile::Backfill
//! [`Verify`]: tower_migration::reconcile::Verify

mod clients;
mod cluster;
mod postgres;
mod rows;
mod service;
mod sqlite;
mod store;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

use std::process::ExitCode;

use tower_migration::BoxError;

use crate::cluster::{Cluster, MISSING};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (url, cluster) = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => match Cluster::start() {
            Ok(Some(cluster)) => (cluster.url(), Some(cluster)),
            Ok(None) => {
                let install = "Install one (Debian: `apt install postgresql`), or give the URL of \
                               a server that runs: `--url postgres://...`";
                eprintln!("{MISSING}\n{install}");
                return ExitCode::from(2);
            }
            Err(why) => {
                eprintln!("PostgreSQL does not start: {why}");
                return ExitCode::FAILURE;
            }
        },
        ["--url", url] => ((*url).to_owned(), None),
        [arg] if *arg == writer::ARG => return told(writer::write().await),
        _ => {
            eprintln!("usage: cargo run --example postgres -- [--url postgres://...]");
            return ExitCode::from(2);
        }
    };
    let walked = walk::walk(&url).await;
    drop(cluster);
    told(walked)
}

fn told(done: Result<(), BoxError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nFAILED: {why}");
            // The client says "db error", and what the server said is behind that.
            let mut cause = why.source();
            while let Some(why) = cause {
                eprintln!("  {why}");
                cause = why.source();
            }
            ExitCode::FAILURE
        }
    }
}
