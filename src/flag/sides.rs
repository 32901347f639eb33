//! What is known of the two sides' data: synced, dirty, differing.

use std::sync::{MutexGuard, atomic::Ordering};

use super::{Core, core::locked};
use crate::{
    compare::Mismatch,
    flag::store::Spans,
    reconcile::{Begun, DirtyKey, DirtySet, Key, Keys, Marked, RightSide},
    stage::{Side, Stage, SyncState, SyncTable, is_marked},
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
        self.note_side(side);
    }

    /// What has been copied to `side` since this changed last is still equal, dirty
    /// keys aside.
    pub(crate) fn span(&self, side: Side) -> u64 {
        self.spans[side.index()].load(Ordering::SeqCst)
    }

    pub(super) fn spans(&self) -> Spans {
        Spans { old: self.span(Side::Old), new: self.span(Side::New) }
    }

    /// From here on nobody vouches for what was copied to `side` before.
    pub(super) fn void(&self, side: Side) {
        let after = |span| Some(Spans::after(span));
        let _ = self.spans[side.index()].fetch_update(Ordering::SeqCst, Ordering::SeqCst, after);
        self.note_side(side);
    }

    /// `side` may have holes from here on.
    pub(super) fn unsync(&self, side: Side) {
        self.void(side);
        self.set_sync(side, SyncState::Unsynced);
    }

    /// Sets the state, unless it is not `from` any more.
    pub(super) fn change_sync(&self, side: Side, from: SyncState, to: SyncState) {
        let _ = self.sync[side.index()].compare_exchange(
            from as u8,
            to as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        self.note_side(side);
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

    /// Clears a key's mark, unless it has been marked again since `marks` was read.
    pub(crate) fn clear_dirty(&self, key: &Key, marks: u64) -> bool {
        let mut dirty = self.dirty();
        let cleared = dirty.clear(key, marks);
        if cleared {
            self.note_in_log(&dirty, key);
        }
        cleared
    }

    pub(super) fn resolve(&self, key: &Key, right: Side) -> bool {
        let mut dirty = self.dirty();
        let resolved = dirty.resolve(key, right);
        if resolved {
            self.note_in_log(&dirty, key);
            self.dirtied.notify_one();
        }
        resolved
    }

    /// The flag has come to a one-sided stage.
    pub(super) fn enter_one_sided(&self, stage: Stage) {
        let mut dirty = self.dirty();
        for key in dirty.one_sided(stage) {
            self.note_in_log(&dirty, &key);
        }
    }

    /// Under the set's lock, so that the log has them in the same order.
    pub(super) fn note_in_log(&self, dirty: &DirtySet, key: &Key) {
        if dirty.is_empty() {
            self.cleaned.notify_waiters();
        }
        if let Some(log) = &self.log {
            match dirty.stored(key) {
                Some(mark) => log.put(key, mark),
                None => log.remove(key),
            }
        }
    }

    /// Notes that a copy is about to write a side which is to stay synced whatever
    /// becomes of this process.
    pub(crate) async fn begin_copy(&self, keys: &Keys, from: Side) -> Result<Option<Begun>, ()> {
        if self.is_synced(from.other()) { self.begin(keys, || false, from).await } else { Ok(None) }
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
            self.void(wrong);
            let was = self.sync[wrong.index()].compare_exchange(
                SyncState::Synced as u8,
                SyncState::Suspect as u8,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if was.is_ok() {
                self.note_side(wrong);
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
            let marked = {
                let mut dirty = self.dirty();
                let marked = dirty.mark(key, right);
                self.note_in_log(&dirty, key);
                marked
            };
            self.counters.marked(marked);
            self.dirtied.notify_one();
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
                    self.void(wrong);
                    let was =
                        self.sync[wrong.index()].swap(SyncState::Unsynced as u8, Ordering::SeqCst);
                    if was != SyncState::Unsynced as u8 {
                        self.note_side(wrong);
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
        self.dirty().keys(RightSide::Is(right))
    }
}
