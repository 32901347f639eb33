//! `--chaos`, with this test program as the service that is killed.

use std::{io, path::Path};

use tokio::{process::Command, runtime::Runtime};

use crate::{args::Args, chaos, console::Console};

const DIR: &str = "MIGRATE_AIRPORTS_SERVICE";
const SEED: &str = "MIGRATE_AIRPORTS_SEED";

/// Not a test: what the service's process is started as.
#[test]
fn service() {
    if let Some(dir) = std::env::var_os(DIR) {
        let seed = std::env::var(SEED).unwrap().parse().unwrap();
        let served = Runtime::new().unwrap().block_on(chaos::service(Path::new(&dir), seed));
        panic!("the service ended: {served:?}");
    }
}

fn this_test(dir: &Path, seed: u64) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["tests::chaos::service", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(SEED, seed.to_string());
    Ok(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_in_every_stage_loses_nothing() {
    let args = Args { seconds: 4, clients: 8, kills: Some(1), seed: 7, ..Args::default() };
    assert!(chaos::run(&args, &Console::new(), this_test).await.unwrap());
}
