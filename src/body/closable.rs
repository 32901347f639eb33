//! An answer that the layer may end, whether anybody reads it or not.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::{AnswerBody, Closing, SaysWhere};

type Given<B> = Option<Result<Frame<Bytes>, <B as Body>::Error>>;

/// An answer that a task of its own ends when its time has come: a client that
/// reads nothing polls nothing, and must not keep a step waiting.
pub(super) struct Closable<B: Body, W> {
    state: Arc<Mutex<State<B, W>>>,
    task: AbortHandle,
}

struct State<B: Body, W> {
    /// `None` once it has ended, or was ended.
    body: Option<Pin<Box<AnswerBody<B, W>>>>,
    /// What it was ended with, until that has been handed on.
    end: Option<HeaderMap>,
    reader: Option<Waker>,
}

fn lock<B: Body, W>(state: &Mutex<State<B, W>>) -> MutexGuard<'_, State<B, W>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B, W> Closable<B, W>
where
    B: Body<Data = Bytes, Error: Send> + Send + 'static,
    W: SaysWhere,
{
    #[cfg_attr(not(feature = "grpc"), allow(dead_code, reason = "only gRPC closes answers"))]
    pub(super) fn new(body: AnswerBody<B, W>, mut closing: Closing, end: HeaderMap) -> Self {
        let state = State { body: Some(Box::pin(body)), end: None, reader: None };
        let state = Arc::new(Mutex::new(state));
        let reached = Arc::downgrade(&state);
        let task = tokio::spawn(async move {
            closing.wait().await;
            let Some(state) = reached.upgrade() else { return };
            let reader = {
                let mut state = lock(&state);
                let ended = state.body.as_mut().is_some_and(|body| body.as_mut().close());
                if !ended {
                    // Its end is here already, or on its way.
                    return;
                }
                state.body = None;
                state.end = Some(end);
                state.reader.take()
            };
            closing.closed();
            reader.into_iter().for_each(Waker::wake);
        });
        Self { state, task: task.abort_handle() }
    }
}

impl<B: Body<Data = Bytes>, W: SaysWhere> Closable<B, W> {
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Given<B>> {
        let mut state = lock(&self.state);
        let Some(body) = &mut state.body else {
            return Poll::Ready(state.end.take().map(|end| Ok(Frame::trailers(end))));
        };
        let polled = body.as_mut().poll_frame(cx);
        match &polled {
            Poll::Pending => state.reader = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {}
            Poll::Ready(_) => {
                state.body = None;
                self.task.abort();
            }
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        match &state.body {
            Some(body) => body.is_end_stream(),
            None => state.end.is_none(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &lock(&self.state).body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B: Body, W> Drop for Closable<B, W> {
    fn drop(&mut self) {
        self.task.abort();
        let body = lock(&self.state).body.take();
        drop(body);
    }
}
