//! The whole way, from the old store to the new one.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use indicatif::HumanCount;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tower_migration::{BoxError, Reason, Side, Stage};

use crate::{
    args::Args,
    check::{self, Checked},
    clients::Clients,
    console::Console,
    copy::{copy_all, heal},
    world::{World, icao_of},
};

/// The share of requests that fail on new while it is ill.
const ILL: u8 = 15;

/// Equal shadow reads that count as clean, if none was different.
const ENOUGH: u64 = 200;

/// How often a step that was refused is asked for again.
const TRIES: u32 = 20;

/// How many tainted keys are shown by name.
const NAMES: usize = 8;

/// The parts of the run that can be of any length, and how the time is shared
/// out among them. The copy's share is what it takes about, to the others.
const SHARES: [f64; 9] = [
    3.0,  // old alone
    12.0, // copy
    8.0,  // shadow reads of new
    6.0,  // new answers
    4.0,  // new is ill
    3.0,  // rolled back, new still ill
    5.0,  // new answers again
    5.0,  // shadow reads of old
    5.0,  // new alone
];

pub(crate) struct Walk<'a> {
    world: &'a World,
    console: &'a Console,
    clients: &'a Clients,
    length: Duration,
    /// How many of the shares are used up.
    part: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        world: &'a World,
        console: &'a Console,
        clients: &'a Clients,
        args: Args,
    ) -> Self {
        Self { world, console, clients, length: Duration::from_secs(args.seconds), part: 0 }
    }

    /// How long the next part may take: its share of what is left.
    fn next_length(&mut self) -> Duration {
        let ahead: f64 = SHARES[self.part..].iter().sum();
        let left = self.length.saturating_sub(self.console.elapsed());
        let length = left.mul_f64(SHARES[self.part] / ahead);
        self.part += 1;
        length.max(Duration::from_millis(300))
    }

    async fn stay(&mut self) {
        let length = self.next_length();
        sleep(length).await;
    }

    fn enter(&self, what: &'static str) {
        let stage = self.world.migration.stage();
        self.world.stats().enter(stage, what);
    }

    /// The walk; then the result of comparing the stores before the last step.
    pub(crate) async fn run(&mut self, address: SocketAddr) -> Result<Checked, BoxError> {
        self.console.say(format!("old-only: clients at http://{address}, old answers"));
        self.stay().await;
        self.write_to_both().await?;
        self.shadow_new().await?;
        self.read_from_new().await?;
        self.illness().await?;
        self.read_from_new_again().await?;
        let checked = self.compare().await?;
        self.new_alone().await?;
        Ok(checked)
    }

    async fn write_to_both(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.step(Stage::WriteBoth).await?;
        self.enter("copying");
        // A write that was admitted before can still land on old alone.
        world.migration.settled().await;
        console.say("settled: from here on every write reaches both sides; copying all keys");
        self.next_length();
        self.sync_new().await
    }

    /// Copies everything from old and gives the operator's word for it.
    async fn sync_new(&self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        let began = Instant::now();
        let sum = copy_all(world, console, Side::Old).await?;
        console.say(format!(
            "copied {} keys in {:.1} s, {} of them again because a client wrote them meanwhile",
            HumanCount(sum.copied),
            began.elapsed().as_secs_f64(),
            sum.repeated
        ));
        console.more(format!(
            "writes that waited for the copy of their key and were in it already: {}; keys left: {}",
            sum.absorbed, sum.left
        ));
        let healed = heal(world).await?;
        console.more(format!(
            "keys that were dirty after that and are mended: {}",
            healed.from_old + healed.from_new
        ));
        // "Holds all data" is to be true after a power cut, too.
        let new = world.new.clone();
        spawn_blocking(move || new.flush())
            .await?
            .map_err(|error| format!("cannot flush new: {error:?}"))?;
        world.migration.confirm_synced(Side::New).await?;
        console.say("confirmed: new holds all data");
        Ok(())
    }

    async fn shadow_new(&mut self) -> Result<(), BoxError> {
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

    async fn read_from_new(&mut self) -> Result<(), BoxError> {
        self.step(Stage::ReadNew).await?;
        self.enter("new answers");
        self.stay().await;
        Ok(())
    }

    /// New falls ill, the reads go back to old at once, new is mended.
    async fn illness(&mut self) -> Result<(), BoxError> {
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
        world.migration.settled().await;
        let healed = heal(world).await?;
        world.history().set_repair(false);
        console.say(format!(
            "mended: {} keys copied from old, {} from new, {} conflicts decided for old",
            healed.from_old, healed.from_new, healed.conflicts
        ));
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
            self.sync_new().await?;
        }
        Ok(())
    }

    async fn read_from_new_again(&mut self) -> Result<(), BoxError> {
        self.step(Stage::ReadNew).await?;
        self.enter("new answers again");
        self.stay().await;
        let length = self.next_length();
        self.shadow(length, "shadow reads of old").await
    }

    /// Before old goes stale, with the clients held: are the two sides equal?
    async fn compare(&self) -> Result<Checked, BoxError> {
        let (world, console) = (self.world, self.console);
        self.enter("comparing");
        let guard = self.clients.pause().await;
        check::quiet(world).await?;
        heal(world).await?;
        let checked = check::compare(world).await?;
        drop(guard);
        console.say(format!(
            "clients held for a moment: {} keys compared, {} differ",
            HumanCount(checked.keys),
            checked.differ
        ));
        Ok(checked)
    }

    async fn new_alone(&mut self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        self.step(Stage::NewOnly).await?;
        self.enter("new alone");
        world.migration.drained(Side::Old).await;
        world.old_faults.set(100);
        console.say("old is idle and switched off: each request to it would fail");
        self.stay().await;
        Ok(())
    }

    /// Moves the flag. What stands against it is put right and asked again.
    async fn step(&self, to: Stage) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        for _ in 0..TRIES {
            let blocked = match world.migration.move_to(to).await {
                Ok(moved) => {
                    let held = match moved.held.is_zero() {
                        true => String::new(),
                        false => format!(" (writes were held for {:.1?})", moved.held),
                    };
                    console.say(format!("{} -> {to}{held}", moved.from));
                    return Ok(());
                }
                Err(blocked) => blocked,
            };
            console.say(format!("not yet: {blocked}"));
            for reason in blocked.reasons() {
                match reason {
                    Reason::DirtyKeys { .. } | Reason::Conflicts { .. } => {
                        heal(world).await?;
                    }
                    Reason::NotSynced { side: Side::New, .. }
                        if world.migration.stage() == Stage::WriteBoth =>
                    {
                        self.sync_new().await?;
                    }
                    Reason::NotSettled { .. } | Reason::HoldTooLong { .. } => {
                        sleep(Duration::from_millis(200)).await;
                    }
                    _ => return Err(blocked.into()),
                }
            }
        }
        Err(format!("{to} was refused {TRIES} times").into())
    }
}
