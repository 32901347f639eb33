//! Making one key equal on both sides.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::{
    runtime,
    sync::OwnedRwLockReadGuard,
    time::{Instant, sleep, timeout},
};

use super::{Key, Keys, Place};
use crate::{
    flag::{Claim, Kind, Mark, MigrationHandle, StoreErrorKind, Word},
    stage::{
        CopyPlaces, CopyStart, CopyWay, Side, Stage, copy_places, copy_repeats, copy_start,
        copy_way,
    },
};

/// How often a copy is repeated because a write came in between.
const ATTEMPTS: u32 = 64;
/// How long a copy waits for a moment in which nobody writes the key, before it
/// queues on both sides.
const BUSY: Duration = Duration::from_secs(1);

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

/// What a copy keeps until its end, or through the linger if it was cut off.
struct Admitted {
    mark: Mark,
    places: CopyPlaces,
    /// Keeps other instances out.
    _alone: Arc<Claim>,
    /// Keeps a step to a one-sided stage waiting, where the target is the
    /// authority.
    _step_waits: Option<OwnedRwLockReadGuard<()>>,
}

/// In a ramp the authority goes by the key, so any target may be one.
fn copy_places_under(word: Word, from: Side) -> CopyPlaces {
    if word.ramps() { CopyPlaces::Both } else { copy_places(word.stage(), from) }
}

/// How a copy ended.
#[derive(PartialEq)]
enum CopyEnd {
    Well,
    /// Its closure has said so: nothing of it is under way any more.
    Failed,
    /// What it has sent to its target may still land.
    CutOff,
}

