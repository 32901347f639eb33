//! Kills and restarts, and what is looked at between them.

use std::{collections::BTreeSet, path::Path, time::Duration};

use fastrand::Rng;
use http::Method;
use serde_json::Value;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tower_migration::{BoxError, Side, Stage};

use super::{
    process::{Asked, Program, Service},
    tally::Tally,
};
use crate::{
    args::Args,
    check::{self, Dump},
    clients::Clients,
    console::Console,
    new::Saves,
    witness::Witness,
    world::stores,
};

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many keys are shown by name.
const NAMES: usize = 5;

/// The share of reads that are compared with the other side, while both are synced.
pub(super) const SHADOWS: &str = "/migration/shadow/0.3";

pub(super) struct Driver<'a> {
    pub(super) console: &'a Console,
    clients: &'a Clients,
    pub(super) witness: &'a Witness,
    program: Program,
    dir: &'a Path,
    seed: u64,
    pub(super) rng: Rng,
    service: Service,
    /// Where the flag is, as far as the driver knows.
    pub(super) stage: Stage,
    /// Both sides are synced, as a backfill has said.
    pub(super) synced: bool,
    pub(super) length: Duration,
    pub(super) kills: u32,
    pub(super) tally: Tally,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        args: &Args,
        console: &'a Console,
        (program, dir): (Program, &'a Path),
        (clients, witness): (&'a Clients, &'a Witness),
        service: Service,
    ) -> Self {
        let allowed = u32::try_from(args.seconds / 10).unwrap_or(100).clamp(2, 100);
        Self {
            console,
            clients,
            witness,
            program,
            dir,
            seed: args.seed,
            rng: Rng::with_seed(args.seed),
            service,
            stage: Stage::OldOnly,
            synced: false,
            length: Duration::from_secs(args.seconds),
            kills: args.kills.unwrap_or(allowed),
            tally: Tally::default(),
        }
    }

    /// Ends the service; answers what was counted.
    pub(super) async fn end(mut self) -> Tally {
        // Where the way was broken off there may be none any more.
        if let Ok(told) = self.service.kill().await {
            self.tally.heard(&told);
        }
        self.tally
    }

    /// The service is killed at this moment, and started again. Three times out of four
    /// the stores are looked at while they are nobody's; else the next process is the
    /// first to open them.
    pub(super) async fn kill(&mut self) -> Result<(), BoxError> {
        self.die().await?;
        let differing = match self.synced && self.rng.u8(..4) > 0 {
            true => {
                self.tally.looks += 1;
                let (old, new) = self.dump().await?;
                check::compare(&old, &new)?.differing
            }
            false => BTreeSet::new(),
        };
        self.revive().await?;
        let dirty: BTreeSet<_> = self.service.up.dirty.iter().cloned().collect();
        self.tally.found += dirty.len() as u64;
        self.tally.found_differing += differing.len() as u64;
        // The one thing that must never be: different, and nobody knows.
        let unmarked: Vec<_> = differing.difference(&dirty).collect();
        if !unmarked.is_empty() && self.synced {
            self.tally.unmarked += unmarked.len() as u64;
            let (at, some) = (self.stage, &unmarked[..unmarked.len().min(NAMES)]);
            self.tally.sample(format!("after a kill at {at}, different and not dirty: {some:?}"));
        }
        Ok(())
    }

    async fn die(&mut self) -> Result<(), BoxError> {
        let told = self.service.kill().await?;
        self.tally.heard(&told);
        self.tally.kills += 1;
        // Before there is another one.
        self.witness.history().died();
        Ok(())
    }

    async fn revive(&mut self) -> Result<(), BoxError> {
        let life = self.tally.kills;
        self.service = Service::start(self.program, self.dir, self.seed, life).await?;
        self.clients.send_to(self.service.wire.clone());
        self.stage = self.service.up.stage;
        let both = self.stage.is_two_sided();
        if self.synced && both && !self.service.up.synced {
            // The journal is to vouch for them; if it does not, they are copied anew.
            self.tally.unvouched += 1;
        }
        self.synced &= both && self.service.up.synced;
        if self.synced {
            self.ask(SHADOWS).await;
        }
        Ok(())
    }

    pub(super) async fn ask(&self, path: &str) -> Asked {
        self.service.ask(Method::POST, path).await
    }

    pub(super) async fn status(&self) -> Result<Value, BoxError> {
        match self.service.ask(Method::GET, "/migration").await {
            Asked::Done(status) => Ok(status),
            Asked::Refused(why) | Asked::Lost(why) => Err(why.into()),
        }
    }

    /// Asks, and kills the service after so long, whether it has answered or not.
    pub(super) async fn ask_and_kill(
        &mut self,
        path: &str,
        after: Duration,
    ) -> Result<Option<Asked>, BoxError> {
        let began = Instant::now();
        let asked = timeout(after, self.ask(path)).await.ok();
        sleep(after.saturating_sub(began.elapsed())).await;
        self.kill().await?;
        Ok(asked)
    }

    /// The clients are held, the faults off, and everything is given time to end.
    /// Then the service is killed, and the stores are looked at: is every
    /// acknowledged write on each of these sides, and are they equal?
    pub(super) async fn look(&mut self, sides: &[Side]) -> Result<(), BoxError> {
        let guard = self.clients.pause().await;
        self.ask("/migration/faults/0").await;
        let began = Instant::now();
        loop {
            let status = self.status().await?;
            let counts = [
                &status["dirty_right_on_old"],
                &status["dirty_right_on_new"],
                &status["conflicts"],
                &status["on_old"]["writes"],
                &status["on_new"]["writes"],
            ];
            if counts.iter().all(|count| **count == 0) && status["settled"] == true {
                break;
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("not at rest after {PATIENCE:?}: {status:#}").into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.die().await?;
        let (old, new) = self.dump().await?;
        if sides.len() > 1 {
            let checked = check::compare(&old, &new)?;
            self.tally.compared += checked.keys;
            self.tally.differ += checked.differing.len() as u64;
            checked.samples.into_iter().for_each(|sample| self.tally.sample(sample));
        }
        for side in sides {
            let rows = match side {
                Side::Old => &old,
                Side::New => &new,
            };
            let verified = check::verify(&self.witness.history(), rows);
            self.tally.checked += verified.keys;
            self.tally.lost += verified.lost + verified.strange;
            for sample in verified.samples {
                self.tally.sample(format!("on {side}: {sample}"));
            }
        }
        self.revive().await?;
        drop(guard);
        let stage = self.stage;
        self.console.say(format!(
            "{stage}: clients held, {} differ so far, {} lost",
            self.tally.differ, self.tally.lost
        ));
        Ok(())
    }

    /// Both stores, whose process is dead.
    async fn dump(&self) -> Result<(Dump, Dump), BoxError> {
        let dir = self.dir.to_owned();
        spawn_blocking(move || {
            let (old, new) = stores(&dir, Saves::Each)?;
            Ok((check::dump(&old)?, check::dump(&new)?))
        })
        .await?
    }
}
