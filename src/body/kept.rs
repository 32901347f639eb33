//! The authority's answer to a dual write, on its way to the client.

#[cfg(feature = "grpc")]
use std::task::Waker;
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{CaptureError, Ending};
use crate::{flag::BoxFuture, protocol::Drained, telemetry::Refused};

/// For an answer whose end says how the write went.
pub(crate) struct Late {
    /// How many bytes of the answer's start [`tell`](Self::tell) wants to see.
    pub(crate) first: usize,
    /// Makes something of the trailers and of the answer's start.
    #[expect(clippy::type_complexity, reason = "named by its field")]
    pub(crate) tell: Box<dyn FnOnce(Option<&HeaderMap>, Bytes) -> Drained + Send>,
    /// The end of an answer that the layer has to take back.
    pub(crate) refusal: fn(Refused) -> HeaderMap,
}

/// A [`Late`] and what it has seen of the answer.
struct Watch {
    late: Late,
    seen: BytesMut,
}

impl Watch {
    fn see<E>(&mut self, frame: &Result<Frame<Bytes>, E>) {
        let room = self.late.first.saturating_sub(self.seen.len());
        if room > 0
            && let Ok(frame) = frame
            && let Some(data) = frame.data_ref()
        {
            self.seen.extend_from_slice(&data[..room.min(data.len())]);
        }
    }

    fn tell(self, trailers: Option<&HeaderMap>) -> Drained {
        let Self { late, seen } = self;
        (late.tell)(trailers, seen.freeze())
    }
}

/// Reads so many bytes more, or all there is.
type Finish<B> = fn(Pin<Box<B>>, Option<u64>, Ending, Option<Box<Watch>>);

/// The body of a dual write's authority. Dropped before its end, it is read to
/// its end by a task.
pub(crate) struct Kept<B: Body> {
    /// What was read before the answer was released.
    ahead: VecDeque<Result<Frame<B::Data>, B::Error>>,
    body: Option<Pin<Box<B>>>,
    sized: bool,
    /// How many bytes are still to be handed on: with the last of them it has
    /// ended, since a server may not ask for more. `None`: only its end tells.
    left: Option<u64>,
    rest: Option<(Ending, Option<Box<Watch>>)>,
    /// Set while the body is polled: if it still is when this is dropped, the
    /// body has panicked and must not be polled again.
    polling: bool,
    concluding: Option<Concluding>,
    /// Set where `B`'s bounds are known, so that the drop needs none.
    finish: Finish<B>,
}

/// The end of an answer, held back until it is known whether it may be handed
/// on.
struct Concluding {
    future: BoxFuture<'static, Option<Refused>>,
    trailers: Option<HeaderMap>,
    refusal: fn(Refused) -> HeaderMap,
}

impl Concluding {
    fn poll<E>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let trailers = match ready!(self.future.as_mut().poll(cx)) {
            Some(reason) => Some((self.refusal)(reason)),
            None => self.trailers.take(),
        };
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// A body of which a part has been read ahead.
pub(crate) struct ReadAhead<B: Body> {
    frames: VecDeque<Result<Frame<B::Data>, B::Error>>,
    /// `None`: it has said that it has ended, and must not be asked again.
    body: Option<Pin<Box<B>>>,
    /// Whether the body knew its length before it was read.
    sized: bool,
    /// How long it is, where it ends with its last byte.
    length: Option<u64>,
}

impl<B: Body<Data = Bytes>> ReadAhead<B> {
    pub(crate) fn none(body: B) -> Self {
        let sized = body.size_hint().exact().is_some();
        Self { frames: VecDeque::new(), body: Some(Box::pin(body)), sized, length: None }
    }

    /// The same, of a body that ends with the last of so many bytes.
    pub(crate) const fn of_length(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    /// Reads what is here already, of at most `limit` bytes and a frame, without
    /// waiting. `Some` if that is the whole body.
    #[cfg(feature = "grpc")]
    pub(crate) fn read_now(&mut self, limit: usize) -> Option<(Vec<Bytes>, Option<HeaderMap>)> {
        let (mut len, mut trailers) = (0, None);
        while let Some(body) = self.body.as_mut().filter(|body| !body.is_end_stream()) {
            if len >= limit {
                return None;
            }
            // Whoever reads on polls it again.
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                return None;
            };
            let Some(frame) = frame else {
                self.body = None;
                break;
            };
            let ended = match &frame {
                Err(_) => None,
                Ok(frame) => {
                    len += frame.data_ref().map_or(0, Bytes::len);
                    trailers = frame.trailers_ref().cloned();
                    Some(trailers.is_some())
                }
            };
            self.frames.push_back(frame);
            if ended? {
                // Nothing comes after trailers.
                self.body = None;
            }
        }
        let data = self.frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref().cloned());
        Some((data.collect(), trailers))
    }

