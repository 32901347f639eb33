//! A process whose journal notes writes before their legs: killed again and again, and
//! each time every key whose two sides differ is found dirty, with the side that is
//! right, and no side becomes unsynced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, exit},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{task::spawn_blocking, time::sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_migration::{
    BoxError, FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Operation, Side, Stage,
    protocol::Plain,
    reconcile::{
        Backfill, Conflicts, Journal, JournalMode, Key, Keys, Listing, Repair, Rows, Verify,
    },
};

use crate::{
    child::say,
    stores::{Airport, Store},
};

const KEYS: u32 = 12;
const WRITERS: u32 = 4;
/// What each writer writes without a key in one life, at the most.
const NAMELESS: u32 = 3;
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a child is to do.
pub struct Task {
    dir: PathBuf,
    life: u32,
    seed: u64,
    /// Some writes have no key.
    nameless: bool,
}

const NAMES: [&str; 4] =
    ["JOURNAL_CHILD_DIR", "JOURNAL_CHILD_LIFE", "JOURNAL_CHILD_SEED", "JOURNAL_CHILD_NAMELESS"];

impl Task {
    pub fn from_env() -> Option<Self> {
        let [dir, life, seed, nameless] = NAMES.map(|name| std::env::var(name).ok());
        Some(Self {
            dir: dir?.into(),
            life: life?.parse().ok()?,
            seed: seed?.parse().ok()?,
            nameless: nameless?.parse().ok()?,
        })
    }
}

#[derive(Clone)]
enum Op {
    Put(Airport),
    Delete(String),
}

/// The two stores, behind the layer's back.
#[derive(Clone)]
struct Both {
    old: Store,
    new: Store,
}

impl Both {
    fn on(&self, side: Side) -> &Store {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        side: Side,
        work: impl FnOnce(&Store) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let store = self.on(side).clone();
        spawn_blocking(move || work(&store)).await?
    }

    fn differing(&self) -> Result<BTreeSet<String>, BoxError> {
        let (old, new) = (self.old.all()?, self.new.all()?);
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
        Ok(keys.into_iter().filter(|key| old.get(key) != new.get(key)).collect())
    }
}

impl Rows for Both {
    type Row = Airport;
    type Error = BoxError;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<Airport>, BoxError> {
        let key = key.to_string();
        self.with(side, move |store| store.get(&key)).await
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&Airport>) -> Result<(), BoxError> {
        let (key, row) = (key.to_string(), row.cloned());
        self.with(side, move |store| match row {
            Some(row) => store.put(&row),
            None => store.delete(&key).map(drop),
        })
        .await
    }
}

impl Listing for Both {
    type Error = BoxError;

    async fn page(&self, side: Side, after: Option<&Key>, _: usize) -> Result<Vec<Key>, BoxError> {
        let after = after.map(ToString::to_string);
        let all = self.with(side, Store::all).await?;
        Ok(all.into_keys().filter(|key| Some(key) > after.as_ref()).map(Key::from).collect())
    }
}

pub fn main(task: &Task) -> ! {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(live(task)) {
        say(format_args!("error {error}"));
    }
    exit(1)
}

fn dawdle(rng: &mut Rng) -> Duration {
    if rng.u8(..3) == 0 { Duration::from_micros(rng.u64(..4_000)) } else { Duration::ZERO }
}

/// One side: it takes its time, and fails now and then, before or after it has done
/// what it was asked to.
async fn side(store: Store, op: Op) -> Result<(), String> {
    let (fate, pause) = {
        let mut rng = Rng::new();
        (rng.u8(..100), dawdle(&mut rng))
    };
    sleep(pause).await;
    if fate == 0 {
        return Err("before".to_owned());
    }
    let done = spawn_blocking(move || match op {
        Op::Put(row) => store.put(&row),
        Op::Delete(key) => store.delete(&key).map(drop),
    });
    done.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if fate == 1 { Err("after".to_owned()) } else { Ok(()) }
}

