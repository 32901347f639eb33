//! Running a copy: behind the writes of its key on the target, or as one of them.

use super::{
    Copied, CopyError, Terms,
    ground::{Admitted, CopyEnd, Unfinished, copy_places_under},
};
use crate::{
    flag::MigrationHandle,
    reconcile::{Key, Keys, Place},
    stage::{CopyPlaces, CopyWay, Side, copy_repeats, copy_way},
};

/// How often a copy is repeated because a write came in between.
const ATTEMPTS: u32 = 64;

impl MigrationHandle {
    /// Runs `copy` with the key's place, and again if a write of the key ran on its
    /// source meanwhile.
    pub(crate) async fn run_copy<F, Fut, E>(
        &self,
        key: &Key,
        from: Side,
        terms: Terms,
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
            let admitted = self.admit_copy(key, from, terms, patient).await?;
            let copied = match admitted.places {
                CopyPlaces::Target => {
                    self.copy_behind(key, from, terms, admitted, &mut copy).await?
                }
                CopyPlaces::Both => {
                    Some(self.copy_alone(key, from, terms, admitted, &mut copy).await?)
                }
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
        terms: Terms,
        admitted: Admitted,
        copy: &mut F,
    ) -> Result<Option<Copied>, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let order = &self.core.order;
        let keys = Keys::from(key.clone());
        if !self.is_idle_soon(key, from).await {
            admitted.mark.unused();
            return Ok(None);
        }
        let mut place = order.stand(&keys, from.other(), terms.looks);
        place.turn().await;
        // Asked with the place in hand: an exit from here on sees it, and makes
        // the key dirty.
        if copy_places_under(self.core.word(), from) != admitted.places {
            admitted.mark.unused();
            return Ok(None);
        }
        let found = match self.found(key, from, terms) {
            Ok(found) => found,
            Err(error) => {
                admitted.mark.unused();
                return Err(error);
            }
        };
        let mut unfinished = self.unfinished(&keys, from, terms, (admitted, place, None)).await?;
        for attempts in 1..=ATTEMPTS {
            if !self.is_idle_soon(key, from).await {
                unfinished.end = CopyEnd::Failed;
                return Ok(None);
            }
            let before = order.activity(key, from);
            let (overtaken, others) = match &unfinished.held {
                Some((_, place, _)) => order.overtaken(place),
                None => (Vec::new(), false),
            };
            if terms.looks && (others || !overtaken.is_empty()) {
                // The source has a write that the target is still to get. A copy would
                // bring it; whoever only looks has to stand between two writes.
                unfinished.end = CopyEnd::Well;
                return Ok(None);
            }
            if let Err(error) = copy().await {
                unfinished.end = CopyEnd::Failed;
                return Err(CopyError::Failed(error));
            }
            if copy_repeats(before, order.activity(key, from)) {
                continue;
            }
            let absorbed = order.absorb(&overtaken);
            let copied = self.copied(key, found, terms, attempts, absorbed);
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
        terms: Terms,
        admitted: Admitted,
        copy: &mut F,
    ) -> Result<Copied, CopyError<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let keys = Keys::from(key.clone());
        let mut places = self.core.order.stand_on_both(&keys, from.other(), terms.looks);
        places.authority.turn().await;
        if let Some(source) = &mut places.other {
            source.turn().await;
        }
        let found = match self.found(key, from, terms) {
            Ok(found) => found,
            Err(error) => {
                admitted.mark.unused();
                return Err(error);
            }
        };
        let held = (admitted, places.authority, places.other);
        let mut unfinished = self.unfinished(&keys, from, terms, held).await?;
        if let Err(error) = copy().await {
            unfinished.end = CopyEnd::Failed;
            return Err(CopyError::Failed(error));
        }
        let copied = self.copied(key, found, terms, 1, 0);
        unfinished.end = CopyEnd::Well;
        Ok(copied)
    }

    /// From here on the target may be half written.
    async fn unfinished<'a, E>(
        &'a self,
        keys: &'a Keys,
        from: Side,
        terms: Terms,
        held: (Admitted, Place, Option<Place>),
    ) -> Result<Unfinished<'a>, CopyError<E>> {
        let begun = match terms.looks {
            true => None,
            false => match self.core.begin_copy(keys, from).await {
                Ok(begun) => begun,
                Err(()) => {
                    held.0.mark.unused();
                    let what = "neither the journal nor the flag's record can be written";
                    return Err(CopyError::Store(what.to_owned()));
                }
            },
        };
        let (looks, held) = (terms.looks, Some(held));
        let end = CopyEnd::CutOff;
        Ok(Unfinished { handle: self, keys, from, looks, held, _begun: begun, end })
    }

    /// The key's dirty mark, if it does not speak against the copy.
    fn found<E>(&self, key: &Key, from: Side, terms: Terms) -> Result<Option<u64>, CopyError<E>> {
        if terms.looks {
            return Ok(None);
        }
        let found = self.core.dirty().get(key);
        match copy_way(found.map(|(right, _)| right), from, self.core.is_synced(from)) {
            CopyWay::Free => Ok(found.map(|(_, marks)| marks)),
            CopyWay::Wrong(right) => Err(CopyError::WrongWay(right)),
            CopyWay::Conflict => Err(CopyError::Conflict),
            CopyWay::Unsynced => Err(CopyError::Unsynced(from)),
        }
    }

    fn copied(
        &self,
        key: &Key,
        found: Option<u64>,
        terms: Terms,
        attempts: u32,
        absorbed: usize,
    ) -> Copied {
        if terms.looks {
            return Copied { attempts, cleaned: false, absorbed };
        }
        let cleaned = found.is_some_and(|marks| self.core.clear_dirty(key, marks));
        if cleaned {
            self.core.note_if_healed();
        }
        self.core.counters.copied(true);
        Copied { attempts, cleaned, absorbed }
    }
}
