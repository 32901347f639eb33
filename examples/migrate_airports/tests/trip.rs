//! The whole way, under load: there, with a fault and the emergency exit, and back.

use crate::{CSV, args::Args, console::Console, migrate, ops::Rows, seed, world::World};
use tower_migration::Stage;

/// Every so many rows of the data set: a debug build takes long over all.
const STEP: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_on_the_way_there_and_back() {
    let rows: Vec<_> = seed::read(CSV).unwrap().into_iter().step_by(STEP).collect();
    let dir = tempfile::tempdir().unwrap();
    let args = Args { seconds: 6, clients: 8, seed: 3, ..Args::default() };
    let world = World::build(dir.path(), Rows::new(rows), args.seed).unwrap();
    assert!(migrate(&args, &world, &Console::new()).await.unwrap());
    assert_eq!(world.migration.stage(), Stage::OldOnly);
    let stats = world.stats();
    let mut visited: Vec<_> = stats.phases.iter().map(|phase| u8::from(phase.stage)).collect();
    visited.dedup();
    assert_eq!(visited, [0, 1, 2, 1, 2, 3, 2, 1, 0]);
}
