//! The flip under which writes are held, and the end of every orderly step.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{NoCopies, claim::Turn, lent::Lent, record::NotSaved};
use crate::{
    flag::{Core, Moved, Reason, StoreError, Word, gate::Position},
    stage::Permission,
};

impl Core {
    /// The flip under which writes are held.
    pub(super) async fn held(
        self: &Arc<Self>,
        mut lent: Lent,
        to: Position,
        needs: Permission,
    ) -> Result<Moved, Vec<Reason>> {
        let one = |reason| vec![reason];
        let restore = Restore { core: Arc::clone(self), held: None, armed: true };
        lent.change(restore, |core| core.open_epoch(Word::raised)).map_err(one)?;
        self.wait_settled(self.options.step_deadline, lent.lost()).await.map_err(one)?;

        let hold = self.options.hold;
        lent.hold(hold, |core| core.open_epoch(|word| word.raised().holding())).map_err(one)?;
        // The watch ends the hold at the same moment; which of the two is first
        // does not matter.
        let settled = self.wait_settled(hold, lent.lost()).await;
        settled.map_err(|reason| {
            one(match reason {
                Reason::NotSettled { writes, waited, oldest } => {
                    Reason::HoldTooLong { writes, held: waited, oldest }
                }
                other => other,
            })
        })?;
        self.check(needs)?;
        let (turn, restore) = lent.take().map_err(one)?;
        Commit { core: Arc::clone(self), turn, to, restore, copies: None }.run().await
    }
}

/// Puts the stage back as it was, without raise and hold, unless disarmed.
pub(super) struct Restore {
    core: Arc<Core>,
    held: Option<Instant>,
    armed: bool,
}

impl Restore {
    pub(super) fn holds(&mut self) {
        self.held = Some(Instant::now());
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.core.open_epoch(|word| word);
    }
}

/// The end of a step, from the record on.
pub(super) struct Commit {
    pub(super) core: Arc<Core>,
    pub(super) turn: Turn,
    pub(super) to: Position,
    pub(super) restore: Option<Restore>,
    /// Kept until the flag has flipped.
    pub(super) copies: Option<NoCopies>,
}

impl Commit {
    /// In a task of its own: once the record may be written, nobody's dropped
    /// future can leave the flag behind it.
    pub(super) async fn run(self) -> Result<Moved, Vec<Reason>> {
        let task = tokio::spawn(async move {
            let Self { core, turn, to, mut restore, copies: _copies } = self;
            let from = core.word().position();
            let held = restore.as_ref().and_then(|restore| restore.held);
            // Writes are not held longer because the store is slow.
            let limit = held.map_or(core.options.step_deadline, |since| {
                core.options.hold.saturating_sub(since.elapsed())
            });
            let saved = core.save(to, limit).await;
            let (epoch, stored) = match saved {
                Ok(saved) => saved,
                Err(NotSaved { error, unknown }) => {
                    if unknown {
                        // The record may say `to` now: writes wait for both
                        // sides until it says `from` again.
                        if let Some(restore) = &mut restore {
                            restore.armed = false;
                        }
                        core.unrecorded.store(true, Ordering::SeqCst);
                        core.open_epoch(Word::raised);
                        let (tell, _) = oneshot::channel();
                        tokio::spawn(Arc::clone(&core).put_on_record(turn, from, tell));
                    }
                    return Err(vec![Reason::Store(error)]);
                }
            };
            core.flip(to, epoch, |word| word);
            drop(stored);
            if let Some(restore) = &mut restore {
                restore.armed = false;
            }
            drop(turn);
            let held = held.map_or(Duration::ZERO, |since| since.elapsed());
            Ok(core.moved(from.stage, held, Vec::new()))
        });
        match task.await {
            Ok(result) => result,
            // The runtime is shutting down.
            Err(error) => Err(vec![Reason::Store(StoreError::new(error))]),
        }
    }
}
