//! The body of what the layer answers.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{runtime, time::timeout};

use super::Sink;
use crate::flag::Mark;

pin_project! {
    /// The body of an answer that came through the layer: the inner service's
    /// own, streamed on as it comes, or one of the layer's refusals.
    ///
    /// It holds the request's in-flight mark until it ends or is dropped, since
    /// a handler that streams may still be writing. If the client of a dual
    /// write hangs up half-way, the rest is read and thrown away by a task, so
    /// that both legs run to their end.
    pub struct AnswerBody<B: Body> {
        #[pin]
        inner: Inner<B>,
        mark: Option<Mark>,
        sink: Option<Box<Sink>>,
    }
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B: Body> {
        Passed { #[pin] body: B },
        // Boxed: it is rare, and every answer has room for it.
        Kept { kept: Box<Kept<B>> },
        Own { data: Bytes },
    }
}

impl<B: Body> AnswerBody<B> {
    /// A body that the layer made itself.
    pub(crate) const fn own(data: Bytes) -> Self {
        Self { inner: Inner::Own { data }, mark: None, sink: None }
    }

    /// The authority's body of a dual write.
    pub(crate) fn kept(kept: Kept<B>) -> Self {
        Self { inner: Inner::Kept { kept: Box::new(kept) }, mark: None, sink: None }
    }
}

impl<B: Body> AnswerBody<B> {
    /// A body that is handed on as it is.
    #[inline]
    pub(crate) fn passed(body: B, mut mark: Option<Mark>) -> Self {
        let ended = body.is_end_stream();
        if ended && let Some(mark) = &mut mark {
            mark.answered();
        }
        Self { inner: Inner::Passed { body }, mark: mark.filter(|_| !ended), sink: None }
    }

    /// The same, watched by `sink`.
    pub(crate) fn watched(body: B, mark: Option<Mark>, sink: Option<Box<Sink>>) -> Self {
        Self { sink, ..Self::passed(body, mark) }
    }
}

impl<B: Body<Data = Bytes>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.inner.project() {
            InnerProj::Passed { mut body } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                if this.sink.is_some() {
                    Sink::see(this.sink, frame.as_ref(), &*body);
                }
                let broken = matches!(frame, Some(Err(_)));
                if !broken
                    && (frame.is_none() || body.is_end_stream())
                    && let Some(mut mark) = this.mark.take()
                {
                    mark.answered();
                }
                Poll::Ready(frame)
            }
            InnerProj::Kept { kept } => kept.poll_frame(cx),
            InnerProj::Own { data } => {
                let data = std::mem::take(data);
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Passed { body } => body.is_end_stream(),
            Inner::Kept { kept } => kept.is_end_stream(),
            Inner::Own { data } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Passed { body } => body.size_hint(),
            Inner::Kept { kept } => kept.size_hint(),
            Inner::Own { data } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

impl<B: Body> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

/// The body of a dual write's authority. Dropped before its end, it is read to
/// its end by a task.
pub(crate) struct Kept<B: Body> {
    /// What was read before the answer was released.
    ahead: VecDeque<Result<Frame<B::Data>, B::Error>>,
    body: Option<Pin<Box<B>>>,
    end: Option<KeptEnd>,
    /// Set where `B`'s bounds are known, so that the drop needs none.
    finish: fn(Pin<Box<B>>, KeptEnd),
}

/// What hangs on the end of a kept body.
pub struct KeptEnd {
    pub(crate) mark: Mark,
    /// How long a task reads on without a client.
    pub(crate) limit: Duration,
    pub(crate) runtime: runtime::Handle,
    /// Called if the body breaks off.
    pub(crate) broken: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for KeptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptEnd").finish_non_exhaustive()
    }
}

/// A body of which a part has been read ahead.
pub(crate) struct ReadAhead<B: Body> {
    pub(crate) frames: VecDeque<Result<Frame<B::Data>, B::Error>>,
    pub(crate) body: Pin<Box<B>>,
}

impl<B: Body<Data = Bytes>> ReadAhead<B> {
    pub(crate) fn none(body: B) -> Self {
        Self { frames: VecDeque::new(), body: Box::pin(body) }
    }

    /// Reads on to the end, or until there is more than `limit`. `Some` is the
    /// whole body.
    pub(crate) async fn read(&mut self, limit: usize) -> Option<(Bytes, Option<HeaderMap>)> {
        let mut data = BytesMut::new();
        let mut trailers = None;
        while !self.body.is_end_stream() {
            let Some(frame) = poll_fn(|cx| self.body.as_mut().poll_frame(cx)).await else {
                break;
            };
            let whole = match &frame {
                Ok(frame) => {
                    if let Some(chunk) = frame.data_ref() {
                        data.extend_from_slice(chunk);
                    }
                    trailers = frame.trailers_ref().cloned().or(trailers);
                    data.len() <= limit
                }
                Err(_) => false,
            };
            self.frames.push_back(frame);
            if !whole {
                return None;
            }
        }
        Some((data.freeze(), trailers))
    }
}

impl<B: Body + Send + 'static> Kept<B> {
    pub(crate) fn new(read: ReadAhead<B>, end: KeptEnd) -> Self {
        let ReadAhead { frames, body } = read;
        let broken = matches!(frames.back(), Some(Err(_)));
        let ended = body.is_end_stream();
        let mut end = Some(end);
        if broken {
            if let Some(end) = end.take() {
                (end.broken)();
            }
        } else if ended {
            end = None;
        }
        Self {
            ahead: frames,
            body: Some(body),
            end,
            finish: |body, end| {
                let runtime = end.runtime.clone();
                runtime.spawn(async move {
                    match timeout(end.limit, drain(body)).await {
                        Ok(true) => {}
                        // It may still land, for all we know.
                        Ok(false) | Err(_) => {
                            let mut end = end;
                            end.mark.set_lingers(true);
                            (end.broken)();
                        }
                    }
                });
            },
        }
    }
}

impl<B: Body<Data = Bytes>> Kept<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(frame));
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            if let Some(end) = self.end.take() {
                (end.broken)();
            }
        } else if frame.is_none() || body.is_end_stream() {
            self.end = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self
            .ahead
            .iter()
            .filter_map(|frame| frame.as_ref().ok()?.data_ref())
            .map(|data| data.len() as u64)
            .sum();
        let rest = self.body.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |body| {
                if body.is_end_stream() { SizeHint::with_exact(0) } else { body.size_hint() }
            },
        );
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

impl<B: Body> Drop for Kept<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(end)) = (self.body.take(), self.end.take()) {
            (self.finish)(body, end);
        }
    }
}

/// Reads a body to its end and forgets it. Says whether it ended well.
pub(crate) async fn drain<B: Body>(mut body: Pin<Box<B>>) -> bool {
    while !body.is_end_stream() {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => break,
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
        }
    }
    true
}
