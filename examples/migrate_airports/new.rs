//! The store to move to: one JSON document per airport in redb.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{
    CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, SetDurabilityError, StorageError, Table, TableDefinition, TableError,
    TransactionError,
};

use crate::model::{Airport, ApiError, ListQuery, Patch, Store};

const AIRPORTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("airports");
/// (country, icao). Kept so that a page of one country is one range.
const BY_COUNTRY: TableDefinition<'_, (&str, &str), ()> =
    TableDefinition::new("airports_by_country");

/// Every so many writes one commits durably, which bounds both what a crash can
/// take and the memory redb needs to track pages that are not durable yet.
const FLUSH_EVERY: u64 = 1024;

macro_rules! store_error {
    ($($error:ty),*) => {$(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::Store(error.to_string())
            }
        }
    )*};
}
store_error!(
    CommitError,
    DatabaseError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);

/// When writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saves {
    /// Each before its answer: what a service needs that may be killed, since redb
    /// has nothing but its file.
    Each,
    /// Every thousandth, with those before it.
    Seldom,
}

#[derive(Clone)]
pub(crate) struct RedbStore(Arc<Inner>);

struct Inner {
    db: Database,
    saves: Saves,
    writes: AtomicU64,
}

impl RedbStore {
    /// Opens the store, and makes it where there is none.
    pub(crate) fn open(path: impl AsRef<Path>, saves: Saves) -> Result<Self, ApiError> {
        let db = Database::create(path)?;
        // A reader cannot make a table, so both have to be there before the first one.
        let tx = db.begin_write()?;
        tx.open_table(AIRPORTS)?;
        tx.open_table(BY_COUNTRY)?;
        tx.commit()?;
        let writes = AtomicU64::new(0);
        Ok(Self(Arc::new(Inner { db, saves, writes })))
    }

    /// Makes every write up to now durable.
    pub(crate) fn flush(&self) -> Result<(), ApiError> {
        // A commit is durable unless told otherwise, and takes those before it along.
        Ok(self.0.db.begin_write()?.commit()?)
    }

    /// Runs `work` in one transaction, which is given up when `work` fails.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut tx = self.0.db.begin_write()?;
        let nth = self.0.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.saves == Saves::Seldom && !nth.is_multiple_of(FLUSH_EVERY) {
            // Waiting for the disk would be nearly all the cost of a small write.
            // A crash then loses the latest writes, but never half of one; and a
            // migration can send again what came after the last flush.
            tx.set_durability(Durability::None)?;
        }
        let done = work(&mut Tables {
            airports: tx.open_table(AIRPORTS)?,
            by_country: tx.open_table(BY_COUNTRY)?,
        })?;
        tx.commit()?;
        Ok(done)
    }
}

/// The document and its index entry, which only change together.
struct Tables<'tx> {
    airports: Table<'tx, &'static str, &'static [u8]>,
    by_country: Table<'tx, (&'static str, &'static str), ()>,
}

impl Tables<'_> {
    fn get(&self, icao: &str) -> Result<Airport, ApiError> {
        find(&self.airports, icao)
    }

    /// True when there was none before.
    fn put(&mut self, airport: &Airport) -> Result<bool, ApiError> {
        let json = serde_json::to_vec(airport).map_err(|e| ApiError::Store(e.to_string()))?;
        let old = match self.airports.insert(&*airport.icao, &*json)? {
            Some(old) => Some(decode(old.value())?),
            None => None,
        };
        if let Some(old) = &old
            && old.country != airport.country
        {
            self.by_country.remove((&*old.country, &*old.icao))?;
        }
        if old.as_ref().is_none_or(|o| o.country != airport.country) {
            self.by_country.insert((&*airport.country, &*airport.icao), ())?;
        }
        Ok(old.is_none())
    }

    fn remove(&mut self, icao: &str) -> Result<(), ApiError> {
        let old = self.airports.remove(icao)?.ok_or(ApiError::NotFound)?;
        let country = decode(old.value())?.country;
        self.by_country.remove((&*country, icao))?;
        Ok(())
    }
}

fn decode(json: &[u8]) -> Result<Airport, ApiError> {
    serde_json::from_slice(json).map_err(|e| ApiError::Store(e.to_string()))
}

fn find(
    airports: &impl ReadableTable<&'static str, &'static [u8]>,
    icao: &str,
) -> Result<Airport, ApiError> {
    decode(airports.get(icao)?.ok_or(ApiError::NotFound)?.value())
}

fn above(after: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl Store for RedbStore {
    fn get(&self, icao: &str) -> Result<Airport, ApiError> {
        find(&self.0.db.begin_read()?.open_table(AIRPORTS)?, icao)
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Airport>, ApiError> {
        let tx = self.0.db.begin_read()?;
        let airports = tx.open_table(AIRPORTS)?;
        let after = query.after.as_deref();
        let Some(country) = query.country.as_deref() else {
            return airports
                .range::<&str>(above(after))?
                .take(query.limit())
                .map(|entry| decode(entry?.1.value()))
                .collect();
        };
        let index = tx.open_table(BY_COUNTRY)?;
        // No key is empty, so the empty one sorts before all of the country.
        let from = Bound::Excluded((country, after.unwrap_or_default()));
        let mut page = Vec::new();
        for entry in index.range::<(&str, &str)>((from, Bound::Unbounded))?.take(query.limit()) {
            let (key, _) = entry?;
            let (of, icao) = key.value();
            if of != country {
                break;
            }
            page.push(find(&airports, icao)?);
        }
        Ok(page)
    }

    fn create(&self, airport: &Airport) -> Result<(), ApiError> {
        self.write(|tables| match tables.put(airport)? {
            true => Ok(()),
            // The failure takes the overwriting back with the transaction.
            false => Err(ApiError::Exists),
        })
    }

    fn replace(&self, airport: &Airport) -> Result<bool, ApiError> {
        self.write(|tables| tables.put(airport))
    }

    fn patch(&self, icao: &str, patch: &Patch) -> Result<Airport, ApiError> {
        self.write(|tables| {
            let mut airport = tables.get(icao)?;
            patch.apply(&mut airport);
            airport.check().map_err(ApiError::Invalid)?;
            tables.put(&airport)?;
            Ok(airport)
        })
    }

    fn delete(&self, icao: &str) -> Result<(), ApiError> {
        self.write(|tables| tables.remove(icao))
    }

    fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, ApiError> {
        let airports = self.0.db.begin_read()?.open_table(AIRPORTS)?;
        airports
            .range::<&str>(above(after))?
            .take(limit)
            .map(|entry| Ok(entry?.0.value().to_owned()))
            .collect()
    }

    fn len(&self) -> Result<u64, ApiError> {
        Ok(self.0.db.begin_read()?.open_table(AIRPORTS)?.len()?)
    }
}
