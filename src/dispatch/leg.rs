//! One leg of a request, whatever happens to it.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Duration, timeout};
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
pub(super) async fn leg<S, Req>(
    mut service: Ready<S>,
    request: Req,
    turn: impl Future<Output = Turn>,
    ready_timeout: Duration,
) -> LegEnd<S::Response, S::Error>
where
    S: Service<Req>,
{
    if let Turn::Absorbed = turn.await {
        return LegEnd::Absorbed;
    }
    let run = async {
        match timeout(ready_timeout, service.ready()).await {
            Err(_) => return LegEnd::NotReady,
            Ok(Err(error)) => return LegEnd::Error(error),
            Ok(Ok(())) => {}
        }
        match service.call(request).await {
            Ok(answer) => LegEnd::Answer(answer),
            Err(error) => LegEnd::Error(error),
        }
    };
    CatchPanic::new(pin!(run)).await.unwrap_or_else(|Panicked| LegEnd::Panicked)
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
