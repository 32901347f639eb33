//! A flag kept in a file.

mod disk;
mod locks;
mod text;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use self::{
    disk::Paths,
    locks::{Following, Ownership},
};
use super::{BoxFuture, Claim, FlagStore, Presence, Record, Standing, StoreError, StoreErrorKind};
use crate::stage::Stage;

/// How often a follower looks for a new record, and whether the owner is gone.
const LOOK: Duration = Duration::from_millis(100);
/// How long an instance that joins waits before it tries again, while a step is
/// being taken.
const TURNSTILE: Duration = Duration::from_millis(5);

/// A flag kept in a file: one process owns it, others on the same machine may
/// follow.
///
/// # The file
///
/// A few lines that a person can read, with a version and a checksum. It is
/// replaced at once (written beside, synced, renamed, the directory synced), so
/// a crash or a power cut leaves the record before or the record after, and what
/// was acknowledged stays. It is never a default: a record that is missing,
/// damaged or of a newer format is an error that says what to do. Do not edit it;
/// the handle and `force` move the flag.
///
/// Beside `airports.flag` lie `airports.flag.lock`, `airports.flag.followers`
/// and, for a moment, `airports.flag.next`. Leave them there. Back up and
/// restore the record alone, with no process running.
///
/// The directory must be on a local disk: locks over a network file system are
/// a matter of luck.
///
/// # Owner and followers
///
/// The first process to open the file owns it. One that comes later, such as the
/// next deployment on the same machine, *follows*: it serves at the recorded
/// stage and cannot move it ([`Reason::Follower`](crate::Reason::Follower)).
/// While there are two nobody flips ([`Reason::Shared`](crate::Reason::Shared)),
/// the emergency exit included; only [`force`](crate::MigrationHandle::force)
/// does, which the other one sees a tenth of a second later. When the owner has
/// ended, by [`shutdown`](crate::MigrationHandle::shutdown) or in any other way,
/// the follower takes over, about as fast.
///
/// A follower that dies without `shutdown` is noticed at the owner's next step:
/// in a two-sided stage the side that is not the authority is unsynced then, as
/// after a crash of the owner.
///
/// # Example
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use tower_migration::{FileStore, MigrationHandle, Stage};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("airports.flag");
/// let before = MigrationHandle::open("airports", FileStore::create_or_open(&path)?).await?;
/// before.advance().await?;
/// before.shutdown().await;
/// drop(before);
///
/// let after = MigrationHandle::open("airports", FileStore::open(&path)?).await?;
/// assert_eq!(after.stage(), Stage::WriteBoth);
/// assert!(std::fs::read_to_string(&path)?.contains("stage = write-both"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    paths: Paths,
    owns: AtomicBool,
    locks: Mutex<Locks>,
}

#[derive(Default)]
struct Locks {
    owner: Option<Ownership>,
    following: Option<Following>,
    /// `leave` was called: it takes no lock any more.
    left: bool,
}

/// What there must be at the path.
enum Want {
    Record,
    Nothing,
    Either,
    /// Nothing, and it does not matter whether there ever was anything.
    Vacancy,
}

impl FileStore {
    /// Opens the record at `path`, which must be there.
    ///
    /// # Errors
    ///
    /// [`StoreError`], by kind: `Missing`, `Corrupt`, `NewerFormat`, `Denied`.
    /// Its text says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::at(path.as_ref(), &Want::Record, Stage::OldOnly)
    }

    /// Makes a new record at `path`, at `OldOnly`. Nothing may be there.
    ///
    /// # Errors
    ///
    /// [`StoreError`], by kind: `Exists`, `Missing` (there was a record once:
    /// see [`create_at`](Self::create_at)), `Denied`, `Full`.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::at(path.as_ref(), &Want::Nothing, Stage::OldOnly)
    }

    /// Opens the record at `path`, or makes a new one at `OldOnly` if none was
    /// ever there. The lock file remembers whether one was: a record that got
    /// lost is an error, not a migration that starts again.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn create_or_open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::at(path.as_ref(), &Want::Either, Stage::OldOnly)
    }

    /// Makes a new record at `path` for a flag that is known to stand at
    /// `stage`: in place of one that was lost or damaged, which must have been
    /// moved away. Nothing is known of the side that is not the authority, so
    /// it has to be copied or verified again.
    ///
    /// # Errors
    ///
    /// [`StoreError`], by kind: `Exists`, `Denied`, `Full`.
    pub fn create_at(path: impl AsRef<Path>, stage: Stage) -> Result<Self, StoreError> {
        Self::at(path.as_ref(), &Want::Vacancy, stage)
    }

    /// This store, if it owns the file: for a process that must not follow.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::NotOwner`] if another process owns it.
    pub fn require_owner(self) -> Result<Self, StoreError> {
        if self.inner.owns() { Ok(self) } else { Err(self.inner.not_owner()) }
    }

    fn at(path: &Path, want: &Want, stage: Stage) -> Result<Self, StoreError> {
        let paths = Paths::of(path)?;
        let mut owner = Ownership::take(&paths)?;
        if let Some(owner) = &mut owner {
            prepare(&paths, owner, want, stage)?;
        } else if matches!(want, Want::Nothing | Want::Vacancy) {
            let what = format!("{} is in use by another process", paths.record.display());
            return Err(StoreError::of(StoreErrorKind::Exists, what));
        } else {
            // Damage is found now rather than by the first request.
            paths.load()?;
        }
        let owns = AtomicBool::new(owner.is_some());
        let locks = Mutex::new(Locks { owner, ..Locks::default() });
        Ok(Self { inner: Arc::new(Inner { paths, owns, locks }) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| Err(StoreError::new(error).with_kind(StoreErrorKind::Unknown)))
    }
}

