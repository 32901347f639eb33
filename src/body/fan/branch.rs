//! The body that one leg reads.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    BranchError,
    piece::Piece,
    shared::Shared,
    source::{Arrived, SourceBody},
    state::{Back, Next},
};

/// The request body of one leg, while it is streamed to both.
///
/// Made by the layer, and handed to
/// [`CopyBody::from_branch`](super::super::CopyBody::from_branch). Both branches
/// of a request give the same chunks and trailers, in the same order, each at
/// the speed of its reader within the limits of
/// [`Streaming`](super::Streaming). One that is not wanted should be dropped:
/// while it exists, the other may have to wait for it.
pub struct Branch {
    shared: Arc<Shared>,
    lane: usize,
    /// Wakes both branches: the source is polled with it.
    both: Waker,
    /// Made beforehand, where there is sure to be a runtime. It only wakes, for
    /// a moment that may have moved on; [`State::next`](super::state::State::next)
    /// decides.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Branch {
    pub(super) fn new(shared: &Arc<Shared>, lane: usize, with_alarm: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            lane,
            both: Waker::from(Arc::clone(&shared.wakers)),
            alarm: with_alarm.then(|| Box::pin(sleep(Duration::MAX))),
        }
    }

    /// Polls the source, which nobody else can reach meanwhile, and without the
    /// lock: it may wake the sibling, and that may be polled right then.
    fn read(&self, body: SourceBody) -> Back {
        let mut reading = Reading { shared: &self.shared, lane: self.lane, body: Some(body) };
        let Some(body) = reading.body.as_mut() else {
            return Back::Wait;
        };
        let arrived = match body.as_mut().poll_frame(&mut Context::from_waker(&self.both)) {
            Poll::Pending => Arrived::Pending,
            Poll::Ready(None) => Arrived::End,
            Poll::Ready(Some(Err(error))) => Arrived::Broken(error.into()),
            Poll::Ready(Some(Ok(frame))) => match Piece::of(frame) {
                None => Arrived::Nothing,
                Some(piece) => {
                    Arrived::Piece { piece, last: body.is_end_stream(), rest: body.size_hint() }
                }
            },
        };
        reading.body.take().map_or(Back::Wait, |body| {
            self.shared.with(|state, after| state.put_back(self.lane, body, arrived, after))
        })
    }

    /// Whether the alarm has gone off.
    fn alarm(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        self.alarm.as_mut().is_some_and(|alarm| {
            if alarm.deadline() != until {
                alarm.as_mut().reset(until);
            }
            alarm.as_mut().poll(cx).is_ready()
        })
    }

    fn poll_given(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BranchError>>> {
        let mut registered = false;
        loop {
            let until = match self.shared.with(|state, after| state.next(self.lane, after)) {
                Next::Give(given) => return Poll::Ready(given),
                Next::Read(body) => {
                    self.shared.wakers.register(self.lane, cx.waker());
                    match self.read(body) {
                        Back::Give(given) => return Poll::Ready(given),
                        Back::Wait => return Poll::Pending,
                        Back::Again => continue,
                    }
                }
                Next::Wait => None,
                Next::Held(until) => Some(until),
            };
            if !registered {
                // Look once more: what is waited for may just have come.
                self.shared.wakers.register(self.lane, cx.waker());
                registered = true;
                continue;
            }
            if until.is_none_or(|until| !self.alarm(until, cx)) {
                return Poll::Pending;
            }
        }
    }
}

/// A source that is being polled. Dropped with it, which only a panic does, it
/// tells the sibling.
struct Reading<'a> {
    shared: &'a Shared,
    lane: usize,
    body: Option<SourceBody>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.body.is_some() {
            self.shared.with(|state, after| state.lost(self.lane, after));
        }
    }
}

impl Body for Branch {
    type Data = Bytes;
    type Error = BranchError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BranchError>>> {
        let given = self.poll_given(cx);
        if given.is_ready() {
            // Or the sibling would wake a task that waits for something else.
            self.shared.wakers.forget(self.lane);
        }
        given
    }

    fn is_end_stream(&self) -> bool {
        self.shared.look(|state| state.is_end_stream(self.lane))
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.look(|state| state.size_hint(self.lane))
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.shared.wakers.forget(self.lane);
        self.shared.with(|state, after| state.gone(self.lane, after));
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch").finish_non_exhaustive()
    }
}

// Boxed bodies ask for it.
const _: () = {
    const fn check<T: Send + Sync + Unpin>() {}
    check::<Branch>();
};
