//! `tokio::sync::Notify`, as far as the ledger uses it.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::atomic::{AtomicU64, increment, load};

/// Wakes whoever armed before the wake-up. As tokio's, it remembers by a count
/// of wake-ups, which arming reads without a lock.
pub(crate) struct Notify {
    count: AtomicU64,
    /// Behind std's lock, which loom does not see: it hands nothing from one
    /// thread to another that the count does not.
    waiters: Mutex<Vec<Arc<loom::sync::Notify>>>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { count: AtomicU64::new(0), waiters: Mutex::default() }
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, armed_at: load(&self.count) }
    }

    pub(crate) fn notify_waiters(&self) {
        increment(&self.count);
        let waiters = std::mem::take(&mut *self.waiters());
        waiters.iter().for_each(|waiter| waiter.notify());
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<loom::sync::Notify>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    armed_at: u64,
}

impl Future for Notified<'_> {
    type Output = ();

    /// Blocks the thread: a wake-up that never comes is a deadlock, which loom
    /// reports.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let waiter = Arc::new(loom::sync::Notify::new());
        self.notify.waiters().push(Arc::clone(&waiter));
        while load(&self.notify.count) == self.armed_at {
            waiter.wait();
        }
        Poll::Ready(())
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("what it waits for blocks"),
    }
}

/// What hyper does to a request whose client hangs up.
pub(crate) fn poll_once_and_drop(future: impl Future<Output = ()>) {
    let polled = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it is dropped on the way");
}
