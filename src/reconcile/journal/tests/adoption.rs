//! Taking over what the dead have left.

use super::*;
use crate::{
    reconcile::{
        Journal, JournalErrorKind,
        dirty_log::{Found, SideNote},
    },
    stage::SyncState,
};

fn found_keys(found: &Found) -> Vec<(&str, RightSide, u64)> {
    found.marks.iter().map(|(key, mark)| (key.as_str(), mark.right, mark.marks)).collect()
}

const SYNCED: SideNote = SideNote { state: SyncState::Synced, span: 3 };
const SUSPECT: SideNote = SideNote { state: SyncState::Suspect, span: 2 };

#[tokio::test]
async fn several_files_are_merged_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = start(dir.path());
    first.put(&"/both".into(), mark(OLD, 5));
    first.put(&"/apart".into(), mark(OLD, 2));
    first.side(Side::New, SYNCED);
    let running = first.begin(&Keys::from("/begun"), true, Side::Old);
    let (second, _) = start(dir.path());
    second.put(&"/both".into(), mark(OLD, 3));
    second.put(&"/apart".into(), mark(NEW, 1));
    second.side(Side::New, SUSPECT);
    let (living, _) = start(dir.path());
    living.put(&"/living".into(), mark(OLD, 1));
    living.flush().await.unwrap();
    let ids = [first.id(), second.id()];
    drop((first, second));

    let (heir, _) = start(dir.path());
    let found = heir.adopt(None).await.unwrap();
    assert_eq!(
        found_keys(&found),
        [("/apart", RightSide::Conflict, 2), ("/begun", OLD, 1), ("/both", OLD, 5)]
    );
    assert_eq!(found.sides, [None, Some(SideNote { state: SyncState::Suspect, span: 3 })]);
    assert_eq!(found.nameless, [false, true]);
    let mut sorted = found.ids.clone();
    sorted.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(files(dir.path()).len(), 2, "the heir's and the living one's");
    drop(running);

    // Nothing new: the same again, and nothing is written.
    let commits = heir.stats().commits;
    assert_eq!(heir.adopt(None).await.unwrap(), found);
    assert_eq!(heir.stats().commits, commits);
}

#[tokio::test]
async fn what_the_flag_has_not_taken_over_yet_is_found_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = start(dir.path());
    first.put(&"/a".into(), mark(NEW, 5));
    first.side(Side::New, SUSPECT);
    let nameless = first.begin(&Keys::none(), true, Side::New);
    let first_id = first.id();
    drop(first);
    let (second, _) = start(dir.path());
    let found = second.adopt(None).await.unwrap();
    // It makes the key dirty on its own, and does not know what was found.
    second.put(&"/a".into(), mark(OLD, 1));
    second.flush().await.unwrap();
    let second_id = second.id();
    drop((second, nameless));

    let (third, _) = start(dir.path());
    let again = third.adopt(None).await.unwrap();
    assert_eq!(found_keys(&again), [("/a", RightSide::Conflict, 5)]);
    assert_eq!((again.sides, again.nameless), (found.sides, found.nameless));
    assert_eq!(again.ids, [first_id, second_id]);

    // Now it knows, and mends the key.
    third.put(&"/a".into(), mark(NEW, 5));
    third.took_over(again.round);
    third.remove(&"/a".into());
    third.flush().await.unwrap();
    let third_id = third.id();
    drop(third);
    let (fourth, _) = start(dir.path());
    let last = fourth.adopt(None).await.unwrap();
    assert_eq!((last.marks, last.sides, last.nameless), (vec![], [None, None], [false, false]));
    assert_eq!(last.ids, [first_id, second_id, third_id]);
}

#[tokio::test]
async fn a_later_round_is_not_taken_over_by_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let (heir, _) = start(dir.path());
    let leave = |key: &str| {
        let (log, _) = start(dir.path());
        log.put(&key.into(), mark(OLD, 1));
        drop(log);
    };
    leave("/a");
    let first = heir.adopt(None).await.unwrap();
    leave("/b");
    let second = heir.adopt(None).await.unwrap();
    assert_eq!(found_keys(&second), [("/a", OLD, 1), ("/b", OLD, 1)]);
    heir.took_over(first.round);
    heir.flush().await.unwrap();
    assert_eq!(left(as_if_killed(dir.path()).path()).marks.len(), 2);
    heir.took_over(second.round);
    heir.flush().await.unwrap();
    assert_eq!(left(as_if_killed(dir.path()).path()).marks.len(), 0);
    assert_eq!(heir.adopt(None).await.unwrap().marks, []);
}

