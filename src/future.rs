//! The future of a [`Migration`](crate::Migration).

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    flag::{BoxFuture, Mark},
    protocol::Protocol,
};

pin_project! {
    /// The answer to come.
    ///
    /// On a one-sided stage, and for a read that is not sampled, this is the
    /// inner service's own future: nothing is boxed. Everything else is one
    /// boxed future.
    pub struct ResponseFuture<Old, New, P, Req>
    where
        Old: Service<Req>,
        New: Service<Req>,
        P: Protocol<Req, Old::Response>,
    {
        #[pin]
        state: State<Old::Future, New::Future, P::Answer, Old::Error>,
        mark: Option<Mark>,
        began: Option<Instant>,
        protocol: PhantomData<fn(Req) -> P>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Old, New, Answer, Error> {
        Old { #[pin] future: Old },
        New { #[pin] future: New },
        /// A dual write, a watched read, or a side that was not polled ready.
        Boxed { future: BoxFuture<'static, Result<Answer, Error>> },
    }
}

impl<Old, New, P, Req> ResponseFuture<Old, New, P, Req>
where
    Old: Service<Req>,
    New: Service<Req, Response = Old::Response, Error = Old::Error>,
    P: Protocol<Req, Old::Response>,
{
    #[inline]
    pub(crate) const fn old(
        future: Old::Future,
        mark: Option<Mark>,
        began: Option<Instant>,
    ) -> Self {
        Self {
            state: State::Old { future },
            mark,
            began,
            protocol: PhantomData,
        }
    }

    #[inline]
    pub(crate) const fn new(
        future: New::Future,
        mark: Option<Mark>,
        began: Option<Instant>,
    ) -> Self {
        Self {
            state: State::New { future },
            mark,
            began,
            protocol: PhantomData,
        }
    }

    pub(crate) fn boxed(
        future: impl Future<Output = Result<P::Answer, Old::Error>> + Send + 'static,
    ) -> Self {
        let future = Box::pin(future);
        Self {
            state: State::Boxed { future },
            mark: None,
            began: None,
            protocol: PhantomData,
        }
    }
}

impl<Old, New, P, Req> Future for ResponseFuture<Old, New, P, Req>
where
    Old: Service<Req>,
    New: Service<Req, Response = Old::Response, Error = Old::Error>,
    P: Protocol<Req, Old::Response>,
{
    type Output = Result<P::Answer, Old::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.state.project() {
            StateProj::Old { future } => ready!(future.poll(cx)),
            StateProj::New { future } => ready!(future.poll(cx)),
            StateProj::Boxed { future } => return future.as_mut().poll(cx),
        };
        let mut mark = this.mark.take();
        match answer {
            Ok(answer) => {
                if let Some(mark) = &mut mark {
                    mark.set_end(P::glance(&answer).into());
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

impl<Old, New, P, Req> fmt::Debug for ResponseFuture<Old, New, P, Req>
where
    Old: Service<Req>,
    New: Service<Req>,
    P: Protocol<Req, Old::Response>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