fn prepare(
    paths: &Paths,
    owner: &mut Ownership,
    want: &Want,
    stage: Stage,
) -> Result<(), StoreError> {
    let path = paths.record.display();
    let missing = || {
        let what = if owner.had_record() {
            format!("there was a record at {path}, and it is gone")
        } else {
            format!("there is no record at {path}")
        };
        Err(StoreError::of(StoreErrorKind::Missing, what))
    };
    match (want, paths.load()) {
        (Want::Nothing | Want::Vacancy, Ok(Some(_)) | Err(_)) => {
            let what = format!("there is something at {path} already");
            return Err(StoreError::of(StoreErrorKind::Exists, what));
        }
        (_, Err(error)) => return Err(error),
        (_, Ok(Some(_))) => {}
        (Want::Record, Ok(None)) => return missing(),
        (Want::Nothing | Want::Either, Ok(None)) if owner.had_record() => return missing(),
        (_, Ok(None)) => paths.replace(None, &Record::at(stage))?,
    }
    owner.note_record()
}

impl Inner {
    fn locks(&self) -> MutexGuard<'_, Locks> {
        // Only files lie under this lock; they are whole after any panic.
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owns(&self) -> bool {
        self.owns.load(Ordering::SeqCst)
    }

    fn not_owner(&self) -> StoreError {
        let what = format!("another process owns the flag in {}", self.paths.record.display());
        StoreError::of(StoreErrorKind::NotOwner, what)
    }

    fn save(&self, replaces: u64, record: &Record) -> Result<(), StoreError> {
        // Held while it is written: a save that was given up is over before the
        // next one looks.
        let mut locks = self.locks();
        if locks.owner.is_none() {
            return Err(self.not_owner());
        }
        self.paths.replace(Some(replaces), record)?;
        // What it knew as a follower is on the owner's record now.
        locks.following.take().map_or(Ok(()), Following::leave)
    }

    /// `None`: a step is being taken, try again.
    fn attend(&self, presence: &Presence) -> Result<Option<Standing>, StoreError> {
        let mut locks = self.locks();
        if locks.owner.is_none() && !locks.left {
            locks.owner = Ownership::take(&self.paths)?;
        }
        if locks.owner.is_some() {
            self.owns.store(true, Ordering::SeqCst);
            return Ok(Some(Standing::Owner));
        }
        if locks.following.is_none() && !locks.left {
            locks.following = Following::join(&self.paths, &presence.instance)?;
            if locks.following.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(Standing::Follower))
    }

    fn leave(&self, doubt: bool) -> Result<(), StoreError> {
        let mut locks = self.locks();
        locks.left = true;
        self.owns.store(false, Ordering::SeqCst);
        // Not the other way round: who owns the flag next should find no
        // follower that is none.
        let left = locks.following.take().filter(|_| !doubt).map_or(Ok(()), Following::leave);
        locks.owner = None;
        left
    }
}

impl FlagStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.blocking(|inner| inner.paths.load()))
    }

    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.blocking(move |inner| inner.save(replaces, &record)))
    }

    fn watch(&self, after: u64) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async move {
            loop {
                if let Some(record) = self.load().await?
                    && record.epoch > after
                {
                    return Ok(record);
                }
                sleep(LOOK).await;
            }
        })
    }

    fn lease(&self) -> Option<Duration> {
        // The locks need no renewing; this is how soon a follower takes over.
        (!self.inner.owns()).then_some(4 * LOOK)
    }

    fn attend(&self, presence: Presence) -> BoxFuture<'_, Result<Standing, StoreError>> {
        Box::pin(async move {
            if self.inner.owns() {
                return Ok(Standing::Owner);
            }
            loop {
                let presence = presence.clone();
                let standing = self.blocking(move |inner| inner.attend(&presence)).await?;
                match standing {
                    Some(standing) => return Ok(standing),
                    None => sleep(TURNSTILE).await,
                }
            }
        })
    }

    fn claim(&self) -> BoxFuture<'_, Result<Claim, StoreError>> {
        // A few system calls that wait for nobody: a rollback flips at once.
        Box::pin(std::future::ready(locks::claim(&self.inner.paths)))
    }

    fn leave(&self, doubt: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.blocking(move |inner| inner.leave(doubt)))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.inner.paths.record)
            .field("owns", &self.inner.owns())
            .finish_non_exhaustive()
    }
}
