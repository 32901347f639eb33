//! The start of a request that goes on.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::time::timeout;

use super::{CallType, frames};
use crate::body::{CopyBody, Room};

/// What has been read of a request, and how that went.
pub(super) struct Begun<E> {
    pub(super) frames: Vec<Frame<Bytes>>,
    /// All data so far, in one piece.
    pub(super) data: BytesMut,
    pub(super) then: Then<E>,
}

/// What comes after that.
pub(super) enum Then<E> {
    /// More.
    More,
    /// Nothing.
    End,
    /// The first message is longer than the limit.
    TooLong,
    /// All requests together hold as much as they may.
    NoRoom,
    Broken(E),
}

/// Who pays for what is read.
pub(super) enum Pays<'a> {
    /// This, at once.
    Now(&'a mut Room),
    /// Whoever reads it again: no more than so many bytes.
    Later(usize),
}

impl Pays<'_> {
    fn limit(&self) -> usize {
        match self {
            Self::Now(room) => room.limit(),
            Self::Later(limit) => *limit,
        }
    }

    fn pay(&mut self, bytes: usize) -> bool {
        match self {
            Self::Now(room) => room.take(bytes),
            Self::Later(_) => true,
        }
    }
}

/// The most chunks that are kept: empty ones cost no bytes, but they cost.
const MOST_CHUNKS: usize = 4_096;

/// How long a request that may be answered before its first message is waited
/// for: its client may be waiting for the answer's head, and would for ever.
const FIRST_BYTE: Duration = Duration::from_millis(500);

impl<E> Begun<E> {
    fn nothing() -> Self {
        Self { frames: Vec::new(), data: BytesMut::new(), then: Then::More }
    }

    /// Reads the first message, if it is wanted, and what else is here already:
    /// most calls are, and then are whole. At most `limit` bytes and a chunk.
    ///
    /// Of a call that may go both ways nothing at all may have come for a while:
    /// then there is nothing.
    pub(super) async fn read<B>(
        body: &mut B,
        mut pays: Pays<'_>,
        call: CallType,
        wants_message: bool,
    ) -> Self
    where
        B: CopyBody<Error = E> + Unpin,
    {
        let both_ways = matches!(call, CallType::Bidirectional | CallType::Unknown);
        if wants_message && both_ways && !body.is_end_stream() {
            let mut begun = Self::nothing();
            let first = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            match timeout(FIRST_BYTE, first).await {
                Err(_) => {}
                Ok(None) => begun.then = Then::End,
                Ok(Some(Err(error))) => begun.then = Then::Broken(error),
                Ok(Some(Ok(frame))) => {
                    if begun.take(frame, &mut pays) {
                        return begun.read_on(body, pays, wants_message).await;
                    }
                }
            }
            return begun;
        }
        Self::nothing().read_on(body, pays, wants_message).await
    }

    /// `false`: there is no room for it.
    fn take(&mut self, frame: Frame<Bytes>, pays: &mut Pays<'_>) -> bool {
        if let Some(data) = frame.data_ref() {
            if !pays.pay(data.len()) {
                self.then = Then::NoRoom;
                return false;
            }
            self.data.extend_from_slice(data);
        }
        self.frames.push(frame);
        true
    }

    async fn read_on<B>(self, body: &mut B, mut pays: Pays<'_>, wants_message: bool) -> Self
    where
        B: CopyBody<Error = E> + Unpin,
    {
        let mut begun = self;
        let limit = pays.limit();
        loop {
            if body.is_end_stream() {
                begun.then = Then::End;
                return begun;
            }
            let waits = wants_message && !frames::holds_first(&begun.data);
            let too_long = frames::first_length(&begun.data).is_some_and(|length| length > limit);
            if waits && (too_long || begun.frames.len() >= MOST_CHUNKS) {
                begun.then = Then::TooLong;
                return begun;
            }
            if !waits && (begun.data.len() >= limit || begun.frames.len() >= MOST_CHUNKS) {
                return begun;
            }
            let mut body = Pin::new(&mut *body);
            let frame = if waits {
                poll_fn(|cx| body.as_mut().poll_frame(cx)).await
            } else {
                match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(frame) => frame,
                    // Whoever reads on polls it again.
                    Poll::Pending => return begun,
                }
            };
            match frame {
                None => {
                    begun.then = Then::End;
                    return begun;
                }
                Some(Err(error)) => {
                    begun.then = Then::Broken(error);
                    return begun;
                }
                Some(Ok(frame)) => {
                    if !begun.take(frame, &mut pays) {
                        return begun;
                    }
                }
            }
        }
    }
}
