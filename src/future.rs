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
    /// On a one-sided stage, and for a read that is neither sampled nor in need of a
    /// fallback or a ramp, this is the inner service's own future (`Old` or `New`):
    /// nothing is boxed. Everything else is one boxed future (`Both`).
    ///
    /// It has no bounds and names no associated types, so that a task that holds
    /// one across an `.await` is `Send` without rustc having to prove things
    /// about every lifetime in `Req`.
    pub struct ResponseFuture<Old, New, Both, P, Req, G = ()> {
        #[pin]
        state: State<Old, New, Both>,
        mark: Option<Mark>,
        began: Option<Instant>,
        glance: G,
        protocol: PhantomData<fn(Req) -> P>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(crate) enum State<Old, New, Both> {
        Old { #[pin] future: Old },
        New { #[pin] future: New },
        /// A dual write, a watched read, or a side that was not polled ready.
        Both { #[pin] future: Both },
    }
}

/// What goes with one leg that runs alone.
pub(crate) struct Alone<G> {
    pub(crate) mark: Option<Mark>,
    /// When it began, if it is timed.
    pub(crate) began: Option<Instant>,
    pub(crate) glance: G,
}

impl<Old, New, Both, P, Req, G> ResponseFuture<Old, New, Both, P, Req, G> {
    pub(crate) fn both(future: Both, glance: G) -> Self {
        Self::with(State::Both { future }, Alone { mark: None, began: None, glance })
    }

    #[inline]
    pub(crate) fn with(state: State<Old, New, Both>, alone: Alone<G>) -> Self {
        let Alone { mark, began, glance } = alone;
        Self { state, mark, began, glance, protocol: PhantomData }
    }
}

impl<Old, New, Both, P, Req, Res, E> Future for ResponseFuture<Old, New, Both, P, Req, P::Glance>
where
    Old: Future<Output = Result<Res, E>>,
    New: Future<Output = Result<Res, E>>,
    Both: Future<Output = Result<P::Answer, E>>,
    P: Protocol<Req, Res, E>,
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
        // The answer is handed on where it comes from, and looked at by reference:
        // each move of it is a copy.
        let answer = match this.state.project() {
            StateProj::Old { future } => future.poll(cx),
            StateProj::New { future } => future.poll(cx),
            StateProj::Both { future } => return future.poll(cx),
        };
        match answer {
            Poll::Ready(Ok(answer)) => {
                if let (Some(mark), Some(began)) = (&*mark, began) {
                    mark.record(began.elapsed());
                }
                headed::<P, _, _, _>(this.glance, &answer, mark);
                Poll::Ready(Ok(P::pass(answer, mark.take())))
            }
            Poll::Ready(Err(error)) => {
                failed::<P, _, _, _>(this.glance, &error, mark.take());
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                if let Some(mark) = mark {
                    mark.set_end(End::Dropped);
                }
                Poll::Pending
            }
        }
    }
}

/// Notes what the head of an answer says.
#[inline]
fn headed<P, Req, Res, E>(glance: &P::Glance, answer: &Res, mark: &mut Option<Mark>)
where
    P: Protocol<Req, Res, E>,
{
    if let Some(mark) = mark {
        mark.set_head(P::glance(glance, Ok(answer)).map_or(End::Dropped, End::from));
    }
}

#[inline]
fn failed<P, Req, Res, E>(glance: &P::Glance, error: &E, mark: Option<Mark>)
where
    P: Protocol<Req, Res, E>,
{
    if let Some(mark) = mark {
        mark.ended(P::glance(glance, Err(error)));
    }
}

/// Hands the answer of a leg that runs alone on to the client.
pub(crate) fn hand_on<P, Req, Res, E>(
    glance: &P::Glance,
    answer: Result<Res, E>,
    mut mark: Option<Mark>,
) -> Result<P::Answer, E>
where
    P: Protocol<Req, Res, E>,
{
    match answer {
        Ok(answer) => {
            headed::<P, _, _, _>(glance, &answer, &mut mark);
            Ok(P::pass(answer, mark))
        }
        Err(error) => {
            failed::<P, _, _, _>(glance, &error, mark);
            Err(error)
        }
    }
}

impl<Old, New, Both, P, Req, G> fmt::Debug for ResponseFuture<Old, New, Both, P, Req, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
