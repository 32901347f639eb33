//! Putting the flag on record, whatever the store does.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    runtime,
    sync::{MutexGuard, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{Turn, first_of};
use crate::{
    flag::{
        Core, JournalNote, Record, Spans, StoreError, StoreErrorKind, asking::AbortOnDrop,
        core::locked, gate::Position, later,
    },
    reconcile::RightSide,
    stage::{Side, SyncState, SyncTable},
};

/// How long to wait before a record that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A record that was not written, or that may have been.
pub(super) struct NotSaved {
    pub(super) error: StoreError,
    /// The store has not said: it hangs, or it panicked.
    pub(super) unknown: bool,
}

/// What the store holds, as far as this instance knows.
#[derive(Debug)]
pub(in crate::flag) struct Stored {
    epoch: u64,
    sync: SyncTable,
    journal: Option<JournalNote>,
    /// The newest record that was tried since, without a word from the store.
    tried: Option<u64>,
}

impl Stored {
    pub(in crate::flag) const fn new(
        epoch: u64,
        sync: SyncTable,
        journal: Option<JournalNote>,
    ) -> Self {
        Self { epoch, sync, journal, tried: None }
    }

    /// Whether the record that was found is one of this instance's own.
    fn knows(&self, epoch: u64) -> bool {
        (self.epoch..=self.tried.unwrap_or(self.epoch)).contains(&epoch)
    }
}

impl Core {
    /// What goes on record of the sides. Dirty keys do not: where there are
    /// any, the side that they are wrong on is not synced after a restart. Nor
    /// is a side that became the authority by an emergency exit, while writes
    /// that began before it may still fail there.
    fn recorded_sync(&self, at: Position) -> SyncTable {
        let dirty = self.dirty();
        let any = |right| dirty.count(right).0 > 0;
        let right_on = Side::ALL.map(|side| any(RightSide::Is(side)));
        let sync = self.sync().recorded(at.stage, right_on, any(RightSide::Conflict));
        drop(dirty);
        if self.is_exit_unsettled(at) {
            sync.with(at.stage.authority(), SyncState::Unsynced)
        } else {
            sync
        }
    }

    /// Whether writes that began before an emergency exit may still fail on the side
    /// that it made the authority.
    pub(in crate::flag) fn is_exit_unsettled(&self, at: Position) -> bool {
        at.stage.is_two_sided() && self.exited.load(Ordering::SeqCst) && !self.is_settled()
    }

    /// Since when what was copied counts, if nobody remembers the dirty keys: a run that
    /// has passed one of them must not go on from there.
    fn recorded_spans(&self, at: Position) -> Spans {
        let dirty = self.dirty();
        let any = |right| dirty.count(right).0 > 0;
        let conflict = any(RightSide::Conflict);
        let mut spans = self.spans();
        for wrong in Side::ALL {
            let doubted = conflict || any(RightSide::Is(wrong.other()));
            let exited = wrong == at.stage.authority() && self.is_exit_unsettled(at);
            if doubted || exited {
                spans.void(wrong);
            }
        }
        spans
    }

    fn compose(&self, at: Position, clean: bool) -> Record {
        Record {
            stage: at.stage,
            epoch: self.record_epoch(),
            sync: self.recorded_sync(at),
            clean,
            ramp: at.share,
            seed: self.seed(),
            spans: self.recorded_spans(at),
            journal: self.journal_note(at),
            forced: locked(&self.forced).clone(),
            written: SystemTime::now(),
        }
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

    /// Writes the record of a flag that stands `at`, for at most `limit`, or
    /// until somebody in a hurry comes. Answers its epoch, and what keeps the
    /// next record from being written until this one has come true.
    pub(super) async fn save(
        &self,
        at: Position,
        limit: Duration,
    ) -> Result<(u64, MutexGuard<'_, Stored>), NotSaved> {
        self.write(|_| Some(self.compose(at, false)), limit).await
    }

    pub(super) async fn save_clean(&self) {
        let at = self.word().position();
        let compose = |_: &Stored| Some(self.compose(at, true));
        if let Err(failed) = self.write(compose, self.options.step_deadline).await {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                error = %failed.error, hint = failed.error.lifted_by(),
                "the clean stop is not on record: the next start treats it as unclean"
            );
        }
    }

    /// Takes the record over that another instance has written last.
    pub(in crate::flag) async fn record_takeover(&self, replaces: u64) -> Result<(), StoreError> {
        *self.saving.lock().await = Stored::new(replaces, self.sync(), None);
        let at = self.word().position();
        let saved = self.save(at, self.options.step_deadline).await;
        saved.map(drop).map_err(|failed| failed.error)
    }

    async fn write(
        &self,
        compose: impl FnOnce(&Stored) -> Option<Record>,
        limit: Duration,
    ) -> Result<(u64, MutexGuard<'_, Stored>), NotSaved> {
        let unknown = |error| NotSaved { error, unknown: true };
        let writing = async {
            let mut stored = self.saving.lock().await;
            if stored.tried.is_some() {
                self.find_out(&mut stored).await?;
            }
            let Some(record) = compose(&stored) else {
                return Ok((stored.epoch, stored));
            };
            let (epoch, sync, journal) = (record.epoch, record.sync, record.journal);
            stored.tried = Some(epoch);
            let (store, replaces) = (Arc::clone(&self.store), stored.epoch);
            // In a task: a store that panics must not take the step with it.
            let mut task =
                AbortOnDrop(tokio::spawn(async move { store.save(replaces, record).await }));
            match (&mut task.0).await {
                Ok(Ok(())) => {
                    *stored = Stored::new(epoch, sync, journal);
                    self.journal_on_record.store(journal.is_some(), Ordering::SeqCst);
                    self.saved.notify_waiters();
                    Ok((epoch, stored))
                }
                Ok(Err(error)) if error.kind() == StoreErrorKind::Unknown => Err(unknown(error)),
                Ok(Err(error)) => {
                    stored.tried = None;
                    Err(NotSaved { error, unknown: false })
                }
                Err(panicked) => Err(unknown(StoreError::new(panicked))),
            }
        };
        match timeout_at(later(limit), first_of(writing, self.is_overtaken())).await {
            Ok(Ok(done)) => done,
            Ok(Err(())) => Err(unknown(StoreError::of(
                StoreErrorKind::Unknown,
                "a step in a hurry came before the store's answer",
            ))),
            Err(_) => Err(unknown(StoreError::of(
                StoreErrorKind::Unknown,
                "the flag's store did not answer in time",
            ))),
        }
    }

    /// A store that did not say whether it has the record is read again.
    async fn find_out(&self, stored: &mut Stored) -> Result<(), NotSaved> {
        let unknown = |error| NotSaved { error, unknown: true };
        let store = Arc::clone(&self.store);
        let mut task = AbortOnDrop(tokio::spawn(async move { store.load().await }));
        let found = match (&mut task.0).await {
            Ok(found) => found.map_err(unknown)?,
            Err(panicked) => return Err(unknown(StoreError::new(panicked))),
        };
        match found {
            Some(record) if stored.knows(record.epoch) => {
                *stored = Stored::new(record.epoch, record.sync, record.journal);
                Ok(())
            }
            found => {
                let what = match found {
                    Some(record) => format!("a record of epoch {} is there", record.epoch),
                    None => "there is none".to_owned(),
                };
                let what = format!("the flag's record is not one of this process: {what}");
                Err(unknown(StoreError::of(StoreErrorKind::Conflict, what)))
            }
        }
    }

    /// Writes the record of the present stage, however long it takes. Until
    /// then writes wait for both legs. Gives way to a step in a hurry, which
    /// writes its own.
    pub(super) async fn put_on_record(
        self: Arc<Self>,
        mut turn: Turn,
        at: Position,
        tell: oneshot::Sender<()>,
    ) {
        let _recording = Recording::new(&self);
        let mut tell = Some(tell);
        loop {
            // What the error says is all that is needed of it: nothing that is
            // borrowed outlives the wait.
            let failed = match self.save(at, self.options.step_deadline).await {
                Ok(_) => break,
                Err(failed) => failed.error,
            };
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                error = %failed, hint = failed.lifted_by(),
                "the stage is not on record: writes wait for both sides until it is"
            );
            tell.take();
            if timeout_at(Instant::now() + RETRY, self.is_overtaken()).await.is_ok() {
                // Nobody may join meanwhile: the record says another stage.
                let claim = turn.give_way();
                sleep(RETRY).await;
                turn = self.turn_again(claim).await;
                let shut_down = self.shut_down.load(Ordering::SeqCst);
                if self.word().position() != at || shut_down {
                    return;
                }
            }
        }
        // Nobody else can have moved the flag: this task holds the turn.
        self.unrecorded.store(false, Ordering::SeqCst);
        self.open_epoch(|word| word);
        drop(turn);
    }

    /// Takes up what a runtime that has ended left behind: a flag that is not on
    /// record. Called by whoever is still alive.
    pub(in crate::flag) fn take_up_record(self: &Arc<Self>) {
        let done = self.follows() || self.shut_down.load(Ordering::SeqCst);
        if done || !self.is_unrecorded() || self.recording.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(turn) = Arc::clone(&self.step).try_lock_owned() {
            let (tell, _) = oneshot::channel();
            let at = self.word().position();
            tokio::spawn(Arc::clone(self).put_on_record(Turn::new(turn), at, tell));
        }
    }

    /// The authority's data has turned out to be worse than the record says: a
    /// restart must know. (The other side need not be noted: after an unclean
    /// stop it is unsynced in any case.)
    pub(in crate::flag) fn note_sync(&self) {
        if runtime::Handle::try_current().is_err() || self.noting.swap(true, Ordering::SeqCst) {
            return;
        }
        let me = Weak::clone(&self.me);
        tokio::spawn(async move {
            while let Some(core) = me.upgrade() {
                // What comes from here on is for another task.
                core.noting.store(false, Ordering::SeqCst);
                if core.shut_down.load(Ordering::SeqCst) || core.follows() {
                    return;
                }
                let compose = |stored: &Stored| {
                    let at = core.word().position();
                    let known = (stored.sync, stored.journal);
                    let now = (core.recorded_sync(at), core.journal_note(at));
                    (known != now).then(|| core.compose(at, false))
                };
                match core.write(compose, core.options.step_deadline).await {
                    Ok(_) => return,
                    Err(failed) => tracing::error!(
                        target: "tower_migration",
                        migration = %core.name(),
                        error = %failed.error, hint = failed.error.lifted_by(),
                        "the authority's state is not on record: a restart would not know"
                    ),
                }
                if core.noting.swap(true, Ordering::SeqCst) {
                    return;
                }
                drop(core);
                sleep(RETRY).await;
            }
        });
    }

    /// After an emergency exit: once the writes that began before it have ended,
    /// what is known of the new authority goes on record.
    pub(super) fn note_when_settled(self: &Arc<Self>) {
        self.exited.store(true, Ordering::SeqCst);
        let core = Arc::downgrade(self);
        let ledger = self.ledger;
        tokio::spawn(async move {
            // Not holding the core: a hanging write would keep it alive.
            let slot = || core.upgrade().map_or(usize::MAX, |core| core.word().settling_slot());
            ledger.settled(slot).await;
            if let Some(core) = core.upgrade()
                && core.is_settled()
                && core.exited.swap(false, Ordering::SeqCst)
            {
                core.note_sync();
            }
        });
    }
}

/// A task is putting the flag on record, until this is dropped.
struct Recording(Arc<Core>);

impl Recording {
    fn new(core: &Arc<Core>) -> Self {
        core.recording.store(true, Ordering::SeqCst);
        Self(Arc::clone(core))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.recording.store(false, Ordering::SeqCst);
    }
}
