//! Disks that break.

use super::*;

async fn fails_for_good(log: JournalLog, dir: &Path, why: &str) {
    let waiting = begin(&log, "/waits", Side::Old);
    let error = waiting.durable().await.unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    assert!(!error.lifted_by().is_empty());
    assert!(log.failure().is_some_and(|failure| failure.contains(why)));
    // Nothing panics, hangs or heaps up.
    for _ in 0..3 {
        log.put(&"/b".into(), mark(OLD, 1));
        log.remove(&"/b".into());
        log.took_over(0);
        assert!(log.flush().await.is_err());
        assert!(begin(&log, "/c", Side::Old).durable().await.is_err());
        assert!(log.adopt(None).await.is_err());
    }
    drop(waiting);
    assert_eq!(log.stats().waiting, 0);
    // The process lives and makes keys dirty: the file is not up for adoption.
    assert_eq!(left(dir), Left::default());
    drop(log);
    assert_eq!(keys(&left(dir)), [("/safe", OLD)], "what was durable is durable");
}

#[tokio::test]
async fn a_full_disk_fails_the_log_for_good() {
    // At each write of a commit, and at those that close the file.
    for writes in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let (log, hooks) = start(dir.path());
        log.put(&"/safe".into(), mark(OLD, 1));
        log.flush().await.unwrap();
        hooks.writes_left.store(writes, Ordering::SeqCst);
        if begin(&log, "/a", Side::Old).durable().await.is_ok() {
            assert!(writes > 3, "a commit writes more than that");
            break;
        }
        // The commit may be in the file, though nobody was told.
        assert!(log.failure().is_some());
        drop(log);
        let left = left(dir.path());
        assert!(left.marks.contains_key(&Key::from("/safe")), "{writes}");
    }
}

#[tokio::test]
async fn a_log_that_has_failed_says_so_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    log.put(&"/safe".into(), mark(OLD, 1));
    log.flush().await.unwrap();
    hooks.writes_left.store(1, Ordering::SeqCst);
    fails_for_good(log, dir.path(), "no storage space").await;
}

#[tokio::test]
async fn a_panic_of_the_database_fails_the_log_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    log.put(&"/safe".into(), mark(OLD, 1));
    log.flush().await.unwrap();
    hooks.panics.store(true, Ordering::SeqCst);
    let waiting = begin(&log, "/waits", Side::Old);
    let error = waiting.durable().await.unwrap_err();
    assert!(error.to_string().contains("a panic that the test wants"), "{error}");
    assert!(log.flush().await.is_err() && log.failure().is_some());
    drop(waiting);
    drop(log);
    assert!(left(dir.path()).marks.contains_key(&Key::from("/safe")));
}

#[tokio::test]
async fn those_who_wait_when_the_log_fails_hear_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    hooks.close_gate();
    let runs = begin(&log, "/a", Side::Old);
    hooks.wait_for_writer();
    let waits = begin(&log, "/b", Side::Old);
    let flush = log.flush();
    hooks.panics.store(true, Ordering::SeqCst);
    hooks.open_gate();
    assert!(runs.durable().await.is_err());
    assert!(waits.durable().await.is_err());
    assert!(flush.await.is_err());
}

#[tokio::test]
async fn what_is_queued_when_the_journal_is_dropped_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    hooks.close_gate();
    let first = begin(&log, "/a", Side::Old);
    hooks.wait_for_writer();
    let second = begin(&log, "/b", Side::Old);
    let flush = log.flush();
    let dropping = std::thread::spawn(move || drop(log));
    hooks.open_gate();
    dropping.join().unwrap();
    for write in [&first, &second] {
        write.durable().await.unwrap();
    }
    flush.await.unwrap();
    assert_eq!(keys(&left(dir.path())), [("/a", OLD), ("/b", OLD)]);
}
