//! What is counted, and said at the end.

use std::fmt;

use indicatif::HumanCount;

use super::{process::Told, service::Counts};
use crate::{report, stats::Phase, witness::Witness};

/// Texts that are kept, to be shown.
const SAMPLES: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) kills: u64,
    /// Backfills that came to their end, and those of them that went on from a
    /// checkpoint.
    pub(super) backfills: u64,
    pub(super) resumed: u64,
    /// Dirty keys that a start has found in the journal.
    pub(super) found: u64,
    /// How often the stores were looked at after a kill, and the keys that differed.
    pub(super) looks: u64,
    pub(super) found_differing: u64,
    /// Keys that differ, and that nobody knows of.
    pub(super) unmarked: u64,
    /// Restarts after which a side that was synced was not any more.
    pub(super) unvouched: u64,
    pub(super) refused: u64,
    pub(super) last_refusal: String,
    pub(super) compared: u64,
    pub(super) differ: u64,
    pub(super) checked: u64,
    pub(super) lost: u64,
    counts: Counts,
    samples: Vec<String>,
}

impl Tally {
    pub(super) fn sample(&mut self, text: String) {
        if self.samples.len() < SAMPLES {
            self.samples.push(text);
        }
    }

    /// A process has ended, and has said this.
    pub(super) fn heard(&mut self, told: &Told) {
        self.counts.injected += told.counts.injected;
        self.counts.repaired += told.counts.repaired;
        self.counts.disagreements += told.counts.disagreements;
        self.unmarked += told.mismatches.len() as u64;
        for mismatch in &told.mismatches {
            self.sample(format!("a shadow read: {mismatch}"));
        }
    }

    /// Prints the report; says whether all is well.
    pub(super) fn report(&self, witness: &Witness, wrong_reads: u64, hung_up: u64) -> bool {
        let stats = witness.stats();
        report::phases(&stats);
        println!();
        let line = |what: &str, count: u64, more: &str| {
            println!("  {what:32} {:>9}  {more}", HumanCount(count).to_string());
        };
        line("requests", stats.sum(Phase::requests), "");
        line("acknowledged writes", witness.history().acknowledged() as u64, "");
        line("kills, and restarts", self.kills, "");
        line("backfills that ended", self.backfills, &format!("{} resumed", self.resumed));
        line("dirty keys found in the journal", self.found, "by a process that had just started");
        line("keys repaired", self.counts.repaired, "at least: a kill takes the last counts along");
        line("legs of a write that disagreed", self.counts.disagreements, "at least");
        line("injected failures, and delays", self.counts.injected, "at least");
        line("hang-ups of clients", hung_up, "");
        line("steps that were refused", self.refused, "and asked for again");
        line("synced sides lost by a kill", self.unvouched, "");
        println!();
        line(
            "acknowledged writes lost",
            self.lost + wrong_reads,
            &format!("{} keys and all reads checked", HumanCount(self.checked)),
        );
        line("keys that differ", self.differ, &format!("{} compared", HumanCount(self.compared)));
        line(
            "keys that differ and are clean",
            self.unmarked,
            &format!(
                "{} looks at the stores after a kill, {} keys differed and were dirty",
                self.looks, self.found_differing
            ),
        );
        for sample in self.samples.iter().chain(&stats.samples) {
            println!("    {sample}");
        }
        let well = self.lost + wrong_reads + self.differ + self.unmarked == 0;
        report::conclude(well);
        well
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills so far", self.kills)
    }
}
