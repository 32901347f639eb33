//! What `src/flag/ledger/atomic.rs` is to the crate: the operations of the
//! counting protocol, on loom's atomics.
//!
//! loom takes a `SeqCst` access for `AcqRel` and nothing more, and says to use
//! fences instead. A `SeqCst` fence on either side of every access is the same
//! thing here: all accesses of the protocol are sequentially consistent, so
//! std's behave as *some* interleaving of them, and with a fence between any
//! two accesses of one thread RC11 allows no other behaviour either (every
//! cycle of reads and writes that contradicts an interleaving would have to go
//! through two fences that are each before the other). So loom sees nothing
//! that could not happen, and misses nothing that could.

use std::{cell::Cell, thread::panicking};

use loom::sync::atomic::{Ordering::SeqCst, fence};

pub(super) use loom::sync::atomic::AtomicU64;

thread_local! {
    /// A thread of the model unwinds because the test wants it to. All of them
    /// run on one thread of the machine.
    pub(crate) static UNWINDS: Cell<bool> = const { Cell::new(false) };
}

fn fenced<T: Default>(access: impl FnOnce() -> T) -> T {
    if panicking() && !UNWINDS.get() {
        // loom has found something and unwinds what is left of the model. It
        // answers no more.
        return T::default();
    }
    fence(SeqCst);
    let result = access();
    fence(SeqCst);
    result
}

pub(super) fn load(cell: &AtomicU64) -> u64 {
    fenced(|| cell.load(SeqCst))
}

pub(super) fn store(cell: &AtomicU64, value: u64) {
    fenced(|| cell.store(value, SeqCst));
}

pub(super) fn increment(cell: &AtomicU64) {
    fenced(|| _ = cell.fetch_add(1, SeqCst));
}

pub(super) fn decrement(cell: &AtomicU64) {
    fenced(|| _ = cell.fetch_sub(1, SeqCst));
}
