//! That a side holds all data: the operator's word, or a run's that has seen to it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::claim::Turn;
use crate::{
    flag::{Blocked, Core, Reason},
    stage::{Side, SyncState, Urgency},
};

impl Core {
    pub(in crate::flag) async fn confirm(&self, side: Side) -> Result<(), Blocked> {
        let turn = Arc::clone(&self.step).try_lock_owned();
        // Read with the turn in hand: nobody moves the flag from here on.
        let stage = self.word().stage();
        let blocked = |reason| Blocked::new(stage, None, vec![reason]);
        let Ok(turn) = turn else {
            return Err(blocked(Reason::Busy));
        };
        if !stage.is_two_sided() {
            return Err(blocked(Reason::OneSided));
        }
        if !self.is_settled() {
            return Err(blocked(self.not_settled(Duration::ZERO)));
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(blocked(Reason::ShutDown));
        }
        self.confirm_on_record(Turn::new(turn), side, self.span(side)).await.map_err(blocked)?;
        Ok(())
    }

    /// The word of a run that began when the side's span was this one: everything was
    /// copied to it, or compared. Waits for a step that is under way. Answers whether
    /// the run still counts.
    pub(crate) async fn attest(&self, side: Side, span: u64) -> Result<bool, Blocked> {
        loop {
            self.ledger.settled(|| self.word().settling_slot()).await;
            let turn = Turn::new(Arc::clone(&self.step).lock_owned().await);
            if !self.is_settled() {
                continue;
            }
            let stage = self.word().stage();
            if !stage.is_two_sided() || stage.authority() == side || self.span(side) != span {
                return Ok(false);
            }
            let blocked = |reason| Blocked::new(stage, None, vec![reason]);
            if self.shut_down.load(Ordering::SeqCst) {
                return Err(blocked(Reason::ShutDown));
            }
            return match self.confirm_on_record(turn, side, span).await {
                Ok(()) => Ok(self.is_synced(side)),
                // A lost instance, or a write that failed meanwhile.
                Err(Reason::NotSynced { .. }) => Ok(false),
                Err(reason) => Err(blocked(reason)),
            };
        }
    }

    /// With the turn in hand: the side is synced, and on record as such, unless its
    /// span is another one by then.
    async fn confirm_on_record(&self, turn: Turn, side: Side, span: u64) -> Result<(), Reason> {
        // What another instance knows of the side, this one does not.
        let trusted = self.sync().get(side);
        let _turn = self.claim(turn, Urgency::Orderly).await?;
        let state = self.sync().get(side);
        if state < trusted {
            // That an instance was lost is news to whoever gave their word.
            return Err(Reason::NotSynced { side, state });
        }
        // Set before it is saved: a failure meanwhile makes it suspect again,
        // and that stays.
        let untracked = self.untracked[side.index()].load(Ordering::Relaxed);
        self.set_sync(side, SyncState::Synced);
        let confirming = Confirming { core: self, side, before: state, armed: true };
        if self.span(side) != span {
            // A write has failed just before.
            return Err(Reason::NotSynced { side, state });
        }
        let at = self.word().position();
        let saved = self.save(at, self.options.step_deadline).await;
        drop(saved.map_err(|failed| Reason::Store(failed.error))?);
        confirming.done();
        // Else a kill from here on finds the journal's word, which is older.
        self.note_side(side);
        self.flush_log(self.options.hold).await;
        self.untracked[side.index()].fetch_sub(untracked, Ordering::Relaxed);
        tracing::info!(
            target: "tower_migration",
            migration = %self.name(), %side, untracked,
            "side confirmed to hold all data"
        );
        Ok(())
    }
}

/// Puts a side's state back if its confirmation is not on record, unless it has
/// become worse meanwhile.
struct Confirming<'a> {
    core: &'a Core,
    side: Side,
    before: SyncState,
    armed: bool,
}

impl Confirming<'_> {
    fn done(mut self) {
        self.armed = false;
    }
}

impl Drop for Confirming<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.core.change_sync(self.side, SyncState::Synced, self.before);
        }
    }
}
