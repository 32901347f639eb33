//! Work that ends when it is told to.

use std::{future::poll_fn, pin::pin, task::Poll};

use tokio::sync::watch;

/// What `work` comes to, unless `stopped` comes first.
pub(super) async fn unless<F: Future>(
    stopped: impl Future<Output = ()>,
    work: F,
) -> Option<F::Output> {
    let (mut stopped, mut work) = (pin!(stopped), pin!(work));
    poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => work.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Resolves when one of these has been set.
pub(super) async fn either(one: watch::Receiver<bool>, other: watch::Receiver<bool>) {
    unless(set(one), set(other)).await;
}

/// Resolves when it has been set. One whose sender is gone never will be.
pub(super) async fn set(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending::<()>().await;
    }
}
