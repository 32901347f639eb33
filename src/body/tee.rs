//! Keeping what passes by.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use super::{Collected, Room, kept::longer};

/// Why a body was not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

type Captured = Result<(Collected, Room), CaptureError>;

/// What has been kept so far. The reader empties it when it gives up: a body
/// that is open for hours must not hold it that long.
#[derive(Debug)]
struct Kept {
    chunks: Vec<Bytes>,
    len: usize,
    trailers: Option<HeaderMap>,
    room: Room,
}

type Shared = Arc<Mutex<Option<Kept>>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Option<Kept>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes references to the chunks of a body, up to a limit, and hands them on
/// at the body's end; or only counts them.
#[derive(Debug)]
pub(crate) struct Sink {
    kept: Option<Shared>,
    /// A body that says how long it is may not be polled past its last byte.
    exact: Option<u64>,
    /// Nobody looks at what comes after that byte: the body may be polled for
    /// more or not, and is the same.
    stops: bool,
    seen: u64,
    tell: Option<oneshot::Sender<Captured>>,
}

/// The other end of a [`Sink`]: a future, which nobody has to make another one of.
#[derive(Debug)]
pub(crate) enum Capture {
    /// Known already, and not handed out yet.
    Now(Option<(Collected, Room)>),
    /// When the body has ended.
    Later(Reader),
}

/// Waits for a body's end.
#[derive(Debug)]
pub(crate) struct Reader {
    told: oneshot::Receiver<Captured>,
    kept: Shared,
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.kept).take();
    }
}

impl Capture {
    /// What was captured, if the body has ended well by now.
    pub(crate) fn now(self) -> Option<(Collected, Room)> {
        match self {
            Self::Now(captured) => captured,
            Self::Later(mut reader) => reader.told.try_recv().ok().and_then(Result::ok),
        }
    }
}

impl Future for Capture {
    type Output = Captured;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Captured> {
        match self.get_mut() {
            Self::Now(captured) => Poll::Ready(Ok(captured.take().expect("it is asked once"))),
            // A sink that is dropped without a word was dropped with its body.
            Self::Later(reader) => {
                let told = ready!(Pin::new(&mut reader.told).poll(cx));
                Poll::Ready(told.unwrap_or(Err(CaptureError::Gone)))
            }
        }
    }
}

impl Sink {
    /// `length` is what a header says, where the body itself does not.
    pub(crate) fn new<B: Body>(body: &B, length: Option<u64>, room: Room) -> (Box<Self>, Capture) {
        let (tell, told) = oneshot::channel();
        let kept = Kept { chunks: Vec::new(), len: 0, trailers: None, room };
        let kept = Arc::new(Mutex::new(Some(kept)));
        let exact = body.size_hint().exact().or(length);
        let kept_too = Some(Arc::clone(&kept));
        let sink = Self { kept: kept_too, exact, stops: false, seen: 0, tell: Some(tell) };
        (Box::new(sink), Capture::Later(Reader { told, kept }))
    }

    /// Keeps nothing: only waits for the last of so many bytes.
    pub(crate) fn counting(length: u64) -> Box<Self> {
        Box::new(Self { kept: None, exact: Some(length), stops: false, seen: 0, tell: None })
    }

    /// The same, at its end with the last byte where the length is known.
    pub(crate) const fn stopping(mut self: Box<Self>) -> Box<Self> {
        self.stops = true;
        self
    }

    /// Whether the last byte has been seen of a body that is only counted.
    pub(crate) fn has_counted(&self) -> bool {
        self.kept.is_none() && self.is_past()
    }

    fn is_past(&self) -> bool {
        self.exact.is_some_and(|exact| self.seen >= exact)
    }

    /// Looks at what a body just gave, which may have `ended` with it. The sink
    /// is spent, and gone, once it has been told the end or has given up.
    pub(crate) fn see<E>(
        sink: &mut Option<Box<Self>>,
        frame: Option<&Result<Frame<Bytes>, E>>,
        ended: bool,
    ) {
        let Some(mut this) = sink.take() else {
            return;
        };
        match frame {
            None => return this.finish(),
            Some(Err(_)) => return this.tell(Err(CaptureError::Broken)),
            Some(Ok(frame)) => {
                if let Err(error) = this.keep(frame) {
                    return this.tell(Err(error));
                }
            }
        }
        // Nothing comes after trailers, and a server may not ask for more.
        let trailers = matches!(frame, Some(Ok(frame)) if frame.is_trailers());
        if trailers || ended || (this.stops && this.is_past()) {
            this.finish();
        } else {
            *sink = Some(this);
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) -> Result<(), CaptureError> {
        self.seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        let mut kept = lock(kept);
        // Nobody waits any more.
        let kept = kept.as_mut().ok_or(CaptureError::Gone)?;
        if let Some(data) = frame.data_ref() {
            kept.len += data.len();
            if kept.len > kept.room.limit() {
                return Err(CaptureError::TooLarge);
            }
            if !kept.room.take(data.len()) {
                return Err(CaptureError::NoRoom);
            }
            kept.chunks.push(data.clone());
        } else if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
        }
        Ok(())
    }

    fn finish(&mut self) {
        let kept = self.kept.as_ref().and_then(|kept| lock(kept).take());
        let Some(Kept { chunks, len, trailers, room }) = kept else {
            return;
        };
        let data = match <[Bytes; 1]>::try_from(chunks) {
            Ok([only]) => only,
            Err(chunks) => {
                let mut all = BytesMut::with_capacity(len);
                chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
                all.freeze()
            }
        };
        self.tell(Ok((Collected { data, trailers }, room)));
    }

    fn tell(&mut self, captured: Captured) {
        if let Some(tell) = self.tell.take() {
            // The reader may have given up: its deadline came.
            let _ = tell.send(captured);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // A server that knows a body's length drops it after its last byte.
        if self.exact == Some(self.seen) {
            self.finish();
        }
    }
}

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
        sink: Option<Box<Sink>>,
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

    pub(crate) fn watched(mut self, sink: Box<Sink>) -> Self {
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
