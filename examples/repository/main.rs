//! A migration below HTTP: a storage trait becomes a service, and its two stores,
//! SQLite and redb, go behind the flag while axum handlers use them.
//!
//! `cargo run --example repository` exits with 1 if the stores differ before the
//! last step, or if an acknowledged write is missing after it.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::{collections::BTreeMap, fmt, path::Path};

use axum::extract::{Path as Code, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use redb::{Database, ReadableDatabase, TableDefinition};
use rusqlite::{Connection, OptionalExtension};
use tokio::task::spawn_blocking;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_migration::{
    FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Operation, Outcome, Side,
    protocol::Plain,
};

// What the team has: a trait, and two stores that implement it. Calls block.

trait Airports: Send + Sync + 'static {
    fn get(&self, code: &str) -> Result<String, Error>;
    fn put(&self, code: &str, name: &str) -> Result<(), Error>;
    fn delete(&self, code: &str) -> Result<(), Error>;
}

impl Airports for Mutex<Connection> {
    fn get(&self, code: &str) -> Result<String, Error> {
        let query = "SELECT name FROM airports WHERE code = ?1";
        let name = self.lock()?.query_row(query, [code], |row| row.get(0)).optional()?;
        name.ok_or(Error::NotFound)
    }
    fn put(&self, code: &str, name: &str) -> Result<(), Error> {
        self.lock()?.execute("INSERT OR REPLACE INTO airports VALUES (?1, ?2)", [code, name])?;
        Ok(())
    }
    fn delete(&self, code: &str) -> Result<(), Error> {
        let gone = self.lock()?.execute("DELETE FROM airports WHERE code = ?1", [code])?;
        if gone == 0 { Err(Error::NotFound) } else { Ok(()) }
    }
}

const AIRPORTS: TableDefinition<'_, &str, &str> = TableDefinition::new("airports");

impl Airports for Database {
    fn get(&self, code: &str) -> Result<String, Error> {
        let name = self.begin_read()?.open_table(AIRPORTS)?.get(code)?;
        Ok(name.ok_or(Error::NotFound)?.value().into())
    }
    fn put(&self, code: &str, name: &str) -> Result<(), Error> {
        let tx = self.begin_write()?;
        tx.open_table(AIRPORTS)?.insert(code, name)?;
        Ok(tx.commit()?)
    }
    fn delete(&self, code: &str) -> Result<(), Error> {
        let tx = self.begin_write()?;
        tx.open_table(AIRPORTS)?.remove(code)?.ok_or(Error::NotFound)?;
        Ok(tx.commit()?)
    }
}

fn open(dir: &Path) -> Result<(Mutex<Connection>, Database), Error> {
    let (old, new) = (Connection::open(dir.join("old"))?, Database::create(dir.join("new"))?);
    old.execute_batch("CREATE TABLE airports (code TEXT PRIMARY KEY, name TEXT)")?;
    old.execute_batch("PRAGMA synchronous = OFF")?; // an example need not wait for the disk
    let tx = new.begin_write()?;
    tx.open_table(AIRPORTS)?; // a reader cannot make it
    tx.commit()?;
    Ok((Mutex::new(old), new))
}

#[derive(Clone, Debug, PartialEq)]
enum Error {
    NotFound,
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

// Written for the migration: the trait's methods as a request, …
#[derive(Clone)]
enum Op {
    Get(String),
    Put(String, String),
    Delete(String),
}

/// … a service of such requests, be it one store or two behind the flag, …
type Store = BoxCloneSyncService<Op, String, Error>;

fn served(airports: impl Airports) -> Store {
    let airports = Arc::new(airports);
    Store::new(service_fn(move |op| {
        let airports = Arc::clone(&airports);
        let work = move || match op {
            Op::Get(code) => airports.get(&code),
            Op::Put(code, name) => airports.put(&code, &name).map(|()| String::new()),
            Op::Delete(code) => airports.delete(&code).map(|()| String::new()),
        };
        async { spawn_blocking(work).await? }
    }))
}

/// … and what the layer has to know of it.
fn protocol() -> Plain<Op, String, Error> {
    Plain::new(
        |op| if matches!(op, Op::Get(_)) { Operation::Read } else { Operation::Write },
        |refused| Error::Failed(refused.to_string()),
    )
    .keys(|(Op::Get(code) | Op::Put(code, _) | Op::Delete(code)): &Op| code.clone())
    .judge(|answer: Result<&String, &Error>| match answer {
        Ok(_) => Outcome::Applied,
        Err(Error::NotFound) => Outcome::Refused, // for certain, nothing was written
        Err(Error::Failed(_)) => Outcome::Unknown,
    })
    // Gone is gone, whichever store still had it.
    .done_when(|op, answer| matches!((op, answer), (Op::Delete(_), Err(Error::NotFound))))
}

// The handlers know nothing of it. Before, each had its own:
//
//     if flags.write_to_redb() {
//         redb.put(&code, &name)?;              // fails: and SQLite?
//         if flags.still_write_to_sqlite() {    // moved since the line above?
//             let _ = sqlite.put(&code, &name); // fails: who will ever know?
//         }
//     } else { sqlite.put(&code, &name)?; }
async fn read(store: State<Store>, code: Code<String>) -> Result<String, Error> {
    store.0.oneshot(Op::Get(code.0)).await
}
async fn write(store: State<Store>, code: Code<String>, name: String) -> Result<String, Error> {
    store.0.oneshot(Op::Put(code.0, name)).await
}
async fn delete(store: State<Store>, code: Code<String>) -> Result<String, Error> {
    store.0.oneshot(Op::Delete(code.0)).await
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Failed(why) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
        }
    }
}

