//! How the flag moves.
//!
//! One step at a time. A step first checks what it needs, then waits for the
//! writes of earlier epochs, and only then changes anything. Where the
//! authority changes, writes are *held* around the flip:
//!
//! 1. *raise*: new writes wait for both their legs, so that what follows is
//!    short;
//! 2. writes that began before that end;
//! 3. *hold*: new writes wait; those in flight end, detached legs too;
//! 4. check again: no dirty key, still synced;
//! 5. the record is written, the flag flips, the held writes go on.
//!
//! Until the record is written, dropping the caller's future (or any failure)
//! puts everything back. From then on a task of its own finishes the step.

mod confirm;
mod held;
mod hurried;
mod lent;
mod record;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{OwnedMutexGuard, OwnedRwLockWriteGuard},
    time::{Instant, timeout_at},
};

use self::{held::Commit, lent::Lent};
use super::{Blocked, Core, Kind, Moved, Reason, Word, later};
use crate::{
    reconcile::{Key, RightSide},
    stage::{Passage, Permission, Side, Stage, SyncState, Urgency, passage, permission},
};

/// Where a step is to lead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Stage(Stage),
    Next,
    Previous,
}

impl Target {
    const fn from(self, stage: Stage) -> Option<Stage> {
        match self {
            Self::Stage(stage) => Some(stage),
            Self::Next => stage.next(),
            Self::Previous => stage.previous(),
        }
    }
}

/// The right to move the flag.
type Turn = OwnedMutexGuard<()>;

/// While it is there, no copy to the authority runs.
type NoCopies = OwnedRwLockWriteGuard<()>;

impl Core {
    pub(super) async fn step(
        self: &Arc<Self>,
        target: Target,
        urgency: Urgency,
    ) -> Result<Moved, Blocked> {
        self.ensure_published();
        let result = self.try_step(target, urgency).await;
        if let Err(blocked) = &result {
            self.counters.blocked();
            tracing::warn!(target: "tower_migration", migration = %self.name(), "{blocked}");
        }
        result
    }

    async fn try_step(
        self: &Arc<Self>,
        target: Target,
        urgency: Urgency,
    ) -> Result<Moved, Blocked> {
        let asked_at = self.word().stage();
        let turn = self.turn(target, urgency).await?;
        let from = self.word().stage();
        if from != asked_at && !matches!(target, Target::Stage(_)) {
            // Somebody moved the flag while this call waited for its turn: one
            // step was asked for, not one more from wherever it is now.
            return if target.from(asked_at) == Some(from) {
                Ok(self.moved(from, Duration::ZERO, Vec::new()))
            } else {
                let to = target.from(asked_at);
                Err(Blocked::new(from, to, vec![Reason::Overtaken]))
            };
        }
        let blocked = |reasons| Blocked::new(from, target.from(from), reasons);
        let Some(to) = target.from(from) else {
            return Err(blocked(vec![Reason::NoSuchStage]));
        };
        let passage = passage(from, to, urgency);
        match passage {
            Passage::Stay => return Ok(self.moved(from, Duration::ZERO, Vec::new())),
            Passage::Jump => return Err(blocked(vec![Reason::NotNeighbour])),
            Passage::Flip | Passage::Held | Passage::Emergency => {}
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(blocked(vec![Reason::ShutDown]));
        }
        let needs = permission(from, to, urgency);
        self.check(needs).map_err(blocked)?;
        if passage == Passage::Emergency {
            return Ok(self.exit(turn, to).await);
        }
        let lent = Lent::new(Arc::clone(self), turn);
        if needs.settled {
            let waited = self.wait_settled(self.options.step_deadline, lent.lost()).await;
            waited.map_err(|r| blocked(vec![r]))?;
        }
        let copies = match needs.copies_ended {
            true => Some(self.shut_out_copies(lent.lost()).await.map_err(|r| blocked(vec![r]))?),
            false => None,
        };
        // What ended meanwhile may have left something behind.
        self.check(needs).map_err(blocked)?;
        if passage == Passage::Held {
            return self.held(lent, to, needs).await.map_err(blocked);
        }
        let (turn, restore) = lent.take().map_err(|r| blocked(vec![r]))?;
        let commit = Commit { core: Arc::clone(self), turn, to, restore, copies };
        commit.run().await.map_err(blocked)
    }

    /// Waits for nobody, but makes a waiting step give way to the emergency
    /// exit.
    async fn turn(&self, target: Target, urgency: Urgency) -> Result<Turn, Blocked> {
        if let Ok(turn) = Arc::clone(&self.step).try_lock_owned() {
            return Ok(turn);
        }
        let stage = self.word().stage();
        if urgency == Urgency::Emergency && stage == Stage::ReadNew {
            return Ok(self.overtake().await);
        }
        Err(Blocked::new(stage, target.from(stage), vec![Reason::Busy]))
    }

    pub(super) async fn overtake(&self) -> Turn {
        struct Overtaking<'a>(&'a Core);
        impl Drop for Overtaking<'_> {
            fn drop(&mut self) {
                self.0.overtaking.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.overtaking.fetch_add(1, Ordering::SeqCst);
        let _overtaking = Overtaking(self);
        self.overtaken.notify_waiters();
        Arc::clone(&self.step).lock_owned().await
    }

