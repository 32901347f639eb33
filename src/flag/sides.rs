//! What is known of the two sides' data: synced, dirty, differing.

use std::sync::{MutexGuard, atomic::Ordering};

use super::{Core, core::locked};
use crate::{
    compare::Mismatch,
    reconcile::{DirtyKey, DirtySet, Key, Keys, Marked, RightSide},
    stage::{Side, SyncState, SyncTable, is_marked},
};

const SYNC: [SyncState; 3] = [SyncState::Unsynced, SyncState::Suspect, SyncState::Synced];

impl Core {
    pub(crate) fn sync(&self) -> SyncTable {
        let state = |side: Side| SYNC[usize::from(self.sync[side.index()].load(Ordering::SeqCst))];
        SyncTable::start().with(Side::Old, state(Side::Old)).with(Side::New, state(Side::New))
    }

    pub(crate) fn is_synced(&self, side: Side) -> bool {
        self.sync().get(side).is_synced()
    }

    pub(super) fn set_sync(&self, side: Side, state: SyncState) {
        self.sync[side.index()].store(state as u8, Ordering::SeqCst);
    }

    /// Sets the state, unless it is not `from` any more.
    pub(super) fn change_sync(&self, side: Side, from: SyncState, to: SyncState) {
        let _ = self.sync[side.index()].compare_exchange(
            from as u8,
            to as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }

    pub(crate) fn dirty(&self) -> MutexGuard<'_, DirtySet> {
        locked(&self.dirty)
    }

    /// Marks the keys of a write whose sides may differ; `right` was its
    /// authority. No key makes the wrong side suspect.
    pub(crate) fn mark_dirty(&self, keys: &Keys, right: Side) {
        let wrong = right.other();
        let stage = self.word().stage();
        if !is_marked(stage, right) {
            return;
        }
        self.mark(keys, right);
        if stage.is_two_sided() && stage.authority() == wrong {
            self.note_sync();
        }
    }

    /// A dirty key has been mended. If it was the last that the authority is
    /// wrong on, its record need not call it unsynced any more.
    pub(crate) fn note_if_healed(&self) {
        let stage = self.word().stage();
        let right = stage.authority().other();
        if stage.is_two_sided() && self.dirty().count(RightSide::Is(right)).0 == 0 {
            self.note_sync();
        }
    }

    fn mark(&self, keys: &Keys, right: Side) {
        let wrong = right.other();
        if keys.is_empty() {
            self.untracked[wrong.index()].fetch_add(1, Ordering::Relaxed);
            let was = self.sync[wrong.index()].compare_exchange(
                SyncState::Synced as u8,
                SyncState::Suspect as u8,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if was.is_ok() {
                tracing::warn!(
                    target: "tower_migration",
                    migration = %self.name(),
                    side = %wrong,
                    "a write without a key failed: the side is suspect until it is verified"
                );
            }
            return;
        }
        for key in keys {
            let marked = self.dirty().mark(key, right);
            self.counters.marked(marked);
            match marked {
                Marked::New | Marked::Again => {}
                Marked::Conflict => tracing::warn!(
                    target: "tower_migration",
                    migration = %self.name(),
                    %key,
                    "key is dirty with both sides claimed to be right: resolve_conflict decides"
                ),
                Marked::Full => {
                    self.untracked[wrong.index()].fetch_add(1, Ordering::Relaxed);
                    let was =
                        self.sync[wrong.index()].swap(SyncState::Unsynced as u8, Ordering::SeqCst);
                    if was != SyncState::Unsynced as u8 {
                        tracing::error!(
                            target: "tower_migration",
                            migration = %self.name(),
                            side = %wrong,
                            limit = self.options.dirty_keys,
                            "too many dirty keys: the side is unsynced and must be copied again"
                        );
                    }
                }
            }
        }
    }

    pub(crate) fn touches_dirty(&self, keys: &Keys) -> bool {
        let dirty = self.dirty();
        if keys.is_empty() {
            return !dirty.is_empty();
        }
        keys.iter().any(|key| dirty.touches(key))
    }

    pub(super) fn list_dirty(&self) -> Vec<DirtyKey> {
        self.dirty().list()
    }

    pub(crate) fn remember(&self, mismatch: Mismatch) {
        let mut recent = locked(&self.recent);
        if recent.len() >= self.options.recent_mismatches {
            recent.pop_front();
        }
        recent.push_back(mismatch);
    }

    pub(super) fn recent(&self) -> Vec<Mismatch> {
        locked(&self.recent).iter().cloned().collect()
    }

    /// Taints what is in flight on `side` when it becomes the authority at
    /// once: its leg may come after the first reads there. Answers all keys
    /// whose data is right on the other side only.
    pub(super) fn taint(&self, side: Side) -> Vec<Key> {
        let right = side.other();
        let (keys, keyless) = self.order.running_on(side);
        if !keys.is_empty() {
            self.mark_dirty(&keys.into_iter().collect(), right);
        }
        if keyless {
            self.mark_dirty(&Keys::none(), right);
        }
        self.keys_right_on(right)
    }

    /// Dirty keys whose data is right on this side only.
    pub(super) fn keys_right_on(&self, right: Side) -> Vec<Key> {
        let dirty = self.dirty().list().into_iter();
        dirty.filter(|dirty| dirty.right == RightSide::Is(right)).map(|dirty| dirty.key).collect()
    }
}
