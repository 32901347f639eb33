//! Steps that wait for nobody: the emergency exit, and force.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::timeout};

use super::{Turn, held::Commit};
use crate::{
    flag::{Blocked, Core, Forced, Moved, Reason, Word},
    stage::{Passage, Stage, Urgency, passage},
};

/// How many forced stages the status remembers.
const FORCED: usize = 16;

impl Core {
    /// The emergency exit: flips at once, then writes the record. Until that
    /// is durable, writes wait for both legs.
    pub(super) async fn exit(self: &Arc<Self>, turn: Turn, to: Stage) -> Moved {
        let from = self.word().stage();
        self.flip(to, self.record_epoch(), Word::raised);
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
        let from = self.word().stage();
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(Blocked::new(from, Some(to), vec![Reason::ShutDown]));
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
        if from == to {
            return Ok(self.moved(from, Duration::ZERO, Vec::new()));
        }
        if passage(from, to, Urgency::Emergency) == Passage::Emergency {
            return Ok(self.exit(turn, to).await);
        }
        let commit = Commit { core: Arc::clone(self), turn, to, restore: None, copies: None };
        let mut moved =
            commit.run().await.map_err(|reasons| Blocked::new(from, Some(to), reasons))?;
        if from.authority() != to.authority() {
            moved.tainted = self.taint(to.authority());
        }
        Ok(moved)
    }
}
