//! The right to move the flag: within this process, and among all that share
//! its store.

use std::sync::Arc;

use tokio::{sync::OwnedMutexGuard, time::timeout_at};

use crate::{
    flag::{Claim, Core, Reason, StoreError, StoreErrorKind, later},
    reconcile::RightSide,
    stage::{Side, Urgency},
};

/// The right to move the flag.
#[derive(Debug)]
pub(in crate::flag) struct Turn {
    _lock: OwnedMutexGuard<()>,
    _claim: Option<Arc<Claim>>,
}

impl Turn {
    pub(super) fn new(lock: OwnedMutexGuard<()>) -> Self {
        Self { _lock: lock, _claim: None }
    }
}

impl Core {
    /// Makes sure that no other instance misses the step. A step in a hurry is
    /// kept by nothing but another instance.
    pub(super) async fn claim(&self, turn: Turn, urgency: Urgency) -> Result<Turn, Reason> {
        if self.follows() {
            return Err(Reason::Follower);
        }
        match self.ask_claim().await {
            Ok(claim) => Ok(Turn { _claim: Some(claim), ..turn }),
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
        match self.ask_claim().await {
            Ok(claim) => Ok(Turn { _claim: Some(claim), ..turn }),
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
    pub(super) async fn turn_again(&self) -> Turn {
        let turn = Turn::new(Arc::clone(&self.step).lock_owned().await);
        match self.ask_claim().await {
            Ok(claim) => Turn { _claim: Some(claim), ..turn },
            Err(_) => turn,
        }
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
        let leaving = timeout_at(later(self.options.step_deadline), self.store.leave(doubt));
        let left = leaving.await.unwrap_or_else(|_| {
            Err(StoreError::of(StoreErrorKind::Other, "the flag's store did not answer in time"))
        });
        if let Err(error) = left {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(), %error, hint = error.lifted_by(),
                "this process could not say that it stops"
            );
        }
    }
}
