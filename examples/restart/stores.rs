//! The two stores. Both are real files, and several processes may use them at
//! the same time, as they would use two database servers.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tower_migration::BoxError;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Airport {
    pub(crate) icao: String,
    pub(crate) name: String,
    pub(crate) city: String,
}

pub(crate) trait Store: Clone + Send + Sync + 'static {
    fn get(&self, icao: &str) -> Result<Option<Airport>, BoxError>;
    fn put(&self, airport: &Airport) -> Result<(), BoxError>;
    /// Whether there was one.
    fn delete(&self, icao: &str) -> Result<bool, BoxError>;
    fn keys(&self) -> Result<BTreeSet<String>, BoxError>;
}

/// Makes `to` equal to `from` for one airport, a missing one included.
pub(crate) fn copy(from: &impl Store, to: &impl Store, icao: &str) -> Result<(), BoxError> {
    match from.get(icao)? {
        Some(airport) => to.put(&airport),
        None => to.delete(icao).map(drop),
    }
}

/// The old store: a table in SQLite.
#[derive(Clone)]
pub(crate) struct Table(Arc<Mutex<Connection>>);

impl Table {
    pub(crate) fn open(dir: &Path) -> Result<Self, BoxError> {
        let db = Connection::open(dir.join("old.db"))?;
        db.busy_timeout(Duration::from_secs(5))?;
        // NORMAL: a commit survives the process, though not a power cut.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS airports
             (icao TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL)",
        )?;
        Ok(Self(Arc::new(Mutex::new(db))))
    }

    pub(crate) fn load(&self, airports: &[Airport]) -> Result<(), BoxError> {
        self.db().execute_batch("BEGIN")?;
        airports.iter().try_for_each(|airport| self.put(airport))?;
        Ok(self.db().execute_batch("COMMIT")?)
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // Each use is one statement, which a panic takes back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Table {
    fn get(&self, icao: &str) -> Result<Option<Airport>, BoxError> {
        let db = self.db();
        let mut one = db.prepare_cached("SELECT * FROM airports WHERE icao = ?1")?;
        let airport = one.query_row([icao], |r| {
            Ok(Airport { icao: r.get(0)?, name: r.get(1)?, city: r.get(2)? })
        });
        Ok(airport.optional()?)
    }

    fn put(&self, airport: &Airport) -> Result<(), BoxError> {
        let Airport { icao, name, city } = airport;
        let db = self.db();
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO airports VALUES (?1, ?2, ?3)")?;
        put.execute(params![icao, name, city])?;
        Ok(())
    }

    fn delete(&self, icao: &str) -> Result<bool, BoxError> {
        Ok(self.db().execute("DELETE FROM airports WHERE icao = ?1", [icao])? > 0)
    }

    fn keys(&self) -> Result<BTreeSet<String>, BoxError> {
        let db = self.db();
        let mut keys = db.prepare_cached("SELECT icao FROM airports")?;
        let keys = keys.query_map([], |row| row.get(0))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }
}

/// The new store: one JSON document per airport.
#[derive(Clone)]
pub(crate) struct Documents(PathBuf);

impl Documents {
    pub(crate) fn open(dir: &Path) -> Result<Self, BoxError> {
        let dir = dir.join("new");
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn path(&self, icao: &str) -> Result<PathBuf, BoxError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if icao.is_empty() || !icao.chars().all(fits) {
            return Err(format!("{icao:?} is no code of an airport").into());
        }
        Ok(self.0.join(format!("{icao}.json")))
    }
}

/// Nothing is there, which is an answer and no error.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Store for Documents {
    fn get(&self, icao: &str) -> Result<Option<Airport>, BoxError> {
        let text = found(fs::read(self.path(icao)?))?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }

    fn put(&self, airport: &Airport) -> Result<(), BoxError> {
        let path = self.path(&airport.icao)?;
        // Written beside and renamed: a kill leaves one document or the other,
        // never half of one. The name is this writer's own.
        let beside = path.with_extension(format!("{}-{}", std::process::id(), fastrand::u64(..)));
        fs::write(&beside, serde_json::to_vec(airport)?)?;
        Ok(fs::rename(&beside, &path)?)
    }

    fn delete(&self, icao: &str) -> Result<bool, BoxError> {
        Ok(found(fs::remove_file(self.path(icao)?))?.is_some())
    }

    fn keys(&self) -> Result<BTreeSet<String>, BoxError> {
        let mut keys = BTreeSet::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().into_string().unwrap_or_default();
            keys.extend(name.strip_suffix(".json").map(str::to_owned));
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn airport(icao: &str, name: &str) -> Airport {
        Airport { icao: icao.into(), name: name.into(), city: "Frankfurt".into() }
    }

    fn behaves(store: &impl Store) -> Result<(), BoxError> {
        assert_eq!(store.get("EDDF")?, None);
        store.put(&airport("EDDF", "Rhein-Main"))?;
        store.put(&airport("EDDF", "Frankfurt \"Main\""))?;
        store.put(&airport("EDFH", "Hahn"))?;
        assert_eq!(store.get("EDDF")?, Some(airport("EDDF", "Frankfurt \"Main\"")));
        assert!(store.keys()?.iter().eq(["EDDF", "EDFH"]));
        assert!(store.delete("EDDF")? && !store.delete("EDDF")?);
        assert!(store.keys()?.iter().eq(["EDFH"]));
        Ok(())
    }

    #[test]
    fn both_stores_do_the_same() -> Result<(), BoxError> {
        let dir = tempfile::tempdir()?;
        behaves(&Table::open(dir.path())?)?;
        behaves(&Documents::open(dir.path())?)?;
        assert!(Documents::open(dir.path())?.get("../old").is_err());
        Ok(())
    }

    #[test]
    fn a_copy_takes_deletions_along() -> Result<(), BoxError> {
        let dir = tempfile::tempdir()?;
        let (old, new) = (Table::open(dir.path())?, Documents::open(dir.path())?);
        old.load(&[airport("EDDF", "Rhein-Main")])?;
        new.put(&airport("EDFH", "Hahn"))?;
        copy(&old, &new, "EDDF")?;
        copy(&old, &new, "EDFH")?;
        assert_eq!(new.keys()?, old.keys()?);
        assert_eq!(new.get("EDDF")?, old.get("EDDF")?);
        Ok(())
    }
}
