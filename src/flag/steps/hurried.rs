//! Steps that wait for nobody: the emergency exit, and force.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{Turn, held::Commit};
use crate::{
    flag::{Blocked, Core, Forced, Moved, Word},
    stage::{Passage, Stage, Urgency, passage},
};

/// How many forced stages the status remembers.
const FORCED: usize = 16;

/// How long to wait before a record that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Core {
    /// The emergency exit: flips at once, then writes the record. Until that
    /// is durable, writes wait for both legs.
    pub(super) async fn exit(self: &Arc<Self>, turn: Turn, to: Stage) -> Moved {
        let from = self.word().stage();
        // An epoch that shares its slot with the last one makes `settled` wait
        // for more than it must, never for less.
        let slot = self.slot().unwrap_or_else(|_| self.word().slot());
        let epoch = self.word().epoch() + 1;
        self.flip(Word::new(to, epoch, slot).raised());
        let tainted = self.taint(to.authority());
        let moved = self.moved(from, Duration::ZERO, tainted);
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(),
            tainted = moved.tainted.len(),
            data = moved.sync.as_str(),
            "rolled back at once; keys in flight are dirty"
        );
        let (tell, told) = oneshot::channel::<()>();
        tokio::spawn(Arc::clone(self).put_on_record(turn, to, epoch, tell));
        // Resolves with an error once the record is written or has failed.
        let _ = told.await;
        moved
    }

    /// Writes the record of a flip that has happened already, however long it
    /// takes. Gives way to a forced step, which writes its own.
    async fn put_on_record(
        self: Arc<Self>,
        mut turn: Turn,
        stage: Stage,
        epoch: u64,
        tell: oneshot::Sender<()>,
    ) {
        let mut tell = Some(tell);
        while let Err(error) = self.save(stage, epoch).await {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                error = &error as &dyn std::error::Error,
                "the stage is not on record: writes wait for both sides until it is"
            );
            tell.take();
            if timeout_at(Instant::now() + RETRY, self.is_overtaken()).await.is_ok() {
                drop(turn);
                sleep(RETRY).await;
                turn = Arc::clone(&self.step).lock_owned().await;
                if self.word().stage() != stage {
                    return;
                }
            }
        }
        // Nobody else can have moved the flag: this task holds the turn. No slot
        // free leaves the raise on, which is slow, not wrong.
        let _ = self.open_epoch(|word| word);
        drop(turn);
        drop(tell);
    }

    pub(in crate::flag) async fn force_to(
        self: &Arc<Self>,
        to: Stage,
        reason: String,
    ) -> Result<Moved, Blocked> {
        self.ensure_published();
        let turn = self.overtake().await;
        let from = self.word().stage();
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
        if from == to {
            return Ok(self.moved(from, Duration::ZERO, Vec::new()));
        }
        if passage(from, to, Urgency::Emergency) == Passage::Emergency {
            return Ok(self.exit(turn, to).await);
        }
        let slot = self.slot().unwrap_or_else(|_| self.word().slot());
        let commit = Commit { core: Arc::clone(self), turn, to, slot, restore: None };
        let mut moved =
            commit.run().await.map_err(|reasons| Blocked::new(from, Some(to), reasons))?;
        if from.authority() != to.authority() {
            moved.tainted = self.taint(to.authority());
        }
        Ok(moved)
    }
}
