//! Futures that survive: a panic, or the one who waits for them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::runtime;

use crate::flag::{End, Mark};
pub(super) use crate::guard::{CatchPanic, Panicked, caught};

/// What a user's hook gives, unless it panics.
pub(super) fn guarded<T>(hook: impl FnOnce() -> T) -> Option<T> {
    let given = catch_unwind(AssertUnwindSafe(hook)).ok();
    if given.is_none() {
        tracing::error!(target: "tower_migration", "a hook panicked");
    }
    given
}

/// Polls a leg whose panics pass through. Whoever catches one drops the future
/// later, which must not look as if the client had hung up.
#[inline]
fn poll_leg<T>(mark: Option<&mut Mark>, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let Some(mark) = mark else {
        return poll();
    };
    mark.set_end(End::Unknown);
    let polled = poll();
    if polled.is_pending() {
        mark.set_end(End::Dropped);
    }
    polled
}

/// [`poll_leg`], to its end.
pub(super) const fn run_leg<F: Future>(mark: Option<&mut Mark>, leg: F) -> RunLeg<'_, F> {
    RunLeg { mark, leg }
}

pin_project! {
    /// See [`run_leg`].
    pub(super) struct RunLeg<'a, F> {
        mark: Option<&'a mut Mark>,
        #[pin]
        leg: F,
    }
}

impl<F: Future> Future for RunLeg<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        poll_leg(this.mark.as_deref_mut(), || this.leg.poll(cx))
    }
}

/// Does something if it is dropped before [`disarm`](Self::disarm).
pub(super) struct IfDropped<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> IfDropped<F> {
    pub(super) const fn then(act: F) -> Self {
        Self(Some(act))
    }

    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for IfDropped<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

/// A future that is handed to a task of its own if its owner drops it before
/// its end: what it does must not stop because nobody waits for it.
pub(super) struct Detached<T: Send + 'static> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// It may be dropped outside of the runtime.
    runtime: Option<runtime::Handle>,
}

impl<T: Send + 'static> Detached<T> {
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)), runtime: Some(runtime::Handle::current()) }
    }

    /// One that is not dropped before it has been polled. The handle of a runtime is
    /// counted by all its threads, and is asked for if there is something to wait for.
    pub(super) fn polled_at_once(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)), runtime: None }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that one that panics is not handed to a task by the drop
        // that follows.
        let Some(mut future) = self.future.take() else {
            panic!("a detached future was polled after it had ended");
        };
        let poll = future.as_mut().poll(cx);
        if poll.is_pending() {
            self.runtime.get_or_insert_with(runtime::Handle::current);
            self.future = Some(future);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let (Some(future), Some(runtime)) = (self.future.take(), self.runtime.take()) {
            runtime.spawn(async move { drop(future.await) });
        }
    }
}
