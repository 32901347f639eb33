//! Tests of the journal on real files.

mod adoption;
mod damage;
mod faults;
mod kill;
mod notes;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    JournalMode,
    left::Left,
    log::{JournalLog, read_dead},
    medium::{Medium, OnDisk},
};
use crate::{
    reconcile::{
        Key, Keys, RightSide,
        dirty_log::{Begun, DirtyLog, StoredMark},
    },
    stage::Side,
};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// A disk that a test can hold, count and break.
#[derive(Debug, Default)]
struct Hooks {
    syncs: AtomicU64,
    /// Writes until the disk is full, counted down; zero: it never is.
    writes_left: AtomicI64,
    full: AtomicBool,
    panics: AtomicBool,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waiting: bool,
}

impl Hooks {
    fn close_gate(&self) {
        self.gate.lock().unwrap().closed = true;
    }

    /// Waits until the writer stands before the gate.
    fn wait_for_writer(&self) {
        let gate = self.gate.lock().unwrap();
        drop(self.moved.wait_while(gate, |gate| !gate.waiting).unwrap());
    }

    fn open_gate(&self) {
        self.gate.lock().unwrap().closed = false;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting = true;
        self.moved.notify_all();
        gate = self.moved.wait_while(gate, |gate| gate.closed).unwrap();
        gate.waiting = false;
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Hooked {
    disk: OnDisk,
    hooks: Arc<Hooks>,
}

impl Medium for Hooked {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.read(at, bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.hooks.writes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.hooks.full.store(true, Ordering::SeqCst);
        }
        if self.hooks.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.write(at, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.hooks.pass();
        assert!(!self.hooks.panics.load(Ordering::SeqCst), "a panic that the test wants");
        self.hooks.syncs.fetch_add(1, Ordering::SeqCst);
        self.disk.sync()
    }
}

fn start_with(dir: &Path, mode: JournalMode, keep: Duration) -> (JournalLog, Arc<Hooks>) {
    let hooks = Arc::new(Hooks::default());
    let through = |file: File| {
        let hooks = Arc::clone(&hooks);
        Arc::new(Hooked { disk: OnDisk::new(file), hooks }) as Arc<dyn Medium>
    };
    let dir = dir.canonicalize().unwrap();
    let log = JournalLog::start(dir, "airports", mode, keep, through).unwrap();
    (log, hooks)
}

/// Notes writes before their legs, and clears nothing on its own.
fn start(dir: &Path) -> (JournalLog, Arc<Hooks>) {
    start_with(dir, JournalMode::BeforeLegs, FOREVER)
}

fn mark(right: RightSide, marks: u64) -> StoredMark {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_540);
    StoredMark { right, marks, since }
}

const OLD: RightSide = RightSide::Is(Side::Old);
const NEW: RightSide = RightSide::Is(Side::New);

fn begin(log: &JournalLog, key: &str, right: Side) -> Begun {
    log.begin(&Keys::from(key), false, right)
}

/// What the dead have left.
fn left(dir: &Path) -> Left {
    read_dead(dir, "airports", &[], None).unwrap().1
}

/// Its keys, and the side that is right.
fn keys(left: &Left) -> Vec<(&str, RightSide)> {
    left.marks.iter().map(|(key, mark)| (key.as_str(), mark.right)).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// The files as they would be found if the process died now.
fn as_if_killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(dir) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_is_put_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start_with(dir.path(), JournalMode::OnFailure, FOREVER);
    let long = "k".repeat(10_000);
    for key in ["/a", "", "/é\0", &long] {
        log.put(&Key::from(key), mark(OLD, 3));
    }
    log.put(&Key::from("/conflict"), mark(RightSide::Conflict, 9));
    log.put(&Key::from("/mended"), mark(NEW, 1));
    log.flush().await.unwrap();
    log.remove(&Key::from("/mended"));
    log.flush().await.unwrap();
    let id = log.id();

    for dir in [as_if_killed(dir.path()).path(), {
        drop(log);
        dir.path()
    }] {
        let left = left(dir);
        assert_eq!(left.ids, [id]);
        assert_eq!(
            keys(&left),
            [
                ("", OLD),
                ("/a", OLD),
                ("/conflict", RightSide::Conflict),
                ("/é\0", OLD),
                (&long, OLD)
            ]
        );
        assert_eq!(left.marks[&Key::from("/a")], mark(OLD, 3));
    }
}

#[tokio::test]
async fn the_last_change_of_a_key_counts_and_is_the_only_one_written() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    hooks.close_gate();
    log.put(&Key::from("/first"), mark(OLD, 1));
    let first = log.flush();
    hooks.wait_for_writer();
    for marks in 1..=100 {
        log.put(&Key::from("/a"), mark(OLD, marks));
        log.put(&Key::from("/b"), mark(OLD, marks));
    }
    log.remove(&Key::from("/b"));
    hooks.open_gate();
    first.await.unwrap();
    log.flush().await.unwrap();
    let stats = log.stats();
    assert_eq!((stats.commits, stats.rows, stats.waiting), (2, 3, 0));
    drop(log);
    assert_eq!(left(dir.path()).marks[&Key::from("/a")], mark(OLD, 100));
    assert_eq!(keys(&left(dir.path())), [("/a", OLD), ("/first", OLD)]);
}

#[tokio::test]
async fn a_mark_is_durable_soon_though_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start_with(dir.path(), JournalMode::OnFailure, FOREVER);
    log.put(&Key::from("/a"), mark(OLD, 1));
    until("it is written", || log.stats().commits == 1).await;
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", OLD)]);
}

/// Waits for what happens by itself.
async fn until(what: &str, happened: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain until {what}");
}

#[tokio::test]
async fn a_flush_of_nothing_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    let before = hooks.syncs();
    log.flush().await.unwrap();
    assert_eq!((log.stats().commits, hooks.syncs()), (0, before));
}

#[tokio::test]
async fn writes_that_begin_at_once_share_one_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    // The first commit after a file was opened costs one more.
    begin(&log, "/warm", Side::Old).durable().await.unwrap();
    let before = hooks.syncs();
    hooks.close_gate();
    let first = begin(&log, "/first", Side::Old);
    hooks.wait_for_writer();
    let writes: Vec<_> = (0..64).map(|n| begin(&log, &format!("/{n}"), Side::Old)).collect();
    assert!(writes.iter().all(|write| !write.is_durable()));
    assert_eq!(log.stats().waiting, 65);
    hooks.open_gate();
    first.durable().await.unwrap();
    for write in &writes {
        write.durable().await.unwrap();
    }
    assert_eq!(hooks.syncs() - before, 2);
    let stats = log.stats();
    assert_eq!((stats.commits, stats.rows, stats.begun, stats.waiting), (3, 66, 66, 0));
}
