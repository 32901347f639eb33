//! Making one key equal on both sides.

mod ground;
mod row;
mod running;

use std::{error::Error, fmt};

pub(crate) use self::ground::Terms;
pub(super) use self::row::How;
use super::Key;
use crate::{
    flag::MigrationHandle,
    stage::{Side, Stage},
};

/// A key that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// How often it was copied until no write came in between.
    pub attempts: u32,
    /// Whether a dirty mark was found and cleared. The key can be dirty again
    /// at once: if a write is still to run that the copy has already, or if one
    /// has failed meanwhile.
    pub cleaned: bool,
    /// Writes that waited for the copy and turned out to be part of it.
    pub absorbed: usize,
}

/// Why a key was not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyError<E> {
    /// The stage is one-sided: nothing keeps the copy equal afterwards.
    OneSided(Stage),
    /// The copy was to come before the flag, in the one-sided stage, and the flag has
    /// moved on.
    Moved(Stage),
    /// [`shutdown`](MigrationHandle::shutdown) was called: what is copied afterwards
    /// would be on nobody's record.
    ShutDown,
    /// Writes of an earlier epoch are still running; one of them could undo
    /// the copy. Wait for [`settled`](MigrationHandle::settled).
    NotSettled,
    /// The key is dirty and right on the other side than asked: copying would
    /// overwrite the good data.
    WrongWay(Side),
    /// The key is dirty with both sides claimed to be right: decide with
    /// [`resolve_conflict`](MigrationHandle::resolve_conflict).
    Conflict,
    /// The side to copy from is not synced, and the key is not dirty: nobody
    /// knows whether the row that would be overwritten is the better one. Copy
    /// from the other side; or say that this one is right, for the key with
    /// [`mark_dirty`](MigrationHandle::mark_dirty) or as a whole with
    /// [`confirm_synced`](MigrationHandle::confirm_synced).
    Unsynced(Side),
    /// Another process obeys the same flag: it writes without knowing of the
    /// copy's place, and could be overwritten. Copy when it has ended, in the
    /// process that owns the flag.
    Shared,
    /// The flag's store did not say whether another process is there.
    Store(String),
    /// Writes of the key came in between all the time.
    Contended,
    /// The closure failed. The key is dirty now: its target may be half
    /// written.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CopyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneSided(stage) => write!(f, "nothing is copied at {stage}: move to write-both"),
            Self::Moved(stage) => write!(f, "the flag has moved on to {stage}"),
            Self::ShutDown => f.write_str("the handle was shut down"),
            Self::NotSettled => f.write_str("earlier writes are still running: wait for settled()"),
            Self::WrongWay(right) => {
                write!(f, "the key is dirty and right on {right}: copy it from there")
            }
            Self::Conflict => {
                f.write_str("both sides claim to be right: decide with resolve_conflict")
            }
            Self::Unsynced(side) => {
                write!(f, "{side} is not synced, so it may lack what would be overwritten")
            }
            Self::Shared => f.write_str("another process obeys the same flag"),
            Self::Store(error) => f.write_str(error),
            Self::Contended => f.write_str("writes of the key came in between all the time"),
            Self::Failed(error) => write!(f, "the copy failed: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for CopyError<E> {}

impl MigrationHandle {
    /// Makes the side that is not `from` equal to `from` for one key, while
    /// writes of the key go on.
    ///
    /// `copy` reads the key's present state on `from` and writes it to the
    /// other side, deletion included. It is called again if a write of the key
    /// ran on `from` meanwhile, so it must be idempotent; it must go to the two
    /// services (or stores) themselves, not through the layer.
    ///
    /// The key's place on the *target* side is held meanwhile: writes wait
    /// there, never on `from`. Those that are already part of what was copied
    /// are not applied a second time. Where there is no moment without a write for
    /// a second, the copy queues on both sides like one. Only where the target is the authority (a
    /// dirty key after a rollback) do writes of the key wait on both sides. A
    /// dirty mark that the copy found is cleared.
    ///
    /// Writes without a key are not in any order, so a copy does not know of
    /// them. One that learns its key from its answer (a create) finds out that
    /// a copy came in between, and makes the key dirty again.
    ///
    /// # Example
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// use std::{collections::HashMap, convert::Infallible, sync::{Arc, Mutex}};
    /// use tower_migration::{MigrationHandle, Side, reconcile::Key};
    ///
    /// let old = Arc::new(Mutex::new(HashMap::from([("EDDF", "Frankfurt")])));
    /// let new = Arc::new(Mutex::new(HashMap::new()));
    /// let migration = MigrationHandle::new("airports");
    /// migration.advance().await.unwrap();
    ///
    /// let copied = migration
    ///     .copy_key(&Key::from("/airports/EDDF"), Side::Old, || async {
    ///         match old.lock().unwrap().get("EDDF") {
    ///             Some(row) => new.lock().unwrap().insert("EDDF", *row),
    ///             None => new.lock().unwrap().remove("EDDF"),
    ///         };
    ///         Ok::<(), Infallible>(())
    ///     })
    ///     .await
    ///     .unwrap();
    /// assert_eq!(copied.attempts, 1);
    /// assert_eq!(new.lock().unwrap()["EDDF"], "Frankfurt");
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CopyError`]; the key is dirty after [`CopyError::Failed`].
    ///
    /// # Cancel safety
    ///
    /// A copy that is dropped after `copy` was called leaves the key dirty, and
    /// keeps its place for the [`linger`](crate::HandleBuilder::linger): what it
    /// has sent to its target may still land there.
    pub async fn copy_key<F, Fut, E>(
        &self,
        key: &Key,
        from: Side,
        copy: F,
    ) -> Result<Copied, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        self.run_copy(key, from, Terms::default(), copy).await
    }
}
