//! The one place where the branches' lock is taken.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{
    piece::Piece,
    source::{Arrived, Source, SourceBody},
    state::State,
    wakers::Wakers,
};

/// What is to be done once the lock is free.
#[derive(Default)]
pub(super) struct After {
    pub(super) wake: [bool; 2],
    /// Whoever waits for a branch's end should look again.
    pub(super) ended: bool,
    pub(super) dropped: Dropped,
}

/// Things whose drop may run a user's code.
#[derive(Default)]
pub(super) struct Dropped {
    pub(super) source: Option<Source>,
    pub(super) body: Option<SourceBody>,
    pub(super) arrived: Option<Arrived>,
    pub(super) queues: [VecDeque<Piece>; 2],
}

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wakers: Arc<Wakers>,
    ended: Notify,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), wakers: Arc::default(), ended: Notify::new() }
    }

    /// Takes a step under the lock, and then, without it, does what it left to
    /// do.
    pub(super) fn with<T>(&self, step: impl FnOnce(&mut State, &mut After) -> T) -> T {
        let mut after = After::default();
        let result =
            step(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), &mut after);
        for lane in [0, 1] {
            if after.wake[lane] {
                self.wakers.wake_one(lane);
            }
        }
        if after.ended {
            self.ended.notify_waiters();
        }
        // Last: what is dropped may panic.
        drop(after);
        result
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn ended(&self, lane: usize) {
        loop {
            // It hears of what comes after this line.
            let changed = self.ended.notified();
            if self.look(|state| state.has_ended(lane)) {
                return;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
