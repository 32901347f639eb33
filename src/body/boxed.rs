//! For servers whose request body cannot be built: hyper's `Incoming`.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower_layer::Layer;
use tower_service::Service;

use super::{Branch, CopyBody, Tee};
use crate::BoxError;

/// A request body of whatever kind, boxed, of which copies can be made.
///
/// A type of its own, and not an alias of [`UnsyncBoxBody`], so that no
/// `dyn Error` shows in the request's type: rustc cannot prove `Send` for a task
/// that holds a service of such requests across an `.await`.
pub struct RequestBody(UnsyncBoxBody<Bytes, BoxError>);

impl RequestBody {
    /// Boxes a body.
    pub fn new(body: impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static) -> Self {
        Self(UnsyncBoxBody::new(body.map_err(Into::into)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl CopyBody for RequestBody {
    fn from_collected(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(UnsyncBoxBody::from_collected(data, trailers))
    }

    fn from_tee(tee: Tee<Self>) -> Self {
        Self::new(tee)
    }

    fn from_branch() -> Option<fn(Branch) -> Self> {
        Some(Self::new)
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// Boxes the body of each request, so that a [`Migration`](crate::Migration)
/// can serve hyper without a framework around it.
///
/// ```
/// # use std::convert::Infallible;
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use hyper_util::service::TowerToHyperService;
/// use tower_layer::Layer;
/// use tower_migration::{
///     MigrationHandle, MigrationLayer,
///     body::{BoxRequestLayer, RequestBody},
/// };
///
/// # async fn hello(_: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
/// #     Ok(Response::new(Full::from("hello")))
/// # }
/// let migration = MigrationHandle::new("hello");
/// let layered = MigrationLayer::new(migration, service_fn(hello)).layer(service_fn(hello));
/// let service = TowerToHyperService::new(BoxRequestLayer.layer(layered));
/// # fn check<S: hyper::service::Service<Request<hyper::body::Incoming>>>(_: S) {}
/// # check(service);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct BoxRequestLayer;

impl<S> Layer<S> for BoxRequestLayer {
    type Service = BoxRequest<S>;

    fn layer(&self, inner: S) -> BoxRequest<S> {
        BoxRequest { inner }
    }
}

/// Made by [`BoxRequestLayer`].
#[derive(Clone, Copy, Debug)]
pub struct BoxRequest<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for BoxRequest<S>
where
    S: Service<Request<RequestBody>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request.map(RequestBody::new))
    }
}
