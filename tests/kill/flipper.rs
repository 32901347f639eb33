//! Moves the flag all the time, and does what an operator does in between.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::sleep,
};
use tower_migration::{
    Blocked, BoxError, MigrationHandle, Moved, Reason, Side, Stage,
    reconcile::{CopyError, Key, RightSide},
    stage::Share,
};

use crate::{
    child::say,
    position::{Mode, Position},
    stores::Store,
};

const SHARES: [f64; 5] = [0.1, 0.3, 0.5, 0.8, 1.0];

#[derive(Clone, Copy, Debug)]
enum Step {
    Move(Stage),
    Advance,
    Rollback,
    Ramp(f64),
}

pub struct Flipper {
    handle: MigrationHandle,
    stores: Stores,
    mode: Mode,
    rng: Rng,
    running: watch::Receiver<bool>,
    /// It does nothing, and will not until it is told to.
    parked: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Stores {
    old: Store,
    new: Store,
}

impl Stores {
    fn of(&self, side: Side) -> &Store {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    fn icaos(&self) -> Result<BTreeSet<String>, BoxError> {
        Ok(self.old.all()?.into_keys().chain(self.new.all()?.into_keys()).collect())
    }

    fn copy(&self, icao: &str, from: Side) -> Result<(), BoxError> {
        let to = self.of(from.other());
        match self.of(from).get(icao)? {
            Some(row) => to.put(&row),
            None => to.delete(icao).map(drop),
        }
    }
}

fn key(icao: &str) -> Key {
    format!("/airports/{icao}").into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    spawn_blocking(work).await?
}

impl Flipper {
    pub fn new(
        handle: MigrationHandle,
        old: Store,
        new: Store,
        mode: Mode,
        seed: u64,
        running: watch::Receiver<bool>,
    ) -> Self {
        let (stores, rng) = (Stores { old, new }, Rng::with_seed(seed));
        Self { handle, stores, mode, rng, running, parked: Arc::new(AtomicBool::new(true)) }
    }

    pub fn parked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.parked)
    }

    pub async fn run(mut self) -> Result<(), BoxError> {
        self.parked.store(false, Ordering::SeqCst);
        let status = self.handle.status();
        if !status.sync.get(status.authority).is_synced() {
            self.reunite().await?;
        }
        say("ready");
        loop {
            if !*self.running.borrow_and_update() {
                self.parked.store(true, Ordering::SeqCst);
                say("paused");
                if self.running.wait_for(|running| *running).await.is_err() {
                    // The process is about to end.
                    return Ok(());
                }
                self.parked.store(false, Ordering::SeqCst);
            }
            let step = self.choose();
            self.take(step).await?;
            sleep(Duration::from_micros(self.rng.u64(..8_000))).await;
        }
    }

    fn choose(&mut self) -> Step {
        let at = Position::of(&self.handle);
        let dice = self.rng.u8(..10);
        let to = |stage| Step::Move(stage);
        match at.stage {
            Stage::OldOnly if dice < 5 => Step::Advance,
            Stage::OldOnly => to(Stage::WriteBoth),
            Stage::WriteBoth if at.ramp.is_none() => match dice {
                0..4 => Step::Ramp(self.share()),
                4..6 => Step::Advance,
                6..8 => to(Stage::ReadNew),
                8 => to(Stage::OldOnly),
                _ => Step::Rollback,
            },
            Stage::WriteBoth => match dice {
                0..5 => Step::Ramp(self.share()),
                5..7 => to(Stage::ReadNew),
                7 => Step::Ramp(0.0),
                _ => Step::Rollback,
            },
            Stage::ReadNew if dice < 3 => to(Stage::NewOnly),
            Stage::ReadNew => match self.mode {
                Mode::Orderly => to(Stage::WriteBoth),
                Mode::Hurried => Step::Rollback,
                Mode::Both if dice < 6 => to(Stage::WriteBoth),
                Mode::Both => Step::Rollback,
            },
            Stage::NewOnly if dice < 5 => Step::Rollback,
            Stage::NewOnly => to(Stage::ReadNew),
        }
    }

    fn share(&mut self) -> f64 {
        SHARES[self.rng.usize(..SHARES.len())]
    }

    /// Takes a step, and puts right what stands against it.
    async fn take(&mut self, step: Step) -> Result<(), BoxError> {
        loop {
            let at = Position::of(&self.handle);
            let to = target(step, at)?;
            say(format_args!("begun {at} {to}"));
            let result = self.ask(step).await;
            // A record that is late, or in doubt, is seen to by a task that
            // keeps the turn.
            while self.handle.status().stepping {
                sleep(Duration::from_millis(1)).await;
            }
            let now = Position::of(&self.handle);
            match result {
                Ok(moved) => {
                    say(format_args!("done {now} {}", moved.epoch));
                    return self.heal().await;
                }
                Err(blocked) => {
                    let why: Vec<_> = blocked.reasons().iter().map(ToString::to_string).collect();
                    say(format_args!("kept {now} {}", why.join("; ")));
                    self.lift(&blocked).await?;
                }
            }
            if !*self.running.borrow() {
                return Ok(());
            }
        }
    }

