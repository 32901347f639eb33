//! The start of a request that goes on.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::frames;
use crate::body::CopyBody;

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
    Broken(E),
}

impl<E> Begun<E> {
    /// Reads the first message, if it is wanted, and what else is here already:
    /// most calls are, and then are whole. At most `limit` bytes and a chunk.
    pub(super) async fn read<B>(body: &mut B, limit: usize, wants_message: bool) -> Self
    where
        B: CopyBody<Error = E> + Unpin,
    {
        let mut begun = Self { frames: Vec::new(), data: BytesMut::new(), then: Then::More };
        loop {
            if body.is_end_stream() {
                begun.then = Then::End;
                return begun;
            }
            let waits = wants_message && !frames::holds_first(&begun.data);
            if waits && frames::first_length(&begun.data).is_some_and(|length| length > limit) {
                begun.then = Then::TooLong;
                return begun;
            }
            if !waits && begun.data.len() >= limit {
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
                    if let Some(data) = frame.data_ref() {
                        begun.data.extend_from_slice(data);
                    }
                    begun.frames.push(frame);
                }
            }
        }
    }
}
