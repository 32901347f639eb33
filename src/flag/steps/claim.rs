//! The right to move the flag: within this process, and among all that share
//! its store.

use std::{sync::Arc, time::Duration};

use tokio::sync::OwnedMutexGuard;

use crate::{
    flag::{Claim, Core, Reason, StoreError, StoreErrorKind, asking::asked},
    reconcile::RightSide,
    stage::{Side, Urgency},
};

/// How long a step in a hurry waits for the store's word that nobody else is
/// there.
const HURRY: Duration = Duration::from_millis(50);

/// The right to move the flag.
#[derive(Debug)]
pub(in crate::flag) struct Turn {
    _lock: OwnedMutexGuard<()>,
    claim: Option<Arc<Claim>>,
}

impl Turn {
    pub(super) fn new(lock: OwnedMutexGuard<()>) -> Self {
        Self { _lock: lock, claim: None }
    }

    /// Lets others in this process move the flag, and still nobody join.
    pub(super) fn give_way(self) -> Option<Arc<Claim>> {
        self.claim
    }
}

impl Core {
    /// Makes sure that no other instance misses the step. A step in a hurry is
    /// kept by nothing but another instance.
    pub(super) async fn claim(&self, turn: Turn, urgency: Urgency) -> Result<Turn, Reason> {
        if self.follows() {
            return Err(Reason::Follower);
        }
        let limit = match urgency {
            Urgency::Orderly => self.options.hold,
            Urgency::Emergency => HURRY,
        };
        match self.ask_claim(limit).await {
            Ok(claim) => Ok(Turn { claim: Some(claim), ..turn }),
            Err(error) if error.kind() == StoreErrorKind::Shared => Err(Reason::Shared),
            Err(error) if urgency == Urgency::Orderly => Err(Reason::Store(error)),
            Err(error) => {
                self.unclaimed(&error);
                Ok(turn)
            }
        }
    }

    /// For a step that nothing keeps.
    pub(super) async fn claim_by_force(&self, turn: Turn) -> Result<Turn, Reason> {
        if self.follows() {
            return Err(Reason::Follower);
        }
        match self.ask_claim(HURRY).await {
            Ok(claim) => Ok(Turn { claim: Some(claim), ..turn }),
            Err(error) => {
                self.unclaimed(&error);
                Ok(turn)
            }
        }
    }

    fn unclaimed(&self, error: &StoreError) {
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(), %error,
            "a step is taken although another process may miss it"
        );
    }

    /// The turn, after it was given away.
    pub(super) async fn turn_again(&self, claim: Option<Arc<Claim>>) -> Turn {
        Turn { claim, ..Turn::new(Arc::clone(&self.step).lock_owned().await) }
    }

    /// Whether something is known of the sides that is on nobody's record.
    pub(super) fn has_doubts(&self) -> bool {
        use std::sync::atomic::Ordering;
        let dirty = self.dirty();
        let marks = [RightSide::Is(Side::Old), RightSide::Is(Side::New), RightSide::Conflict];
        marks.into_iter().any(|right| dirty.count(right).0 > 0)
            || self.untracked.iter().any(|count| count.load(Ordering::SeqCst) > 0)
    }

    pub(super) async fn leave(&self, doubt: bool) {
        let store = Arc::clone(&self.store);
        let left = asked(self.options.step_deadline, async move { store.leave(doubt).await }).await;
        if let Err(error) = left {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(), %error, hint = error.lifted_by(),
                "this process could not say that it stops"
            );
        }
    }
}
