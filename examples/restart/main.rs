//! A migration that is killed in the middle, twice, and goes on where it stood.
//!
//! The program starts itself as a server process: SQLite is the old store, a
//! directory of JSON documents the new one, and the flag lies in a file between
//! them. It writes airports over HTTP, moves the flag, kills the server
//! (`kill -9`) while a client is writing, shows what is left on the disk, starts
//! it again and asks for every write that was acknowledged. In the end it deploys
//! a second server beside the first.
//!
//! ```sh
//! cargo run --example restart
//! ```
//!
//! The exit status is 0 only if no acknowledged write was lost and the flag stood
//! where it should at every start.

mod client;
mod process;
mod server;
mod stores;
mod story;
#[path = "../migrate_airports/wire.rs"]
mod wire;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use tokio::{runtime::Runtime, time::timeout};
use tower_migration::BoxError;

/// For the whole story, which takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let told = match (args.next(), args.next()) {
        (None, _) => tell(),
        (Some(what), Some(dir)) if what == process::SERVE => serve(dir.into()),
        _ => Err("it takes no arguments: cargo run --example restart".into()),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nFAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn tell() -> Result<(), BoxError> {
    let dir = tempfile::tempdir()?;
    Runtime::new()?.block_on(async {
        let told = timeout(PATIENCE, story::tell(dir.path())).await;
        told.map_err(|_| format!("not finished after {PATIENCE:?}"))?
    })
}

fn serve(dir: PathBuf) -> Result<(), BoxError> {
    Runtime::new()?.block_on(server::serve(dir))
}
