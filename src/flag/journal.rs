//! The flag's record and the journal of dirty keys: what they say of each other.
//!
//! The record names the journal by its id, and says what holds of the sides if that
//! journal is there, beside what holds without it. So a journal that is lost, replaced
//! by another one or left out is noticed, and never taken for an empty one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout_at;

use super::{Core, JournalNote, OpenError, Record, gate::Position, later, options::Options};
use crate::{
    reconcile::{Begun, DirtyLog, Found, Keys, Lineage, Marked, RightSide, SideNote},
    stage::{Side, SyncState},
};

/// What a process starts from.
pub(super) struct Inherited {
    pub(super) record: Record,
    pub(super) found: Found,
}

/// What a record means to the process that takes it over, with this journal or none.
pub(super) fn inherit(
    record: Record,
    log: Option<&dyn DirtyLog>,
    found: Found,
    given_up: bool,
) -> Result<Inherited, OpenError> {
    // Only its round: what is not taken over must not be found again either.
    let alone = |mut record: Record, found: Found| {
        if given_up {
            record.spans.void_all();
        }
        let found = Found { round: found.round, ..Found::default() };
        Ok(Inherited { record: record.after_restart(), found })
    };
    match (record.journal, log) {
        _ if given_up => alone(record, found),
        (None, None) => alone(record, found),
        // A new one, or one that had failed and was taken off the record: it does not
        // vouch for a side, and what it knows of keys is as good as any.
        (None, Some(_)) => {
            let found = Found { sides: [None; 2], nameless: [false; 2], ..found };
            Ok(Inherited { record: record.after_restart(), found })
        }
        (Some(note), Some(_)) if found.ids.contains(&note.id) => {
            Ok(Inherited { record: vouched(record, note, &found), found })
        }
        (Some(_), Some(_)) => Err(OpenError::journal(
            "the journal is not the one that the flag's record names: that one is lost",
            "put it back; if that cannot be, Journal::start_over, and copy the side that is \
             unsynced then",
        )),
        (Some(_), None) => Err(OpenError::journal(
            "the flag's record names a journal, and none was given",
            "give it with HandleBuilder::journal; if it is lost or not wanted any more, \
             HandleBuilder::without_journal, and copy the side that is unsynced then",
        )),
    }
}

/// The record, with all that the journal knows.
fn vouched(mut record: Record, note: JournalNote, found: &Found) -> Record {
    (record.sync, record.spans) = (note.sync, note.spans);
    if !note.before_legs {
        // A write may be on one side alone, and the journal does not know of it.
        record = record.after_restart();
    }
    for side in Side::ALL {
        let worse = |record: &mut Record, state: SyncState| {
            let state = record.sync.get(side).min(state);
            record.sync = record.sync.with(side, state);
        };
        if let Some(SideNote { state, span }) = found.sides[side.index()] {
            worse(&mut record, state);
            if span != record.spans.get(side) {
                record.spans.void(side);
            }
        }
        if found.nameless[side.index()] {
            worse(&mut record, SyncState::Suspect);
            record.spans.void(side);
        }
    }
    record
}

impl OpenError {
    pub(super) fn journal(what: impl Into<String>, hint: &'static str) -> Self {
        Self::Journal { what: what.into(), hint }
    }
}

impl Options {
    /// Makes this process's journal, and whether whatever was there before is given up.
    #[cfg(feature = "journal")]
    pub(super) async fn start_log(
        &mut self,
        name: &Arc<str>,
    ) -> Result<(Option<Arc<dyn DirtyLog>>, bool), OpenError> {
        let Some(journal) = self.journal.take() else {
            return Ok((None, self.without_journal));
        };
        let given_up = journal.starts_over() || self.without_journal;
        let name = Arc::clone(name);
        let started = tokio::task::spawn_blocking(move || journal.start(&name)).await;
        match started {
            Ok(Ok(log)) => Ok((Some(log), given_up)),
            Ok(Err(error)) => Err(OpenError::journal(error.to_string(), error.lifted_by())),
            Err(panicked) => Err(OpenError::journal(
                panicked.to_string(),
                "look for the panic's message, then start again",
            )),
        }
    }

    #[cfg(not(feature = "journal"))]
    #[expect(clippy::unused_async, reason = "the same call with and without the feature")]
    pub(super) async fn start_log(
        &mut self,
        _: &Arc<str>,
    ) -> Result<(Option<Arc<dyn DirtyLog>>, bool), OpenError> {
        Ok((None, self.without_journal))
    }
}

/// What dead processes have left in the journal.
pub(super) async fn adopt(
    log: Option<&Arc<dyn DirtyLog>>,
    record: &Record,
) -> Result<Found, OpenError> {
    match log {
        Some(log) => {
            let spans = record.journal.map_or(record.spans, |note| note.spans);
            let id = record.journal.map(|note| note.id);
            let lineage = Lineage { id, spans: [spans.old, spans.new] };
            let found = log.adopt(Some(lineage)).await;
            found.map_err(|failed| OpenError::journal(failed.to_string(), failed.lifted_by()))
        }
        None => Ok(Found::default()),
    }
}

