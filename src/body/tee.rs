//! A request body that is watched while it is read.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Sink, kept::longer};

pin_project! {
    /// A request body that is watched while the authority reads it.
    ///
    /// Made by the layer, and handed to [`CopyBody::from_tee`](super::CopyBody::from_tee).
    pub struct Tee<B: Body> {
        #[pin]
        body: B,
        // What has been read of it before.
        first: VecDeque<Result<Frame<Bytes>, B::Error>>,
        // There is no more than that: a body must not be asked past its end.
        ended: bool,
        sink: Option<Sink>,
    }
}

impl<B: Body<Data = Bytes>> Tee<B> {
    /// `first` has been read of `body`, which may have `ended` with it.
    pub(crate) const fn new(
        body: B,
        first: VecDeque<Result<Frame<Bytes>, B::Error>>,
        ended: bool,
    ) -> Self {
        Self { body, first, ended, sink: None }
    }

    pub(crate) fn watched(mut self, sink: Sink) -> Self {
        self.sink = Some(sink);
        self
    }
}

impl<B: Body<Data = Bytes>> Body for Tee<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = match this.first.pop_front() {
            Some(frame) => Some(frame),
            None if *this.ended => None,
            None => ready!(this.body.as_mut().poll_frame(cx)),
        };
        *this.ended |= matches!(frame, None | Some(Err(_))) && this.first.is_empty();
        let ended = this.first.is_empty() && (*this.ended || this.body.is_end_stream());
        Sink::see(this.sink, frame.as_ref(), ended);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.body.size_hint() };
        longer(rest, first.map(|data| data.len() as u64).sum())
    }
}

impl<B: Body> fmt::Debug for Tee<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").finish_non_exhaustive()
    }
}
