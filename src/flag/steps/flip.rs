//! The flip itself: the word that requests read, and what goes with it.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout_at;

use crate::{
    flag::{Core, Moved, Word, gate::Position, later},
    reconcile::Key,
    stage::{Side, Stage},
};

impl Core {
    /// The word of the next epoch, `at` this position.
    fn next_word(&self, at: Position, epoch: u64) -> Word {
        let now = self.word();
        match self.ledger.free_slot(now.slot()) {
            Some(slot) => Word::new(at, epoch, slot),
            None => Word::new(at, epoch, now.slot()).shared(),
        }
    }

    /// An epoch that had to share its slot gets one of its own once there is one:
    /// else `settled` would wait for a moment without any write.
    pub(in crate::flag) fn unshare(&self) {
        let word = self.word();
        if word.holds()
            || word.settling_slot() == word.slot()
            || self.ledger.free_slot(word.slot()).is_none()
        {
            return;
        }
        let Ok(_turn) = self.step.try_lock() else {
            return;
        };
        let unrecorded = self.is_unrecorded();
        self.open_epoch(|word| if unrecorded { word.raised() } else { word });
    }

    /// Opens an epoch where the flag stands.
    pub(super) fn open_epoch(&self, flags: impl FnOnce(Word) -> Word) {
        let now = self.word();
        self.set_word(flags(self.next_word(now.position(), now.epoch() + 1)));
    }

    pub(super) fn set_word(&self, word: Word) {
        let before = self.word();
        self.gate().store(word);
        self.ledger.moved(before, word);
        self.turned.notify_waiters();
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
            self.unsync(to.authority().other());
        }
        let word = flags(self.next_word(at, epoch));
        let leaves_order = from.stage.is_two_sided() && !to.is_two_sided();
        let word = if leaves_order { word.holding() } else { word };
        self.set_word(word);
        if leaves_order {
            self.release_after_legs(word, to.authority());
        }
        if !to.is_two_sided() {
            self.enter_one_sided(to);
        }
        if from.stage == to {
            self.counters.ramped();
        } else {
            self.count_anew(to, word.epoch());
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