impl Core {
    /// Takes up what was found: from here on it is this process's own.
    pub(super) fn restore(&self, found: &Found) {
        let stage = self.word().stage();
        for (key, mark) in &found.marks {
            let mut mark = *mark;
            let Some(right) = mark.right.entering(stage) else {
                continue;
            };
            mark.right = right;
            let restored = {
                let mut dirty = self.dirty();
                let restored = dirty.restore(key, mark);
                self.note_in_log(&dirty, key);
                restored
            };
            self.counters.marked(restored);
            if restored == Marked::Full {
                for side in Side::ALL.into_iter().filter(|s| right != RightSide::Is(*s)) {
                    self.unsync(side);
                }
            }
        }
        Side::ALL.into_iter().for_each(|side| self.note_side(side));
        if let Some(log) = &self.log {
            log.took_over(found.round);
        }
        if !found.marks.is_empty() {
            tracing::warn!(
                target: "tower_migration",
                migration = %self.name(), keys = found.marks.len(),
                "dirty keys of an earlier process were found in the journal"
            );
            self.dirtied.notify_waiters();
        }
    }

    /// So that a crash finds what is known of a side.
    pub(super) fn note_side(&self, side: Side) {
        let known = || SideNote { state: self.sync().get(side), span: self.span(side) };
        let Some(log) = &self.log else {
            return;
        };
        // Again if it has changed meanwhile: whoever changed it may have noted it before.
        let mut note = known();
        loop {
            log.side(side, note);
            let now = known();
            if now == note {
                return;
            }
            note = now;
        }
    }

    /// Why the journal does not keep what it is told any more.
    pub(super) fn journal_failure(&self) -> Option<Arc<str>> {
        let hangs = || {
            let hangs = self.journal_given_up.load(Ordering::SeqCst);
            hangs.then(|| Arc::from("its disk did not answer in time"))
        };
        self.log.as_ref()?.failure().or_else(hangs)
    }

    /// What the record says of the journal; nothing once it has failed.
    pub(super) fn journal_note(&self, at: Position) -> Option<JournalNote> {
        let log = self.log.as_ref().filter(|_| self.journal_failure().is_none())?;
        let (id, before_legs) = (log.id(), log.marks_before());
        let mut sync = self.sync().entering(at.stage);
        if !before_legs && self.is_exit_unsettled(at) {
            sync = sync.with(at.stage.authority(), SyncState::Unsynced);
        }
        Some(JournalNote { id, before_legs, sync, spans: self.spans() })
    }

    /// A journal that has failed does not vouch for anything: until the record says so
    /// too, no write may begin. Whether it does; within the hold's time.
    pub(crate) async fn withdraw_journal(&self) -> bool {
        let on_record = || self.journal_on_record.load(Ordering::SeqCst);
        if self.follows() || !on_record() {
            return true;
        }
        self.journal_failed();
        let withdrawn = async {
            loop {
                let saved = self.saved.notified();
                tokio::pin!(saved);
                saved.as_mut().enable();
                if !on_record() {
                    return;
                }
                saved.await;
            }
        };
        timeout_at(later(self.options.hold), withdrawn).await.is_ok()
    }

    /// Whether there is anything to do for [`begin`](Self::begin).
    pub(crate) fn notes_writes(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.marks_before())
    }

    /// Notes that a write is about to begin on both sides. `Err`: it must not, since
    /// neither the journal nor the flag's record can be told.
    pub(crate) async fn begin(
        &self,
        keys: &Keys,
        nameless: impl FnOnce() -> bool,
        right: Side,
    ) -> Result<Option<Begun>, ()> {
        let Some(log) = self.log.as_ref().filter(|log| log.marks_before()) else {
            return Ok(None);
        };
        if !self.journal_given_up.load(Ordering::SeqCst) {
            let begun = log.begin(keys, nameless(), right);
            if begun.is_durable() {
                return Ok(Some(begun));
            }
            match timeout_at(later(self.options.hold), begun.durable()).await {
                Ok(Ok(())) => return Ok(Some(begun)),
                Ok(Err(_)) => {}
                // It hangs, and is not waited for any more.
                Err(_) => self.journal_given_up.store(true, Ordering::SeqCst),
            }
        }
        // A crash leaves a side unsynced from here on, so nothing need be noted.
        if self.withdraw_journal().await { Ok(None) } else { Err(()) }
    }

    fn journal_failed(&self) {
        if let Some(failure) = self.journal_failure()
            && !self.journal_lamented.swap(true, Ordering::SeqCst)
        {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(), error = %failure,
                "the journal has failed: dirty keys are in memory only from here on, and a crash \
                 leaves a side unsynced; mend its disk and start the process again"
            );
        }
        self.note_sync();
    }

    /// Called now and then: nobody may be writing.
    pub(super) fn look_at_journal(&self) {
        let failed = self.journal_failure().is_some();
        if failed && self.journal_on_record.load(Ordering::SeqCst) && !self.follows() {
            self.journal_failed();
        }
    }

    /// Everything up to here is durable, and no write that has ended is noted as begun:
    /// before a step, so that the next stage finds no notes of this one.
    /// Whether it is, within this time.
    pub(super) async fn flush_log(&self, limit: Duration) -> bool {
        match &self.log {
            Some(log) => matches!(timeout_at(later(limit), log.flush()).await, Ok(Ok(()))),
            None => true,
        }
    }

    /// The same at the end: a journal that is not durable by then must not vouch.
    pub(super) async fn flush_log_or_give_up(&self, limit: Duration) {
        if !self.flush_log(limit).await {
            self.journal_given_up.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;
