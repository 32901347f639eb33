//! The body of what the layer answers.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Closing, Kept, Sink, closable::Closable};
use crate::{
    flag::{End, Mark},
    stage::Outcome,
};

/// Where an answer says how the request went.
pub trait SaysWhere: 'static {
    /// What the end of an answer says; `None` where only the head does.
    fn at_end(trailers: Option<&HeaderMap>) -> Option<Outcome>;
}

/// The answer's head says it: HTTP.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing in it")]
pub struct AtHead;

impl SaysWhere for AtHead {
    #[inline]
    fn at_end(_: Option<&HeaderMap>) -> Option<Outcome> {
        None
    }
}

pin_project! {
    /// The body of an answer that came through the layer: the inner service's
    /// own, streamed on as it comes, or one of the layer's refusals.
    ///
    /// It holds the request's in-flight mark until it ends or is dropped, since
    /// a handler that streams may still be writing. If the client of a dual
    /// write hangs up half-way, the rest is read and thrown away by a task, so
    /// that both legs run to their end.
    pub struct AnswerBody<B: Body, W = AtHead> {
        #[pin]
        inner: Inner<B, W>,
        mark: Option<Mark>,
        sink: Option<Sink>,
    }
}

pin_project! {
    #[project = InnerProj]
    enum Inner<B: Body, W> {
        Passed { #[pin] body: B },
        // Boxed: it is rare, and every answer has room for it.
        Kept { kept: Box<Kept<B>> },
        Closable { body: Closable<B, W> },
        Own { data: Bytes, says: PhantomData<fn() -> W> },
    }
}

impl<B: Body, W: SaysWhere> AnswerBody<B, W> {
    /// A body that the layer made itself.
    pub(crate) fn own(data: Bytes) -> Self {
        Self { inner: Inner::Own { data, says: PhantomData }, mark: None, sink: None }
    }

    /// The authority's body of a dual write.
    pub(crate) fn kept(kept: Kept<B>) -> Self {
        Self { inner: Inner::Kept { kept: Box::new(kept) }, mark: None, sink: None }
    }
}

impl<B: Body<Data = Bytes>, W: SaysWhere> AnswerBody<B, W> {
    /// A body that is handed on as it is.
    #[inline]
    pub(crate) fn passed(body: B, mut mark: Option<Mark>) -> Self {
        let ended = body.is_end_stream();
        if ended && let Some(mark) = &mut mark {
            if mark.is_open()
                && let Some(outcome) = W::at_end(None)
            {
                mark.set_end(outcome.into());
            }
            mark.answered();
        }
        Self { inner: Inner::Passed { body }, mark: mark.filter(|_| !ended), sink: None }
    }

    /// The same, of an answer whose head says how long it is: a server may not
    /// ask for more than that, so it ends with the last byte.
    #[inline]
    pub(crate) fn of_length(mut self, length: impl FnOnce() -> Option<u64>) -> Self {
        if self.mark.as_ref().is_some_and(Mark::is_write)
            && self.size_hint().exact().is_none()
            && let Some(length) = length()
        {
            self.sink = Some(Sink::counting(length));
        }
        self
    }

    /// The same, watched by `sink`.
    pub(crate) fn watched(body: B, mark: Option<Mark>, sink: Option<Sink>) -> Self {
        Self { sink, ..Self::passed(body, mark) }
    }
}

impl<B: Body<Data = Bytes>, W: SaysWhere> Body for AnswerBody<B, W> {
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
                let mut ended = body.is_end_stream();
                if this.sink.is_some() {
                    ended |= Sink::see(this.sink, frame.as_ref(), ended);
                }
                if this.mark.is_some() {
                    note::<_, W>(this.mark, &frame, ended);
                }
                Poll::Ready(frame)
            }
            InnerProj::Kept { kept } => kept.poll_frame(cx),
            InnerProj::Closable { body } => body.poll_frame(cx),
            InnerProj::Own { data, .. } => {
                let data = std::mem::take(data);
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Passed { body } => body.is_end_stream(),
            Inner::Kept { kept } => kept.is_end_stream(),
            Inner::Closable { body } => body.is_end_stream(),
            Inner::Own { data, .. } => data.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Passed { body } => body.size_hint(),
            Inner::Kept { kept } => kept.size_hint(),
            Inner::Closable { body } => body.size_hint(),
            Inner::Own { data, .. } => SizeHint::with_exact(data.len() as u64),
        }
    }
}

impl<B, W> AnswerBody<B, W>
where
    B: Body<Data = Bytes, Error: Send> + Send + 'static,
    W: SaysWhere,
{
    /// The same, ended by the layer with `end` when `closing` says so.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "only gRPC closes answers"))]
    pub(crate) fn closed_when(self, closing: Closing, end: HeaderMap) -> Self {
        if self.is_end_stream() {
            return self;
        }
        let body = Closable::new(self, closing, end);
        Self { inner: Inner::Closable { body }, mark: None, sink: None }
    }

    /// Ends the answer in the middle. `false`: it has come to its end already.
    pub(super) fn close(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        let mut inner = this.inner;
        match inner.as_mut().project() {
            InnerProj::Passed { .. } => {
                if let Some(mut mark) = this.mark.take() {
                    // What the handler has done so far may still land.
                    mark.set_end(End::Unknown);
                    mark.set_lingers(true);
                }
            }
            InnerProj::Kept { kept } => {
                if !kept.close() {
                    return false;
                }
            }
            InnerProj::Closable { .. } | InnerProj::Own { .. } => return false,
        }
        inner.set(Inner::Own { data: Bytes::new(), says: PhantomData });
        true
    }
}

impl<B: Body, W> fmt::Debug for AnswerBody<B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

/// Notes what the end of an answer says.
fn note<E, W: SaysWhere>(
    slot: &mut Option<Mark>,
    frame: &Option<Result<Frame<Bytes>, E>>,
    ended: bool,
) {
    let trailers = match frame {
        Some(Err(_)) => {
            if let Some(mark) = slot.as_mut().filter(|mark| mark.is_open()) {
                mark.set_end(End::Unknown);
            }
            return;
        }
        // Nothing comes after trailers, and a server may not ask for more.
        Some(Ok(frame)) if frame.is_trailers() => frame.trailers_ref(),
        Some(Ok(_)) if !ended => return,
        _ => None,
    };
    if let Some(mut mark) = slot.take() {
        if mark.is_open()
            && let Some(outcome) = W::at_end(trailers)
        {
            mark.set_end(outcome.into());
        }
        mark.answered();
    }
}
