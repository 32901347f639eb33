//! One leg of a request, whatever happens to it.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Duration, Sleep, sleep},
};
use tower_service::Service;

use super::{
    Ready,
    guard::{CatchPanic, Panicked},
};
use crate::reconcile::Turn;

/// How a leg ended.
#[derive(Debug)]
pub(super) enum LegEnd<Res, E> {
    Answer(Res),
    Error(E),
    Panicked,
    NotReady,
    /// A copy has done its work already.
    Absorbed,
}

/// Waits for its turn, for readiness, and for the answer.
///
/// No `async fn`: that would hold the request twice.
pub(super) fn leg<S, Req>(
    mut service: Ready<S>,
    request: Req,
    turn: impl Future<Output = Turn>,
    ready_timeout: Duration,
) -> impl Future<Output = LegEnd<S::Response, S::Error>>
where
    S: Service<Req>,
{
    async move {
        if let Turn::Absorbed = turn.await {
            return LegEnd::Absorbed;
        }
        let run = async {
            match within(ready_timeout, service.ready()).await {
                None => return LegEnd::NotReady,
                Some(Err(error)) => return LegEnd::Error(error),
                Some(Ok(())) => {}
            }
            match service.call(request).await {
                Ok(answer) => LegEnd::Answer(answer),
                Err(error) => LegEnd::Error(error),
            }
        };
        CatchPanic::new(pin!(run)).await.unwrap_or_else(|Panicked| LegEnd::Panicked)
    }
}

/// Waits for `running`, until `patience` has run out.
pub(super) const fn until<F: Future + Unpin, P: Future>(
    running: &mut F,
    patience: P,
) -> Until<'_, F, P> {
    Until { running, patience }
}

pin_project! {
    /// See [`until`]. No `async fn`: that would hold `patience` twice, as what it was
    /// given and as what it pins, and these are nested.
    pub(super) struct Until<'a, F, P> {
        running: &'a mut F,
        #[pin]
        patience: P,
    }
}

impl<F: Future + Unpin, P: Future> Future for Until<'_, F, P> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match Pin::new(&mut **this.running).poll(cx) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending => this.patience.poll(cx).map(|_| None),
        }
    }
}

/// A future that is kept elsewhere, and ends with this.
pub(super) struct Lent<'a, F>(Pin<&'a mut Option<F>>);

impl<'a, F> Lent<'a, F> {
    pub(super) const fn new(future: Pin<&'a mut Option<F>>) -> Self {
        Self(future)
    }
}

impl<F: Future> Future for Lent<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().as_pin_mut().expect("there until it is dropped").poll(cx)
    }
}

impl<F> Drop for Lent<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Waits for `future` for as long as `limit`, as tokio's `timeout` does. But that
/// asks the clock at once, and most of what is waited for here is there already.
pub(super) const fn within<F: Future>(limit: Duration, future: F) -> Within<F> {
    Within { future, limit, patience: None }
}

pin_project! {
    /// See [`within`].
    pub(super) struct Within<F> {
        #[pin]
        future: F,
        limit: Duration,
        // A future that uses up all the task's budget must not make it late. Boxed: it
        // is large, and mostly not needed.
        patience: Option<Pin<Box<Unconstrained<Sleep>>>>,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let limit = *this.limit;
        let patience = this.patience.get_or_insert_with(|| Box::pin(unconstrained(sleep(limit))));
        patience.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, task::Poll};

    use tokio::{task::coop::consume_budget, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_not_timed_and_what_is_not_is_waited_for_as_long_as_the_limit() {
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Some(1));
        let began = tokio::time::Instant::now();
        assert_eq!(within(Duration::from_secs(7), pending::<()>()).await, None);
        assert_eq!(began.elapsed().as_secs(), 7);
        let late = async {
            sleep(Duration::from_secs(3)).await;
            2
        };
        assert_eq!(within(Duration::from_secs(7), late).await, Some(2));
    }

    /// In real time: a paused clock stands still while there is something to do.
    #[tokio::test]
    async fn a_future_that_uses_up_its_tasks_budget_is_not_waited_for_longer() {
        let greedy = std::future::poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::<()>::Pending
        });
        let waited = timeout(Duration::from_secs(30), within(Duration::from_millis(5), greedy));
        assert_eq!(waited.await.expect("the limit counts"), None);
    }
}
