//! How much of a request or an answer may be kept.

use super::Lease;

/// How much of one request or answer may be kept, and what all of them together
/// may use. It gives back what it has taken when it is dropped, so it stays with
/// what it pays for.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    lease: Lease,
    may_stream: bool,
    waits: bool,
}

impl Room {
    pub(crate) const fn new(limit: usize, lease: Lease) -> Self {
        Self { limit, lease, may_stream: false, waits: false }
    }

    /// The same, for a request that need not be whole before it is copied, and
    /// whose client waits for the other side or not.
    pub(crate) const fn streaming(mut self, may_stream: bool, waits: bool) -> Self {
        self.may_stream = may_stream;
        self.waits = waits;
        self
    }

    /// The most that may be kept, in bytes.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the request may be given to both legs while it still arrives.
    #[must_use]
    pub const fn may_stream(&self) -> bool {
        self.may_stream
    }

    /// Whether the client waits for the other side, so that a slow one may hold
    /// up the authority.
    #[must_use]
    pub const fn client_waits(&self) -> bool {
        self.waits
    }

    /// Takes `bytes` of what all requests may use together. `false`: there is
    /// not so much left, and nothing was taken.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        self.lease.take(bytes)
    }

    /// What has been taken, in bytes.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.lease.bytes()
    }

    pub(crate) fn into_lease(self) -> Lease {
        self.lease
    }
}
