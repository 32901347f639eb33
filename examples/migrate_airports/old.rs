//! The store to move away from: a normalised schema in SQLite.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params,
};

use crate::model::{Airport, ApiError, ListQuery, Patch, Store};

/// ANY and not REAL for the numbers: REAL stores whole values as integers, and
/// that turns -0.0 into 0.0.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS countries (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE IF NOT EXISTS time_zones (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE IF NOT EXISTS subdivisions (
        id INTEGER PRIMARY KEY, country_id INTEGER NOT NULL REFERENCES countries,
        name TEXT NOT NULL, UNIQUE (country_id, name)) STRICT;
    CREATE TABLE IF NOT EXISTS cities (
        id INTEGER PRIMARY KEY, subdivision_id INTEGER NOT NULL REFERENCES subdivisions,
        name TEXT NOT NULL, UNIQUE (subdivision_id, name)) STRICT;
    CREATE TABLE IF NOT EXISTS airports (
        icao TEXT PRIMARY KEY, iata TEXT NOT NULL, name TEXT NOT NULL,
        city_id INTEGER NOT NULL REFERENCES cities,
        elevation ANY NOT NULL, lat ANY NOT NULL, lon ANY NOT NULL,
        time_zone_id INTEGER NOT NULL REFERENCES time_zones,
        lid TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS airports_by_city ON airports (city_id);";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT a.icao, a.iata, a.name, c.name AS city, s.name AS subd, n.code AS country,
                    a.elevation, a.lat, a.lon, z.name AS tz, a.lid
             FROM airports a
             JOIN cities c ON c.id = a.city_id
             JOIN subdivisions s ON s.id = c.subdivision_id
             JOIN countries n ON n.id = s.country_id
             JOIN time_zones z ON z.id = a.time_zone_id ",
            $rest
        )
    };
}

const ONE: &str = select!("WHERE a.icao = ?1");
// The empty string sorts before every key, so it stands for "from the start".
const PAGE: &str = select!("WHERE a.icao > ?1 ORDER BY a.icao LIMIT ?2");
const PAGE_OF_COUNTRY: &str = select!("WHERE a.icao > ?1 AND n.code = ?3 ORDER BY a.icao LIMIT ?2");
const KEYS: &str = "SELECT icao FROM airports WHERE icao > ?1 ORDER BY icao LIMIT ?2";
const PUT: &str = "
    INSERT INTO airports (icao, iata, name, city_id, elevation, lat, lon, time_zone_id, lid)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (icao) DO UPDATE SET
        iata = excluded.iata, name = excluded.name, city_id = excluded.city_id,
        elevation = excluded.elevation, lat = excluded.lat, lon = excluded.lon,
        time_zone_id = excluded.time_zone_id, lid = excluded.lid";

/// Idle read connections kept for the next reader.
const IDLE: usize = 4;

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.to_string())
    }
}

#[derive(Clone)]
pub(crate) struct SqliteStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    // SQLite has one writer at a time, and those that find it busy sleep and try
    // again. A mutex wakes the next one at once.
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// A panic unrolls the open transaction before it poisons the mutex, so what is
/// inside is sound and the next caller can have it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(10))?;
    // NORMAL leaves out the sync at each commit: WAL keeps the file consistent
    // all the same, and a power cut can take only the latest writes.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
    )?;
    Ok(db)
}

impl SqliteStore {
    /// Opens the store, and makes it where there is none.
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, ApiError> {
        let path = path.as_ref().to_owned();
        let writer = connect(&path)?;
        writer.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Inner { path, writer: Mutex::new(writer), readers: Mutex::default() })))
    }

    /// Puts all the airports in, in one transaction.
    pub(crate) fn load(&self, airports: impl Iterator<Item = Airport>) -> Result<(), ApiError> {
        self.write(|tx| {
            for airport in airports {
                put(tx, &airport)?;
            }
            Ok(())
        })
    }

    /// Runs `work` in one transaction, which is rolled back when `work` fails.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut db = lock(&self.0.writer);
        // Immediate, as a transaction that starts reading can be refused the write.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let idle = lock(&self.0.readers).pop();
        let db = match idle {
            Some(db) => db,
            None => connect(&self.0.path)?,
        };
        let done = work(&db);
        let mut readers = lock(&self.0.readers);
        if readers.len() < IDLE {
            readers.push(db);
        }
        done
    }
}

