//! A flag kept in memory.

use std::{
    future::ready,
    sync::{Arc, Mutex, PoisonError},
};

use super::{BoxFuture, FlagStore, Record, StoreError, StoreErrorKind};

/// A flag kept in memory: it lives as long as the store's clones do. For tests,
/// where it plays the part of a restart.
///
/// ```
/// use tower_migration::{MemoryStore, MigrationHandle, Stage};
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let store = MemoryStore::new();
/// let before = MigrationHandle::open("airports", store.clone()).await?;
/// before.advance().await?;
/// before.shutdown().await;
/// drop(before);
///
/// let after = MigrationHandle::open("airports", store).await?;
/// assert_eq!(after.stage(), Stage::WriteBoth);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    record: Arc<Mutex<Record>>,
}

impl MemoryStore {
    /// A store with the record that every migration starts from.
    #[must_use]
    pub fn new() -> Self {
        Self { record: Arc::new(Mutex::new(Record::start())) }
    }

    /// The record as it stands.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl FlagStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(ready(Ok(Some(self.record()))))
    }

    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut stored = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = if stored.epoch == replaces {
            *stored = record;
            Ok(())
        } else {
            let found = format!(
                "the record of epoch {replaces} was to be replaced, but that of epoch {} is there",
                stored.epoch
            );
            Err(StoreError::of(StoreErrorKind::Conflict, found))
        };
        Box::pin(ready(saved))
    }
}
