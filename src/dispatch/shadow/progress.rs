//! How far a shadow read has come.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::stage::Outcome;

/// How far a shadow read has come; what a deadline means depends on it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    phase: AtomicU8,
    pub(super) rereads: AtomicU32,
    /// In microseconds; 0: no head has come.
    pub(super) other_took: AtomicU32,
    /// What the other side's head said, an [`Outcome`].
    pub(super) other_said: AtomicU8,
    /// The client has the whole of the authority's answer, and so has the layer.
    pub(super) mine: AtomicBool,
    /// The two sides' first answers are not known to be equal.
    differed: AtomicBool,
    /// The other side fails all that it is asked.
    down: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Request,
    Ready,
    Call,
    /// The other side's head is here, the rest of its answer is not.
    Body,
    Answer,
    /// On another thread.
    Compare,
    Again,
}

impl Progress {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    pub(super) fn set_differed(&self, differed: bool) {
        self.differed.store(differed, Ordering::Relaxed);
    }

    pub(super) fn differed(&self) -> bool {
        self.differed.load(Ordering::Relaxed)
    }

    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn mine_has_ended(&self) -> bool {
        self.mine.load(Ordering::Relaxed)
    }

    /// What the other side's head said: `Applied` if none has come.
    pub(super) fn other_said(&self) -> Outcome {
        let said = usize::from(self.other_said.load(Ordering::Relaxed));
        Outcome::ALL.get(said).copied().unwrap_or(Outcome::Applied)
    }
}
