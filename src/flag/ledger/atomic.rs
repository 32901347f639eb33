//! The atomics of the counting protocol: std's, every operation sequentially
//! consistent. `tests/loom.rs` puts loom's in their place, to check the
//! protocol's own code.

use std::sync::atomic::Ordering::SeqCst;

pub(super) use std::sync::atomic::AtomicU64;

#[inline]
pub(super) fn load(cell: &AtomicU64) -> u64 {
    cell.load(SeqCst)
}

#[inline]
pub(super) fn increment(cell: &AtomicU64) {
    cell.fetch_add(1, SeqCst);
}

#[inline]
pub(super) fn decrement(cell: &AtomicU64) {
    cell.fetch_sub(1, SeqCst);
}
