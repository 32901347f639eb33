//! Whole axum routers, without the layer and with it.

use std::convert::Infallible;

use axum::{Router, body::Body, response::Response, routing::get};
use http::{Request, Uri};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_migration::{MigrationLayer, Stage};
use tower_service::Service;

use super::at;

/// What they are asked.
pub(crate) fn hello() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/hello");
    request
}

/// The old side, the new side, or what takes their place.
fn side_router() -> Router {
    Router::new().route("/hello", get(|| async { "hello, world" }))
}

fn layered_router(runtime: &Runtime, stage: Stage) -> Router {
    let _context = runtime.enter();
    let layer = MigrationLayer::new(runtime.block_on(at(stage)), side_router());
    Router::new().fallback_service(layer.layer(side_router()))
}

/// The same with no router around it, as `axum::serve` takes it from a `Shared`.
pub(crate) fn without_router(
    runtime: &Runtime,
    stage: Stage,
) -> impl Service<Request<Body>, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let _context = runtime.enter();
    let layer = MigrationLayer::new(runtime.block_on(at(stage)), side_router());
    ServiceExt::<Request<Body>>::map_response(layer.layer(side_router()), |answer| {
        answer.map(Body::new)
    })
}

/// `bare` is what one has before the migration; `nested` has the outer
/// router too, which the layer needs to be served by axum.
pub(crate) fn routers(runtime: &Runtime) -> [(&'static str, Router); 5] {
    [
        ("bare", side_router()),
        ("nested", Router::new().fallback_service(side_router())),
        ("old_only", layered_router(runtime, Stage::OldOnly)),
        ("new_only", layered_router(runtime, Stage::NewOnly)),
        ("write_both_read", layered_router(runtime, Stage::WriteBoth)),
    ]
}
