//! The future of a [`Migration`](crate::Migration).

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{
    flag::{End, Mark},
    protocol::Protocol,
};

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
        let (mark, began) = (this.mark, *this.began);
        if let Some(mark) = mark {
            // A panic passes through. Whoever catches it drops this later, which
            // must not look as if the client had hung up.
            mark.set_end(End::Unknown);
        }
        // The answer is handed on where it comes from: it is moved as seldom as
        // can be.
        let polled = match this.state.project() {
            StateProj::Old { future } => match future.poll(cx) {
                Poll::Ready(answer) => {
                    return Poll::Ready(hand_on::<P, _, _, _>(answer, mark, began));
                }
                Poll::Pending => Poll::Pending,
            },
            StateProj::New { future } => match future.poll(cx) {
                Poll::Ready(answer) => {
                    return Poll::Ready(hand_on::<P, _, _, _>(answer, mark, began));
                }
                Poll::Pending => Poll::Pending,
            },
            StateProj::Both { future } => return future.poll(cx),
        };
        if let Some(mark) = mark {
            mark.set_end(End::Dropped);
        }
        polled
    }
}

#[inline]
fn hand_on<P, Req, Res, E>(
    answer: Result<Res, E>,
    mark: &mut Option<Mark>,
    began: Option<Instant>,
) -> Result<P::Answer, E>
where
    P: Protocol<Req, Res>,
{
    match answer {
        Ok(answer) => {
            if let Some(mark) = mark {
                mark.set_head(P::glance(&answer).into());
                if let Some(began) = began {
                    mark.record(began.elapsed());
                }
            }
            Ok(P::pass(answer, mark.take()))
        }
        Err(error) => {
            mark.take().into_iter().for_each(Mark::failed);
            Err(error)
        }
    }
}

impl<Old, New, Both, P, Req> fmt::Debug for ResponseFuture<Old, New, Both, P, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
