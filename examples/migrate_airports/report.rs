//! What is said at the end.

use std::sync::atomic::Ordering;

use indicatif::HumanCount;

use crate::{
    check::Verified,
    clients::WrongReads,
    stats::{Phase, Stats, millis},
    walk::Found,
    world::World,
};

/// Prints the report; says whether all is well.
pub(crate) fn report(
    world: &World,
    wrong_reads: &WrongReads,
    found: &Found,
    old: &Verified,
) -> bool {
    let stats = world.stats();
    phases(&stats);
    let requests = stats.sum(Phase::requests);
    let (injected, errors) = (stats.sum(|p| p.injected), stats.sum(|p| p.errors));
    let wrong = wrong_reads.wrong.load(Ordering::SeqCst);
    let Found { there, new, back } = found;
    let lost = [old, new].map(|side| side.lost + side.strange).iter().sum::<u64>() + wrong;
    let differ = there.differing.len() + back.differing.len();
    let line = |what: &str, count: u64, more: &str| {
        println!("  {what:32} {:>9}  {more}", HumanCount(count).to_string());
    };
    println!();
    line("requests", requests, "");
    line("acknowledged writes", world.history().acknowledged() as u64, "");
    line(
        "legs of a write that disagreed",
        world.tally.disagreements(),
        "each made its key dirty, and a copy mended it",
    );
    line("errors while new was made to fail", injected, "expected: new was the side that answered");
    line(
        "reads of a key not mended yet",
        wrong_reads.announced.load(Ordering::SeqCst) + old.announced + new.announced,
        "older state of a key that the rollback had named",
    );
    println!();
    line("errors at any other time", errors, "");
    line(
        "acknowledged writes lost",
        lost,
        &format!(
            "{} keys of new, {} of old at the end, and all reads checked against the history",
            HumanCount(new.keys),
            HumanCount(old.keys)
        ),
    );
    line(
        "keys that differ",
        differ as u64,
        &format!(
            "{} keys compared before new-only, {} before old-only",
            HumanCount(there.keys),
            HumanCount(back.keys)
        ),
    );
    let samples = [&stats.samples, &there.samples, &new.samples, &back.samples, &old.samples];
    for sample in samples.into_iter().flatten() {
        println!("    {sample}");
    }
    let well = errors == 0 && lost == 0 && differ == 0;
    conclude(well);
    well
}

/// The table of what the clients saw.
pub(crate) fn phases(stats: &Stats) {
    println!("\nWhat the clients saw, in milliseconds:\n");
    println!(
        "  {:11} {:24} {:>6} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>7} {:>8} {:>6}",
        "stage",
        "",
        "s",
        "requests",
        "read p50",
        "p99",
        "wr. p50",
        "p99",
        "404/409",
        "injected",
        "errors"
    );
    stats.phases.iter().for_each(row);
}

/// Says it in words.
pub(crate) fn conclude(well: bool) {
    println!(
        "\n{}",
        match well {
            true => "All is well.",
            false => "NOT WELL: see above.",
        }
    );
}

fn row(phase: &Phase) {
    println!(
        "  {:11} {:24} {:>6.1} {:>9} | {:>8} {:>8} | {:>8} {:>8} | {:>7} {:>8} {:>6}",
        phase.stage.to_string(),
        phase.what,
        phase.took.as_secs_f64(),
        HumanCount(phase.requests()).to_string(),
        millis(&phase.reads, 0.5),
        millis(&phase.reads, 0.99),
        millis(&phase.writes, 0.5),
        millis(&phase.writes, 0.99),
        phase.refused,
        phase.injected,
        phase.errors
    );
}
