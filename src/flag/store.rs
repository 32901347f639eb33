//! Where the flag is kept.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use super::options::ConfigError;
use crate::{
    BoxError,
    stage::{Stage, SyncTable},
};

/// What a [`FlagStore`] answers with.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is kept of a flag: where it stands and what is known of the sides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Record {
    /// The stage.
    pub stage: Stage,
    /// Grows with every record; the order in which they were made.
    pub epoch: u64,
    /// Which sides hold all data.
    pub sync: SyncTable,
    /// Whether the process that wrote it stopped in order. After an unclean
    /// stop in a two-sided stage a write may have landed on one side alone.
    pub clean: bool,
}

impl Record {
    /// Where every migration starts: `OldOnly`, new unsynced.
    #[must_use]
    pub const fn start() -> Self {
        Self { stage: Stage::OldOnly, epoch: 0, sync: SyncTable::start(), clean: true }
    }

    /// What holds after a restart: a two-sided stage that did not stop cleanly
    /// leaves its other side unsynced.
    #[must_use]
    pub const fn after_restart(mut self) -> Self {
        if self.stage.is_two_sided() && !self.clean {
            self.sync =
                self.sync.with(self.stage.authority().other(), crate::stage::SyncState::Unsynced);
        }
        self
    }
}

/// A store that failed; what it was doing, and why.
#[derive(Clone, Debug)]
pub struct StoreError {
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self { source: Arc::from(source.into()) }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the flag's store failed")
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Where a flag is kept between restarts.
///
/// # The implementor's contract
///
/// - [`load`](Self::load) gives the last record that was saved, whole, or an
///   error. Never a default: a record that cannot be read must not become
///   `OldOnly`. `Ok(None)` means that no record was ever made.
/// - [`save`](Self::save) replaces the record at once or not at all. When it
///   answers `Ok`, the record survives a crash of the process, as far as this
///   store promises at all. When it answers `Err`, the old record is still
///   there.
/// - Records come in the order of their epochs. A store that is shared must
///   refuse one whose epoch is not greater than the stored one's.
/// - A store must not keep a copy in front of the real one, nor change a
///   record.
/// - Dropping the future of `save` may leave either record, never a mixture.
pub trait FlagStore: Send + Sync + 'static {
    /// Reads the record. Called once, when the handle is opened.
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Replaces the record. Called for each step before it takes effect, for
    /// each confirmation, and for a clean stop. One that does not answer in time
    /// is dropped, and another record with a greater epoch follows.
    fn save(&self, record: Record) -> BoxFuture<'_, Result<(), StoreError>>;
}

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
        Box::pin(std::future::ready(Ok(Some(self.record()))))
    }

    fn save(&self, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Why a handle could not be opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A limit makes no sense.
    Config(ConfigError),
    /// The store could not be read. The stage is unknown, so nothing may be
    /// served: mend the store and start again.
    Store(StoreError),
    /// The store holds no record. Creating one is an explicit act of the
    /// store's own constructor: if this migration has run before, its record
    /// is missing.
    Missing,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the handle's configuration cannot work"),
            Self::Store(_) => f.write_str(
                "the flag's record cannot be read, so its stage is unknown: mend the store and \
                 start again",
            ),
            Self::Missing => f.write_str(
                "the store holds no record of the flag: create one only if this migration has \
                 never run",
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Missing => None,
        }
    }
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
