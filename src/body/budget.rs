//! Bytes in use, over all requests.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count of bytes in use. The limit comes with each question, since layers
/// of one handle may set different ones.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A lease of nothing yet.
    pub(crate) const fn lease(self: Arc<Self>, limit: usize) -> Lease {
        Lease { budget: self, limit, bytes: 0 }
    }
}

/// Bytes that somebody holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    limit: usize,
    bytes: usize,
}

impl Lease {
    /// Takes more, unless that would pass the limit.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// Gives some back; never more than it holds.
    pub(crate) fn give(&mut self, bytes: usize) {
        let given = bytes.min(self.bytes);
        self.bytes -= given;
        self.budget.0.fetch_sub(given, Ordering::Relaxed);
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Most hold nothing: theirs is a request without a body.
        if self.bytes > 0 {
            self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_refused_over_the_limit_and_given_back() {
        let budget = Arc::new(Budget::default());
        let mut first = Arc::clone(&budget).lease(10);
        let mut second = Arc::clone(&budget).lease(10);
        assert!(first.take(7));
        assert!(!second.take(4));
        assert!(second.take(3));
        assert!(!second.take(usize::MAX));
        drop(first);
        assert_eq!(budget.used(), 3);
        assert!(second.take(7));
        assert_eq!(second.bytes(), 10);
    }

    #[test]
    fn a_part_of_a_lease_is_given_back_once() {
        let budget = Arc::new(Budget::default());
        let mut lease = Arc::clone(&budget).lease(10);
        let mut waiting = Arc::clone(&budget).lease(10);
        assert!(lease.take(8));
        assert!(!waiting.take(5));
        lease.give(3);
        assert_eq!((lease.bytes(), budget.used()), (5, 5));
        assert!(waiting.take(5));
        // More than there is: somebody else's bytes stay theirs.
        lease.give(usize::MAX);
        assert_eq!((lease.bytes(), budget.used()), (0, 5));
        drop(lease);
        assert_eq!(budget.used(), 5);
    }
}
