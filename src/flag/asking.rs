//! Asking a store, which may hang, panic, or answer late.

use std::time::Duration;

use tokio::time::timeout_at;

use super::{StoreError, StoreErrorKind, later};

/// What the store answers within `limit`. In a task, so that a store that
/// panics takes nobody with it; one that was given up is not asked any further.
pub(super) async fn asked<T: Send + 'static>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let mut task = AbortOnDrop(tokio::spawn(call));
    match timeout_at(later(limit), &mut task.0).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => Err(StoreError::new(panicked).with_kind(StoreErrorKind::Unknown)),
        Err(_) => Err(late()),
    }
}

pub(super) fn late() -> StoreError {
    StoreError::of(StoreErrorKind::Unknown, "the flag's store did not answer in time")
}

/// Ends its task when it is dropped.
pub(super) struct AbortOnDrop<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
