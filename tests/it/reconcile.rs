//! Both sides end up equal: repair, backfill, verify.

mod ahead;
mod backfill;
mod checkpoints;
mod disk;
mod found_in_journal;
mod found_in_repair;
mod found_in_runs;
mod found_in_verify;
mod journal;
mod races;
mod repair;
mod rest;
mod shared;
mod sources;
mod stress;
mod verify;
mod world;
