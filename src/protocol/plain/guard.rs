//! Closures of the user's, which may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure gives. `None`: it panicked, which costs what it was asked for
/// and not the request.
#[inline]
pub(super) fn asked<T>(closure: &'static str, ask: impl FnOnce() -> T) -> Option<T> {
    let given = catch_unwind(AssertUnwindSafe(ask)).ok();
    if given.is_none() {
        panicked(closure);
    }
    given
}

/// Apart, so that the calls of one-sided stages do not carry it along.
#[cold]
#[inline(never)]
fn panicked(closure: &'static str) {
    tracing::error!(target: "tower_migration", closure, "a closure of a plain protocol panicked");
}
