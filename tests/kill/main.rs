//! A service that is killed at random points while its flag moves.
//!
//! The parent starts a child, which is this binary again: a service over two
//! stores in real files, with a layer between whose flag is in a `FileStore` and
//! moves all the time. Clients write growing versions of a few keys over HTTP
//! and remember what was acknowledged. The parent kills the child (SIGKILL),
//! starts it again, and asks: is the flag where it stood or where it was just
//! going, and is every acknowledged write where reads look?
//!
//! Where the kills hit is random, from a seed that each failure names; no verdict
//! depends on time. `KILL_ROUNDS` sets how many kills each test makes,
//! `KILL_SEED` the seed.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says what it is by its name, and shares one set of tools"
)]

mod child;
mod clients;
mod flipper;
mod history;
mod journal;
mod pair;
mod position;
mod process;
mod rounds;
mod stores;

use position::Mode;

/// Kills in each of the tests with one process.
const ROUNDS: u32 = 100;
/// Ends of a process in the test with two.
const PAIRS: u32 = 30;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn seed() -> u64 {
    number("KILL_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn rounds(default: u32) -> u32 {
    number("KILL_ROUNDS").map_or(default, |rounds| u32::try_from(rounds).unwrap())
}

fn run(test: impl Future<Output = Result<String, String>>, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(test) {
        Ok(summary) => println!("seed {seed}: {summary}"),
        Err(why) => panic!("KILL_SEED={seed}: {why}"),
    }
}

/// Not a test: what the children are started as.
#[test]
fn child() {
    if let Some(task) = child::Task::from_env() {
        child::main(&task);
    }
    if let Some(task) = journal::Task::from_env() {
        journal::main(&task);
    }
}

#[test]
fn writes_that_wait_for_both_sides_survive_kills() {
    let seed = seed();
    run(rounds::run(Mode::Both, seed, rounds(ROUNDS)), seed);
}

#[test]
fn writes_that_wait_for_the_authority_survive_kills() {
    let seed = seed();
    run(rounds::run(Mode::Orderly, seed, rounds(ROUNDS)), seed);
}

#[test]
fn kills_after_the_emergency_exit_hide_nothing() {
    let seed = seed();
    run(rounds::run(Mode::Hurried, seed, rounds(ROUNDS)), seed);
}

#[test]
fn a_follower_takes_over_from_a_process_that_is_killed() {
    let seed = seed();
    run(pair::run(seed, rounds(PAIRS)), seed);
}

#[test]
fn what_a_kill_leaves_different_is_found_in_the_journal() {
    let seed = seed();
    match journal::run(seed, rounds(ROUNDS), false) {
        Ok(summary) => println!("seed {seed}: {summary}"),
        Err(why) => panic!("KILL_SEED={seed}: {why}"),
    }
}

#[test]
fn a_kill_in_a_write_without_a_key_makes_the_side_suspect_and_no_more() {
    let seed = seed();
    match journal::run(seed, rounds(ROUNDS), true) {
        Ok(summary) => println!("seed {seed}: {summary}"),
        Err(why) => panic!("KILL_SEED={seed}: {why}"),
    }
}
