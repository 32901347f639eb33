//! How a request comes in: one word, one or more marks.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::{Instant, timeout_at};

use super::{
    Core, Word, later,
    ledger::{Kind, Mark},
};
use crate::stage::{Operation, Stage};

/// How a request was admitted: what it goes by until its end.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) word: Word,
    /// The stage in force for this request: the word's, or `ReadNew` where a
    /// ramp covers its keys.
    pub(crate) stage: Stage,
    /// The mark of the leg on the authority.
    pub(crate) authority: Mark,
    /// The mark of the leg on the other side, where there may be one.
    pub(crate) other: Option<Mark>,
    /// A shadow's marks: on the other side, and on the authority, since it may
    /// read both again.
    pub(crate) shadows: Option<[Mark; 2]>,
}

/// How a request is to be served, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) stage: Stage,
    /// One on the other side: a write's, or a read's that covers for the
    /// authority.
    pub(crate) other: bool,
    /// A shadow.
    pub(crate) shadow: bool,
}

impl Admission {
    /// Names the write, for whoever has to wait for it.
    pub(crate) fn list(&mut self, label: &Arc<str>, began: Instant) {
        match &mut self.other {
            Some(other) => self.authority.list_both(other, label, began),
            None => self.authority.list(label, began),
        }
    }

    /// The same write, once its keys have told that a ramp covers it: the sides
    /// have the other's part. The marks that it was admitted with are ended
    /// after the new ones are there, so it is in flight all the time.
    pub(crate) fn turned(self) -> Self {
        let Self { word, authority, other, shadows, .. } = self;
        let stage = Stage::ReadNew;
        let side = stage.authority();
        Self {
            word,
            stage,
            authority: authority.exchange(word, Kind::write(side)),
            other: other.map(|other| other.exchange(word, Kind::other_write(side.other()))),
            shadows,
        }
    }
}

impl Plan {
    /// The authority's leg alone.
    pub(crate) const fn alone(stage: Stage) -> Self {
        Self { stage, other: false, shadow: false }
    }

    /// A write.
    pub(crate) const fn write(stage: Stage) -> Self {
        Self { stage, other: true, shadow: false }
    }
}

/// Writes are held for a flip: wait with [`Core::wait_released`], ask again.
#[derive(Debug)]
pub(crate) struct Held;

impl Core {
    /// Admits a request, whatever the stage is by now: retries until the gate
    /// has stood still for the length of an admission.
    #[inline]
    pub(crate) fn admit(
        &self,
        operation: Operation,
        plan: impl Fn(Word) -> Plan,
    ) -> Result<Admission, Held> {
        let mut word = self.word();
        loop {
            if operation == Operation::Write && word.holds() {
                return Err(Held);
            }
            let stage = word.stage();
            let plan = if stage.is_two_sided() { plan(word) } else { Plan::alone(stage) };
            let side = plan.stage.authority();
            // Further marks first: the last one's check vouches for all.
            let other = plan.other.then(|| {
                let kind = match operation {
                    Operation::Write => Kind::other_write(side.other()),
                    Operation::Read => Kind::read(side.other()),
                };
                self.ledger.begin(word, kind)
            });
            let shadows = plan.shadow.then(|| {
                [side.other(), side].map(|side| self.ledger.begin(word, Kind::shadow(side)))
            });
            match self.ledger.admit(&self.hot.gate, word, Kind::authority(operation, side)) {
                Ok(authority) => {
                    return Ok(Admission { word, stage: plan.stage, authority, other, shadows });
                }
                Err(now) => {
                    other.into_iter().chain(shadows.into_iter().flatten()).for_each(Mark::unused);
                    word = now;
                }
            }
        }
    }

    /// Admits one leg, if the gate still says `word`.
    #[inline]
    pub(crate) fn admit_leg(&self, word: Word, kind: Kind) -> Result<Mark, Word> {
        self.ledger.admit(&self.hot.gate, word, kind)
    }

    pub(crate) fn is_unrecorded(&self) -> bool {
        self.unrecorded.load(Ordering::SeqCst)
    }

    /// Waits until the flag is on record, as long as any hold may last: a store
    /// that does not answer must not keep all clients.
    pub(crate) async fn wait_recorded(&self) {
        let recorded = async {
            loop {
                let released = self.released.notified();
                tokio::pin!(released);
                released.as_mut().enable();
                if !self.is_unrecorded() {
                    return;
                }
                released.await;
            }
        };
        let _ = timeout_at(later(self.options.hold), recorded).await;
    }

    /// Waits until a write that was admitted in this slot is one of an earlier
    /// epoch, which settling waits for.
    pub(crate) async fn superseded(&self, slot: usize) {
        loop {
            let turned = self.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            if self.word().settling_slot() != slot {
                return;
            }
            turned.await;
        }
    }

    /// Waits until writes are not held any more.
    pub(crate) async fn wait_released(&self) {
        self.counters.held();
        let limit = self.options.hold.saturating_mul(2);
        let mut patience = None;
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let word = self.word();
            if !word.holds() {
                return;
            }
            // Whoever holds the writes lets them go, or a task of theirs; but the
            // runtime of both may have ended. So those that wait see to it.
            let until = match patience {
                Some((of, until)) if of == word => until,
                // Another hold.
                _ => later(limit),
            };
            patience = Some((word, until));
            if timeout_at(until, released).await.is_err() && self.gate().release(word) {
                self.released.notify_waiters();
            }
        }
    }
}
