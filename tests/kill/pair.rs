//! Two processes: one owns the flag, the other follows and takes over.

use std::{path::PathBuf, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use tokio::time::sleep;
use tower_migration::{Stage, stage::Share};

use crate::{
    child::Task,
    clients::{Clients, Wire},
    position::{Mode, Position},
    process::{Opened, Process, Said},
    rounds::Ledger,
};

/// What becomes of the two.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The owner is killed while the other one comes up.
    KillWhileJoining(Duration),
    KillOwner,
    KillFollower,
    KillBoth,
    StopOwner,
    StopFollower,
}

impl Event {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..10) {
            0..2 => Self::KillWhileJoining(Duration::from_micros(rng.u64(..30_000))),
            2..5 => Self::KillOwner,
            5 => Self::KillFollower,
            6 => Self::KillBoth,
            7..9 => Self::StopOwner,
            _ => Self::StopFollower,
        }
    }
}

struct Member {
    process: Process,
    wire: Wire,
}

impl Member {
    async fn of(process: Process) -> Result<Self, String> {
        let wire = Wire::to(process.address().await?);
        Ok(Self { process, wire })
    }

    /// How it stands now, as if it had just opened the flag.
    async fn now(&self) -> Result<Opened, String> {
        let status = self.wire.status().await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stage: Stage = text(&status["stage"]).parse().map_err(|e| format!("{e}"))?;
        let ramp = Share::new(status["ramp"].as_f64().unwrap_or(-1.0));
        Ok(Opened {
            position: Position { stage, ramp: ramp.map_err(|e| format!("{e}"))? },
            epoch: u64::MAX,
            sync: ["old", "new"].map(|side| text(&status["sync"][side])),
            follows: status["standing"] == "follower",
        })
    }

    async fn stop(mut self) -> Result<Said, String> {
        self.process.tell("stop").await?;
        self.process.stopped().await
    }

    /// What a step is refused for.
    async fn refused(&mut self) -> Result<String, String> {
        let before = self.process.said().refused.len();
        self.process.tell("step").await?;
        self.process.wait("it is refused", |said| said.refused.get(before).cloned()).await
    }

    async fn takes_over(&self) -> Result<Opened, String> {
        self.process.wait("it takes over", |said| said.owner.then_some(())).await?;
        self.now().await
    }
}

struct Scene {
    dir: PathBuf,
    rng: Rng,
    ledger: Ledger,
}

pub async fn run(seed: u64, rounds: u32) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let rng = Rng::with_seed(seed);
    let mut scene = Scene { dir: dir.path().to_owned(), rng, ledger: Ledger::new(Mode::Both) };
    let mut owner = Member::of(scene.start()?).await?;
    scene.judge(&owner, owner.process.said().opened).await?;
    for round in 0..rounds {
        let event = Event::any(&mut scene.rng);
        let tail = owner.process.said();
        let done = scene.round(owner, event).await;
        owner = done.map_err(|why| {
            let tail = tail.tail();
            format!("round {round}, {event:?}: {why}\n  the owner before that:{tail}")
        })?;
        scene.ledger.count(format!("{event:?}").split('(').next().unwrap_or_default());
    }
    owner.stop().await?;
    Ok(format!("{}; {:?}", scene.ledger.history.summary(), scene.ledger.tally))
}

impl Scene {
    fn start(&mut self) -> Result<Process, String> {
        let seed = self.rng.u64(..);
        Process::start(&Task { dir: self.dir.clone(), mode: Mode::Both, shared: true, seed })
    }

    fn clients(&mut self, wires: &[&Wire]) -> Clients {
        let wires = wires.iter().map(|&wire| wire.clone()).collect();
        Clients::start(wires, &self.ledger.history, true, self.rng.u64(..))
    }

    /// Whether a new owner stands where it may, with everything acknowledged.
    async fn judge(&mut self, owner: &Member, opened: Option<Opened>) -> Result<(), String> {
        let opened = opened.ok_or("it has not opened the flag")?;
        self.ledger.judge_opened(&opened)?;
        let judged = self.ledger.judge_data(&owner.wire, &opened).await;
        judged.map_err(|why| format!("{opened:?}: {why}"))
    }

