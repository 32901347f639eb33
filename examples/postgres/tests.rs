//! The way; and what goes missing without the version.
//!
//! Where there is no server, each says so on standard error, and passes.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;
use tower_migration::{
    BoxError, MigrationHandle, Side,
    reconcile::{Backfill, Key, Rows},
};

use super::*;
use crate::{
    clients::Acked,
    postgres::{Place, Postgres},
    rows::Both,
    sqlite::Sqlite,
    store::{APPLY, Row, Store},
};

fn cluster() -> Option<Cluster> {
    let cluster = Cluster::start().unwrap();
    if cluster.is_none() {
        // Not `eprintln!`: that is shown for tests that fail, and this one passes.
        writeln!(std::io::stderr(), "SKIPPED: {MISSING}").unwrap();
    }
    cluster
}

#[tokio::test]
async fn nothing_is_missing_after_the_whole_way() {
    let Some(cluster) = cluster() else { return };
    walk::walk(&cluster.url()).await.unwrap();
}

/// Not a test: the other process of the one above.
#[tokio::test]
#[ignore = "started by another test"]
async fn writer() {
    if std::env::var_os(writer::PLACE[0]).is_some() {
        writer::write().await.unwrap();
    }
}

#[test]
fn the_server_is_gone_with_its_guard_even_after_a_panic() {
    let Some(cluster) = cluster() else { return };
    let dir = std::path::PathBuf::from(cluster.url()["host=".len()..].split(' ').next().unwrap());
    let pid = std::fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    let process = format!("/proc/{}", pid.lines().next().unwrap());
    let panicked = std::thread::spawn(move || {
        let _cluster = cluster;
        panic!("on purpose");
    });
    panicked.join().unwrap_err();
    assert!(!dir.exists() && !std::path::Path::new(&process).exists());
}

/// The two stores as one process has them open.
async fn open(dir: &TempDir, place: &Place) -> Both {
    let new = Postgres::connect(place).await.unwrap();
    Both { old: Sqlite::open(dir.path()).unwrap(), new }
}

/// Writes what it is given, whatever is there: [`APPLY`] without its condition.
async fn overwrite(place: &Place, code: &str, row: &Row) -> Result<(), BoxError> {
    let without = APPLY.split("WHERE").next().unwrap();
    place.client().await?.execute(without, &[&code, &row.name, &row.version]).await?;
    Ok(())
}

#[tokio::test]
async fn both_stores_keep_the_same_contract() {
    async fn keeps(store: &impl Store) {
        let row = |name: Option<&str>, version| Row { name: name.map(str::to_owned), version };
        assert_eq!(store.get("EDDF").await.unwrap(), None);
        assert_eq!(store.set("EDDF", Some("one")).await.unwrap(), row(Some("one"), 1));
        assert_eq!(store.set("EDDF", None).await.unwrap(), row(None, 2));
        for (given, taken) in [(row(Some("late"), 1), false), (row(Some("as old"), 2), false)] {
            assert_eq!(store.apply("EDDF", &given).await.unwrap(), taken);
            assert_eq!(store.get("EDDF").await.unwrap(), Some(row(None, 2)));
        }
        assert!(store.apply("EDDF", &row(Some("newer"), 7)).await.unwrap());
        assert!(!store.apply("EDDF", &row(None, 6)).await.unwrap());
        assert_eq!(store.set("EDDF", Some("next")).await.unwrap(), row(Some("next"), 8));
        // In the order of bytes: a dictionary has `_` elsewhere, and `e` beside `E`.
        for code in ["eddf", "_EDD", "EDDÄ", "EDD-1", "EDD1"] {
            store.set(code, None).await.unwrap();
        }
        let all = ["EDD-1", "EDD1", "EDDF", "EDDÄ", "_EDD", "eddf"];
        assert_eq!(store.codes("", 10).await.unwrap(), all);
        assert_eq!(store.codes("EDDF", 2).await.unwrap(), all[3..5]);
    }
    let Some(cluster) = cluster() else { return };
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::create(&cluster.url()).await.unwrap());
    let Both { old, new } = open(&dir, &place).await;
    keeps(&old).await;
    keeps(&new).await;
}

