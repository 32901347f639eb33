//! The future of a [`Migration`](crate::Migration).

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{dispatch::poll_leg, flag::Mark, protocol::Protocol};

pin_project! {
    /// The answer to come.
    ///
    /// On a one-sided stage, and for a read that is not sampled, this is the
    /// inner service's own future (`Old` or `New`): nothing is boxed. Everything
    /// else is one boxed future (`Both`).
    ///
    /// It has no bounds and names no associated types, so that a task that holds
    /// one across an `.await` is `Send` without rustc having to prove things
    /// about every lifetime in `Req`.
    pub struct ResponseFuture<Old, New, Both, P, Req> {
        #[pin]
        state: State<Old, New, Both>,
        mark: Option<Mark>,
        began: Option<Instant>,
        protocol: PhantomData<fn(Req) -> P>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Old, New, Both> {
        Old { #[pin] future: Old },
        New { #[pin] future: New },
        /// A dual write, a watched read, or a side that was not polled ready.
        Both { #[pin] future: Both },
    }
}

impl<Old, New, Both, P, Req> ResponseFuture<Old, New, Both, P, Req> {
    #[inline]
    pub(crate) const fn old(future: Old, mark: Option<Mark>, began: Option<Instant>) -> Self {
        Self { state: State::Old { future }, mark, began, protocol: PhantomData }
    }

    #[inline]
    pub(crate) const fn new(future: New, mark: Option<Mark>, began: Option<Instant>) -> Self {
        Self { state: State::New { future }, mark, began, protocol: PhantomData }
    }

    pub(crate) const fn both(future: Both) -> Self {
        Self { state: State::Both { future }, mark: None, began: None, protocol: PhantomData }
    }
}

impl<Old, New, Both, P, Req, Res, E> Future for ResponseFuture<Old, New, Both, P, Req>
where
    Old: Future<Output = Result<Res, E>>,
    New: Future<Output = Result<Res, E>>,
    Both: Future<Output = Result<P::Answer, E>>,
    P: Protocol<Req, Res>,
{
    type Output = Result<P::Answer, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.state.project() {
            StateProj::Old { future } => ready!(poll_leg(this.mark.as_mut(), || future.poll(cx))),
            StateProj::New { future } => ready!(poll_leg(this.mark.as_mut(), || future.poll(cx))),
            StateProj::Both { future } => return future.poll(cx),
        };
        let mut mark = this.mark.take();
        match answer {
            Ok(answer) => {
                if let Some(mark) = &mut mark {
                    mark.set_head(P::glance(&answer).into());
                    if let Some(began) = this.began {
                        mark.record(began.elapsed());
                    }
                }
                Poll::Ready(Ok(P::pass(answer, mark)))
            }
            Err(error) => {
                mark.into_iter().for_each(Mark::failed);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<Old, New, Both, P, Req> fmt::Debug for ResponseFuture<Old, New, Both, P, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
