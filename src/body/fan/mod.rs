//! One request body, streamed to both legs of a dual write.
//!
//! There is no task in between: the branch that needs a chunk polls the source,
//! and leaves the chunk for its sibling. So at most one of the two has something
//! left to read, and that is how far they are apart.

mod branch;
mod error;
mod lane;
mod piece;
mod shared;
mod source;
mod state;
mod streaming;
#[cfg(test)]
mod tests;
mod wakers;

use std::sync::Arc;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::Instant;

pub use self::branch::Branch;
pub use self::error::BranchError;
pub(crate) use self::error::BranchFault;
pub(in crate::body) use self::error::error_of;
use self::shared::Shared;
use self::state::{AUTHORITY, State};
pub use self::streaming::{SlowLeg, Streaming};
use super::Lease;
use crate::{BoxError, stage::Role};

/// What the layer keeps of a body that is streamed to both legs. Dropping it
/// changes nothing for them.
#[derive(Clone, Debug)]
pub(crate) struct Fan(Arc<Shared>);

/// Splits a body, of which `first` has been read already, into the authority's
/// branch and the other leg's, in this order.
///
/// What is kept for the slower branch is paid for from `lease`, which may have
/// paid for `first` before. Must be called within a runtime that has a timer.
pub(crate) fn fan_out<B>(
    first: impl IntoIterator<Item = Frame<Bytes>>,
    body: B,
    streaming: Streaming,
    lease: Lease,
) -> (Fan, [Branch; 2])
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let source = Box::pin(body.map_err(Into::into));
    let shared = Arc::new(Shared::new(State::new(first, source, streaming, lease)));
    let branches = [0, 1].map(|lane| {
        let with_alarm = lane == AUTHORITY && matches!(streaming.slow_leg, SlowLeg::Hold(_));
        Branch::new(&shared, lane, with_alarm)
    });
    (Fan(shared), branches)
}

impl Fan {
    const fn lane(role: Role) -> usize {
        match role {
            Role::Authority => AUTHORITY,
            Role::Other | Role::Shadow | Role::Copy => 1 - AUTHORITY,
        }
    }

    /// Waits until nothing more comes to this leg's branch from outside: the
    /// body has ended or broken off, or the branch was cut off, closed or
    /// dropped.
    pub(crate) async fn ended(&self, role: Role) {
        self.0.ended(Self::lane(role)).await;
    }

    /// Since when this leg has not asked for more, of a body that has not ended.
    /// `None` while it waits for its client or for the other leg; that is no
    /// excuse once the client has left.
    pub(crate) fn idle(&self, role: Role) -> Option<Instant> {
        self.0.look(|state| state.idle(Self::lane(role)))
    }

    /// What went wrong on this leg's branch, if the leg can have noticed.
    pub(crate) fn fault(&self, role: Role) -> Option<BranchFault> {
        self.0.look(|state| state.fault(Self::lane(role)))
    }

    /// The client has left. An end of the body that could be that of its
    /// connection counts as an error from now on.
    pub(crate) fn left(&self) {
        self.0.with(|state, _| state.left());
    }

    /// Ends the body for both legs. What they have not read is dropped, and each
    /// that has not read everything gets [`BranchError::Closed`].
    pub(crate) fn close(&self) {
        self.0.with(|state, after| state.close(after));
    }
}
