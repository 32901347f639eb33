//! Request bodies that can be built again.

use std::{future::poll_fn, pin::pin};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::{
    BodyExt, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};

use super::Tee;
use crate::BoxError;

/// A request body of which the layer can make copies.
///
/// Implemented for [`Full<Bytes>`](Full), for http-body-util's
/// [`BoxBody`] and [`UnsyncBoxBody`], and, with the feature `axum`, for axum's
/// `Body`. For hyper's `Incoming` see [`BoxRequest`](super::BoxRequest).
///
/// # Implementing it
///
/// A body type that can box any other needs two lines: box
/// [`Full`] with its trailers in [`from_collected`](Self::from_collected), and
/// the [`Tee`] in [`from_tee`](Self::from_tee).
pub trait CopyBody: Body<Data = Bytes, Error: Into<BoxError>> + Sized + Send + 'static {
    /// A body with this content. Called once for each leg of a dual write, for
    /// each shadow read, and for a request that was collected.
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self;

    /// The same body, watched. Called for sampled reads that have a body.
    fn from_tee(tee: Tee<Self>) -> Self;
}

fn collected(
    data: Bytes,
    trailers: Option<HeaderMap>,
) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + Sync + 'static {
    Full::new(data).with_trailers(std::future::ready(trailers.map(Ok)))
}

/// Trailers are lost: a `Full` has none.
impl CopyBody for Full<Bytes> {
    fn from_collected(data: Bytes, _: Option<HeaderMap>) -> Self {
        Self::new(data)
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        // A `Full` is ready at once and has one frame, so it can be read here.
        let mut tee = pin!(tee);
        let mut data = Bytes::new();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(Some(Ok(frame))) =
            pin!(poll_fn(|cx| tee.as_mut().poll_frame(cx))).poll(&mut cx)
        {
            if let Ok(chunk) = frame.into_data() {
                data = chunk;
            }
        }
        Self::new(data)
    }
}

impl<E: Into<BoxError> + 'static> CopyBody for BoxBody<Bytes, E> {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::new(collected(data, trailers).map_err(|never| match never {}))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }
}

impl<E: Into<BoxError> + 'static> CopyBody for UnsyncBoxBody<Bytes, E> {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::new(collected(data, trailers).map_err(|never| match never {}))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }
}

#[cfg(feature = "axum")]
impl CopyBody for axum_core::body::Body {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        if trailers.is_none() {
            return Self::from(data);
        }
        Self::new(collected(data, trailers))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }
}
