//! A future whose panic stays with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// The payload of a panic was caught, and dropped: the panic hook has seen it.
#[derive(Debug)]
pub(crate) struct Panicked;

pin_project! {
    /// Ends with [`Panicked`] instead of unwinding into its owner.
    pub(crate) struct CatchPanic<F> {
        #[pin]
        future: F,
    }
}

impl<F> CatchPanic<F> {
    pub(crate) const fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        // The future is not polled again after a panic: callers end with it.
        match caught(|| future.poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(Panicked) => Poll::Ready(Err(Panicked)),
        }
    }
}

/// What `does` gives, unless it panics.
pub(crate) fn caught<T>(does: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(does)).map_err(|payload| {
        // A payload whose drop panics must not get out either.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Panicked
    })
}
