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
mod flip;
mod held;
mod hurried;
mod lent;
mod record;
mod wait;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout_at;

pub(super) use self::record::Stored;
use self::{
    claim::Turn,
    held::Commit,
    lent::Lent,
    wait::{NoCopies, first_of},
};
use super::{Blocked, Core, Moved, Reason, gate::Position, later};
use crate::{
    reconcile::RightSide,
    stage::{
        Passage, Permission, Share, Side, Stage, Urgency, passage, permission, ramp_passage,
        ramp_permission,
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
    pub(in crate::flag) fn check(&self, needs: Permission) -> Result<(), Vec<Reason>> {
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

    pub(in crate::flag) async fn close(&self) {
        self.begin_closing();
        self.ledger.quiet().await;
        // A step under way is waited for; one that cannot come to an end, since
        // its store does not answer, is made to give way.
        let patience = self.options.step_deadline.saturating_add(self.options.hold);
        let turn = timeout_at(later(patience), Arc::clone(&self.step).lock_owned()).await;
        let _turn = match turn {
            Ok(turn) => Turn::new(turn),
            Err(_) => self.overtake().await,
        };
        if self.left.load(Ordering::SeqCst) {
            // A second call: all is said.
            return;
        }
        self.shut_down.store(true, Ordering::SeqCst);
        self.flush_log_or_give_up(self.options.step_deadline).await;
        let follows = self.follows();
        if !follows {
            self.save_clean().await;
        }
        // A follower's dirty keys are on nobody's record.
        self.leave(follows && self.has_doubts()).await;
        self.left.store(true, Ordering::SeqCst);
        self.publish();
    }
}

pub(super) const fn passage_between(from: Position, to: Position, urgency: Urgency) -> Passage {
    if from.stage as u8 == to.stage as u8 {
        ramp_passage(from.share, to.share, urgency)
    } else {
        passage(from.stage, to.stage, urgency)
    }
}

pub(in crate::flag) const fn permission_between(
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