fn airport(row: &Row<'_>) -> rusqlite::Result<Airport> {
    Ok(Airport {
        icao: row.get("icao")?,
        iata: row.get("iata")?,
        name: row.get("name")?,
        city: row.get("city")?,
        subd: row.get("subd")?,
        country: row.get("country")?,
        elevation: row.get("elevation")?,
        lat: row.get("lat")?,
        lon: row.get("lon")?,
        tz: row.get("tz")?,
        lid: row.get("lid")?,
    })
}

fn find(db: &Connection, icao: &str) -> Result<Option<Airport>, ApiError> {
    let mut one = db.prepare_cached(ONE)?;
    Ok(one.query_row([icao], airport).optional()?)
}

/// The id of a shared value, which is added when it is new. Values that fall out
/// of use stay: they are few, and the next airport may want them.
fn id(db: &Connection, table: &str, columns: &str, values: &[&dyn ToSql]) -> Result<i64, ApiError> {
    let marks = if values.len() == 1 { "?1" } else { "?1, ?2" };
    let select = format!("SELECT id FROM {table} WHERE ({columns}) = ({marks})");
    let mut select = db.prepare_cached(&select)?;
    if let Some(id) = select.query_row(values, |r| r.get(0)).optional()? {
        return Ok(id);
    }
    let insert = format!("INSERT INTO {table} ({columns}) VALUES ({marks})");
    Ok(db.prepare_cached(&insert)?.insert(values)?)
}

fn put(db: &Connection, a: &Airport) -> Result<(), ApiError> {
    let land = id(db, "countries", "code", params![a.country])?;
    let subd = id(db, "subdivisions", "country_id, name", params![land, a.subd])?;
    let city = id(db, "cities", "subdivision_id, name", params![subd, a.city])?;
    let zone = id(db, "time_zones", "name", params![a.tz])?;
    db.prepare_cached(PUT)?.execute(params![
        a.icao,
        a.iata,
        a.name,
        city,
        a.elevation,
        a.lat,
        a.lon,
        zone,
        a.lid
    ])?;
    Ok(())
}

/// A page size as SQLite takes it.
fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Store for SqliteStore {
    fn get(&self, icao: &str) -> Result<Airport, ApiError> {
        self.read(|db| find(db, icao)?.ok_or(ApiError::NotFound))
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Airport>, ApiError> {
        let (after, limit) = (query.after.as_deref().unwrap_or(""), rows(query.limit()));
        self.read(|db| {
            let (sql, values) = match &query.country {
                Some(_) => (PAGE_OF_COUNTRY, params![after, limit, query.country]),
                None => (PAGE, params![after, limit]),
            };
            let mut page = db.prepare_cached(sql)?;
            let page = page.query_map(values, airport)?;
            Ok(page.collect::<Result<_, _>>()?)
        })
    }

    fn create(&self, airport: &Airport) -> Result<(), ApiError> {
        self.write(|tx| match find(tx, &airport.icao)? {
            Some(_) => Err(ApiError::Exists),
            None => put(tx, airport),
        })
    }

    fn replace(&self, airport: &Airport) -> Result<bool, ApiError> {
        self.write(|tx| {
            let known = find(tx, &airport.icao)?.is_some();
            put(tx, airport)?;
            Ok(!known)
        })
    }

    fn patch(&self, icao: &str, patch: &Patch) -> Result<Airport, ApiError> {
        self.write(|tx| {
            let mut airport = find(tx, icao)?.ok_or(ApiError::NotFound)?;
            patch.apply(&mut airport);
            airport.check().map_err(ApiError::Invalid)?;
            put(tx, &airport)?;
            Ok(airport)
        })
    }

    fn delete(&self, icao: &str) -> Result<(), ApiError> {
        self.write(|tx| {
            let mut delete = tx.prepare_cached("DELETE FROM airports WHERE icao = ?1")?;
            match delete.execute([icao])? {
                0 => Err(ApiError::NotFound),
                _ => Ok(()),
            }
        })
    }

    fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, ApiError> {
        self.read(|db| {
            let mut keys = db.prepare_cached(KEYS)?;
            let keys = keys.query_map(params![after.unwrap_or(""), rows(limit)], |r| r.get(0))?;
            Ok(keys.collect::<Result<_, _>>()?)
        })
    }

    fn len(&self) -> Result<u64, ApiError> {
        self.read(|db| {
            let count: i64 = db.query_row("SELECT count(*) FROM airports", [], |r| r.get(0))?;
            Ok(count.unsigned_abs())
        })
    }
}
