//! The whole way, from the old store to the new one and back.

use std::{net::SocketAddr, time::Duration};

use indicatif::HumanCount;
use tokio::{task::spawn_blocking, time::sleep};
use tower_migration::{BoxError, Reason, Side, Stage};

use crate::{
    args::Args,
    check::{self, Checked, Verified},
    clients::Clients,
    console::Console,
    sides::{compare_all, copy_all},
    world::World,
};

/// How often a step that was refused is asked for again.
const TRIES: u32 = 50;

/// The parts of the run that can be of any length, and how the time is shared
/// out among them. The shares of what goes through all keys are about what that
/// takes, to the others.
const SHARES: [f64; 14] = [
    3.0, // old alone
    9.0, // copy
    6.0, // shadow reads of new
    5.0, // new answers
    4.0, // new is ill
    3.0, // rolled back, new still ill
    4.0, // new answers again
    4.0, // shadow reads of old
    5.0, // verify
    4.0, // new alone
    6.0, // copy back
    3.0, // old is synced again
    3.0, // old answers
    3.0, // old alone again
];

/// What was found where the way leaves a side behind.
#[derive(Debug)]
pub(crate) struct Found {
    /// Before new-only.
    pub(crate) there: Checked,
    /// New with the history, before the way back.
    pub(crate) new: Verified,
    /// Before old-only.
    pub(crate) back: Checked,
}

pub(crate) struct Walk<'a> {
    pub(crate) world: &'a World,
    pub(crate) console: &'a Console,
    pub(crate) clients: &'a Clients,
    length: Duration,
    /// How many of the shares are used up.
    part: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        world: &'a World,
        console: &'a Console,
        clients: &'a Clients,
        args: &Args,
    ) -> Self {
        Self { world, console, clients, length: Duration::from_secs(args.seconds), part: 0 }
    }

    /// How long the next part may take: its share of what is left.
    pub(crate) fn next_length(&mut self) -> Duration {
        let ahead: f64 = SHARES[self.part..].iter().sum();
        let left = self.length.saturating_sub(self.console.elapsed());
        let length = left.mul_f64(SHARES[self.part] / ahead);
        self.part += 1;
        length.max(Duration::from_millis(300))
    }

    pub(crate) async fn stay(&mut self) {
        let length = self.next_length();
        sleep(length).await;
    }

    pub(crate) fn enter(&self, what: &'static str) {
        let stage = self.world.migration.stage();
        self.world.stats().enter(stage, what);
    }

    /// The walk; then what was found on the way.
    pub(crate) async fn run(&mut self, address: SocketAddr) -> Result<Found, BoxError> {
        self.console.say(format!("old-only: clients at http://{address}, old answers"));
        self.stay().await;
        self.write_to_both().await?;
        self.shadow_new().await?;
        self.read_from_new().await?;
        self.illness().await?;
        self.read_from_new_again().await?;
        self.verify().await?;
        let there = self.compare().await?;
        self.new_alone().await?;
        let new = self.remember(Side::New).await?;
        self.write_to_both_again().await?;
        self.read_from_old_again().await?;
        let back = self.compare().await?;
        self.old_alone().await?;
        Ok(Found { there, new, back })
    }

    /// Copies everything from the authority to the other side, which is synced then.
    pub(crate) async fn sync(&self) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        for _ in 0..TRIES {
            let report = copy_all(world, console).await?;
            console.say(format!("backfill from {}: {report}", report.from));
            if report.synced {
                // "Synced" is to be true after a power cut, too.
                let new = world.new.clone();
                let flushed = spawn_blocking(move || new.flush()).await?;
                return flushed.map_err(|error| format!("cannot flush new: {error:?}").into());
            }
        }
        Err(format!("{TRIES} backfills have not synced the other side").into())
    }

    /// Before old goes stale: are the two sides equal, while clients go on?
    async fn verify(&mut self) -> Result<(), BoxError> {
        self.enter("verify");
        self.next_length();
        let report = compare_all(self.world, self.console).await?;
        self.console.say(format!("verify: {report}"));
        match report.differ + report.failed {
            0 => Ok(()),
            _ => Err("the two sides differ".into()),
        }
    }

    /// The same without the crate's help, with the clients held.
    async fn compare(&self) -> Result<Checked, BoxError> {
        let (world, console) = (self.world, self.console);
        self.enter("comparing");
        let guard = self.clients.pause().await;
        check::quiet(world).await?;
        world.healed().await?;
        let old = check::dump_of(world, Side::Old).await?;
        let new = check::dump_of(world, Side::New).await?;
        let checked = check::compare(&old, &new)?;
        drop(guard);
        console.say(format!(
            "clients held for a moment: {} keys compared, {} differ",
            HumanCount(checked.keys),
            checked.differing.len()
        ));
        Ok(checked)
    }

    /// Is every acknowledged write on the side that is alone now?
    pub(crate) async fn remember(&self, side: Side) -> Result<Verified, BoxError> {
        let _guard = self.clients.pause().await;
        check::quiet(self.world).await?;
        let rows = check::dump_of(self.world, side).await?;
        let verified = check::verify(&self.world.history(), &rows);
        self.console.say(format!(
            "clients held for a moment: {} keys of {side} checked against what they know, {} lost",
            HumanCount(verified.keys),
            verified.lost + verified.strange
        ));
        Ok(verified)
    }

    /// Moves the flag. What stands against it is put right and asked again.
    pub(crate) async fn step(&self, to: Stage) -> Result<(), BoxError> {
        let (world, console) = (self.world, self.console);
        if to > world.migration.stage() {
            console.say(format!("{to}? {}", world.migration.report().headline()));
        }
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
                    Reason::DirtyKeys { .. } | Reason::Conflicts { .. } => world.healed().await?,
                    Reason::NotSynced { side, .. }
                        if *side != world.migration.stage().authority() =>
                    {
                        self.sync().await?;
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
