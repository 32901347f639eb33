//! What instances at different stages do to each other: the table of the design,
//! and a fleet that goes all the way, one instance and one step at a time.

use tower_migration::{
    FailurePolicy,
    Stage::{self, NewOnly, OldOnly, ReadNew, WriteBoth},
};

use crate::{
    check::{breaks, holds},
    fleet::{self, Fleet},
    rules::{Off, Rules},
};

fn pair(a: Stage, b: Stage, policy: FailurePolicy) -> Fleet {
    Fleet { rules: Rules::ALL_ON, stages: vec![a, b], policy, writes: 2, moves: 0 }
}

const BOTH: FailurePolicy = FailurePolicy::RequireBoth;
const ALONE: FailurePolicy = FailurePolicy::AuthorityWins;
const ALL: &str = "all writes are acknowledged";

#[test]
fn the_table_of_pairs() {
    for stage in Stage::ALL {
        for policy in [BOTH, ALONE] {
            holds(pair(stage, stage, policy), 5, &[ALL]);
        }
    }
    for policy in [BOTH, ALONE] {
        holds(pair(OldOnly, WriteBoth, policy), 5, &[ALL, "new misses a write"]);
        holds(pair(ReadNew, NewOnly, policy), 5, &[ALL, "old misses a write"]);
        for (a, b) in [(OldOnly, ReadNew), (WriteBoth, NewOnly), (OldOnly, NewOnly)] {
            breaks(&pair(a, b, policy), fleet::READS);
        }
    }
    holds(pair(WriteBoth, ReadNew, BOTH), 5, &[ALL]);
    breaks(&pair(WriteBoth, ReadNew, ALONE), fleet::READS);
}

fn going(instances: usize, writes: u8, moves: u8) -> Fleet {
    let stages = vec![OldOnly; instances];
    Fleet { rules: Rules::ALL_ON, stages, policy: ALONE, writes, moves }
}

const WAY: [&str; 5] = [
    ALL,
    "new misses a write",
    "old misses a write",
    "the fleet is at two stages",
    "the fleet has arrived",
];

#[test]
fn two_instances_go_all_the_way() {
    holds(going(2, 2, 8), 1_000, &WAY);
}

#[test]
fn three_instances_go_all_the_way() {
    holds(going(3, 2, 10), 1_000, &WAY);
}

#[test]
fn without_a_hold_an_instance_reads_what_another_has_not_written() {
    let two = going(2, 1, 3);
    breaks(&Fleet { rules: Rules::without(Off::Hold), ..two }, fleet::READS);
}

#[test]
fn instances_two_apart_lose_writes() {
    let far = || Fleet { rules: Rules::without(Off::Steps), ..going(2, 1, 1) };
    breaks(&far(), fleet::NEIGHBOURS);
    breaks(&far(), fleet::READS);
    let three = Fleet { stages: vec![OldOnly; 3], ..far() };
    breaks(&three, fleet::READS);
}
