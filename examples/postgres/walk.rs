//! The way, step by step, and the checks.

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::{
    signal::ctrl_c,
    time::{sleep, timeout},
};
use tower_migration::{
    BoxError, FileStore, MigrationHandle,
    reconcile::{Backfill, Sweep, Verify},
};

use crate::{
    clients::{Acked, Clients},
    postgres::{Place, Postgres},
    rows::Both,
    service::layered,
    sqlite::Sqlite,
    store::Store,
    writer::Writer,
};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airports.csv");
/// How many airports are moved. All of them go the same way.
const AIRPORTS: usize = 2_000;
/// More than there are.
pub(crate) const ALL: usize = 1_000_000;
/// For the whole way, which takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What either process opens.
pub(crate) async fn open(dir: &Path, place: &Place) -> Result<(MigrationHandle, Both), BoxError> {
    let flag = FileStore::create_or_open(dir.join("airports.flag"))?;
    let migration = MigrationHandle::open("airports", flag).await?;
    let stores = Both { old: Sqlite::open(dir)?, new: Postgres::connect(place).await? };
    Ok((migration, stores))
}

/// The whole way, to a PostgreSQL that is there.
pub(crate) async fn walk(url: &str) -> Result<(), BoxError> {
    let dir = tempfile::tempdir()?;
    let place = Place::create(url).await?;
    // Whatever hangs, and whoever interrupts it: what was made is removed.
    let walked = tokio::select! {
        walked = timeout(PATIENCE, walk_in(dir.path(), &place)) => {
            walked.unwrap_or_else(|_| Err(format!("not finished after {PATIENCE:?}").into()))
        }
        _ = ctrl_c() => Err("interrupted".into()),
    };
    let removed = place.remove().await;
    walked.and(removed)
}

async fn walk_in(dir: &Path, place: &Place) -> Result<(), BoxError> {
    let (migration, stores) = open(dir, place).await?;
    let acked = Acked::default();
    for airport in csv::Reader::from_path(DATA)?.into_records().take(AIRPORTS) {
        let airport = airport?;
        acked.add(airport[0].into(), stores.old.set(&airport[0], Some(&airport[2])).await?)?;
    }
    let codes = stores.old.codes("", ALL).await?;
    println!("old-only: {} airports in SQLite, and clients that write them", codes.len());
    let service = layered(&migration, &stores);
    let clients = Clients::start(&service, &codes, &acked);
    more_writes(&acked).await;

    migration.advance().await?;
    let writer = Writer::start(dir, place).await?;
    println!("write-both: a second process writes both stores too; copying beside it");
    let backfill = Backfill::new(&migration, stores.clone())
        .listing(stores.clone())
        // Slower than it could, for the writers to meet it.
        .sweep(Sweep::new().rate(1_000.0))
        .beside_other_processes();
    // What another process does is not known here, so nobody can say yet that new has it
    // all.
    println!("  {}", backfill.run().await?);
    println!("  {} rows came late, and were not taken", stores.new.late());
    let told = writer.stop(&acked).await?;
    println!("  the second process has ended; {told} of its writes were acknowledged");

    let report = Verify::new(&migration, stores.clone()).listing(stores.clone()).run().await?;
    println!("  {report}");
    if !report.synced {
        return Err("new is not synced".into());
    }
    migration.advance().await?;
    println!("read-new: PostgreSQL counts the versions, SQLite follows");
    more_writes(&acked).await;
    // While clients write, a key may be read on one side before a write, on the other after.
    clients.stop().await?;
    equal(&stores).await?;

    let clients = Clients::start(&service, &codes, &acked);
    migration.advance().await?;
    more_writes(&acked).await;
    clients.stop().await?;
    migration.shutdown().await;
    let missing = acked.missing_from(&stores.new).await?;
    println!("new-only: {} writes were acknowledged, {} are missing", acked.len(), missing.len());
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n").into()) }
}

async fn more_writes(acked: &Acked) {
    let reached = acked.len() + 300;
    while acked.len() < reached {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Compares the two stores key by key. Nobody may be writing.
pub(crate) async fn equal(stores: &Both) -> Result<(), BoxError> {
    let (old, new) = (stores.old.codes("", ALL).await?, stores.new.codes("", ALL).await?);
    let codes: BTreeSet<_> = old.into_iter().chain(new).collect();
    let mut differ = Vec::new();
    for code in &codes {
        let (old, new) = (stores.old.get(code).await?, stores.new.get(code).await?);
        if old != new {
            differ.push(format!("{code}: {old:?} on old, {new:?} on new"));
        }
    }
    println!("  {} keys compared, {} differ", codes.len(), differ.len());
    if differ.is_empty() { Ok(()) } else { Err(differ.join("\n").into()) }
}
