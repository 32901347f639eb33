//! The one word that every request reads: stage, epoch, hold.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::SLOTS;
use crate::stage::{Share, Stage};

/// What a request is admitted under. One load gives all of it, so no request
/// can see half of a flip.
///
/// Bits 0–1 stage, 2 hold, 3 raise, 4–7 ledger slot, 8 shared, 9–24 the ramp's
/// share, 25–63 epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

const HOLD: u64 = 1 << 2;
const RAISE: u64 = 1 << 3;
const SLOT_SHIFT: u32 = 4;
const SHARED: u64 = 1 << 8;
const SHARE_SHIFT: u32 = 9;
const EPOCH_SHIFT: u32 = 25;
const _: () = assert!(SLOTS == 1 << 4);

/// The greatest epoch there is: one flip a second would take 17,000 years.
pub(crate) const LAST_EPOCH: u64 = u64::MAX >> EPOCH_SHIFT;

/// Where the flag stands: its stage, and which share of the keys goes ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) stage: Stage,
    /// Not 0 at `WriteBoth` only.
    pub(crate) share: Share,
}

impl From<Stage> for Position {
    fn from(stage: Stage) -> Self {
        Self { stage, share: Share::NONE }
    }
}

impl Word {
    pub(crate) const fn new(at: Position, epoch: u64, slot: usize) -> Self {
        Self(
            at.stage as u64
                | (slot as u64) << SLOT_SHIFT
                | (at.share.bits() as u64) << SHARE_SHIFT
                | epoch << EPOCH_SHIFT,
        )
    }

    pub(crate) const fn position(self) -> Position {
        Position { stage: self.stage(), share: self.share() }
    }

    /// The share of the keys that reads new already.
    pub(crate) const fn share(self) -> Share {
        Share::from_bits((self.0 >> SHARE_SHIFT) as u16)
    }

    /// Whether some keys go another way than the rest.
    pub(crate) const fn ramps(self) -> bool {
        !self.share().is_none()
    }

    pub(crate) const fn holding(self) -> Self {
        Self(self.0 | HOLD)
    }

    pub(crate) const fn raised(self) -> Self {
        Self(self.0 | RAISE)
    }

    /// No slot was free: this epoch counts in one where older writes still run.
    pub(crate) const fn shared(self) -> Self {
        Self(self.0 | SHARED)
    }

    pub(crate) const fn stage(self) -> Stage {
        Stage::from_bits(self.0)
    }

    /// Writes must wait until the flip is over.
    pub(crate) const fn holds(self) -> bool {
        self.0 & HOLD != 0
    }

    /// Writes must wait for both legs, whatever their policy.
    pub(crate) const fn raises(self) -> bool {
        self.0 & RAISE != 0
    }

    pub(crate) const fn slot(self) -> usize {
        (self.0 >> SLOT_SHIFT) as usize & (SLOTS - 1)
    }

    /// The slot whose writes are not of an earlier epoch. None is, where the
    /// epoch shares its slot: then settling waits for all writes, which is more
    /// than it must, never less.
    pub(crate) const fn settling_slot(self) -> usize {
        if self.0 & SHARED == 0 { self.slot() } else { usize::MAX }
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }
}

/// The word, where requests find it. Written by flips only, so its cache line
/// stays shared between the cores that read it.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) const fn new(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }

    #[inline]
    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::SeqCst))
    }

    /// Takes the hold away, unless the word has changed meanwhile.
    pub(crate) fn release(&self, word: Word) -> bool {
        let released = word.0 & !HOLD;
        let swapped = self.0.compare_exchange(word.0, released, Ordering::SeqCst, Ordering::SeqCst);
        swapped.is_ok()
    }

    /// Callers hold the step lock: there is one writer at a time.
    pub(crate) fn store(&self, word: Word) {
        self.0.store(word.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        for stage in Stage::ALL {
            for slot in [0, 1, SLOTS - 1] {
                for epoch in [0, 1, LAST_EPOCH] {
                    for share in [Share::NONE, Share::from_bits(1), Share::ALL] {
                        let at = Position { stage, share };
                        let word = Word::new(at, epoch, slot);
                        let fields = |word: Word| (word.position(), word.slot(), word.epoch());
                        assert_eq!(fields(word), (at, slot, epoch));
                        assert!(!word.holds() && !word.raises());
                        assert_eq!(word.ramps(), !share.is_none());
                        let both = word.holding().raised();
                        assert!(both.holds() && both.raises());
                        assert_eq!(fields(both), (at, slot, epoch));
                        assert_eq!(both.settling_slot(), slot);
                        assert_eq!(both.shared().settling_slot(), usize::MAX);
                        assert_eq!(both.shared().epoch(), epoch);
                    }
                }
            }
        }
    }
}
