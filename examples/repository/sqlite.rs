//! The store that the team has: a table in SQLite.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::airports::{Airport, Airports, StoreError};

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Sqlite(Arc<Mutex<Connection>>);

fn airport(row: &Row<'_>) -> rusqlite::Result<Airport> {
    Ok(Airport { icao: row.get(0)?, name: row.get(1)?, city: row.get(2)? })
}

impl Sqlite {
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS airports
             (icao TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL)",
        )?;
        Ok(Self(Arc::new(Mutex::new(db))))
    }

    pub(crate) fn load(&self, airports: &[Airport]) -> Result<(), StoreError> {
        self.db().execute_batch("BEGIN")?;
        airports.iter().try_for_each(|airport| self.put(airport))?;
        Ok(self.db().execute_batch("COMMIT")?)
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // Each use is one statement, which a panic takes back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Airports for Sqlite {
    fn get(&self, icao: &str) -> Result<Airport, StoreError> {
        let db = self.db();
        let mut one = db.prepare_cached("SELECT * FROM airports WHERE icao = ?1")?;
        one.query_row([icao], airport).optional()?.ok_or(StoreError::NotFound)
    }

    fn list(&self, after: &str, limit: usize) -> Result<Vec<Airport>, StoreError> {
        let db = self.db();
        let mut page =
            db.prepare_cached("SELECT * FROM airports WHERE icao > ?1 ORDER BY icao LIMIT ?2")?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let page = page.query_map(params![after, limit], airport)?;
        Ok(page.collect::<Result<_, _>>()?)
    }

    fn put(&self, airport: &Airport) -> Result<(), StoreError> {
        let Airport { icao, name, city } = airport;
        if name.is_empty() {
            return Err(StoreError::Nameless);
        }
        let db = self.db();
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO airports VALUES (?1, ?2, ?3)")?;
        put.execute(params![icao, name, city])?;
        Ok(())
    }

    fn delete(&self, icao: &str) -> Result<(), StoreError> {
        let db = self.db();
        let mut delete = db.prepare_cached("DELETE FROM airports WHERE icao = ?1")?;
        match delete.execute([icao])? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }
}
