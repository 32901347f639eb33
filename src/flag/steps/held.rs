//! The flip under which writes are held, and the end of every orderly step.

use std::sync::Arc;

use tokio::time::Instant;

use super::Turn;
use crate::{
    flag::{Core, Moved, Reason, StoreError, Word},
    stage::{Permission, Stage},
};

impl Core {
    /// The flip under which writes are held.
    pub(super) async fn held(
        self: &Arc<Self>,
        turn: Turn,
        to: Stage,
        needs: Permission,
    ) -> Result<Moved, Vec<Reason>> {
        let mut restore = Restore { core: Arc::clone(self), held: None, armed: true };
        self.open_epoch(Word::raised).map_err(|r| vec![r])?;
        self.wait_settled(self.options.step_deadline).await.map_err(|r| vec![r])?;

        restore.held = Some(Instant::now());
        self.open_epoch(|word| word.raised().holding()).map_err(|r| vec![r])?;
        self.wait_settled(self.options.hold).await.map_err(|reason| {
            vec![match reason {
                Reason::NotSettled { writes, waited } => {
                    Reason::HoldTooLong { writes, held: waited }
                }
                other => other,
            }]
        })?;
        self.check(needs)?;
        let slot = self.slot().map_err(|r| vec![r])?;
        let core = Arc::clone(self);
        Commit { core, turn, to, slot, restore: Some(restore) }.run().await
    }
}

/// Puts the stage back as it was, without raise and hold, unless disarmed.
pub(super) struct Restore {
    core: Arc<Core>,
    held: Option<Instant>,
    armed: bool,
}

impl Drop for Restore {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if self.core.open_epoch(|word| word).is_err() {
            // Every slot is in use: stay in this one.
            let now = self.core.word();
            self.core.set_word(Word::new(now.stage(), now.epoch() + 1, now.slot()));
        }
    }
}

/// The end of a step, from the record on.
pub(super) struct Commit {
    pub(super) core: Arc<Core>,
    pub(super) turn: Turn,
    pub(super) to: Stage,
    pub(super) slot: usize,
    pub(super) restore: Option<Restore>,
}

impl Commit {
    /// In a task of its own: once the record may be written, nobody's dropped
    /// future can leave the flag behind it.
    pub(super) async fn run(self) -> Result<Moved, Vec<Reason>> {
        let task = tokio::spawn(async move {
            let Self { core, turn, to, slot, mut restore } = self;
            let word = core.word();
            let epoch = word.epoch() + 1;
            if let Err(error) = core.save(to, epoch).await {
                return Err(vec![Reason::Store(error)]);
            }
            core.flip(Word::new(to, epoch, slot));
            let held = restore.as_mut().and_then(|restore| {
                restore.armed = false;
                restore.held.map(|since| since.elapsed())
            });
            drop(turn);
            Ok(core.moved(word.stage(), held.unwrap_or_default(), Vec::new()))
        });
        match task.await {
            Ok(result) => result,
            // The runtime is shutting down, or the store panicked.
            Err(error) => Err(vec![Reason::Store(StoreError::new(error))]),
        }
    }
}