async fn live(task: &Task) -> Result<(), BoxError> {
    let journal = Journal::create_or_open(task.dir.join("journal"))?
        .mode(JournalMode::BeforeLegs)
        .keep(Duration::from_millis(20));
    let flag = FileStore::create_or_open(task.dir.join("flag"))?;
    // The stores are in this process: nothing that a dead one has sent still lands.
    let builder = MigrationHandle::builder("airports").linger(Duration::ZERO).journal(journal);
    let handle = builder.open(flag).await?;
    let old = Store::sqlite(&task.dir.join("old.db"))?;
    let new = Store::redb(&task.dir.join("new.redb"))?;
    let both = Both { old, new };

    let status = handle.status();
    let dirty = handle.dirty_keys();
    let differing = both.differing()?;
    if status.stage.is_two_sided() {
        let other = status.authority.other();
        let synced = status.sync.get(other).is_synced();
        let missed: Vec<_> =
            differing.iter().filter(|key| !dirty.iter().any(|d| d.key.as_str() == **key)).collect();
        if synced && !missed.is_empty() {
            return Err(format!("differ and are not dirty: {missed:?}\n{status}").into());
        }
        let word = if synced { "synced" } else { "doubtful" };
        say(format_args!("opened {word} {} {}", dirty.len(), differing.len()));
    }
    for (key, row) in both.on(status.authority).all()? {
        say(format_args!("row {key} {}", row.version));
    }
    say("rows");

    if status.stage == Stage::OldOnly {
        handle.advance().await?;
    }
    let repair = Repair::new(&handle, both.clone())
        .conflicts(Conflicts::TrustAuthority)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .rate(100_000.0);
    let repairing = repair.start()?;
    let other = status.authority.other();
    if !handle.status().sync.get(other).is_synced() {
        let listing = both.clone();
        let report = if task.life == 0 {
            Backfill::new(&handle, both.clone()).listing(listing).run().await?.synced
        } else {
            Verify::new(&handle, both.clone()).listing(listing).mend().run().await?.synced
        };
        if !report {
            return Err("it does not become synced".into());
        }
    }
    while !handle.dirty_keys().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let left = both.differing()?;
    if !left.is_empty() {
        return Err(format!("clean and different: {left:?}").into());
    }
    say("mended");

    let seeds = AtomicU32::new(0);
    let rng = |seeds: &AtomicU32| {
        Rng::with_seed(task.seed ^ u64::from(seeds.fetch_add(1, Ordering::SeqCst)))
    };
    let classify = |_: &(Op, bool)| Operation::Write;
    let plain = Plain::<(Op, bool), (), String>::new(classify, |refused| refused.to_string()).keys(
        |(op, nameless): &(Op, bool)| match op {
            _ if *nameless => Keys::none(),
            Op::Put(row) => Keys::from(&*row.icao),
            Op::Delete(key) => Keys::from(&**key),
        },
    );
    let [in_old, in_new] = Side::ALL.map(|s| both.on(s).clone());
    let old = service_fn(move |(op, _): (Op, bool)| side(in_old.clone(), op));
    let new = service_fn(move |(op, _): (Op, bool)| side(in_new.clone(), op));
    let layer = MigrationLayer::with_protocol(handle.clone(), new, plain)
        .failure_policy(FailurePolicy::AuthorityWins);
    let service = Arc::new(std::sync::Mutex::new(layer.layer(old)));
    for writer in 0..WRITERS {
        let (service, mut rng) = (Arc::clone(&service), rng(&seeds));
        let (life, nameless) = (task.life, task.nameless);
        tokio::spawn(async move {
            let mut version = life * 1_000_000;
            // Each of these is written once: without a key there is no order, and a write's
            // other leg may still run when the next write begins.
            let mut rows = if nameless { 0..NAMELESS } else { 0..0 };
            loop {
                version += 1;
                let row = if rng.u8(..40) == 0 { rows.next() } else { None };
                let nameless = row.is_some();
                let (kind, row) = match row {
                    Some(row) => ('N', row),
                    None => ('K', rng.u32(..KEYS / WRITERS)),
                };
                let key = format!("{kind}{:02}", row * WRITERS + writer);
                let delete = rng.u8(..8) == 0;
                let op = match delete {
                    true => Op::Delete(key.clone()),
                    false => Op::Put(Airport::new(&key, version)),
                };
                say(format_args!("sent {key} {version} {delete}"));
                let clone = service.lock().unwrap().clone();
                if clone.oneshot((op, nameless)).await.is_ok() {
                    say(format_args!("acked {key} {version}"));
                }
                sleep(dawdle(&mut rng)).await;
            }
        });
    }
    // The authority changes sides now and then.
    let mut rng = rng(&seeds);
    loop {
        sleep(Duration::from_millis(rng.u64(5..60))).await;
        let to = if rng.bool() { Stage::WriteBoth } else { Stage::ReadNew };
        if handle.move_to(to).await.is_ok() {
            say(format_args!("at {to}"));
        }
        let _ = repairing.retry_parked();
    }
}

