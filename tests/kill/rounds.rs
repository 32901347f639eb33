//! One process, killed again and again.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::{sleep, timeout};
use tower_migration::Side;

use crate::{
    child::Task,
    clients::{Clients, Wire},
    history::{History, ICAOS},
    position::{Mode, Position},
    process::{Opened, Process, Said},
};

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Killed so long after it was started, whatever it does then.
    WhileStarting(Duration),
    /// Killed so long after its flag began to move.
    After(Duration),
    /// Killed so long after so many steps have begun.
    InStep(usize, Duration),
    /// Stopped in order.
    Stopped,
    /// Told to stop, and killed so long after.
    WhileStopping(Duration),
}

impl End {
    fn any(rng: &mut Rng) -> Self {
        let mut micros = |to: u64| Duration::from_micros(rng.u64(..to));
        let (short, middle, long) = (micros(6_000), micros(40_000), micros(150_000));
        match rng.u8(..20) {
            0..2 => Self::WhileStarting(middle),
            2..7 => Self::After(long),
            7..17 => Self::InStep(rng.usize(1..12), short),
            17 => Self::Stopped,
            _ => Self::WhileStopping(short),
        }
    }
}

/// What must hold when the next process has come up.
pub struct Ledger {
    mode: Mode,
    pub history: Arc<History>,
    pub legal: Vec<Position>,
    pub epoch: u64,
    /// After a clean stop with no dirty key: what is known of the sides.
    pub clean: Option<[String; 2]>,
    /// Nobody knows whether the record says that the stop was a clean one.
    pub perhaps: bool,
    pub tally: BTreeMap<String, u32>,
}

impl Ledger {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            history: Arc::default(),
            legal: vec![Position::START],
            epoch: 0,
            clean: None,
            perhaps: false,
            tally: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    pub fn counted(&self, what: &str) -> u32 {
        self.tally.get(what).copied().unwrap_or_default()
    }

    /// What a process that has ended leaves behind.
    pub fn note(&mut self, said: &Said) {
        if said.opened.is_none() {
            // Killed before the flag was open, or just before it could say so. It
            // has served nobody.
            self.perhaps |= self.clean.is_some();
            return;
        }
        self.legal = said.legal();
        self.epoch = said.epoch;
        self.clean = None;
        if let Some((sync, true)) = &said.stopped {
            self.clean = Some(sync.clone());
        }
        self.perhaps = said.stopping && self.clean.is_none();
    }

    /// Whether the flag may stand where it does.
    pub fn judge_opened(&mut self, opened: &Opened) -> Result<(), String> {
        let Opened { position, epoch, sync, .. } = opened;
        if !self.legal.contains(position) {
            return Err(format!("it stands at {position}, legal is {:?}", self.legal));
        }
        if *epoch <= self.epoch {
            return Err(format!("its epoch went back from {} to {epoch}", self.epoch));
        }
        let other = position.stage.authority().other();
        if self.perhaps {
            self.count("restarts after a stop that may have been a clean one");
        } else if let Some(clean) = &self.clean {
            if clean != sync {
                return Err(format!("after a clean stop {clean:?} became {sync:?}"));
            }
        } else if position.stage.is_two_sided() && state(sync, other) != "unsynced" {
            return Err(format!("after a kill {other} is {}", state(sync, other)));
        }
        let gone_on = self.legal.len() == 2 && self.legal[0] != self.legal[1];
        if gone_on && *position == self.legal[1] {
            self.count("restarts where the unfinished step led");
        }
        self.count(format!(
            "restarts at {}",
            if position.ramp.is_none() { position.stage.as_str() } else { "a ramp" }
        ));
        Ok(())
    }

