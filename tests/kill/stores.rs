//! Two kinds of stores in real files.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    backends::FileBackend,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use tower_migration::BoxError;

const TABLE: TableDefinition<'_, &str, (u32, &str)> = TableDefinition::new("airports");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Airport {
    pub icao: String,
    pub version: u32,
    pub name: String,
}

impl Airport {
    pub fn new(icao: &str, version: u32) -> Self {
        // Both parts say the version: a row that is mixed from two shows.
        Self { icao: icao.to_owned(), version, name: format!("{icao} in version {version}") }
    }
}

/// A file that is never synced: what a killed process has written is with the
/// kernel. Only a power cut would want more, and the rounds of a test less.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

pub type Rows = BTreeMap<String, Airport>;

#[derive(Clone)]
pub enum Store {
    Sqlite(Arc<Mutex<Connection>>),
    /// Belongs to one process at a time.
    Redb(Arc<Database>),
}

fn locked(db: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    db.lock().unwrap_or_else(PoisonError::into_inner)
}

fn airport(row: &Row<'_>) -> rusqlite::Result<Airport> {
    Ok(Airport { icao: row.get(0)?, version: row.get(1)?, name: row.get(2)? })
}

impl Store {
    pub fn sqlite(path: &Path) -> Result<Self, BoxError> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(20))?;
        // OFF for the reason that `Unsynced` gives.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE IF NOT EXISTS airports
             (icao TEXT PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL)",
        )?;
        Ok(Self::Sqlite(Arc::new(Mutex::new(db))))
    }

    pub fn redb(path: &Path) -> Result<Self, BoxError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = Unsynced(FileBackend::new(file)?);
        let db = Database::builder().create_with_backend(backend)?;
        let tx = db.begin_write()?;
        tx.open_table(TABLE)?;
        tx.commit()?;
        Ok(Self::Redb(Arc::new(db)))
    }

    pub fn get(&self, icao: &str) -> Result<Option<Airport>, BoxError> {
        match self {
            Self::Sqlite(db) => {
                let db = locked(db);
                let mut one = db.prepare_cached("SELECT * FROM airports WHERE icao = ?1")?;
                Ok(one.query_row([icao], airport).optional()?)
            }
            Self::Redb(db) => {
                let table = db.begin_read()?.open_table(TABLE)?;
                Ok(table.get(icao)?.map(|row| {
                    let (version, name) = row.value();
                    Airport { icao: icao.to_owned(), version, name: name.to_owned() }
                }))
            }
        }
    }

    pub fn put(&self, row: &Airport) -> Result<(), BoxError> {
        match self {
            Self::Sqlite(db) => {
                let sql = "INSERT OR REPLACE INTO airports VALUES (?1, ?2, ?3)";
                let db = locked(db);
                db.prepare_cached(sql)?.execute(params![row.icao, row.version, row.name])?;
            }
            Self::Redb(db) => {
                let tx = db.begin_write()?;
                tx.open_table(TABLE)?.insert(&*row.icao, (row.version, &*row.name))?;
                tx.commit()?;
            }
        }
        Ok(())
    }

    /// Whether there was one.
    pub fn delete(&self, icao: &str) -> Result<bool, BoxError> {
        match self {
            Self::Sqlite(db) => {
                Ok(locked(db).execute("DELETE FROM airports WHERE icao = ?1", [icao])? > 0)
            }
            Self::Redb(db) => {
                let tx = db.begin_write()?;
                let was = tx.open_table(TABLE)?.remove(icao)?.is_some();
                tx.commit()?;
                Ok(was)
            }
        }
    }

    pub fn all(&self) -> Result<Rows, BoxError> {
        let rows: Vec<Airport> = match self {
            Self::Sqlite(db) => {
                let db = locked(db);
                let mut all = db.prepare_cached("SELECT * FROM airports")?;
                let rows = all.query_map([], airport)?;
                rows.collect::<rusqlite::Result<_>>()?
            }
            Self::Redb(db) => {
                let table = db.begin_read()?.open_table(TABLE)?;
                let mut rows = Vec::new();
                for entry in table.iter()? {
                    let (icao, row) = entry?;
                    let (version, name) = row.value();
                    let (icao, name) = (icao.value().to_owned(), name.to_owned());
                    rows.push(Airport { icao, version, name });
                }
                rows
            }
        };
        Ok(rows.into_iter().map(|row| (row.icao.clone(), row)).collect())
    }
}
