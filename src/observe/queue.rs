//! Events handed to a task of one's own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::{Disagreement, Event, Observer, ShadowRead};
use crate::flag::ConfigError;

/// An event that can be kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OwnedEvent {
    /// See [`Event::Disagreement`].
    Disagreement(Disagreement),
    /// See [`Event::Shadow`].
    Shadow(ShadowRead),
}

impl From<&Event<'_>> for OwnedEvent {
    fn from(event: &Event<'_>) -> Self {
        match *event {
            Event::Disagreement(disagreement) => Self::Disagreement(disagreement.clone()),
            Event::Shadow(read) => Self::Shadow(read.clone()),
        }
    }
}

/// An observer that hands events to whoever holds the other end, and at most
/// `capacity` that nobody has taken yet. What is beyond is lost and counted, so
/// nothing waits for a slow reader.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use tower_migration::{EventQueue, MigrationHandle, MigrationLayer, OwnedEvent};
///
/// let (queue, mut events) = EventQueue::new(1_024)?;
/// let layer = MigrationLayer::new(MigrationHandle::new("airports"), ()).observer(queue);
/// tokio::spawn(async move {
///     while let Some(event) = events.recv().await {
///         if let OwnedEvent::Shadow(read) = event {
///             println!("{}: {}", read.request, read.verdict);
///         }
///     }
/// });
/// # let _ = layer;
/// # Ok::<(), tower_migration::ConfigError>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventQueue {
    sender: mpsc::Sender<OwnedEvent>,
    lost: Arc<AtomicU64>,
}

impl EventQueue {
    /// The observer, and where its events come out. `recv` on that answers `None`
    /// once every layer with the observer is gone.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`].
    pub fn new(capacity: usize) -> Result<(Self, mpsc::Receiver<OwnedEvent>), ConfigError> {
        if capacity == 0 {
            return Err(ConfigError::Zero { limit: "EventQueue" });
        }
        let (sender, receiver) = mpsc::channel(capacity.min(tokio::sync::Semaphore::MAX_PERMITS));
        Ok((Self { sender, lost: Arc::default() }, receiver))
    }
}

impl Observer for EventQueue {
    fn observe(&self, event: &Event<'_>) {
        // Nothing is copied that there is no room for.
        match self.sender.try_reserve() {
            Ok(permit) => permit.send(event.into()),
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
