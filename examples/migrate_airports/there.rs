//! The way there, from the old store to the new one.

use std::{sync::atomic::Ordering, time::Duration};

use indicatif::HumanCount;
use tokio::time::{Instant, sleep};
use tower_migration::{BoxError, Side, Stage};

use crate::{walk::Walk, world::icao_of};

/// The share of requests that fail on new while it is ill.
const ILL: u8 = 15;

/// Equal shadow reads that count as clean, if none was different. The report asks for
/// 268.
const ENOUGH: u64 = 300;

/// How many tainted keys are shown by name.
const NAMES: usize = 8;

impl Walk<'_> {
    pub(crate) async fn write_to_both(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.step(Stage::WriteBoth).await?;
        self.enter("copying");
        // A write that was admitted before can still land on old alone.
        world.migration.settled().await;
        console.say("settled: from here on every write reaches both sides; copying all keys");
        self.next_length();
        self.sync().await
    }

    pub(crate) async fn shadow_new(&mut self) -> Result<(), BoxError> {
        let length = self.next_length();
        self.shadow(length, "shadow reads of new").await
    }

    /// Compares every read until enough were equal and the time is up.
    async fn shadow(&self, length: Duration, what: &'static str) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.enter(what);
        world.tally.forget_verdicts();
        world.migration.set_shadow_rate(1.0)?;
        console.say(format!("{what}: each read is compared with the other side"));
        let began = Instant::now();
        loop {
            sleep(length.min(Duration::from_millis(100))).await;
            if let Some(mismatch) = world.migration.recent_mismatches().last() {
                let text = format!("{}: {}", mismatch.request, mismatch.diff);
                return Err(format!("the two sides differ: {text}").into());
            }
            let equal = world.tally.matches.load(Ordering::Relaxed);
            if began.elapsed() >= length && equal >= ENOUGH {
                break;
            }
            if began.elapsed() >= length + Duration::from_secs(20) {
                return Err("too few shadow reads could be compared".into());
            }
        }
        world.migration.set_shadow_rate(0.0)?;
        console.say(format!("clean; {}", world.tally.verdicts()));
        console
            .more("(skipped: answers that are no success, such as a 404, have nothing to compare)");
        Ok(())
    }

    pub(crate) async fn read_from_new(&mut self) -> Result<(), BoxError> {
        self.step(Stage::ReadNew).await?;
        self.enter("new answers");
        self.stay().await;
        Ok(())
    }

    /// New falls ill, the reads go back to old at once, new is mended.
    pub(crate) async fn illness(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.enter("new is ill");
        self.clients.expect_errors(true);
        world.new_faults.set(ILL);
        console.say(format!("FAULT: {ILL} of 100 requests to new fail, panic or hang for a while"));
        self.stay().await;

        // What was in flight or dirty may be read in an older state from now
        // on, until it is mended: the clients' findings on such keys are
        // counted apart.
        world.history().set_repair(true);
        for dirty in world.migration.dirty_keys() {
            world.history().doubt(icao_of(dirty.key.as_str()));
        }
        let moved = world.migration.rollback().await?;
        self.clients.expect_errors(false);
        self.enter("rolled back, new is ill");
        for key in &moved.tainted {
            world.history().doubt(icao_of(key.as_str()));
        }
        let status = world.migration.status();
        console
            .say(format!("ROLLBACK, at once: {} to {}; old answers again", moved.from, moved.to));
        let names: Vec<_> = moved.tainted.iter().map(|k| icao_of(k.as_str())).collect();
        console.more(match &*names {
            [] => "tainted: no key, since no write was still running on old".to_owned(),
            few => format!(
                "tainted, since writes of them were still running on old ({}): {}",
                few.len(),
                few[..few.len().min(NAMES)].join(" ")
            ),
        });
        console.more(format!(
            "dirty: {} right on old, {} right on new, {} in conflict",
            status.dirty_right_on_old, status.dirty_right_on_new, status.conflicts
        ));
        self.stay().await;

        world.new_faults.set(0);
        let errors = world.stats().phases.last().map_or(0, |phase| phase.errors);
        console.say(format!(
            "fault off: {} requests to new met it; the clients have seen {errors} errors since \
             the rollback",
            HumanCount(world.new_faults.injected())
        ));
        self.enter("mending new");
        let began = Instant::now();
        world.migration.settled().await;
        world.healed().await?;
        world.history().set_repair(false);
        console.say(format!("the repair has mended all of them, in {:.1?}", began.elapsed()));
        console.more(
            "a key is copied from the side that was the authority when its write went wrong; \
             where both were in turn,",
        );
        console.more(
            "old is right: it is what clients see now, and no acknowledged write is missing on it",
        );
        let sync = world.migration.status().sync;
        if !sync.new.is_synced() {
            console.say("new is not synced any more: copying all keys again");
            self.sync().await?;
        }
        Ok(())
    }

    pub(crate) async fn read_from_new_again(&mut self) -> Result<(), BoxError> {
        // The rollback began a new count: nothing was compared since.
        self.shadow(Duration::from_millis(300), "shadow reads of new").await?;
        self.step(Stage::ReadNew).await?;
        self.enter("new answers again");
        self.stay().await;
        let length = self.next_length();
        self.shadow(length, "shadow reads of old").await
    }

    pub(crate) async fn new_alone(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.step(Stage::NewOnly).await?;
        self.enter("new alone");
        world.migration.drained(Side::Old).await;
        world.old_faults.set(100);
        console.say("old is idle and switched off: each request to it would fail");
        self.stay().await;
        Ok(())
    }
}
