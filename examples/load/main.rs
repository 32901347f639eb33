//! What the layer costs a service over real sockets, and what its clients feel.
//!
//! An old and a new axum service, and both behind the layer in several ways, run in
//! one process, each on a port of its own. Clients in another thread load one at a
//! time, in turns, so that whatever else the machine does meets all of them alike.
//!
//! `cargo run --release --example load` prints a table for each scenario and draws
//! `target/load.svg`. `--help` says what can be asked of it.

mod args;
mod clients;
mod plot;
mod scenarios;
mod servers;
mod sides;
mod statistics;
mod table;

use std::process::ExitCode;

use args::{Args, HELP};
use plot::Plot;
use servers::Servers;
use tower_migration::BoxError;

fn main() -> ExitCode {
    let args = match Args::parse(lexopt::Parser::from_env()) {
        Ok(args) if args.help => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nFAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    if cfg!(debug_assertions) {
        println!("Built without --release: the numbers say nothing.\n");
    }
    let mut plot = Plot::default();
    for scenario in &args.scenarios {
        // Each with servers of its own: no scenario pays for what another left.
        let servers = Servers::start()?;
        scenario.run(args, &servers, &mut plot)?;
    }
    if let Some(path) = &args.plot {
        plot.draw(path)?;
        println!("plotted in {}", path.display());
    }
    Ok(())
}
