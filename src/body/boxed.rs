//! For servers whose request body cannot be built: hyper's `Incoming`.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;

/// Boxes the body of each request, so that a [`Migration`](crate::Migration)
/// can serve hyper without a framework around it.
///
/// ```
/// # use std::convert::Infallible;
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::{Full, combinators::UnsyncBoxBody};
/// # use tower::{BoxError, service_fn};
/// use hyper_util::service::TowerToHyperService;
/// use tower_layer::Layer;
/// use tower_migration::{MigrationHandle, MigrationLayer, body::BoxRequestLayer};
///
/// # async fn hello(_: Request<UnsyncBoxBody<Bytes, BoxError>>) -> Result<Response<Full<Bytes>>, Infallible> {
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
    S: Service<Request<UnsyncBoxBody<Bytes, BoxError>>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner
            .call(request.map(|body| UnsyncBoxBody::new(body.map_err(Into::into))))
    }
}
