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
        // The watch ends the hold at the same moment: either may be first.
        let settled = self.wait_settled(hold, lent.lost()).await;
        let (writes, oldest) = self.earlier_writes();
        let too_long = || Reason::HoldTooLong { writes, held: hold, oldest: oldest.clone() };
        let expired = lent.expired();
        let why = |reason| match reason {
            Reason::NotSettled { writes, waited, oldest } => {
                vec![Reason::HoldTooLong { writes, held: waited, oldest }]
            }
            Reason::Overtaken if expired => vec![too_long()],
            other => vec![other],
        };
        settled.map_err(why)?;
        self.check(needs)?;
        let (turn, restore) = lent.take().map_err(why)?;
        Commit { core: Arc::clone(self), turn, to, restore, copies: None }.run().await
    }
}

impl Core {
    /// The record may say another stage than the flag by now: writes wait for
    /// both sides until it says the flag's again.
    fn back_on_record(self: &Arc<Self>, turn: Turn, from: Position, restore: Option<Restore>) {
        if let Some(mut restore) = restore {
            restore.armed = false;
        }
        self.unrecorded.store(true, Ordering::SeqCst);
        self.open_epoch(Word::raised);
        let (tell, _) = oneshot::channel();
        tokio::spawn(Arc::clone(self).put_on_record(turn, from, tell));
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
        // An exit that is not on record yet wants every write on both sides,
        // whatever became of this step.
        let unrecorded = self.core.is_unrecorded();
        self.core.open_epoch(|word| if unrecorded { word.raised() } else { word });
    }
}

/// The end of a step, from the record on.
pub(super) struct Commit {
    pub(super) core: Arc<Core>,
    pub(super) to: Position,
    /// Before the turn: the flag is put back while nobody else can move it.
    pub(super) restore: Option<Restore>,
    pub(super) turn: Turn,
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
            // Those that waited may have given up on this step.
            let still_held = |core: &Core| held.is_none() || core.word().holds();
            if !still_held(&core) {
                let held = held.map_or(Duration::ZERO, |since| since.elapsed());
                return Err(vec![Reason::HoldTooLong { writes: 0, held, oldest: None }]);
            }
            // Notes of this stage must not be found in the next one. A journal that
            // hangs does not keep the flag.
            let began = Instant::now();
            core.flush_log(limit / 4).await;
            let saved = core.save(to, limit.saturating_sub(began.elapsed())).await;
            let (epoch, stored) = match saved {
                Ok(saved) if still_held(&core) => saved,
                Ok((_, stored)) => {
                    drop(stored);
                    let held = held.map_or(Duration::ZERO, |since| since.elapsed());
                    core.back_on_record(turn, from, restore);
                    return Err(vec![Reason::HoldTooLong { writes: 0, held, oldest: None }]);
                }
                Err(NotSaved { error, unknown }) => {
                    if unknown {
                        core.back_on_record(turn, from, restore);
                    }
                    return Err(vec![Reason::Store(error)]);
                }
            };
            core.unrecorded.store(false, Ordering::SeqCst);
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
