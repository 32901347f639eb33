//! A process that is killed while writes begin and end.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::reconcile::Journal;

const DIR: &str = "JOURNAL_TEST_DIR";
const NAME: &str = "JOURNAL_TEST_NAME";

/// In one write, so that what a parent reads was said before the kill.
fn say(line: &str) {
    let _ = io::stdout().lock().write_all(format!("@ {line}\n").as_bytes());
}

/// The child. A test like any other, which does nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(name)) = (env::var(DIR), env::var(NAME)) else { return };
    let keep = Duration::from_millis(fastrand::u64(0..20));
    let journal = Journal::open(&dir).unwrap().mode(JournalMode::BeforeLegs).keep(keep);
    let log = journal.start("airports").unwrap();
    let found = log.adopt(None).await.unwrap();
    for (key, mark) in &found.marks {
        log.put(key, *mark);
    }
    log.took_over(found.round);
    say("took over");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let (log, name) = (Arc::clone(&log), name.clone());
        tasks.spawn(async move {
            loop {
                // Few keys, so that some are hot; each its task's own.
                let key = format!("/{name}/{task}/{}", fastrand::u8(..6));
                let right = Side::ALL[usize::from(fastrand::bool())];
                let write = log.begin(&Keys::from(key.as_str()), false, right);
                write.durable().await.unwrap();
                say(&format!("begun {key} {right}"));
                if fastrand::bool() {
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(..3000))).await;
                }
                let dirty = format!("{key}/dirty");
                if fastrand::u8(..4) == 0 {
                    log.put(&dirty.as_str().into(), mark(RightSide::Is(right), 1));
                    log.flush().await.unwrap();
                    say(&format!("put {dirty} {right}"));
                } else {
                    say(&format!("removed {dirty} {right}"));
                    log.remove(&dirty.as_str().into());
                }
                say(&format!("ended {key} {right}"));
                drop(write);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Kills it when a test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a child run for a while and answers the keys that it counts on.
fn run(dir: &Path, name: &str, lines: usize) -> BTreeMap<String, Side> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["reconcile::journal::tests::kill::child", "--exact", "--nocapture"])
        .envs([(DIR, dir.as_os_str()), (NAME, name.as_ref())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Killed(child.unwrap());
    let stdout = BufReader::new(child.0.stdout.take().unwrap());
    if lines == 0 {
        std::thread::sleep(Duration::from_micros(fastrand::u64(..30_000)));
        child.0.kill().unwrap();
    }
    let mut counted_on = BTreeMap::new();
    let mut heard = 0;
    for line in stdout.split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        let Some(line) = line.strip_prefix("@ ") else { continue };
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (what, key, right) = (next(), next().to_owned(), next());
        let right = Side::ALL.into_iter().find(|side| side.as_str() == right);
        match (what, right) {
            ("begun" | "put", Some(right)) => drop(counted_on.insert(key, right)),
            ("ended" | "removed", Some(_)) => drop(counted_on.remove(&key)),
            _ => {}
        }
        heard += 1;
        if heard == lines {
            child.0.kill().unwrap();
        }
    }
    if lines > 0 && heard < lines {
        let mut error = String::new();
        let _ = io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut error);
        panic!("the child ended by itself: {error}");
    }
    counted_on
}

#[test]
fn what_was_counted_on_is_found_after_a_kill_whenever_it_comes() {
    let rounds = env::var("JOURNAL_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let dir = tempfile::tempdir().unwrap();
    let mut counted_on = BTreeMap::new();
    for round in 0..rounds {
        // Some are killed while they make their file, or take over the last one.
        let lines = if round % 3 == 2 { 0 } else { fastrand::usize(1..2000) };
        counted_on.extend(run(dir.path(), &round.to_string(), lines));
        let left = left(as_if_killed(dir.path()).path());
        for (key, right) in &counted_on {
            let mark = left.marks.get(&Key::from(key.as_str()));
            let mark = mark.unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            // A mark of a key whose last row was never confirmed may be newer.
            let kept = [RightSide::Is(*right), RightSide::Conflict].contains(&mark.right);
            assert!(kept || key.ends_with("/dirty"), "round {round}: {key} {mark:?}");
        }
    }
    assert!(counted_on.len() > rounds, "{}", counted_on.len());
}