    /// Answers who owns the flag after it.
    async fn round(&mut self, mut owner: Member, event: Event) -> Result<Member, String> {
        owner.process.tell("go").await?;
        owner.process.wait("it is ready", |said| said.ready.then_some(())).await?;
        let clients = self.clients(&[&owner.wire]);
        sleep(Duration::from_micros(self.rng.u64(..80_000))).await;

        let joining = self.start()?;
        if let Event::KillWhileJoining(delay) = event {
            sleep(delay).await;
            let said = owner.process.kill().await?;
            clients.stop().await?;
            return self.succeed(&said, Member::of(joining).await?).await;
        }
        let mut follower = Member::of(joining).await?;
        // A copy that the owner has under way does not know of another
        // process's writes: nobody writes there before it is over.
        owner.process.pause().await?;
        clients.ask(vec![owner.wire.clone(), follower.wire.clone()]);
        self.judge_pair(&mut owner, &mut follower).await?;
        sleep(Duration::from_micros(self.rng.u64(..30_000))).await;

        match event {
            Event::KillWhileJoining(_) | Event::KillOwner => {
                let said = owner.process.kill().await?;
                clients.stop().await?;
                self.succeed(&said, follower).await
            }
            Event::KillBoth => {
                let said = owner.process.kill().await?;
                follower.process.kill().await?;
                clients.stop().await?;
                self.ledger.note(&said);
                let owner = Member::of(self.start()?).await?;
                self.judge(&owner, owner.process.said().opened).await?;
                Ok(owner)
            }
            Event::StopOwner => {
                clients.ask(vec![follower.wire.clone()]);
                let said = owner.stop().await?;
                clients.stop().await?;
                self.succeed(&said, follower).await
            }
            Event::StopFollower => {
                let before = owner.now().await?;
                clients.ask(vec![owner.wire.clone()]);
                follower.stop().await?;
                clients.stop().await?;
                if owner.now().await? != before {
                    return Err("a follower that stopped in order changed its owner".to_owned());
                }
                self.ledger.judge_data(&owner.wire, &before).await?;
                Ok(owner)
            }
            Event::KillFollower => {
                clients.ask(vec![owner.wire.clone()]);
                follower.process.kill().await?;
                clients.stop().await?;
                self.mourn(&mut owner).await?;
                Ok(owner)
            }
        }
    }

    /// While there are two, they stand at the same place and nobody moves.
    async fn judge_pair(
        &mut self,
        owner: &mut Member,
        follower: &mut Member,
    ) -> Result<(), String> {
        let (one, two) = (owner.now().await?, follower.now().await?);
        if one.follows || !two.follows || one.position != two.position {
            return Err(format!("they are {one:?} and {two:?}"));
        }
        // There is no step beyond `NewOnly`, whoever asks.
        let at_the_end = one.position.stage == Stage::NewOnly;
        for (member, because) in [(owner, "shared"), (follower, "follower")] {
            let refused = member.refused().await?;
            if refused != because && !at_the_end {
                return Err(format!("a step was refused as {refused:?}, expected {because}"));
            }
        }
        Ok(())
    }

    /// The owner has ended: the other one goes on where it stood.
    async fn succeed(&mut self, said: &Said, heir: Member) -> Result<Member, String> {
        self.ledger.note(said);
        let opened = heir.takes_over().await?;
        let judged = self.judge(&heir, Some(opened)).await;
        judged.map_err(|why| {
            let (said, heir) = (said.tail(), heir.process.said().tail());
            format!("{why}\n  the last owner:{said}\n  its heir:{heir}")
        })?;
        Ok(heir)
    }

    /// A follower was killed: its owner knows that a write may be on one side
    /// alone.
    async fn mourn(&mut self, owner: &mut Member) -> Result<(), String> {
        let before = owner.now().await?;
        if before.position.stage == Stage::WriteBoth {
            let refused = owner.refused().await?;
            let after = owner.now().await?;
            // The emergency exit has left dirty keys, if a write was under way then.
            let expected = matches!(&*refused, "unsynced" | "unsynced,dirty");
            if !expected || after.sync[1] != "unsynced" {
                return Err(format!("a follower was killed, and then: {refused}, {after:?}"));
            }
        }
        self.ledger.judge_data(&owner.wire, &before).await
    }
}