    /// Whether everything acknowledged is where it must be. Nobody writes.
    pub async fn judge_data(&mut self, wire: &Wire, opened: &Opened) -> Result<(), String> {
        let position = opened.position;
        let authority = position.stage.authority();
        let sides = wire.sides().await?;
        for side in &sides {
            self.history.judge_side(side)?;
        }
        if self.mode != Mode::Hurried || state(&opened.sync, authority) == "synced" {
            wire.judge(&self.history).await?;
        } else {
            self.count("restarts that said the authority lacks something");
            for icao in ICAOS {
                let newest =
                    sides.iter().filter_map(|side| side.get(icao)).max_by_key(|r| r.version);
                self.history.judge(icao, newest, self.history.acked(icao))?;
            }
        }
        if !position.ramp.is_none() {
            // While a ramp lasts, nothing is acknowledged that is not on both.
            for side in &sides {
                self.history.judge_whole_side(side)?;
            }
        }
        Ok(())
    }
}

fn state(sync: &[String; 2], side: Side) -> &str {
    match side {
        Side::Old => &sync[0],
        Side::New => &sync[1],
    }
}

pub async fn run(mode: Mode, seed: u64, rounds: u32) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut rng = Rng::with_seed(seed);
    let mut ledger = Ledger::new(mode);
    let mut before = String::new();
    let mut kills = 0;
    while kills < rounds {
        let end = End::any(&mut rng);
        let round = round(mode, dir.path(), &mut rng, end, &mut ledger).await;
        let about = |why| format!("kill {kills}, {mode:?}, {end:?}: {why}\n  before that:{before}");
        let said = round.map_err(about)?;
        if !matches!(end, End::Stopped) {
            kills += 1;
            ledger.count("kills");
            if said.in_step() {
                ledger.count("kills in the middle of a step");
            }
        }
        before = said.tail();
        ledger.note(&said);
    }
    round(mode, dir.path(), &mut rng, End::Stopped, &mut ledger).await?;
    if ledger.counted("kills in the middle of a step") == 0 {
        return Err(format!("no kill has hit a step: {:?}", ledger.tally));
    }
    Ok(format!("{}; {:?}", ledger.history.summary(), ledger.tally))
}

async fn round(
    mode: Mode,
    dir: &Path,
    rng: &mut Rng,
    end: End,
    ledger: &mut Ledger,
) -> Result<Said, String> {
    let task = Task { dir: dir.to_owned(), mode, shared: false, seed: rng.u64(..) };
    let mut process = Process::start(&task)?;
    if let End::WhileStarting(delay) = end {
        sleep(delay).await;
        let said = process.kill().await?;
        if let Some(opened) = &said.opened {
            ledger.judge_opened(opened)?;
        }
        return Ok(said);
    }
    let wire = Wire::to(process.address().await?);
    let opened = process.wait("it opened", |said| said.opened.clone()).await?;
    ledger.judge_opened(&opened)?;
    ledger.judge_data(&wire, &opened).await.map_err(|why| format!("{opened:?}: {why}"))?;

    process.tell("go").await?;
    let serving = async {
        // Until then an authority that lacks something is being mended.
        process.wait("it is ready", |said| said.ready.then_some(())).await?;
        Ok::<_, String>(Clients::start(
            vec![wire.clone()],
            &ledger.history,
            mode != Mode::Hurried,
            rng.u64(..),
        ))
    };
    let clients = match end {
        End::After(delay) => match timeout(delay, serving).await {
            Ok(clients) => {
                sleep(delay).await;
                Some(clients?)
            }
            Err(_) => None,
        },
        End::InStep(steps, delay) => {
            let clients = serving.await?;
            process.wait("steps", |said| (said.steps >= steps).then_some(())).await?;
            sleep(delay).await;
            Some(clients)
        }
        _ => {
            let clients = serving.await?;
            let steps = rng.usize(1..12);
            process.wait("steps", |said| (said.steps >= steps).then_some(())).await?;
            Some(clients)
        }
    };
    let said = match end {
        End::Stopped => {
            process.pause().await?;
            process.tell("stop").await?;
            process.stopped().await?
        }
        End::WhileStopping(delay) => {
            process.tell("stop").await?;
            sleep(delay).await;
            process.kill().await?
        }
        _ => process.kill().await?,
    };
    if let Some(clients) = clients {
        clients.stop().await?;
    }
    Ok(said)
}
