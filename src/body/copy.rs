//! Request bodies that can be built again.

use std::{future::poll_fn, pin::pin};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::{
    BodyExt, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};

use super::{Branch, Tee, fan::error_of};
use crate::BoxError;

/// A request body of which the layer can make copies.
///
/// Implemented for [`Full<Bytes>`](Full), for http-body-util's
/// [`BoxBody`] and [`UnsyncBoxBody`], and, with the features `axum` and `grpc`,
/// for axum's and tonic's `Body`. For hyper's `Incoming` see [`BoxRequest`](super::BoxRequest).
///
/// # Implementing it
///
/// A body type that can box any other needs three lines: box
/// [`Full`] with its trailers in [`from_collected`](Self::from_collected), the
/// [`Tee`] in [`from_tee`](Self::from_tee), and the [`Branch`] in
/// [`from_branch`](Self::from_branch). One that wraps a body which has them can
/// pass them on:
///
/// ```
/// # use std::{pin::Pin, task::{Context, Poll}};
/// # use bytes::Bytes;
/// # use http::HeaderMap;
/// # use http_body::{Body, Frame};
/// use http_body_util::BodyExt;
/// use tower_migration::body::{Branch, CopyBody, RequestBody, Tee};
///
/// struct MyBody(RequestBody);
/// # impl Body for MyBody {
/// #     type Data = Bytes;
/// #     type Error = tower_migration::BoxError;
/// #     fn poll_frame(
/// #         mut self: Pin<&mut Self>,
/// #         cx: &mut Context<'_>,
/// #     ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
/// #         Pin::new(&mut self.0).poll_frame(cx)
/// #     }
/// # }
///
/// impl CopyBody for MyBody {
///     fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
///         Self(RequestBody::from_collected(data, trailers))
///     }
///
///     fn from_tee(tee: Tee<Self>) -> Self {
///         Self(RequestBody::new(tee))
///     }
///
///     fn from_branch() -> Option<fn(Branch) -> Self> {
///         Some(|branch| Self(RequestBody::new(branch)))
///     }
/// }
/// assert!(MyBody::from_branch().is_some());
/// ```
pub trait CopyBody:
    Body<Data = Bytes, Error: Into<BoxError> + Send + Sync> + Sized + Send + 'static
{
    /// A body with this content. Called once for each leg of a dual write, for
    /// each shadow read, and for a request that was collected.
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self;

    /// The same body, watched. Called for sampled reads that have a body.
    fn from_tee(tee: Tee<Self>) -> Self;

    /// How a body is made that is streamed to both legs of a dual write; it is
    /// called once for each leg.
    ///
    /// `None`, the default: this type cannot be a stream, so its requests are
    /// collected, however long they are. So it is for a [`Full`], which is in
    /// memory anyway, and for boxed bodies whose error type cannot hold a
    /// [`BranchError`](super::BranchError): it must be that, [`BoxError`],
    /// [`std::io::Error`], or, with the feature `axum`, axum's `Error`.
    fn from_branch() -> Option<fn(Branch) -> Self> {
        None
    }
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

impl<E: Into<BoxError> + Send + Sync + 'static> CopyBody for BoxBody<Bytes, E> {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::new(collected(data, trailers).map_err(|never| match never {}))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }

    fn from_branch() -> Option<fn(Branch) -> Self> {
        error_of::<E>()?;
        Some(|branch| Self::new(branch.map_err(error_of().expect("looked for above"))))
    }
}

impl<E: Into<BoxError> + Send + Sync + 'static> CopyBody for UnsyncBoxBody<Bytes, E> {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::new(collected(data, trailers).map_err(|never| match never {}))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }

    fn from_branch() -> Option<fn(Branch) -> Self> {
        error_of::<E>()?;
        Some(|branch| Self::new(branch.map_err(error_of().expect("looked for above"))))
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

    fn from_branch() -> Option<fn(Branch) -> Self> {
        Some(Self::new)
    }
}

#[cfg(feature = "grpc")]
impl CopyBody for tonic::body::Body {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::new(collected(data, trailers))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }

    fn from_branch() -> Option<fn(Branch) -> Self> {
        Some(Self::new)
    }
}