    /// Reads on to the end, or until there is more than `limit`. `Some` is the
    /// whole body.
    pub(crate) async fn read(&mut self, limit: usize) -> Option<(Bytes, Option<HeaderMap>)> {
        let mut data = BytesMut::new();
        let mut trailers = None;
        while let Some(body) = self.body.as_mut().filter(|body| !body.is_end_stream()) {
            if self.length.is_some_and(|length| data.len() as u64 >= length) {
                break;
            }
            let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await else {
                self.body = None;
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

impl<B: Body<Data = Bytes> + Send + 'static> Kept<B> {
    pub(crate) fn new(read: ReadAhead<B>, ending: Ending, late: Option<Late>) -> Self {
        let ReadAhead { frames, body, sized, length: left } = read;
        let broken = matches!(frames.back(), Some(Err(_)));
        let ended = left == Some(0) || body.as_ref().is_none_or(|body| body.is_end_stream());
        let watch = late.map(|late| Box::new(Watch { late, seen: BytesMut::new() }));
        let mut rest = Some((ending, watch));
        if broken {
            rest.take().into_iter().for_each(|(ending, _)| ending.broke());
        } else if ended && rest.as_ref().is_some_and(|(ending, _)| !ending.is_awaited()) {
            rest.take().into_iter().for_each(|(ending, _)| ending.well());
        }
        Self {
            ahead: frames,
            body,
            sized,
            left,
            rest,
            polling: false,
            concluding: None,
            finish: finish::<B>,
        }
    }
}

/// Reads the rest of an answer whose client has left.
fn finish<B: Body<Data = Bytes> + Send + 'static>(
    mut body: Pin<Box<B>>,
    left: Option<u64>,
    ending: Ending,
    mut watch: Option<Box<Watch>>,
) {
    ending.finish(async move {
        let read = read_on(body.as_mut(), left, |frame| {
            if let Some(watch) = &mut watch {
                watch.see(frame);
            }
        });
        let trailers = read.await.map_err(|Broken| CaptureError::Broken)?;
        Ok(watch.map_or_else(Drained::default, |watch| watch.tell(trailers.as_ref())))
    });
}

impl<B: Body<Data = Bytes>> Kept<B> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(concluding) = &mut self.concluding {
            let end = ready!(concluding.poll(cx));
            self.concluding = None;
            return Poll::Ready(end);
        }
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(frame),
            None => match &mut self.body {
                Some(body) => {
                    self.polling = true;
                    let frame = body.as_mut().poll_frame(cx);
                    self.polling = false;
                    ready!(frame)
                }
                None => None,
            },
        };
        let Some((_, watch)) = &mut self.rest else {
            return Poll::Ready(frame);
        };
        if let (Some(watch), Some(frame)) = (watch, &frame) {
            watch.see(frame);
        }
        match frame {
            Some(Err(_)) => {
                self.rest.take().into_iter().for_each(|(ending, _)| ending.broke());
                Poll::Ready(frame)
            }
            Some(Ok(frame)) if frame.is_data() => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(len));
                let awaited = self.rest.as_ref().is_some_and(|(ending, _)| ending.is_awaited());
                let ended = self.left == Some(0) || (self.ahead.is_empty() && self.has_ended());
                if ended && !awaited {
                    self.rest.take().into_iter().for_each(|(ending, _)| ending.well());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Ok(frame)) => self.end(frame.into_trailers().ok(), cx),
            None => self.end(None, cx),
        }
    }

    /// The answer has ended: hands on what it ended with, once that may be.
    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.body = None;
        match self.rest.take() {
            Some((ending, Some(watch))) if ending.is_awaited() => {
                let refusal = watch.late.refusal;
                let future = ending.said(watch.tell(trailers.as_ref()));
                let concluding = self.concluding.insert(Concluding { future, trailers, refusal });
                let end = ready!(concluding.poll(cx));
                self.concluding = None;
                Poll::Ready(end)
            }
            rest => {
                rest.into_iter().for_each(|(ending, _)| ending.well());
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    /// Ends the answer here, unless its end has come already.
    pub(crate) fn close(&mut self) -> bool {
        if self.concluding.is_some() {
            return false;
        }
        self.ahead.clear();
        self.body = None;
        self.rest.take().into_iter().for_each(|(ending, _)| ending.closed());
        true
    }

    fn has_ended(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        // An end that is awaited may be replaced: there is something to come.
        let awaited = self.rest.as_ref().is_some_and(|(ending, _)| ending.is_awaited());
        self.ahead.is_empty() && self.concluding.is_none() && !awaited && self.has_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let ahead = bytes(&self.ahead);
        let rest = self.body.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |body| {
                if body.is_end_stream() { SizeHint::with_exact(0) } else { body.size_hint() }
            },
        );
        if self.sized {
            return longer(rest, ahead);
        }
        // What has been read ahead must not make a length known: a server would
        // put it into a header that the side's own answer does not have.
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        hint
    }
}

impl<B: Body> Drop for Kept<B> {
    fn drop(&mut self) {
        if let Some((ending, watch)) = self.rest.take() {
            let left = self.left.map(|left| left.saturating_sub(bytes(&self.ahead)));
            match self.body.take() {
                Some(_) if self.polling => ending.broke(),
                Some(body) if left != Some(0) => (self.finish)(body, left, ending, watch),
                _ => ending.well(),
            }
        }
    }
}

/// How many bytes were read ahead.
fn bytes<D: Buf, E>(frames: &VecDeque<Result<Frame<D>, E>>) -> u64 {
    let data = frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
    data.map(|data| data.remaining() as u64).sum()
}

/// The size of a body before which there is something else.
pub(crate) fn longer(rest: SizeHint, by: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower() + by);
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + by);
    }
    hint
}

/// A body broke off.
#[derive(Debug)]
pub(crate) struct Broken;

/// Reads a body to its end, or to the last of the bytes that are `left` of it.
/// Gives its trailers.
pub(crate) async fn read_on<B: Body>(
    mut body: Pin<&mut B>,
    mut left: Option<u64>,
    mut see: impl FnMut(&Result<Frame<B::Data>, B::Error>),
) -> Result<Option<HeaderMap>, Broken> {
    let mut trailers = None;
    while !body.is_end_stream() && left != Some(0) {
        let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await else {
            break;
        };
        see(&frame);
        match frame {
            Ok(frame) => {
                let len = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                left = left.map(|left| left.saturating_sub(len));
                trailers = frame.into_trailers().ok().or(trailers);
            }
            Err(_) => return Err(Broken),
        }
    }
    Ok(trailers)
}
