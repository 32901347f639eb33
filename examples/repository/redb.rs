//! The store that the team wants: a document for each airport in redb.

use std::{ops::Bound, path::Path, sync::Arc};

use redb::{Database, Durability, ReadableDatabase, Table, TableDefinition};

use crate::airports::{Airport, Airports, StoreError};

const AIRPORTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("airports");

#[derive(Clone, Debug)]
pub(crate) struct Redb(Arc<Database>);

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn decode(json: &[u8]) -> Result<Airport, StoreError> {
    serde_json::from_slice(json).map_err(failed)
}

impl Redb {
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let store = Self(Arc::new(Database::create(path).map_err(failed)?));
        // A reader cannot make the table.
        store.write(|_| Ok(()))?;
        Ok(store)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Table<'_, &'static str, &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tx = self.0.begin_write().map_err(failed)?;
        // An example need not wait for the disk; a service would.
        tx.set_durability(Durability::None).map_err(failed)?;
        let done = work(&mut tx.open_table(AIRPORTS).map_err(failed)?)?;
        tx.commit().map_err(failed)?;
        Ok(done)
    }
}

impl Airports for Redb {
    fn get(&self, icao: &str) -> Result<Airport, StoreError> {
        let tx = self.0.begin_read().map_err(failed)?;
        let airports = tx.open_table(AIRPORTS).map_err(failed)?;
        let found = airports.get(icao).map_err(failed)?;
        decode(found.ok_or(StoreError::NotFound)?.value())
    }

    fn list(&self, after: &str, limit: usize) -> Result<Vec<Airport>, StoreError> {
        let tx = self.0.begin_read().map_err(failed)?;
        let airports = tx.open_table(AIRPORTS).map_err(failed)?;
        let above = (Bound::Excluded(after), Bound::Unbounded);
        let page = airports.range::<&str>(above).map_err(failed)?;
        page.take(limit).map(|entry| decode(entry.map_err(failed)?.1.value())).collect()
    }

    fn put(&self, airport: &Airport) -> Result<(), StoreError> {
        if airport.name.is_empty() {
            return Err(StoreError::Nameless);
        }
        let json = serde_json::to_vec(airport).map_err(failed)?;
        self.write(|airports| {
            airports.insert(&*airport.icao, &*json).map_err(failed)?;
            Ok(())
        })
    }

    fn delete(&self, icao: &str) -> Result<(), StoreError> {
        self.write(|airports| {
            let gone = airports.remove(icao).map_err(failed)?;
            gone.map(drop).ok_or(StoreError::NotFound)
        })
    }
}
