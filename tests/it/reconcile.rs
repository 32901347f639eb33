//! Both sides end up equal: repair, backfill, verify.

mod ahead;
mod backfill;
mod checkpoints;
mod journal;
mod races;
mod repair;
mod rest;
mod shared;
mod sources;
mod verify;
mod world;
