//! Writes that may still land although no mark of theirs is left.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::SLOTS;
use crate::stage::Side;

/// By slot and side: until when. Locked when a write is cut off, and by flips.
#[derive(Debug, Default)]
pub(super) struct Lingering(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: [[Option<Instant>; 2]; SLOTS],
    length: Duration,
}

impl Lingering {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self, length: Duration) {
        *self.lock() = State { length, ..State::default() };
    }

    pub(super) fn add(&self, slot: usize, side: Side) {
        let mut state = self.lock();
        let until = later(state.length);
        if let Some(cell) = state.until.get_mut(slot).map(|sides| &mut sides[side.index()]) {
            *cell = (*cell).max(Some(until));
        }
    }

    /// The last moment of all that `which` picks.
    pub(super) fn until(&self, which: impl Fn(usize, Side) -> bool) -> Option<Instant> {
        let state = self.lock();
        let all = (0..SLOTS).flat_map(|slot| Side::ALL.map(|side| (slot, side)));
        all.filter(|(slot, side)| which(*slot, *side))
            .filter_map(|(slot, side)| state.until[slot][side.index()])
            .max()
    }
}

/// That long from now; for a length that no clock can add, in thirty years.
pub(crate) fn later(length: Duration) -> Instant {
    let now = Instant::now();
    let ages = Duration::from_secs(30 * 365 * 24 * 3_600);
    now.checked_add(length).unwrap_or_else(|| now + ages)
}
