//! Where the flag is kept.

mod error;
mod file;
mod memory;
mod record;

use std::{any::Any, fmt, pin::Pin, sync::Arc, time::Duration};

pub use self::error::{OpenError, StoreError, StoreErrorKind};
pub use self::file::FileStore;
pub use self::memory::MemoryStore;
pub use self::record::{JournalNote, Record, Spans};

/// What a [`FlagStore`] answers with.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a flag is kept between restarts, and who may move it.
///
/// Only [`load`](Self::load) and [`save`](Self::save) must be written. The rest
/// is for stores that several processes share; the defaults are those of a
/// store that one process has for itself.
///
/// # The implementor's contract
///
/// *Whole.* [`load`](Self::load) gives the last record that was saved, whole,
/// or an error. Never a default: a record that cannot be read must not become
/// `OldOnly`. `Ok(None)` means that no record was ever made.
///
/// *At once or not at all.* When [`save`](Self::save) answers `Ok`, the record
/// survives a crash, as far as the store promises at all. When it answers `Err`,
/// the old record is still there, unless the error's kind is
/// [`Unknown`](StoreErrorKind::Unknown). Dropping its future may leave either
/// record, never a mixture.
///
/// *In order.* `save` compares and sets: it replaces the record with the epoch
/// it was told, and refuses with [`Conflict`](StoreErrorKind::Conflict) when
/// another one is there. So a save that was given up and lands late changes
/// nothing after the next one. The new epoch is always greater.
///
/// *Nothing in between.* A store must not keep a copy in front of the real one,
/// nor change a record, nor answer before the real one has.
///
/// *Never blocking.* A store that does blocking I/O does it in
/// `spawn_blocking`; a store that hangs is given up after a while, and writes
/// are not held for longer because of it.
///
/// # In a fleet
///
/// Each instance says again and again that it is there ([`attend`](Self::attend)
/// within each [`lease`](Self::lease)) and which epoch it obeys; it hears
/// whether it may move the flag. A step is taken under a [`claim`](Self::claim):
/// for as long as the claim lives nobody joins, and the claim is refused while
/// an instance is there that could miss the flip. [`watch`](Self::watch) brings
/// what others have moved.
pub trait FlagStore: Send + Sync + 'static {
    /// Reads the record.
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Puts `record` in the place of the one whose epoch is `replaces`. Called
    /// for each step before it takes effect, for each confirmation, and for a
    /// clean stop. One that does not answer in time is dropped; the store is
    /// then read again before the next save.
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Resolves with a record whose epoch is over `after`, once there is one.
    /// May skip those in between.
    ///
    /// The default never resolves: nobody else writes the record.
    fn watch(&self, after: u64) -> BoxFuture<'_, Result<Record, StoreError>> {
        let _ = after;
        Box::pin(std::future::pending())
    }

    /// For how long an instance counts as present without being heard of.
    /// `None`, the default: the store knows of one instance only.
    fn lease(&self) -> Option<Duration> {
        None
    }

    /// Says that this instance is there, and hears what it may do. Called when
    /// the handle is opened, before the record is read, and then several times
    /// in each [`lease`](Self::lease). An instance that attends for the first
    /// time while a claim is out waits until it is not.
    ///
    /// By default the instance owns the flag.
    fn attend(&self, presence: Presence) -> BoxFuture<'_, Result<Standing, StoreError>> {
        let _ = presence;
        Box::pin(std::future::ready(Ok(Standing::Owner)))
    }

    /// The right to take one step, or to copy keys: nobody joins while the claim
    /// lives. Refused
    /// with [`Shared`](StoreErrorKind::Shared) while another instance is there
    /// that would miss the flip.
    ///
    /// By default there is nobody else.
    fn claim(&self) -> BoxFuture<'_, Result<Claim, StoreError>> {
        Box::pin(std::future::ready(Ok(Claim::default())))
    }

    /// This instance stops, in order: called by `shutdown`, after the clean
    /// record. `doubt` says that it knows of differences between the sides that
    /// are on nobody's record.
    fn leave(&self, doubt: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = doubt;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What an instance says of itself to its store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Its name, different for each start of a process.
    pub instance: Arc<str>,
    /// The epoch of the newest record that it obeys: its acknowledgement.
    pub epoch: u64,
}

impl Presence {
    pub(crate) const fn new(instance: Arc<str>, epoch: u64) -> Self {
        Self { instance, epoch }
    }
}

/// What an instance may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Standing {
    /// Move the flag.
    Owner,
    /// Obey it. It becomes the owner when there is none.
    Follower,
}

/// The right to take one step, or to copy keys, until it is dropped.
#[derive(Default)]
pub struct Claim {
    lost: bool,
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Claim {
    /// A claim that ends when `kept` is dropped.
    #[must_use]
    pub fn new(kept: impl Any + Send + Sync) -> Self {
        Self { lost: false, kept: Some(Box::new(kept)) }
    }

    /// Says that an instance has ended without a farewell since the last claim:
    /// a write of its may have landed on one side alone.
    #[must_use]
    pub fn with_lost_instance(mut self, lost: bool) -> Self {
        self.lost = lost;
        self
    }

    /// Whether anybody joins only after it.
    pub(crate) const fn keeps_others_out(&self) -> bool {
        self.kept.is_some()
    }

    pub(crate) const fn lost_instance(&self) -> bool {
        self.lost
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("lost", &self.lost).finish_non_exhaustive()
    }
}
