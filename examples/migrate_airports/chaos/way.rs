//! The way there and back, with kills in each part of it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;
use tower_migration::{BoxError, Side, Stage};

use super::{
    driver::{Driver, SHADOWS},
    process::Asked,
    service::ILL,
};

/// How often something that is refused is asked for again.
const TRIES: u32 = 1_000;

/// After so many tries of a step the faults are switched off until it is taken.
const PATIENT: u32 = 40;

/// Parts of the way that can be of any length. What is between them takes about as
/// long as they do.
const PARTS: u32 = 2 * 7;

impl Driver<'_> {
    pub(super) async fn walk(&mut self) -> Result<(), BoxError> {
        self.stay("old alone").await?;
        self.step(Stage::WriteBoth).await?;
        self.sync("copying", true).await?;
        self.stay("new follows").await?;
        self.step(Stage::ReadNew).await?;
        self.stay("new answers").await?;
        self.look(&[Side::Old, Side::New]).await?;
        self.step(Stage::NewOnly).await?;
        self.stay("new alone").await?;
        self.look(&[Side::New]).await?;
        self.step(Stage::ReadNew).await?;
        self.sync("copying back", true).await?;
        self.stay("old follows").await?;
        self.step(Stage::WriteBoth).await?;
        self.stay("old answers").await?;
        self.look(&[Side::Old, Side::New]).await?;
        self.step(Stage::OldOnly).await?;
        self.stay("old alone again").await?;
        self.look(&[Side::Old]).await
    }

    fn enter(&self, what: &'static str) {
        self.witness.stats().enter(self.stage, what);
        self.console.say(format!("{}: {what}; {}", self.stage, self.tally));
    }

    /// Lets the clients do what they do, and kills the service now and then.
    async fn stay(&mut self, what: &'static str) -> Result<(), BoxError> {
        self.enter(what);
        let each = self.length / PARTS / (self.kills + 1);
        for _ in 0..self.kills {
            sleep(each.mul_f64(0.3 + self.rng.f64())).await;
            self.kill().await?;
        }
        sleep(each).await;
        Ok(())
    }

    /// Moves the flag, and kills the service about then, once before it is asked again
    /// until it is there.
    async fn step(&mut self, to: Stage) -> Result<(), BoxError> {
        let path = format!("/migration/move/{to}");
        // The kill hits the step before, within or after it.
        let after = Duration::from_micros(self.rng.u64(..30_000));
        if !to.is_two_sided() {
            self.leave_one_side().await;
        }
        self.ask_and_kill(&path, after).await?;
        for nth in 0..TRIES {
            if !to.is_two_sided() {
                self.leave_one_side().await;
            }
            if nth == PATIENT {
                // A key goes wrong at every moment. An operator would wait for a
                // quieter one, too.
                self.ask("/migration/faults/0").await;
            }
            match self.ask(&path).await {
                Asked::Done(_) => {
                    self.stage = to;
                    self.synced &= to.is_two_sided();
                    self.ask(&format!("/migration/faults/{ILL}")).await;
                    return Ok(());
                }
                Asked::Refused(why) => {
                    self.tally.refused += 1;
                    self.tally.last_refusal = why;
                    let status = self.status().await?;
                    if self.stage.is_two_sided() && !is_synced(&status) {
                        self.sync("copying again", false).await?;
                    }
                }
                Asked::Lost(why) => self.tally.last_refusal = why,
            }
            sleep(Duration::from_millis(5 + self.rng.u64(..20))).await;
        }
        let why = &self.tally.last_refusal;
        Err(format!("{to} was refused {TRIES} times, the last time: {why}").into())
    }

    /// A side that is not written any more is different: that is no news.
    async fn leave_one_side(&self) {
        self.ask("/migration/shadow/0").await;
    }

    /// Copies everything from the authority to the other side, over as many kills as
    /// it takes, and compares all of it.
    async fn sync(&mut self, what: &'static str, with_kills: bool) -> Result<(), BoxError> {
        self.enter(what);
        if with_kills {
            for _ in 0..self.kills {
                // The first half second goes by with waiting for the dead to linger.
                let after = Duration::from_millis(550 + self.rng.u64(..700));
                let asked = self.ask_and_kill("/migration/backfill", after).await?;
                self.backfilled(asked.as_ref());
            }
        }
        for _ in 0..TRIES {
            let asked = self.ask("/migration/backfill").await;
            if self.backfilled(Some(&asked)) {
                self.verify().await?;
                self.synced = true;
                self.ask(SHADOWS).await;
                return Ok(());
            }
            self.tally.last_refusal = format!("{asked:?}");
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the backfill does not end: {}", self.tally.last_refusal).into())
    }

    /// Notes what a backfill has said. Whether the other side is synced now.
    fn backfilled(&mut self, asked: Option<&Asked>) -> bool {
        let Some(Asked::Done(report)) = asked else {
            return false;
        };
        self.tally.backfills += 1;
        let resumed = report["resumed"] == true;
        self.console.more(format!(
            "backfill{}: {} written, {} deleted, {} equal already, {} left, {} failed; synced: {}",
            if resumed { ", resumed" } else { "" },
            report["written"],
            report["deleted"],
            report["unchanged"],
            report["left"],
            report["failed"],
            report["synced"]
        ));
        self.tally.resumed += u64::from(resumed);
        report["synced"] == true
    }

    /// The crate's own comparison, under load and with faults: what it calls
    /// different is neither equal nor dirty.
    async fn verify(&mut self) -> Result<(), BoxError> {
        match self.ask("/migration/verify").await {
            Asked::Done(report) => {
                let differ = report["differ"].as_u64().unwrap_or(u64::MAX);
                self.tally.unmarked += differ;
                self.console.more(format!(
                    "verify: {} equal, {differ} differ, {} dirty",
                    report["equal"], report["dirty"]
                ));
                if differ > 0 {
                    self.tally.sample(format!("verify: such as {}", report["differing"][0]));
                }
                Ok(())
            }
            asked => Err(format!("cannot verify: {asked:?}").into()),
        }
    }
}

fn is_synced(status: &Value) -> bool {
    status["sync"]["old"] == "synced" && status["sync"]["new"] == "synced"
}
