//! Files that are damaged: an error, or all that was in them.

use super::*;
use redb::ReadableTable;

use crate::reconcile::{
    Journal, JournalErrorKind,
    journal::{header::BODY, store},
};

/// A file with a few keys, closed in order or not; what is in it.
async fn file(clean: bool) -> (Vec<u8>, Left) {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    // Several commits, so that there is an older state to fall back to.
    for n in 0..40 {
        log.put(&format!("/key-{n}").as_str().into(), mark(OLD, n));
        log.flush().await.unwrap();
    }
    let _running = begin(&log, "/begun", Side::New);
    log.put(&"/last".into(), mark(RightSide::Conflict, 1));
    log.flush().await.unwrap();
    let copy = as_if_killed(dir.path());
    drop(log);
    let dir = if clean { dir } else { copy };
    let path = files(dir.path()).remove(0);
    let bytes = fs::read(path).unwrap();
    let left = store::read(Path::new("x"), bytes.clone()).unwrap().1;
    assert_eq!(left.marks.len(), 42);
    (bytes, left)
}

/// Whether the damage was noticed. If not, it must have done no harm.
fn noticed(bytes: Vec<u8>, left: &Left, what: &str) -> bool {
    match store::read(Path::new("x"), bytes) {
        Ok((_, found)) => {
            assert_eq!(found, *left, "{what}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), JournalErrorKind::Corrupt, "{what}: {error}");
            assert!(error.lifted_by().contains("start_over"));
            true
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_never_read() {
    for clean in [true, false] {
        let (bytes, left) = file(clean).await;
        let len = bytes.len();
        let body = usize::try_from(BODY).unwrap();
        let ends = (0..200)
            .chain(body - 20..body + 600)
            .chain((0..len).step_by(2039))
            .chain((0..len).step_by(4096))
            .chain(len - 600..len);
        let mut missed = Vec::new();
        for end in ends {
            if !noticed(bytes[..end].to_vec(), &left, &format!("cut off after {end} of {len}")) {
                missed.push(end);
            }
        }
        eprintln!("clean {clean}: {len} bytes, {} cuts do no harm: {missed:?}", missed.len());
    }
}

#[tokio::test]
async fn a_bit_that_has_changed_does_no_harm_or_is_noticed() {
    for clean in [true, false] {
        let (bytes, left) = file(clean).await;
        let body = usize::try_from(BODY).unwrap();
        let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let places = (0..100)
            .chain(body..body + 320)
            .chain(used.into_iter().step_by(17))
            .chain((0..bytes.len()).step_by(4001));
        let (mut harmless, mut all) = (0, 0);
        for at in places {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            all += 1;
            harmless += usize::from(!noticed(damaged, &left, &format!("byte {at}")));
        }
        eprintln!("clean {clean}: {harmless} of {all} bits do no harm");
        // Most bytes are those of older states.
        assert!(all - harmless > 300, "{harmless} of {all}");
    }
}

#[tokio::test]
async fn pages_that_were_lost_do_no_harm_or_are_noticed() {
    for clean in [true, false] {
        let (bytes, left) = file(clean).await;
        let mut count = 0;
        for at in (0..bytes.len()).step_by(4096) {
            let mut damaged = bytes.clone();
            let end = (at + 4096).min(bytes.len());
            damaged[at..end].fill(0);
            count += usize::from(noticed(damaged, &left, &format!("zeros at {at}")));
        }
        assert!(count >= 3, "{count}");
    }
}

#[tokio::test]
async fn an_older_state_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    log.put(&"/a".into(), mark(OLD, 1));
    log.flush().await.unwrap();
    let older = as_if_killed(dir.path());
    log.put(&"/b".into(), mark(OLD, 1));
    log.flush().await.unwrap();
    log.put(&"/c".into(), mark(OLD, 1));
    log.flush().await.unwrap();
    let newer = as_if_killed(dir.path());
    let read = |dir: &Path| fs::read(files(dir).remove(0)).unwrap();
    let (older, newer) = (read(older.path()), read(newer.path()));
    let body = usize::try_from(BODY).unwrap();
    // The last pages are lost: redb finds a whole database all the same.
    let mixed = [&newer[..body], &older[body..]].concat();
    let error = store::read(Path::new("x"), mixed).unwrap_err();
    assert!(error.to_string().contains("was relied on"), "{error}");
    // After a power cut the number may be older than what is there.
    let late = [&older[..body], &newer[body..]].concat();
    assert_eq!(store::read(Path::new("x"), late).unwrap().1.marks.len(), 3);
}

#[tokio::test]
async fn a_page_of_another_file_is_noticed() {
    let (one, left) = file(true).await;
    let (two, _) = file(true).await;
    let body = usize::try_from(BODY).unwrap();
    assert!(noticed([&one[..body], &two[body..]].concat(), &left, "another body"));
}

#[test]
fn what_is_no_journal_is_an_error() {
    let refused = |name: &str, fill: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fill(&path);
        let error = Journal::create_or_open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        Journal::start_over(dir.path()).unwrap();
        assert!(!path.exists() && dir.path().join("aside-1").join(name).exists());
        error.kind()
    };
    let name = "17-0123456789abcdef.redb";
    let empty = refused(name, &|path| fs::write(path, b"").unwrap());
    assert_eq!(empty, JournalErrorKind::Corrupt);
    let zeros = refused(name, &|path| fs::write(path, vec![0; 1 << 20]).unwrap());
    assert_eq!(zeros, JournalErrorKind::Corrupt);
    let directory = refused(name, &|path| fs::create_dir(path).unwrap());
    assert_eq!(directory, JournalErrorKind::Corrupt);
    let other = refused("users.redb", &|path| drop(redb::Database::create(path).unwrap()));
    assert_eq!(other, JournalErrorKind::Foreign);
}

#[tokio::test]
async fn a_newer_format_is_told_from_damage() {
    let (mut bytes, left) = file(true).await;
    bytes[24] = 2;
    assert!(noticed(bytes.clone(), &left, "a format alone"));
    let sum = super::super::header::checksum(&[&bytes[..28]]);
    bytes[28..36].copy_from_slice(&sum.to_le_bytes());
    let error = store::read(Path::new("x"), bytes).unwrap_err();
    assert_eq!(error.kind(), JournalErrorKind::NewerFormat);
    assert!(error.to_string().contains("format 2"), "{error}");
}

/// What redb finds nothing wrong with.
#[tokio::test]
async fn a_row_that_was_lost_changed_or_added_is_noticed() {
    type Change<'a> = &'a dyn Fn(&mut redb::Table<'_, &'static [u8], &'static [u8]>);
    let tampered = |path: &Path, change: Change<'_>| {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let body = super::super::medium::Body(Arc::new(OnDisk::new(file)));
        let db = redb::Database::builder().create_with_backend(body).unwrap();
        let transaction = db.begin_write().unwrap();
        change(&mut transaction.open_table(redb::TableDefinition::new("journal")).unwrap());
        transaction.commit().unwrap();
        drop(db);
        store::read(path, fs::read(path).unwrap()).map(drop)
    };
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = start(dir.path());
    log.put(&"/a".into(), mark(OLD, 1));
    log.put(&"/b".into(), mark(OLD, 1));
    drop(log);
    let path = files(dir.path()).remove(0);
    let good = fs::read(&path).unwrap();
    tampered(&path, &|_| {}).unwrap();
    let rows: [&[u8]; 2] = [b"m/a", b"!"];
    for row in rows {
        fs::write(&path, &good).unwrap();
        tampered(&path, &|table| drop(table.remove(row).unwrap())).unwrap_err();
        fs::write(&path, &good).unwrap();
        tampered(&path, &|table| {
            let mut value = table.get(row).unwrap().unwrap().value().to_vec();
            value[1] ^= 1;
            table.insert(row, value.as_slice()).unwrap();
        })
        .unwrap_err();
    }
    fs::write(&path, &good).unwrap();
    let moved = |table: &mut redb::Table<'_, &'static [u8], &'static [u8]>| {
        let value = table.remove(rows[0]).unwrap().unwrap().value().to_vec();
        table.insert(b"m/c".as_slice(), value.as_slice()).unwrap();
    };
    tampered(&path, &moved).unwrap_err();
}
