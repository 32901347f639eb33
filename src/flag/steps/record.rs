//! Putting the flag on record, whatever the store does.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{Turn, first_of};
use crate::{
    flag::{Core, Record, StoreError, later},
    reconcile::RightSide,
    stage::{Side, Stage, SyncTable},
};

/// How long to wait before a record that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A record that was not written, or that may have been.
pub(super) struct NotSaved {
    pub(super) error: StoreError,
    /// The store has not said: it hangs, or it panicked.
    pub(super) unknown: bool,
}

impl Core {
    fn recorded_sync(&self, stage: Stage) -> SyncTable {
        let dirty = self.dirty();
        let any = |right| dirty.count(right).0 > 0;
        let right_on = Side::ALL.map(|side| any(RightSide::Is(side)));
        self.sync().recorded(stage, right_on, any(RightSide::Conflict))
    }

    /// The epoch of the next record: greater than that of any before, and than
    /// the flag's.
    pub(super) fn record_epoch(&self) -> u64 {
        let next = |last: u64| last.max(self.word().epoch()) + 1;
        let last = self
            .recorded
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)))
            .unwrap_or_else(|last| last);
        next(last)
    }

    /// Writes the record of `stage`, for at most `limit`, or until somebody in
    /// a hurry comes. Answers its epoch.
    pub(super) async fn save(&self, stage: Stage, limit: Duration) -> Result<u64, NotSaved> {
        let epoch = self.record_epoch();
        let record = Record { stage, epoch, sync: self.recorded_sync(stage), clean: false };
        self.write(record, limit).await.map(|()| epoch)
    }

    pub(super) async fn save_clean(&self) {
        let stage = self.word().stage();
        let sync = self.recorded_sync(stage);
        let record = Record { stage, epoch: self.record_epoch(), sync, clean: true };
        if let Err(failed) = self.write(record, self.options.step_deadline).await {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                error = &failed.error as &dyn std::error::Error,
                "the clean stop is not on record: the next start treats it as unclean"
            );
        }
    }

    async fn write(&self, record: Record, limit: Duration) -> Result<(), NotSaved> {
        let store = Arc::clone(&self.store);
        // In a task: a store that panics must not take the step with it.
        let mut task = tokio::spawn(async move { store.save(record).await });
        let done = timeout_at(later(limit), first_of(&mut task, self.is_overtaken())).await;
        let unknown = |error: StoreError| Err(NotSaved { error, unknown: true });
        match done {
            Ok(Ok(Ok(Ok(())))) => Ok(()),
            Ok(Ok(Ok(Err(error)))) => Err(NotSaved { error, unknown: false }),
            Ok(Ok(Err(panicked))) => unknown(StoreError::new(panicked)),
            Ok(Err(())) => {
                task.abort();
                unknown(StoreError::new("a step in a hurry came in between"))
            }
            Err(_) => {
                task.abort();
                unknown(StoreError::new("the store did not answer in time"))
            }
        }
    }

    /// Writes the record of the present stage, however long it takes. Until
    /// then writes wait for both legs. Gives way to a step in a hurry, which
    /// writes its own.
    pub(super) async fn put_on_record(
        self: Arc<Self>,
        mut turn: Turn,
        stage: Stage,
        tell: oneshot::Sender<()>,
    ) {
        let mut tell = Some(tell);
        while let Err(failed) = self.save(stage, self.options.step_deadline).await {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                error = &failed.error as &dyn std::error::Error,
                "the stage is not on record: writes wait for both sides until it is"
            );
            tell.take();
            if timeout_at(Instant::now() + RETRY, self.is_overtaken()).await.is_ok() {
                drop(turn);
                sleep(RETRY).await;
                turn = Arc::clone(&self.step).lock_owned().await;
                let shut_down = self.shut_down.load(Ordering::SeqCst);
                if self.word().stage() != stage || shut_down {
                    return;
                }
            }
        }
        // Nobody else can have moved the flag: this task holds the turn.
        self.open_epoch(|word| word);
        drop(turn);
    }
}
