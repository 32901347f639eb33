//! Steps that wait for nobody: the emergency exit, and force.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::timeout};

use super::{claim::Turn, held::Commit, passage_between};
use crate::{
    flag::{Blocked, Core, Forced, Moved, Reason, Word, gate::Position},
    stage::{Passage, Side, Stage, Urgency},
};

/// How many forced stages the status remembers.
const FORCED: usize = 16;
/// How many characters of a reason are kept.
const REASON: usize = 500;

impl Core {
    /// The emergency exit: flips at once, then writes the record. Until that
    /// is durable, writes wait for both legs.
    pub(super) async fn exit(self: &Arc<Self>, turn: Turn, to: Position) -> Moved {
        let from = self.word().stage();
        self.unrecorded.store(true, Ordering::SeqCst);
        self.flip(to, self.record_epoch(), Word::raised);
        let tainted = if from == to.stage {
            // The end of a ramp. What still runs was acknowledged by nobody who
            // has not heard from both sides.
            self.keys_right_on(Side::New)
        } else {
            self.note_when_settled();
            self.taint(to.stage.authority())
        };
        let moved = self.moved(from, Duration::ZERO, tainted);
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(),
            tainted = moved.tainted.len(),
            data = moved.sync.as_str(),
            "rolled back at once; keys in flight are dirty"
        );
        let (tell, told) = oneshot::channel::<()>();
        tokio::spawn(Arc::clone(self).put_on_record(turn, to, tell));
        // Resolves with an error once the record is written or has failed. A
        // store that hangs does not keep the caller.
        let _ = timeout(self.options.hold, told).await;
        moved
    }

    pub(in crate::flag) async fn force_to(
        self: &Arc<Self>,
        to: Stage,
        reason: String,
    ) -> Result<Moved, Blocked> {
        self.ensure_published();
        let turn = self.overtake().await;
        let at = self.word().position();
        let from = at.stage;
        let blocked = |reason| Blocked::new(from, Some(to), vec![reason]);
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(blocked(Reason::ShutDown));
        }
        let turn = self.claim_by_force(turn).await.map_err(blocked)?;
        let mut reason = reason;
        if let Some((end, _)) = reason.char_indices().nth(REASON) {
            reason.truncate(end);
        }
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(), %from, %to, reason,
            "FORCED: checks are skipped, data may be lost or stale"
        );
        {
            let mut forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
            if forced.len() >= FORCED {
                forced.remove(0);
            }
            forced.push(Forced { from, to, reason, at: SystemTime::now() });
        }
        let to = Position::from(to);
        if at == to {
            // What was forced, and why, goes on record all the same.
            if let Err(failed) = self.save(at, self.options.hold).await {
                tracing::error!(
                    target: "tower_migration",
                    migration = %self.name(),
                    error = %failed.error, hint = failed.error.lifted_by(),
                    "the reason is not on record"
                );
            }
            return Ok(self.moved(from, Duration::ZERO, Vec::new()));
        }
        // Whatever its path skipped, a backfill of before does not count.
        Side::ALL.into_iter().for_each(|side| self.void(side));
        if passage_between(at, to, Urgency::Emergency) == Passage::Emergency {
            return Ok(self.exit(turn, to).await);
        }
        let commit = Commit { core: Arc::clone(self), turn, to, restore: None, copies: None };
        let mut moved =
            commit.run().await.map_err(|reasons| Blocked::new(from, Some(to.stage), reasons))?;
        if from.authority() != to.stage.authority() {
            self.note_when_settled();
            moved.tainted = self.taint(to.stage.authority());
        }
        Ok(moved)
    }
}
