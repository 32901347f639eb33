//! Services on ports of their own.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, body::Body, extract::Request, response::Response};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tower::{Layer, Service, ServiceExt, make::Shared};
use tower_migration::{BoxError, MigrationHandle, MigrationLayer, Side, Stage};

use crate::sides::{Health, side};

/// A runtime of one worker: the clients have the other core.
pub(crate) struct Servers(Runtime);

impl Servers {
    pub(crate) fn start() -> Result<Self, BoxError> {
        Ok(Self(Builder::new_multi_thread().worker_threads(1).enable_all().build()?))
    }

    /// Serves a router as one does without the layer.
    pub(crate) fn router(&self, router: Router) -> Result<SocketAddr, BoxError> {
        self.0.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            tokio::spawn(async move { axum::serve(listener, router).await });
            Ok(address)
        })
    }

    /// Serves a service without a router around it, which would be a second one.
    pub(crate) fn service<S, B>(&self, service: S) -> Result<SocketAddr, BoxError>
    where
        S: Service<Request, Response = axum::http::Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: http_body::Body<Data = axum::body::Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.0.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let service = service.map_response(|answer| -> Response { answer.map(Body::new) });
            tokio::spawn(async move { axum::serve(listener, Shared::new(service)).await });
            Ok(address)
        })
    }

    /// A handle at a stage, gone to in order.
    pub(crate) fn at(&self, stage: Stage) -> Result<MigrationHandle, BoxError> {
        self.0.block_on(async {
            let migration = MigrationHandle::new("load");
            while migration.stage() < stage {
                migration.advance().await?;
                migration.settled().await;
                if migration.stage() == Stage::WriteBoth {
                    migration.confirm_synced(Side::New).await?;
                }
            }
            Ok(migration)
        })
    }

    /// Two sides behind the layer, with what `set` changes.
    pub(crate) fn layered(
        &self,
        migration: &MigrationHandle,
        [old, new]: [Health; 2],
        set: impl FnOnce(MigrationLayer<Router>) -> Result<MigrationLayer<Router>, BoxError>,
    ) -> Result<SocketAddr, BoxError> {
        let _context = self.0.enter();
        let layer = set(MigrationLayer::new(migration.clone(), side(new)))?;
        self.service(layer.layer(side(old)))
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}
