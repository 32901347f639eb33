//! One leg of a request, whatever happens to it.

use std::{future::poll_fn, pin::pin, task::Poll};

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
    CatchPanic::new(run).await.unwrap_or_else(|Panicked| LegEnd::Panicked)
}

/// Waits for `running`, until `patience` has run out.
pub(super) async fn until<F: Future + Unpin>(
    running: &mut F,
    patience: impl Future<Output = ()>,
) -> Option<F::Output> {
    let mut patience = pin!(patience);
    poll_fn(|cx| match std::pin::Pin::new(&mut *running).poll(cx) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending => patience.as_mut().poll(cx).map(|()| None),
    })
    .await
}
