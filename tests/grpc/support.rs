//! A server, a client, and the generated code.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint, Server},
};
use tower_migration::{MigrationHandle, MigrationLayer, Side, Stage, protocol::grpc::Grpc};

#[allow(
    clippy::all,
    clippy::pedantic,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated"
)]
pub mod proto {
    include!("../proto/interop.rs");
}

pub mod airports {
    #![allow(
        clippy::all,
        clippy::pedantic,
        missing_debug_implementations,
        unreachable_pub,
        reason = "generated"
    )]
    include!("../../examples/tonic/airports.rs");
}

pub const INTEROP: &[u8] = include_bytes!("../proto/interop.bin");
pub const AIRPORTS: &[u8] = include_bytes!("../../examples/tonic/airports.bin");

async fn listen() -> (TcpListenerStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpListenerStream::new(listener), address)
}

/// Serves `old` behind the layer, with `new` as the other side.
pub async fn serve(handle: &MigrationHandle, grpc: Grpc, old: Routes, new: Routes) -> SocketAddr {
    serve_around(
        MigrationLayer::with_protocol(handle.clone(), new, grpc)
            .noise(tower_migration::compare::Noise::off()),
        old,
    )
    .await
}

/// The same with a layer that has been set up.
pub async fn serve_around(layer: MigrationLayer<Routes, Grpc>, old: Routes) -> SocketAddr {
    let (incoming, address) = listen().await;
    tokio::spawn(Server::builder().layer(layer).add_routes(old).serve_with_incoming(incoming));
    address
}

/// Serves without a layer: `routes` are bare, or layered one by one.
pub async fn serve_bare(routes: Routes) -> SocketAddr {
    let (incoming, address) = listen().await;
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    address
}

pub async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Moves the flag there, step by step, with all that is copied taken as copied.
pub async fn go(handle: &MigrationHandle, to: Stage) {
    while handle.stage() < to {
        if handle.stage().is_two_sided() {
            handle.settled().await;
            handle.confirm_synced(Side::New).await.unwrap();
        }
        handle.advance().await.unwrap();
    }
}