    async fn ask(&self, step: Step) -> Result<Moved, Blocked> {
        match step {
            Step::Move(stage) => self.handle.move_to(stage).await,
            Step::Advance => self.handle.advance().await,
            Step::Rollback => self.handle.rollback().await,
            Step::Ramp(share) => self.handle.ramp(share).await,
        }
    }

    async fn lift(&self, blocked: &Blocked) -> Result<(), BoxError> {
        for reason in blocked.reasons() {
            match reason {
                Reason::NotSynced { side, .. } => self.sync(*side).await?,
                Reason::DirtyKeys { .. } | Reason::Conflicts { .. } => self.heal().await?,
                Reason::NotSettled { .. }
                | Reason::HoldTooLong { .. }
                | Reason::Busy
                | Reason::Overtaken
                | Reason::Store(_)
                | Reason::Follower
                | Reason::Shared => sleep(Duration::from_millis(5)).await,
                Reason::ShutDown => std::future::pending().await,
                other => return Err(format!("refused: {other}").into()),
            }
        }
        Ok(())
    }

    /// Copies all keys to `side`, and says so.
    async fn sync(&self, side: Side) -> Result<(), BoxError> {
        self.handle.settled().await;
        let stores = self.stores.clone();
        let mut copies = JoinSet::new();
        for icao in blocking(move || stores.icaos()).await? {
            let (handle, stores) = (self.handle.clone(), self.stores.clone());
            copies.spawn(async move { copy(&handle, &stores, &icao, side.other()).await });
        }
        let mut all = true;
        while let Some(copied) = copies.join_next().await {
            all &= copied??;
        }
        // Beside another process nothing is copied.
        if all { self.confirm(side).await } else { Ok(()) }
    }

    async fn confirm(&self, side: Side) -> Result<(), BoxError> {
        self.handle.settled().await;
        match self.handle.confirm_synced(side).await {
            Ok(()) => say(format_args!("confirmed {side}")),
            // Whoever came meanwhile may have written what was not copied: the
            // next try copies again.
            Err(blocked) => say(format_args!("unconfirmed {side}: {blocked}")),
        }
        Ok(())
    }

    /// Copies each dirty key from the side that is right.
    async fn heal(&self) -> Result<(), BoxError> {
        for dirty in self.handle.dirty_keys() {
            let RightSide::Is(from) = dirty.right else {
                return Err(format!("{} is in conflict", dirty.key).into());
            };
            let icao = dirty.key.as_str().rsplit('/').next().unwrap_or_default();
            copy(&self.handle, &self.stores, icao, from).await?;
        }
        Ok(())
    }

    /// After a kill behind the emergency exit: each side may hold writes that
    /// the other lacks, and the versions tell which.
    async fn reunite(&self) -> Result<(), BoxError> {
        self.handle.settled().await;
        let stores = self.stores.clone();
        let sides = blocking(move || Ok([stores.old.all()?, stores.new.all()?])).await?;
        let stores = self.stores.clone();
        for icao in blocking(move || stores.icaos()).await? {
            let [old, new] = [0, 1].map(|side| sides[side].get(&icao).map_or(0, |row| row.version));
            let from = if new > old { Side::New } else { Side::Old };
            if !copy(&self.handle, &self.stores, &icao, from).await? {
                return Ok(());
            }
        }
        self.confirm(self.handle.stage().authority()).await
    }
}

async fn copy(
    handle: &MigrationHandle,
    stores: &Stores,
    icao: &str,
    from: Side,
) -> Result<bool, BoxError> {
    let (key, mut from) = (key(icao), from);
    loop {
        let copied = handle.copy_key(&key, from, || {
            let (stores, icao) = (stores.clone(), icao.to_owned());
            async move {
                let done = blocking(move || stores.copy(&icao, from)).await;
                done.map_err(|error| error.to_string())
            }
        });
        match copied.await {
            Ok(_) => return Ok(true),
            Err(CopyError::NotSettled) => handle.settled().await,
            Err(CopyError::Contended) => {}
            Err(CopyError::WrongWay(right)) => from = right,
            // Whoever calls this has looked at both rows, or knows that no leg
            // ever fails here.
            Err(CopyError::Unsynced(side)) => handle.mark_dirty(&key, side),
            // The stage has changed: the copy is not wanted any more.
            Err(CopyError::OneSided(_) | CopyError::Shared) => return Ok(false),
            // As for a step: the process is about to end.
            Err(CopyError::ShutDown) => std::future::pending().await,
            Err(error) => return Err(format!("cannot copy {icao}: {error}").into()),
        }
    }
}

/// Where the step leads.
fn target(step: Step, at: Position) -> Result<Position, BoxError> {
    let end = |stage: Option<Stage>| stage.map(Position::from).ok_or("there is no such stage");
    Ok(match step {
        Step::Move(stage) => stage.into(),
        Step::Advance => end(at.stage.next())?,
        Step::Rollback if !at.ramp.is_none() => at.stage.into(),
        Step::Rollback => end(at.stage.previous())?,
        Step::Ramp(share) => Position { ramp: Share::new(share)?, ..at },
    })
}