#[tokio::test]
async fn a_crash_between_merge_and_removal_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = start(dir.path());
    first.put(&"/a".into(), mark(OLD, 5));
    first.put(&"/mended".into(), mark(OLD, 5));
    drop(first);
    let kept = as_if_killed(dir.path());
    let (second, _) = start(dir.path());
    let found = second.adopt(None).await.unwrap();
    second.put(&"/a".into(), mark(OLD, 5));
    second.took_over(found.round);
    second.flush().await.unwrap();
    drop(second);
    // The first one's file is back, as if it had not been removed.
    for file in files(kept.path()) {
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(files(dir.path()).len(), 2);

    let (third, _) = start(dir.path());
    let again = third.adopt(None).await.unwrap();
    assert_eq!(found_keys(&again), [("/a", OLD, 5)], "nothing that was mended comes back");
    assert_eq!(
        again.ids,
        found.ids.into_iter().chain(again.ids.last().copied()).collect::<Vec<_>>()
    );
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_left_alone_and_nothing_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    for key in ["/a", "/b"] {
        let (log, _) = start(dir.path());
        log.put(&key.into(), mark(OLD, 5));
    }
    let damaged = files(dir.path()).remove(0);
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let (heir, _) = start(dir.path());
    let error = heir.adopt(None).await.unwrap_err();
    assert!(error.to_string().contains(damaged.to_str().unwrap()), "{error}");
    assert!(error.lifted_by().contains("start_over"));
    assert!(heir.failure().is_none());
    drop(heir);
    assert_eq!(fs::read(&damaged).unwrap(), &bytes[..bytes.len() - 1]);
    assert_eq!(files(dir.path()).len(), 3);

    // The way out.
    let error = Journal::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Corrupt);
    let log = Journal::start_over(dir.path()).unwrap().start("airports").unwrap();
    assert!(log.adopt(None).await.unwrap().ids.is_empty());
    let aside = dir.path().join("aside-1");
    assert_eq!(files(&aside).len(), 3);
    assert_eq!(files(dir.path()).len(), 2);
    drop(log);
    let log = Journal::start_over(dir.path()).unwrap().start("airports").unwrap();
    drop(Journal::start_over(dir.path()).unwrap());
    assert_eq!(files(&dir.path().join("aside-2")).len(), 1, "not the living one");
    assert!(!dir.path().join("aside-3").exists());
    drop(log);
}

#[tokio::test]
async fn what_died_while_it_was_made_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("1-0123456789abcdef.redb.new"), b"half").unwrap();
    fs::write(dir.path().join("notes.new"), b"not ours").unwrap();
    let (heir, _) = start(dir.path());
    assert_eq!(heir.adopt(None).await.unwrap(), Found::default());
    assert_eq!(files(dir.path()).len(), 2);
    assert!(dir.path().join("notes.new").exists());
}

#[tokio::test]
async fn a_directory_is_one_migrations() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open(dir.path()).unwrap();
    let log = open().start("airports").unwrap();
    let foreign = |error: crate::reconcile::JournalError| {
        assert_eq!(error.kind(), JournalErrorKind::Foreign);
        assert!(error.to_string().contains("airports"), "{error}");
    };
    foreign(open().start("hotels").map(drop).unwrap_err());
    drop(log);
    foreign(open().start("hotels").map(drop).unwrap_err());
    open().start("airports").unwrap();
    let other = open();
    // It came after the other had looked.
    Journal::start_over(dir.path()).unwrap();
    let hotels = open().start("hotels").unwrap();
    drop(hotels);
    let airports = Journal { files: Vec::new(), ..other }.start("airports").unwrap();
    let error = airports.adopt(None).await.unwrap_err();
    assert!(error.to_string().contains("hotels"), "{error}");
}

#[test]
fn a_directory_that_is_lost_is_no_empty_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let error = Journal::open(&path).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Missing);
    assert!(format!("{error:?}").contains("create_or_open"), "{error:?}");
    assert!(!path.exists());
    Journal::create_or_open(&path).unwrap();
    Journal::open(&path).unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    assert!(Journal::create_or_open(dir.path().join("file")).is_err());
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_written_is_denied() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if File::create(dir.path().join("probe")).is_ok() {
        // Root may.
        return;
    }
    let error = Journal::open(dir.path()).unwrap().start("airports").unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::Denied);
}

#[tokio::test]
async fn a_file_that_somebody_looks_at_is_not_taken_for_a_living_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    log.put(&"/a".into(), mark(OLD, 1));
    drop(log);
    // As a process does that opens the journal meanwhile.
    let looking = File::open(files(dir.path()).remove(0)).unwrap();
    looking.lock_shared().unwrap();
    let (heir, _) = start(dir.path());
    let adopting = heir.adopt(None);
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(looking);
    assert_eq!(found_keys(&adopting.await.unwrap()), [("/a", OLD, 1)]);
}

#[tokio::test]
async fn to_drop_the_journal_ends_an_adoption_one_way_or_the_other() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = start(dir.path());
        log.put(&"/a".into(), mark(OLD, 1));
        drop(log);
        let (heir, _) = start(dir.path());
        let adopting = heir.adopt(None);
        drop(heir);
        let _ = adopting.await;
        assert_eq!(keys(&left(dir.path())), [("/a", OLD)]);
    }
}

#[tokio::test]
async fn ids_are_kept_for_a_while_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for _ in 0..70 {
        let (log, _) = start(dir.path());
        assert_eq!(log.adopt(None).await.unwrap().ids, ids);
        ids.push(log.id());
        let from = ids.len().saturating_sub(64);
        ids.drain(..from);
    }
}
