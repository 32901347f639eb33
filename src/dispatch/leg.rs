//! One leg of a request, whatever happens to it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Duration, Instant, Sleep, sleep, sleep_until},
};
use tower_service::Service;

use super::{
    Ready,
    call::Call,
    guard::{Panicked, caught},
};
use crate::reconcile::{Turn, Turning};

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
pub(super) const fn leg<S, Req>(
    service: Ready<S>,
    request: Req,
    turn: Turning,
    ready_timeout: Duration,
) -> Leg<S, Req, S::Future>
where
    S: Service<Req>,
{
    let call = Call::new(service, request);
    Leg { turn: Some(turn), call, ready: Limit::new(ready_timeout) }
}

pin_project! {
    /// See [`leg`]. No `async` block: that would hold the request twice.
    pub(super) struct Leg<S, Req, F> {
        // `None`: it has come.
        turn: Option<Turning>,
        #[pin]
        call: Call<S, Req, F>,
        ready: Limit,
    }
}

impl<S: Service<Req>, Req> Future for Leg<S, Req, S::Future> {
    type Output = LegEnd<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(turn) = this.turn {
            match ready!(Pin::new(turn).poll(cx)) {
                Turn::Absorbed => return Poll::Ready(LegEnd::Absorbed),
                Turn::Run => *this.turn = None,
            }
        }
        match caught(|| this.call.as_mut().poll(cx)) {
            Ok(Poll::Ready(Ok(answer))) => Poll::Ready(LegEnd::Answer(answer)),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(LegEnd::Error(error)),
            Ok(Poll::Pending) if this.call.waits() => {
                this.ready.poll(cx).map(|()| LegEnd::NotReady)
            }
            Ok(Poll::Pending) => Poll::Pending,
            Err(Panicked) => Poll::Ready(LegEnd::Panicked),
        }
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

/// A future that is made when it is first polled: in [`until`], when it is found that
/// there is something to wait for. Boxed then: what is ready at once has no use for
/// it, and each task would have room for it.
pub(super) const fn late<M, F>(make: M) -> Late<M, F>
where
    M: FnOnce() -> F,
{
    Late { make: Some(make), made: None }
}

/// See [`late`].
pub(super) struct Late<M, F> {
    make: Option<M>,
    made: Option<Pin<Box<F>>>,
}

// What is pinned is in its box.
impl<M, F> Unpin for Late<M, F> {}

impl<M: FnOnce() -> F, F: Future> Future for Late<M, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if let Some(make) = this.make.take() {
            this.made = Some(Box::pin(make()));
        }
        this.made.as_mut().expect("just made").as_mut().poll(cx)
    }
}

/// Waits for `future` for as long as `limit`, as tokio's `timeout` does. But that
/// asks the clock at once, and most of what is waited for here is there already.
pub(super) const fn within<F: Future>(limit: Duration, future: F) -> Within<F> {
    Within { future, patience: Limit::new(limit) }
}

/// The same, until `deadline`.
pub(super) const fn within_until<F: Future>(deadline: Instant, future: F) -> Within<F> {
    Within { future, patience: Limit { ends: Ends::At(deadline), sleep: None } }
}

pin_project! {
    /// See [`within`].
    pub(super) struct Within<F> {
        #[pin]
        future: F,
        patience: Limit,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        this.patience.poll(cx).map(|()| None)
    }
}

/// How long something is waited for at most. The clock is asked when it is first found that
/// there is something to wait for.
struct Limit {
    ends: Ends,
    // A future that uses up all the task's budget must not make it late. Boxed: it
    // is large, and mostly not needed.
    sleep: Option<Pin<Box<Unconstrained<Sleep>>>>,
}

#[derive(Clone, Copy)]
enum Ends {
    After(Duration),
    At(Instant),
}

impl Limit {
    const fn new(limit: Duration) -> Self {
        Self { ends: Ends::After(limit), sleep: None }
    }

    /// Ready when it has run out.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ends = self.ends;
        let sleep = self.sleep.get_or_insert_with(|| {
            Box::pin(unconstrained(match ends {
                Ends::After(limit) => sleep(limit),
                Ends::At(deadline) => sleep_until(deadline),
            }))
        });
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin, task::Poll};

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
