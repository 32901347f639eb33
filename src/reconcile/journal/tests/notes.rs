//! Writes that have begun.

use super::*;

#[tokio::test]
async fn a_write_that_has_begun_is_found_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    let keys_of = Keys::from(vec!["/a", "/b"]);
    let both = log.begin(&keys_of, true, Side::New);
    both.durable().await.unwrap();
    let killed = left(as_if_killed(dir.path()).path());
    assert_eq!(keys(&killed), [("/a", NEW), ("/b", NEW)]);
    assert!(killed.marks.values().all(|mark| mark.marks == 1));
    assert_eq!(killed.nameless, [true, false], "old is wrong where new was right");

    drop(both);
    log.flush().await.unwrap();
    let killed = left(as_if_killed(dir.path()).path());
    assert_eq!((keys(&killed), killed.nameless), (vec![], [false, false]));
}

#[tokio::test]
async fn a_hot_key_is_noted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    begin(&log, "/a", Side::Old).durable().await.unwrap();
    let before = log.stats().commits;
    for _ in 0..1000 {
        let one = begin(&log, "/a", Side::Old);
        let two = begin(&log, "/a", Side::Old);
        assert!(one.is_durable() && two.is_durable());
    }
    let stats = log.stats();
    assert_eq!((stats.commits, stats.begun), (before, 1));
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", OLD)]);
}

#[tokio::test]
async fn a_key_that_is_on_its_way_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start(dir.path());
    hooks.close_gate();
    let first = begin(&log, "/a", Side::Old);
    hooks.wait_for_writer();
    let second = begin(&log, "/a", Side::Old);
    assert!(!second.is_durable());
    hooks.open_gate();
    second.durable().await.unwrap();
    first.durable().await.unwrap();
    assert_eq!(log.stats().commits, 1);
}

#[tokio::test]
async fn a_note_is_cleared_a_while_after_the_last_write_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start_with(dir.path(), JournalMode::BeforeLegs, Duration::ZERO);
    let first = begin(&log, "/a", Side::Old);
    let second = begin(&log, "/a", Side::Old);
    first.durable().await.unwrap();
    drop(first);
    // Commits that would clear it, if it were idle.
    log.put(&Key::from("/b"), mark(NEW, 1));
    log.flush().await.unwrap();
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", OLD), ("/b", NEW)]);
    drop(second);
    until("it is cleared", || log.stats().begun == 0).await;
    log.flush().await.unwrap();
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/b", NEW)]);
}

#[tokio::test]
async fn a_note_is_kept_for_as_long_as_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    begin(&log, "/a", Side::Old).durable().await.unwrap();
    begin(&log, "/b", Side::Old).durable().await.unwrap();
    assert_eq!(log.stats().begun, 2);
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", OLD), ("/b", OLD)]);
}

#[tokio::test]
async fn the_next_write_decides_where_nothing_runs_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    begin(&log, "/a", Side::Old).durable().await.unwrap();
    let new = begin(&log, "/a", Side::New);
    assert!(!new.is_durable(), "old is noted, and new is right");
    new.durable().await.unwrap();
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", NEW)]);
}

#[tokio::test]
async fn writes_that_run_at_once_with_both_sides_right_are_a_conflict_until_they_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    let old = begin(&log, "/a", Side::Old);
    let new = begin(&log, "/a", Side::New);
    new.durable().await.unwrap();
    let conflict = [("/a", RightSide::Conflict)];
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), conflict);
    drop(old);
    let newer = begin(&log, "/a", Side::New);
    newer.durable().await.unwrap();
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), conflict);
    drop((new, newer));
    begin(&log, "/a", Side::New).durable().await.unwrap();
    assert_eq!(keys(&left(as_if_killed(dir.path()).path())), [("/a", NEW)]);
}

#[tokio::test]
async fn a_mark_is_durable_no_later_than_its_writes_note_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let (log, hooks) = start_with(dir.path(), JournalMode::BeforeLegs, Duration::ZERO);
    for n in 0..20 {
        let name = format!("/{n:02}");
        let write = begin(&log, &name, Side::Old);
        write.durable().await.unwrap();
        hooks.close_gate();
        log.put(&Key::from(name.as_str()), mark(OLD, 7));
        drop(write);
        hooks.wait_for_writer();
        // Whatever the commit that runs has reached of the file.
        let killed = as_if_killed(dir.path());
        assert!(left(killed.path()).marks.contains_key(&Key::from(name.as_str())));
        hooks.open_gate();
    }
    log.flush().await.unwrap();
    assert_eq!(left(as_if_killed(dir.path()).path()).marks.len(), 20);
}

#[tokio::test]
async fn notes_that_nobody_needs_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    for start in (0..10_000).step_by(1000) {
        let keys: Keys = (start..start + 1000).map(|n| format!("/{n}")).collect();
        log.begin(&keys, false, Side::Old).durable().await.unwrap();
    }
    begin(&log, "/last", Side::Old).durable().await.unwrap();
    assert!(log.stats().begun <= 4097, "{:?}", log.stats());
    assert!(left(as_if_killed(dir.path()).path()).marks.len() <= 4097);
}

#[tokio::test]
async fn nothing_is_noted_where_nothing_has_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start_with(dir.path(), JournalMode::OnFailure, FOREVER);
    assert!(begin(&log, "/a", Side::Old).is_durable());
    assert!(!log.marks_before());
    assert_eq!(log.stats(), Default::default());
    let (log, _) = start(dir.path());
    assert!(log.begin(&Keys::none(), false, Side::Old).is_durable());
    assert!(log.marks_before());
    assert_eq!(log.stats(), Default::default());
}

#[tokio::test]
async fn a_write_that_outlives_the_journal_stays_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    let ended = begin(&log, "/ended", Side::Old);
    let runs = begin(&log, "/runs", Side::Old);
    ended.durable().await.unwrap();
    drop(ended);
    log.put(&Key::from("/dirty"), mark(NEW, 1));
    drop(log);
    assert_eq!(keys(&left(dir.path())), [("/dirty", NEW), ("/runs", OLD)]);
    runs.durable().await.unwrap();
    drop(runs);
}