/// Of one key: its newest acknowledged version, and the deletions that were sent.
#[derive(Default)]
struct Log {
    acked: u32,
    sent: u32,
    deletions: BTreeSet<u32>,
}

#[derive(Default)]
struct Known {
    keys: BTreeMap<String, Log>,
    tally: BTreeMap<String, u32>,
}

impl Known {
    fn count(&mut self, what: &str, by: u32) {
        *self.tally.entry(what.to_owned()).or_default() += by;
    }

    /// What the authority holds must be what was acknowledged last, or newer.
    fn judge(&self, rows: &BTreeMap<String, u32>) -> Result<(), String> {
        for (key, log) in &self.keys {
            let fine = match rows.get(key) {
                Some(version) => (log.acked..=log.sent).contains(version),
                None => log.acked == 0 || log.deletions.range(log.acked..).next().is_some(),
            };
            if !fine {
                let found = rows.get(key);
                return Err(format!("{key}: acknowledged {}, found {found:?}: LOST", log.acked));
            }
        }
        Ok(())
    }
}

/// A child, and what it says.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(dir: &Path, life: u32, seed: u64, nameless: bool) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let values =
            [dir.display().to_string(), life.to_string(), seed.to_string(), nameless.to_string()];
        let mut child = Command::new(program)
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .envs(NAMES.into_iter().zip(values))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a child: {error}"))?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix("@ ")
                    && tell.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn run(seed: u64, kills: u32, nameless: bool) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut rng = Rng::with_seed(seed);
    let mut known = Known::default();
    for life in 0..=kills {
        let mut process = Process::start(dir.path(), life, rng.u64(..), nameless)?;
        // Some are killed while they start or mend, most while they serve.
        let after_acks = match rng.u8(..8) {
            0 => None,
            _ => Some(rng.u32(1..60)),
        };
        let delay = Duration::from_micros(rng.u64(..60_000));
        let said = listen(&mut process, &mut known, after_acks, delay, nameless);
        said.map_err(|why| format!("life {life}: {why}"))?;
    }
    if known.tally.get("differing keys").copied().unwrap_or_default() == 0 {
        return Err(format!("no kill left a key different: {:?}", known.tally));
    }
    Ok(format!("{:?}", known.tally))
}

/// Hears a child until it is killed, and what it had said by then.
fn listen(
    process: &mut Process,
    known: &mut Known,
    after_acks: Option<u32>,
    delay: Duration,
    nameless: bool,
) -> Result<(), String> {
    let (mut acks, mut killed) = (0, false);
    let mut rows = BTreeMap::new();
    if after_acks.is_none() {
        std::thread::sleep(delay);
        process.kill();
        killed = true;
    }
    loop {
        let line = match process.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) if killed => return Ok(()),
            Err(error) => return Err(format!("the child said nothing more: {error}")),
        };
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        match (words[0], number(2)) {
            ("error", _) => return Err(line.clone()),
            ("opened", Some(dirty)) => {
                known.count("openings", 1);
                known.count("dirty keys found", dirty);
                known.count("differing keys", number(3).unwrap_or_default());
                if words[1] != "synced" {
                    known.count("doubtful openings", 1);
                    if !nameless {
                        return Err("every write had a key, and the side is doubtful".to_owned());
                    }
                }
            }
            ("row", Some(version)) => drop(rows.insert(words[1].to_owned(), version)),
            ("rows", _) => known.judge(&rows)?,
            ("sent", Some(version)) => {
                let log = known.keys.entry(words[1].to_owned()).or_default();
                log.sent = version;
                if words[3] == "true" {
                    log.deletions.insert(version);
                }
            }
            ("acked", Some(version)) => {
                known.keys.entry(words[1].to_owned()).or_default().acked = version;
                known.count("acknowledged", 1);
                acks += 1;
            }
            ("at", _) => known.count("flips", 1),
            _ => {}
        }
        if !killed && after_acks.is_some_and(|after| acks >= after) {
            std::thread::sleep(delay.min(Duration::from_millis(4)));
            process.kill();
            killed = true;
        }
    }
}
