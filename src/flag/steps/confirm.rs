//! The operator's word that a side holds all data.

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
        // What another instance knows of the side, this one does not.
        let turn = Turn::new(turn);
        let trusted = self.sync().get(side);
        let _turn = self.claim(turn, Urgency::Orderly).await.map_err(blocked)?;
        let state = self.sync().get(side);
        if state < trusted {
            // That an instance was lost is news to whoever gave their word.
            return Err(blocked(Reason::NotSynced { side, state }));
        }
        // Set before it is saved: a failure meanwhile makes it suspect again,
        // and that stays.
        let before = self.sync().get(side);
        let untracked = self.untracked[side.index()].load(Ordering::Relaxed);
        self.set_sync(side, SyncState::Synced);
        let confirming = Confirming { core: self, side, before, armed: true };
        let at = self.word().position();
        let saved = self.save(at, self.options.step_deadline).await;
        drop(saved.map_err(|failed| blocked(Reason::Store(failed.error)))?);
        confirming.done();
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
