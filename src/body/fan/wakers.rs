//! One waker that wakes both branches.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Wake, Waker},
};

/// The last waker of each branch that is waiting.
///
/// It is what the source is polled with: the branch that polled it last may
/// never poll again, and its sibling would wait for ever.
///
/// A waker is somebody else's code, and the task behind it may own a branch. So
/// none is cloned, woken or dropped while a lock is held.
#[derive(Debug, Default)]
pub(super) struct Wakers([Mutex<Option<Waker>>; 2]);

impl Wakers {
    fn slot(&self, lane: usize) -> MutexGuard<'_, Option<Waker>> {
        self.0[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before looking for the last time at what is waited for.
    pub(super) fn register(&self, lane: usize, waker: &Waker) {
        let known = self.slot(lane).as_ref().is_some_and(|known| known.will_wake(waker));
        if !known {
            let waker = waker.clone();
            let before = self.slot(lane).replace(waker);
            drop(before);
        }
    }

    /// The branch waits no longer.
    pub(super) fn forget(&self, lane: usize) {
        let before = self.slot(lane).take();
        drop(before);
    }

    pub(super) fn wake_one(&self, lane: usize) {
        let waker = self.slot(lane).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_one(0);
        self.wake_one(1);
    }
}
