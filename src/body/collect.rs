//! A whole body in memory, or a reason why not.

use std::{future::poll_fn, pin::pin};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use super::Room;
use crate::BoxError;

/// A body that was collected.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Debug)]
pub(crate) enum CollectError {
    /// Over the limit of one body.
    TooLarge,
    /// Over the limit of all bodies together.
    NoRoom,
    /// It broke off.
    Broken(BoxError),
}

/// Collects a body, as far as there is room. One of a known `length` is whole
/// with its last byte: it is not asked for more.
///
/// No `async fn`: that would hold the body twice.
pub(crate) fn collect<B>(
    body: B,
    length: Option<u64>,
    room: &mut Room,
) -> impl Future<Output = Result<Collected, CollectError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    async move {
        let mut body = pin!(body);
        // A body that says how long it is need not be read to be refused.
        if body.size_hint().lower() > room.limit() as u64 {
            return Err(CollectError::TooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut trailers = None;
        let mut seen = 0;
        while !body.is_end_stream() && length.is_none_or(|length| seen < length) {
            let frame = match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                None => break,
                Some(Err(error)) => return Err(CollectError::Broken(error.into())),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => {
                    seen += data.len() as u64;
                    if first.len() + rest.len() + data.len() > room.limit() {
                        return Err(CollectError::TooLarge);
                    }
                    if !room.take(data.len()) {
                        return Err(CollectError::NoRoom);
                    }
                    if first.is_empty() {
                        // The usual body is one chunk, which needs no copy.
                        first = data;
                    } else {
                        rest.extend_from_slice(&data);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
            }
        }
        let data = if rest.is_empty() {
            first
        } else {
            let mut all = BytesMut::with_capacity(first.len() + rest.len());
            all.extend_from_slice(&first);
            all.extend_from_slice(&rest);
            all.freeze()
        };
        Ok(Collected { data, trailers })
    }
}
