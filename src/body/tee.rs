//! Keeping what passes by.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::{Collected, Lease};

/// Why a body was not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// Over the limit of one body.
    TooLarge,
    /// Over the limit of all bodies together.
    NoRoom,
    /// It was dropped before its end.
    Gone,
    /// It broke off.
    Broken,
}

/// Takes references to the chunks of a body, up to a limit, and hands them on
/// at the body's end.
#[derive(Debug)]
pub(crate) struct Sink {
    chunks: Vec<Bytes>,
    len: usize,
    limit: usize,
    /// A body that says how long it is may not be polled past its last byte.
    exact: Option<u64>,
    trailers: Option<HeaderMap>,
    lease: Lease,
    tell: oneshot::Sender<Result<(Collected, Lease), CaptureError>>,
}

/// The other end of a [`Sink`].
#[derive(Debug)]
pub(crate) enum Capture {
    /// Known already.
    Now(Collected, Lease),
    /// When the body has ended.
    Later(oneshot::Receiver<Result<(Collected, Lease), CaptureError>>),
}

impl Capture {
    pub(crate) async fn wait(self) -> Result<(Collected, Lease), CaptureError> {
        match self {
            Self::Now(collected, lease) => Ok((collected, lease)),
            // A sink that is dropped without a word was dropped with its body.
            Self::Later(told) => told.await.unwrap_or(Err(CaptureError::Gone)),
        }
    }

    /// What was captured, if the body has ended well by now.
    pub(crate) fn now(self) -> Option<(Collected, Lease)> {
        match self {
            Self::Now(collected, lease) => Some((collected, lease)),
            Self::Later(mut told) => told.try_recv().ok().and_then(Result::ok),
        }
    }
}

impl Sink {
    pub(crate) fn new<B: Body>(body: &B, limit: usize, lease: Lease) -> (Box<Self>, Capture) {
        let (tell, told) = oneshot::channel();
        let sink = Self {
            chunks: Vec::new(),
            len: 0,
            limit,
            exact: body.size_hint().exact(),
            trailers: None,
            lease,
            tell,
        };
        (Box::new(sink), Capture::Later(told))
    }

    /// Looks at what `body` just gave. The sink is spent, and gone, once it
    /// has been told the end or has given up.
    pub(crate) fn see<B, E>(
        sink: &mut Option<Box<Self>>,
        frame: Option<&Result<Frame<Bytes>, E>>,
        body: &B,
    ) where
        B: Body<Data = Bytes>,
    {
        let Some(mut this) = sink.take() else {
            return;
        };
        match frame {
            None => return this.finish(),
            Some(Err(_)) => return this.fail(CaptureError::Broken),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    if let Err(error) = this.keep(data) {
                        return this.fail(error);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.trailers = Some(trailers.clone());
                }
            }
        }
        if body.is_end_stream() || this.exact == Some(this.len as u64) {
            this.finish();
        } else {
            *sink = Some(this);
        }
    }

    fn keep(&mut self, data: &Bytes) -> Result<(), CaptureError> {
        self.len += data.len();
        if self.len > self.limit {
            return Err(CaptureError::TooLarge);
        }
        if !self.lease.take(data.len()) {
            return Err(CaptureError::NoRoom);
        }
        self.chunks.push(data.clone());
        Ok(())
    }

    fn finish(self) {
        let data = match <[Bytes; 1]>::try_from(self.chunks) {
            Ok([only]) => only,
            Err(chunks) => {
                let mut all = BytesMut::with_capacity(self.len);
                chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
                all.freeze()
            }
        };
        let collected = Collected { data, trailers: self.trailers };
        // The reader may have given up: its deadline came.
        let _ = self.tell.send(Ok((collected, self.lease)));
    }

    fn fail(self, error: CaptureError) {
        let _ = self.tell.send(Err(error));
    }
}

pin_project! {
    /// A request body that is watched while the authority reads it.
    ///
    /// Made by the layer, and handed to [`CopyBody::from_tee`](super::CopyBody::from_tee).
    pub struct Tee<B> {
        #[pin]
        body: B,
        sink: Option<Box<Sink>>,
    }
}

impl<B> Tee<B> {
    pub(crate) const fn new(body: B, sink: Box<Sink>) -> Self {
        Self { body, sink: Some(sink) }
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
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        Sink::see(this.sink, frame.as_ref(), &*this.body);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for Tee<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").finish_non_exhaustive()
    }
}