/// A copy whose target may be half written by now.
struct Unfinished<'a> {
    handle: &'a MigrationHandle,
    keys: &'a Keys,
    from: Side,
    held: Option<(Admitted, Place, Option<Place>)>,
    end: CopyEnd,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let core = &self.handle.core;
        if self.end != CopyEnd::Well {
            core.counters.copied(false);
            core.mark_dirty(self.keys, self.from);
        }
        // Only now, so that whoever was waiting finds the mark.
        let Some((admitted, target, source)) = self.held.take() else {
            return;
        };
        match (&self.end, runtime::Handle::try_current()) {
            (CopyEnd::CutOff, Ok(runtime)) => {
                let linger = core.linger();
                runtime.spawn(async move {
                    sleep(linger).await;
                    drop((admitted, target, source));
                });
            }
            _ => admitted.mark.unused(),
        }
    }
}

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
        mut copy: F,
    ) -> Result<Copied, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let mut patient = true;
        loop {
            // In flight like a write's leg: a flip that changes the authority
            // waits for it.
            let admitted = self.admit_copy(key, from, patient).await?;
            let copied = match admitted.places {
                CopyPlaces::Target => self.copy_behind(key, from, admitted, &mut copy).await?,
                CopyPlaces::Both => Some(self.copy_alone(key, from, admitted, &mut copy).await?),
            };
            if let Some(copied) = copied {
                return Ok(copied);
            }
            patient = false;
        }
    }

    /// Copies to the side that no client waits for, while writes go on on the
    /// other. `None` if that side has become the authority before it began, or if
    /// there was always another write: then it has to queue like one.
    async fn copy_behind<F, Fut, E>(
        &self,
        key: &Key,
        from: Side,
        admitted: Admitted,
        copy: &mut F,
    ) -> Result<Option<Copied>, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let order = &self.core.order;
        let keys = Keys::from(key.clone());
        let idle = order.until(|| !order.activity(key, from).busy);
        if timeout(BUSY, idle).await.is_err() {
            admitted.mark.unused();
            return Ok(None);
        }
        let (mut place, _) = order.take_one(&keys, from.other());
        place.turn().await;
        // Asked with the place in hand: an exit from here on sees it, and makes
        // the key dirty.
        if copy_places_under(self.core.word(), from) != admitted.places {
            admitted.mark.unused();
            return Ok(None);
        }
        let found = match self.found(key, from) {
            Ok(found) => found,
            Err(error) => {
                admitted.mark.unused();
                return Err(error);
            }
        };
        let mut unfinished = self.unfinished(&keys, from, admitted, place, None);
        for attempts in 1..=ATTEMPTS {
            let idle = order.until(|| !order.activity(key, from).busy);
            if timeout(BUSY, idle).await.is_err() {
                unfinished.end = CopyEnd::Failed;
                return Ok(None);
            }
            let before = order.activity(key, from);
            let (overtaken, others) = match &unfinished.held {
                Some((_, place, _)) => order.overtaken(place),
                None => (Vec::new(), false),
            };
            if let Err(error) = copy().await {
                unfinished.end = CopyEnd::Failed;
                return Err(CopyError::Failed(error));
            }
            if copy_repeats(before, order.activity(key, from)) {
                continue;
            }
            let absorbed = order.absorb(&overtaken);
            let copied = self.copied(key, found, attempts, absorbed);
            if others {
                // They run although the copy has them already, which is wrong
                // for an increment: the key has to be copied once more.
                self.core.mark_dirty(&keys, from);
            }
            unfinished.end = CopyEnd::Well;
            return Ok(Some(copied));
        }
        unfinished.end = CopyEnd::Failed;
        Err(CopyError::Contended)
    }

    /// Copies to the authority: writes that begin meanwhile wait on both sides.
    async fn copy_alone<F, Fut, E>(
        &self,
        key: &Key,
        from: Side,
        admitted: Admitted,
        copy: &mut F,
    ) -> Result<Copied, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let keys = Keys::from(key.clone());
        let mut places = self.core.order.take(&keys, from.other(), usize::MAX);
        places.authority.turn().await;
        if let Some(source) = &mut places.other {
            source.turn().await;
        }
        let found = match self.found(key, from) {
            Ok(found) => found,
            Err(error) => {
                admitted.mark.unused();
                return Err(error);
            }
        };
        let mut unfinished = self.unfinished(&keys, from, admitted, places.authority, places.other);
        if let Err(error) = copy().await {
            unfinished.end = CopyEnd::Failed;
            return Err(CopyError::Failed(error));
        }
        let copied = self.copied(key, found, 1, 0);
        unfinished.end = CopyEnd::Well;
        Ok(copied)
    }

    const fn unfinished<'a>(
        &'a self,
        keys: &'a Keys,
        from: Side,
        admitted: Admitted,
        target: Place,
        source: Option<Place>,
    ) -> Unfinished<'a> {
        let held = Some((admitted, target, source));
        Unfinished { handle: self, keys, from, held, end: CopyEnd::CutOff }
    }

    /// The key's dirty mark, if it does not speak against the copy.
    fn found<E>(&self, key: &Key, from: Side) -> Result<Option<u64>, CopyError<E>> {
        let found = self.core.dirty().get(key);
        match copy_way(found.map(|(right, _)| right), from, self.core.is_synced(from)) {
            CopyWay::Free => Ok(found.map(|(_, marks)| marks)),
            CopyWay::Wrong(right) => Err(CopyError::WrongWay(right)),
            CopyWay::Conflict => Err(CopyError::Conflict),
            CopyWay::Unsynced => Err(CopyError::Unsynced(from)),
        }
    }

    fn copied(&self, key: &Key, found: Option<u64>, attempts: u32, absorbed: usize) -> Copied {
        let cleaned = found.is_some_and(|marks| self.core.dirty().clear(key, marks));
        if cleaned {
            self.core.note_if_healed();
        }
        self.core.counters.copied(true);
        Copied { attempts, cleaned, absorbed }
    }

    async fn admit_copy<E>(
        &self,
        key: &Key,
        from: Side,
        patient: bool,
    ) -> Result<Admitted, CopyError<E>> {
        loop {
            let word = self.core.word();
            let unrecorded = self.core.is_unrecorded();
            match copy_start(word.stage(), word.holds() || unrecorded, self.core.is_settled()) {
                CopyStart::Wait => {
                    self.core.wait_recorded().await;
                    self.core.wait_released().await;
                    continue;
                }
                CopyStart::OneSided => return Err(CopyError::OneSided(word.stage())),
                CopyStart::NotSettled => return Err(CopyError::NotSettled),
                CopyStart::Go => {}
            }
            let alone = self.core.claim_copy().await.map_err(|error| match error.kind() {
                StoreErrorKind::Shared | StoreErrorKind::NotOwner => CopyError::Shared,
                _ => CopyError::Store(error.to_string()),
            })?;
            let places = if patient { copy_places_under(word, from) } else { CopyPlaces::Both };
            let step_waits = match places {
                CopyPlaces::Target => None,
                CopyPlaces::Both => Some(Arc::clone(&self.core.copies).read_owned().await),
            };
            if let Ok(mut mark) = self.core.admit_leg(word, Kind::other_write(from.other())) {
                mark.list(&format!("copy {key}").into(), Instant::now());
                return Ok(Admitted { mark, places, _alone: alone, _step_waits: step_waits });
            }
        }
    }
}