/// Copies as this process does; its first write arrives when another process, with
/// connections of its own, has deleted the airport on both sides.
struct Late {
    here: Both,
    elsewhere: Both,
    place: Place,
    conditional: bool,
    raced: AtomicBool,
}

impl Rows for Late {
    type Row = Row;
    type Error = BoxError;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<Row>, BoxError> {
        self.here.read(side, key).await
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&Row>) -> Result<(), BoxError> {
        if !self.raced.swap(true, Ordering::SeqCst) {
            let newer = self.elsewhere.old.set(key.as_str(), None).await?;
            self.elsewhere.new.apply(key.as_str(), &newer).await?;
        }
        match row {
            Some(row) if !self.conditional => overwrite(&self.place, key.as_str(), row).await,
            row => self.here.write(side, key, row).await,
        }
    }
}

/// What is on new after such a copy, and on old.
async fn copied_late(url: &str, conditional: bool, rereads: bool) -> [Row; 2] {
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::create(url).await.unwrap());
    let (here, elsewhere) = (open(&dir, &place).await, open(&dir, &place).await);
    here.old.set("EDDF", Some("Frankfurt")).await.unwrap();
    let migration = MigrationHandle::new("airports");
    migration.advance().await.unwrap();
    let raced = AtomicBool::new(false);
    let rows = Late { here: here.clone(), elsewhere, place, conditional, raced };
    let backfill = Backfill::new(&migration, rows).listing(here.clone()).reread(rereads);
    assert!(backfill.run().await.unwrap().synced);
    [here.new.get("EDDF").await.unwrap().unwrap(), here.old.get("EDDF").await.unwrap().unwrap()]
}

#[tokio::test]
async fn a_late_copy_brings_back_what_another_process_has_deleted_unless_the_version_is_asked() {
    let Some(cluster) = cluster() else { return };
    let deleted = Row { name: None, version: 2 };
    let back = Row { name: Some("Frankfurt".into()), version: 1 };
    let url = cluster.url();
    // The deletion was acknowledged, and the run says that the sides are equal.
    assert_eq!(copied_late(&url, false, false).await, [back, deleted.clone()]);
    assert_eq!(copied_late(&url, true, false).await, [deleted.clone(), deleted.clone()]);
    // Reading again covers this order of events, though new was wrong for a while.
    assert_eq!(copied_late(&url, false, true).await, [deleted.clone(), deleted.clone()]);
    assert_eq!(copied_late(&url, true, true).await, [deleted.clone(), deleted]);
}

/// No copy is in this one: nothing but the version can cover it.
#[tokio::test]
async fn two_processes_whose_other_legs_cross_differ_unless_the_version_is_asked() {
    let Some(cluster) = cluster() else { return };
    let (dir, place) = (tempfile::tempdir().unwrap(), Place::create(&cluster.url()).await.unwrap());
    let (here, elsewhere) = (open(&dir, &place).await, open(&dir, &place).await);
    let first = here.old.set("EDDF", Some("first")).await.unwrap();
    let second = elsewhere.old.set("EDDF", Some("second")).await.unwrap();
    assert!(elsewhere.new.apply("EDDF", &second).await.unwrap());
    assert!(!here.new.apply("EDDF", &first).await.unwrap());
    walk::equal(&here).await.unwrap();
    assert_eq!(here.new.late(), 1);

    overwrite(&place, "EDDF", &first).await.unwrap();
    let differs = walk::equal(&here).await.unwrap_err().to_string();
    assert!(differs.contains("second") && differs.contains("first"), "{differs}");
}

#[tokio::test]
async fn an_acknowledged_write_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, acked) = (Sqlite::open(dir.path()).unwrap(), Acked::default());
    for name in [Some("first"), Some("second"), None] {
        acked.add("EDDF".into(), store.set("EDDF", name).await.unwrap()).unwrap();
    }
    assert!(acked.missing_from(&store).await.unwrap().is_empty());
    let row = |version| Row { name: Some("third".into()), version };
    assert!(acked.add("EDDF".into(), row(3)).is_err(), "a version that was given out twice");
    acked.add("EDDF".into(), row(4)).unwrap();
    assert_eq!(acked.missing_from(&store).await.unwrap().len(), 1);
}
