//! How the flag moves.
//!
//! One step at a time. A step first checks what it needs, then waits for the
//! writes of earlier epochs, asks the gates if it leads towards new, and only
//! then changes anything. Where the
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

mod automatic;
mod claim;
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
    sync::OwnedRwLockWriteGuard,
    time::{Instant, timeout_at},
};

pub(super) use self::record::Stored;
use self::{claim::Turn, held::Commit, lent::Lent};
use super::{Blocked, Core, Kind, Moved, OldestWrite, Reason, Word, gate::Position, later};
use crate::{
    reconcile::{Key, RightSide},
    stage::{
        Passage, Permission, Share, Side, Stage, SyncState, Urgency, passage, permission,
        ramp_passage, ramp_permission,
    },
};

/// Where a step is to lead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Stage(Stage),
    Next,
    Previous,
    /// Another share of the keys, in the same stage.
    Ramp(Share),
}

impl Target {
    fn from(self, at: Position) -> Option<Position> {
        match self {
            Self::Stage(stage) if stage == at.stage => Some(at),
            Self::Stage(stage) => Some(stage.into()),
            Self::Next => at.stage.next().map(Position::from),
            // The end of a ramp is the step before its beginning.
            Self::Previous if !at.share.is_none() => Some(at.stage.into()),
            Self::Previous => at.stage.previous().map(Position::from),
            Self::Ramp(share) => Some(Position { stage: at.stage, share }),
        }
    }
}

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
        let asked_at = self.word().position();
        let turn = self.turn(target, urgency).await?;
        let from = self.word().position();
        if from != asked_at && !matches!(target, Target::Stage(_)) {
            // Somebody moved the flag while this call waited for its turn: one
            // step was asked for, not one more from wherever it is now.
            return if target.from(asked_at) == Some(from) {
                Ok(self.moved(from.stage, Duration::ZERO, Vec::new()))
            } else {
                let to = target.from(asked_at).map(|to| to.stage);
                Err(Blocked::new(from.stage, to, vec![Reason::Overtaken]))
            };
        }
        let to = target.from(from);
        let blocked = |reasons| Blocked::new(from.stage, to.map(|to| to.stage), reasons);
        let Some(to) = to else {
            return Err(blocked(vec![Reason::NoSuchStage]));
        };
        if !to.share.is_none() && to.stage != Stage::WriteBoth {
            return Err(blocked(vec![Reason::NoRamp]));
        }
        let passage = passage_between(from, to, urgency);
        match passage {
            Passage::Stay => return Ok(self.moved(from.stage, Duration::ZERO, Vec::new())),
            Passage::Jump => return Err(blocked(vec![Reason::NotNeighbour])),
            Passage::Flip if !from.share.is_none() => return Err(blocked(vec![Reason::Ramping])),
            Passage::Flip | Passage::Held | Passage::Emergency => {}
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(blocked(vec![Reason::ShutDown]));
        }
        let turn = self.claim(turn, urgency).await.map_err(|reason| blocked(vec![reason]))?;
        let needs = permission_between(from, to, urgency);
        // More keys that read new are a part of the step to `ReadNew`.
        let up = from.stage == to.stage && to.share > from.share;
        let toward = if up { Stage::ReadNew } else { to.stage };
        if let Err(mut reasons) = self.check(needs) {
            reasons.extend(self.refusals(from.stage, toward));
            return Err(blocked(reasons));
        }
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
        let mut reasons = self.check(needs).err().unwrap_or_default();
        reasons.extend(self.refusals(from.stage, toward));
        if !reasons.is_empty() {
            return Err(blocked(reasons));
        }
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
            return Ok(Turn::new(turn));
        }
        let at = self.word().position();
        let to = target.from(at);
        let exit = to.is_some_and(|to| passage_between(at, to, urgency) == Passage::Emergency);
        if exit {
            return Ok(self.overtake().await);
        }
        Err(Blocked::new(at.stage, to.map(|to| to.stage), vec![Reason::Busy]))
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
        Turn::new(Arc::clone(&self.step).lock_owned().await)
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
            Err(_) => Err(self.not_settled(began.elapsed())),
        }
    }

    /// What keeps the stage from being settled.
    fn not_settled(&self, waited: Duration) -> Reason {
        let (writes, oldest) = self.earlier_writes();
        Reason::NotSettled { writes, waited, oldest }
    }

    /// How many writes of earlier epochs run, and the oldest.
    pub(in crate::flag) fn earlier_writes(&self) -> (u64, Option<OldestWrite>) {
        let slot = self.word().settling_slot();
        let writes = self.ledger.earlier_writes(slot);
        // It may have ended in between.
        (writes, self.ledger.oldest_write(slot).filter(|_| writes > 0))
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
                let oldest = None;
                Err(Reason::NotSettled { writes, waited: began.elapsed(), oldest })
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
            Ok(turn) => Turn::new(turn),
            Err(_) => self.overtake().await,
        };
        self.shut_down.store(true, Ordering::SeqCst);
        let follows = self.follows();
        if !follows {
            self.save_clean().await;
        }
        // A follower's dirty keys are on nobody's record.
        self.leave(follows && self.has_doubts()).await;
        self.publish();
    }

    // === the parts of a step ===

    /// The word of the next epoch, `at` this position.
    fn next_word(&self, at: Position, epoch: u64) -> Word {
        let now = self.word();
        match self.ledger.free_slot(now.slot()) {
            Some(slot) => Word::new(at, epoch, slot),
            None => Word::new(at, epoch, now.slot()).shared(),
        }
    }

    /// Opens an epoch where the flag stands.
    pub(super) fn open_epoch(&self, flags: impl FnOnce(Word) -> Word) {
        let now = self.word();
        self.set_word(flags(self.next_word(now.position(), now.epoch() + 1)));
    }

    pub(super) fn set_word(&self, word: Word) {
        let before = self.word();
        self.gate().store(word);
        if !word.raises() {
            self.unrecorded.store(false, Ordering::SeqCst);
        }
        self.ledger.moved(before, word);
        if !word.holds() {
            self.released.notify_waiters();
        }
    }

    /// The order of keys ends where the one-sided stages begin. A leg of the
    /// stage before may still run, or queue for its turn, when its client has
    /// gone and sends the same key again: that newer write must not be passed by
    /// it. So new writes wait until the legs on their side have ended, as long
    /// as any hold may last; the flag has moved, and reads go on.
    fn release_after_legs(&self, word: Word, side: Side) {
        let release = move |core: &Self| {
            if core.gate().release(word) {
                core.released.notify_waiters();
            }
        };
        let (true, Some(core)) = (self.order.has_legs_on(side), self.me.upgrade()) else {
            return release(self);
        };
        tokio::spawn(async move {
            let ended = core.order.until(|| !core.order.has_legs_on(side));
            if timeout_at(later(core.options.hold), ended).await.is_err() {
                let (keys, _) = core.order.running_on(side);
                tracing::warn!(
                    target: "tower_migration",
                    migration = %core.name(), %side, keys = ?keys.get(..16).unwrap_or(&keys),
                    "legs of the stage before still run: they may land after newer writes"
                );
            }
            release(&core);
        });
    }

    /// Opens an epoch elsewhere.
    pub(in crate::flag) fn flip(&self, at: Position, epoch: u64, flags: impl FnOnce(Word) -> Word) {
        let from = self.word().position();
        let to = at.stage;
        if !to.is_two_sided() {
            self.set_sync(to.authority().other(), SyncState::Unsynced);
        }
        let word = flags(self.next_word(at, epoch));
        let leaves_order = from.stage.is_two_sided() && !to.is_two_sided();
        let word = if leaves_order { word.holding() } else { word };
        self.set_word(word);
        if leaves_order {
            self.release_after_legs(word, to.authority());
        }
        if !to.is_two_sided() {
            self.dirty().one_sided(to);
        }
        self.count_anew(to, word.epoch());
        if from.stage == to {
            self.counters.ramped();
        } else {
            self.counters.step(from.stage, to);
            self.changes.send_replace(to);
        }
        if self.in_memory && !self.warned_in_memory.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.name(),
                "the stage is kept in memory only: a restart forgets it"
            );
        }
        tracing::info!(
            target: "tower_migration",
            migration = %self.name(), from = %from.stage, %to, ramp = %at.share,
            epoch = word.epoch(),
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
        let ramp = word.share().as_f64();
        Moved { from, to: word.stage(), ramp, epoch: word.epoch(), held, tainted, sync, upgraded }
    }
}

pub(super) const fn passage_between(from: Position, to: Position, urgency: Urgency) -> Passage {
    if from.stage as u8 == to.stage as u8 {
        ramp_passage(from.share, to.share, urgency)
    } else {
        passage(from.stage, to.stage, urgency)
    }
}

pub(super) const fn permission_between(
    from: Position,
    to: Position,
    urgency: Urgency,
) -> Permission {
    if from.stage as u8 == to.stage as u8 {
        ramp_permission(from.share, to.share, urgency)
    } else {
        permission(from.stage, to.stage, urgency)
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