    /// Everything that stands against a step right now.
    pub(super) fn check(&self, needs: Permission) -> Result<(), Vec<Reason>> {
        let mut reasons = Vec::new();
        let sync = self.sync();
        if let Some(side) = needs.lacks(sync) {
            reasons.push(Reason::NotSynced { side, state: sync.get(side) });
        }
        let dirty = self.dirty();
        for right in Side::ALL {
            let (count, oldest) = dirty.count(RightSide::Is(right));
            if needs.forbids(RightSide::Is(right)) && count > 0 {
                let oldest = oldest.unwrap_or_default();
                reasons.push(Reason::DirtyKeys { right, count, oldest });
            }
        }
        let (count, oldest) = dirty.count(RightSide::Conflict);
        if needs.forbids(RightSide::Conflict) && count > 0 {
            let oldest = oldest.unwrap_or_default();
            reasons.push(Reason::Conflicts { count, oldest });
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Whether somebody has the turn, or waits for it. Looks without taking it:
    /// else a status page could make a step fail.
    pub(in crate::flag) fn is_stepping(&self) -> bool {
        Arc::strong_count(&self.step) > 1
    }

    pub(crate) fn is_settled(&self) -> bool {
        let slot = self.word().settling_slot();
        self.ledger.earlier_writes(slot) == 0 && !self.ledger.is_lingering(slot)
    }

    /// Waits for the writes of earlier epochs, at most `limit`, or until the
    /// step has lost its turn.
    pub(super) async fn wait_settled(
        &self,
        limit: Duration,
        lost: impl Future<Output = ()>,
    ) -> Result<(), Reason> {
        let began = Instant::now();
        let settled = self.ledger.settled(|| self.word().settling_slot());
        match timeout_at(later(limit), first_of(settled, lost)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(Reason::Overtaken),
            Err(_) => {
                let writes = self.ledger.earlier_writes(self.word().settling_slot());
                Err(Reason::NotSettled { writes, waited: began.elapsed() })
            }
        }
    }

    /// Waits until no copy to the authority is left, and lets no new one in.
    async fn shut_out_copies(&self, lost: impl Future<Output = ()>) -> Result<NoCopies, Reason> {
        let began = Instant::now();
        let ended = Arc::clone(&self.copies).write_owned();
        match timeout_at(later(self.options.step_deadline), first_of(ended, lost)).await {
            Ok(Ok(none)) => Ok(none),
            Ok(Err(())) => Err(Reason::Overtaken),
            Err(_) => {
                let target = self.word().stage().authority();
                let writes = self.ledger.in_flight(Kind::other_write(target));
                Err(Reason::NotSettled { writes, waited: began.elapsed() })
            }
        }
    }

    pub(super) async fn is_overtaken(&self) {
        loop {
            let mut overtaken = pin!(self.overtaken.notified());
            overtaken.as_mut().enable();
            if self.overtaking.load(Ordering::SeqCst) > 0 {
                return;
            }
            overtaken.await;
        }
    }

    pub(in crate::flag) async fn close(&self) {
        self.ledger.quiet().await;
        // A step under way is waited for; one that cannot come to an end, since
        // its store does not answer, is made to give way.
        let patience = self.options.step_deadline.saturating_add(self.options.hold);
        let turn = timeout_at(later(patience), Arc::clone(&self.step).lock_owned()).await;
        let _turn = match turn {
            Ok(turn) => turn,
            Err(_) => self.overtake().await,
        };
        self.shut_down.store(true, Ordering::SeqCst);
        self.save_clean().await;
        self.publish();
    }

    // === the parts of a step ===

    /// The word of the next epoch, at `stage`.
    fn next_word(&self, stage: Stage, epoch: u64) -> Word {
        let now = self.word();
        match self.ledger.free_slot(now.slot()) {
            Some(slot) => Word::new(stage, epoch, slot),
            None => Word::new(stage, epoch, now.slot()).shared(),
        }
    }

    /// Opens an epoch in the present stage.
    pub(super) fn open_epoch(&self, flags: impl FnOnce(Word) -> Word) {
        let now = self.word();
        self.set_word(flags(self.next_word(now.stage(), now.epoch() + 1)));
    }

    pub(super) fn set_word(&self, word: Word) {
        self.gate().store(word);
        self.ledger.look_again();
        if !word.holds() {
            self.released.notify_waiters();
        }
    }

    /// Opens an epoch in another stage.
    pub(super) fn flip(&self, to: Stage, epoch: u64, flags: impl FnOnce(Word) -> Word) {
        let from = self.word().stage();
        if !to.is_two_sided() {
            self.set_sync(to.authority().other(), SyncState::Unsynced);
        }
        let word = flags(self.next_word(to, epoch));
        self.set_word(word);
        if !to.is_two_sided() {
            self.dirty().one_sided(to);
        }
        self.counters.step(from, to);
        self.changes.send_replace(to);
        if self.in_memory && !self.warned_in_memory.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.name(),
                "the stage is kept in memory only: a restart forgets it"
            );
        }
        tracing::info!(
            target: "tower_migration",
            migration = %self.name(), %from, %to, epoch = word.epoch(),
            "stage changed"
        );
    }

    pub(super) fn moved(&self, from: Stage, held: Duration, tainted: Vec<Key>) -> Moved {
        let word = self.word();
        let upgraded = self.upgraded.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        if upgraded > 0 && word.stage() != from {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.name(),
                upgraded,
                "upgraded connections stay with the side they began on"
            );
        }
        let sync = self.sync().get(word.stage().authority());
        Moved { from, to: word.stage(), epoch: word.epoch(), held, tainted, sync, upgraded }
    }
}

/// Which of the two comes first; the first one wins a tie.
async fn first_of<T>(
    first: impl Future<Output = T>,
    second: impl Future<Output = ()>,
) -> Result<T, ()> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(first) => Poll::Ready(Ok(first)),
        Poll::Pending => second.as_mut().poll(cx).map(Err),
    })
    .await
}
