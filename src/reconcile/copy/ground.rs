//! What a copy stands on: the stage that it was admitted under, its places in the
//! order of keys, and what it leaves behind if it does not come to its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime,
    sync::OwnedRwLockReadGuard,
    time::{Instant, sleep, timeout},
};

use super::CopyError;
use crate::{
    flag::{Claim, Kind, Mark, MigrationHandle, StoreErrorKind, Word},
    reconcile::{Begun, Key, Keys, Place},
    stage::{CopyPlaces, CopyStart, Side, copy_ahead, copy_places, copy_start},
};

/// How a copy differs from that of one key in a settled two-sided stage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// It comes before the flag, in the one-sided stage, and does not count.
    pub(crate) ahead: bool,
    /// Other processes may obey the flag and write meanwhile.
    pub(crate) beside_others: bool,
    /// It only looks: nothing is written, marked or cleared.
    pub(crate) looks: bool,
}

/// What a copy keeps until its end, or through the linger if it was cut off.
pub(super) struct Admitted {
    pub(super) mark: Mark,
    pub(super) places: CopyPlaces,
    /// Keeps other instances out.
    _alone: Option<Arc<Claim>>,
    /// Keeps a step to a one-sided stage waiting, where the target is the
    /// authority.
    _step_waits: Option<OwnedRwLockReadGuard<()>>,
}

/// In a ramp the authority goes by the key, so any target may be one.
pub(super) fn copy_places_under(word: Word, from: Side) -> CopyPlaces {
    if word.ramps() { CopyPlaces::Both } else { copy_places(word.stage(), from) }
}

impl MigrationHandle {
    pub(super) async fn admit_copy<E>(
        &self,
        key: &Key,
        from: Side,
        terms: Terms,
        patient: bool,
    ) -> Result<Admitted, CopyError<E>> {
        let core = &self.core;
        loop {
            if core.is_closing() {
                return Err(CopyError::ShutDown);
            }
            let word = core.word();
            let flipping = word.holds() || core.is_unrecorded();
            let start = if terms.ahead {
                copy_ahead(word.stage(), flipping, from)
            } else {
                copy_start(word.stage(), flipping, core.is_settled())
            };
            match start {
                CopyStart::Wait => {
                    core.wait_recorded().await;
                    core.wait_released().await;
                    continue;
                }
                CopyStart::OneSided => return Err(CopyError::OneSided(word.stage())),
                CopyStart::Moved => return Err(CopyError::Moved(word.stage())),
                CopyStart::NotSettled => return Err(CopyError::NotSettled),
                CopyStart::Go => {}
            }
            let alone = match terms.beside_others {
                true => None,
                false => Some(core.claim_copy().await.map_err(|error| match error.kind() {
                    StoreErrorKind::Shared | StoreErrorKind::NotOwner => CopyError::Shared,
                    _ => CopyError::Store(error.to_string()),
                })?),
            };
            let places = if patient { copy_places_under(word, from) } else { CopyPlaces::Both };
            let step_waits = match places {
                CopyPlaces::Target => None,
                CopyPlaces::Both => Some(Arc::clone(&core.copies).read_owned().await),
            };
            if let Ok(mut mark) = core.admit_leg(word, Kind::other_write(from.other())) {
                mark.list(&format!("copy {key}").into(), Instant::now());
                return Ok(Admitted { mark, places, _alone: alone, _step_waits: step_waits });
            }
        }
    }
}

/// How a copy ended.
#[derive(PartialEq)]
pub(super) enum CopyEnd {
    Well,
    /// Its closure has said so: nothing of it is under way any more.
    Failed,
    /// What it has sent to its target may still land.
    CutOff,
}

/// A copy whose target may be half written by now.
pub(super) struct Unfinished<'a> {
    pub(super) handle: &'a MigrationHandle,
    pub(super) keys: &'a Keys,
    pub(super) from: Side,
    pub(super) looks: bool,
    pub(super) held: Option<(Admitted, Place, Option<Place>)>,
    /// Its note in the journal, for whoever finds it half written after a crash.
    pub(super) _begun: Option<Begun>,
    pub(super) end: CopyEnd,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let core = &self.handle.core;
        if self.end != CopyEnd::Well && !self.looks {
            core.counters.copied(false);
            core.mark_dirty(self.keys, self.from);
        }
        // Only now, so that whoever was waiting finds the mark.
        let Some((admitted, target, source)) = self.held.take() else {
            return;
        };
        match (&self.end, runtime::Handle::try_current()) {
            (CopyEnd::CutOff, Ok(runtime)) if !self.looks => {
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

/// How long a copy waits for a moment in which nobody writes the key, before it
/// queues on both sides.
const BUSY: Duration = Duration::from_secs(1);

impl MigrationHandle {
    /// Waits for such a moment; says whether there was one.
    pub(super) async fn is_idle_soon(&self, key: &Key, side: Side) -> bool {
        let order = &self.core.order;
        let idle = || !order.activity(key, side).busy;
        idle() || timeout(BUSY, order.until(idle)).await.is_ok()
    }
}