/// What clients know of each airport, from the writes that were acknowledged.
type Known = BTreeMap<String, Result<String, Error>>;

async fn requests(app: &Router, known: &mut Known, name: &str) -> Result<(), Error> {
    for (method, code) in [("DELETE", "00AA"), ("PUT", "00AK"), ("GET", "00AK"), ("PUT", "00AA")] {
        let request = Request::builder().method(method).uri(format!("/airports/{code}"));
        let status = app.clone().oneshot(request.body(name.to_owned())?).await?.status();
        let told = match (method, status) {
            ("DELETE", StatusCode::OK) => Err(Error::NotFound),
            (_, StatusCode::OK) => Ok(name.into()),
            _ => return Err(Error::Failed(format!("{method} {code} gives {status}"))),
        };
        known.insert(code.into(), told);
    }
    println!("{name}: all requests were answered");
    Ok(())
}

async fn check(store: &Store, known: &Known) -> Result<(), Error> {
    for (code, told) in known {
        let found = store.clone().oneshot(Op::Get(code.clone())).await;
        if found != *told {
            return Err(Error::Failed(format!("{code}: clients know {told:?}, not {found:?}")));
        }
    }
    Ok(())
}

/// Makes new equal to old for one airport.
async fn copy(old: Store, new: Store, code: String) -> Result<(), Error> {
    let op = match old.oneshot(Op::Get(code.clone())).await {
        Err(Error::NotFound) => Op::Delete(code),
        name => Op::Put(code, name?),
    };
    match new.oneshot(op).await {
        Err(Error::NotFound) => Ok(()),
        done => done.map(drop),
    }
}

async fn migrate(dir: &Path, old: Store, new: Store) -> Result<(), Error> {
    let mut known = Known::new();
    let csv = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airports.csv");
    for row in csv::Reader::from_path(csv)?.into_records().take(300) {
        let (code, name) = (row.as_ref()?[0].to_owned(), row?[2].to_owned());
        old.clone().oneshot(Op::Put(code.clone(), name.clone())).await?;
        known.insert(code, Ok(name));
    }

    // These four lines replace every `if`.
    let flag = FileStore::create_or_open(dir.join("airports.flag"))?;
    let migration = MigrationHandle::open("airports", flag).await?;
    let layer = MigrationLayer::with_protocol(migration.clone(), new.clone(), protocol());
    let store = Store::new(layer.failure_policy(FailurePolicy::AwaitBoth).layer(old.clone()));

    let methods = get(read).put(write).delete(delete);
    let app = Router::new().route("/airports/{code}", methods).with_state(store.clone());
    requests(&app, &mut known, "old-only").await?;

    migration.advance().await?;
    migration.settled().await; // no write is left that went to old alone
    requests(&app, &mut known, "write-both").await?;
    for code in known.keys() {
        let one = || copy(old.clone(), new.clone(), code.clone());
        let copied = migration.copy_key(&code.as_str().into(), Side::Old, one).await;
        copied.map_err(|error| Error::Failed(error.to_string()))?;
    }
    migration.confirm_synced(Side::New).await?;
    migration.set_shadow_rate(1.0)?; // so that this compares each row
    check(&store, &known).await?;
    migration.drained(Side::New).await;
    let seen = migration.evidence().shadows;
    println!("{} reads compared, {} differ", seen.compared(), seen.mismatches);

    migration.advance().await?;
    requests(&app, &mut known, "read-new").await?;
    check(&old, &known).await?;
    check(&new, &known).await?;

    migration.advance().await?;
    requests(&app, &mut known, "new-only").await?;
    check(&new, &known).await?;
    migration.shutdown().await;
    println!("the stores were equal, and no acknowledged write is missing");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let (old, new) = open(dir.path())?;
    migrate(dir.path(), served(old), served(new)).await
}
