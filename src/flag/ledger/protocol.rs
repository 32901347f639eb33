//! How legs are counted so that a waiter neither misses one nor waits for ever.
//!
//! Only the order of a few atomic operations, and nothing else, so that loom
//! can try every interleaving of them: `tests/loom.rs` includes this file.
//!
//! # Why it is right
//!
//! An admission adds to `started` and then reads the gate again; if the gate
//! has changed it takes the addition back and starts over. All of this is
//! sequentially consistent, so an addition that a flip's waiter did not see
//! came after the flip, sees the new gate, and is taken back. A waiter reads
//! every `finished` before it reads any `started`: `finished` only grows and
//! never passes `started`, so if the two sums are equal, nothing was running
//! when the first was read, and nothing can have begun in that slot since.
//!
//! A mark that ends adds to `finished` and then looks whether anybody waits; a
//! waiter announces itself before it counts. One of the two sees the other.
//!
//! A mark that is handed over begins anew before it ends: whoever sees the end
//! sees the beginning.

use super::atomic::{AtomicU64, decrement, increment, load};

/// An admission that raced a flip, and was taken back.
#[derive(Debug)]
pub(super) struct Stale<W> {
    /// What the gate says now.
    pub(super) now: W,
    /// Whether somebody may have counted it meanwhile: wake them.
    pub(super) awaited: bool,
}

/// Counts a leg, then reads the gate again. The leg is admitted if it still
/// says `word`.
#[inline]
pub(super) fn admit<W: PartialEq>(
    started: &AtomicU64,
    waiting: &AtomicU64,
    word: &W,
    gate: impl FnOnce() -> W,
) -> Result<(), Stale<W>> {
    begin(started);
    let now = gate();
    if now == *word { Ok(()) } else { Err(Stale { now, awaited: take_back(started, waiting) }) }
}

/// Counts a leg whose word another leg's admission, or its mark, vouches for.
#[inline]
pub(super) fn begin(started: &AtomicU64) {
    increment(started);
}

/// Undoes an admission that raced a flip. Says whether somebody waits.
pub(super) fn take_back(started: &AtomicU64, waiting: &AtomicU64) -> bool {
    decrement(started);
    is_awaited(waiting)
}

/// Counts a leg's end. Says whether somebody waits.
#[inline]
pub(super) fn finish(finished: &AtomicU64, waiting: &AtomicU64) -> bool {
    increment(finished);
    is_awaited(waiting)
}

/// Goes on under another count of the same slot, without a moment in which
/// neither counts. Says whether somebody waits.
pub(super) fn hand_over(started: &AtomicU64, finished: &AtomicU64, waiting: &AtomicU64) -> bool {
    begin(started);
    finish(finished, waiting)
}

#[inline]
fn is_awaited(waiting: &AtomicU64) -> bool {
    load(waiting) > 0
}

/// Legs in flight, at some moment between the first reading and the last.
/// Never 0 if one ran all the while.
pub(super) fn in_flight<'a>(
    finished: impl Iterator<Item = &'a AtomicU64>,
    started: impl Iterator<Item = &'a AtomicU64>,
) -> u64 {
    let sum = |sum: u64, cell: &AtomicU64| sum.wrapping_add(load(cell));
    let finished = finished.fold(0, sum);
    started.fold(0, sum).saturating_sub(finished)
}

/// What a waiter finds when it looks.
#[derive(Debug)]
pub(super) enum Look<P> {
    /// Nothing is left.
    Done,
    /// Look again after this.
    Pause(P),
    /// Look again when something has ended.
    Running,
}

/// Waits until `look` says that it is done. `arm` answers a future that ends
/// with the next wake-up after `arm` was called, polled by then or not.
pub(super) async fn wait<E: Future<Output = ()>, P: Future<Output = ()>>(
    waiting: &AtomicU64,
    arm: impl Fn() -> E,
    look: impl Fn() -> Look<P>,
) {
    let _announced = Announced::new(waiting);
    loop {
        // Before it looks: what ends after the look wakes it.
        let ended = arm();
        match look() {
            Look::Done => return,
            Look::Pause(pause) => pause.await,
            Look::Running => ended.await,
        }
    }
}

/// A waiter that marks which end know of.
pub(super) struct Announced<'a>(&'a AtomicU64);

impl<'a> Announced<'a> {
    pub(super) fn new(waiting: &'a AtomicU64) -> Self {
        increment(waiting);
        Self(waiting)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        decrement(self.0);
    }
}
