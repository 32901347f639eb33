//! A tonic service whose storage is replaced while a client uses it: the layer
//! stands around tonic's routes, and the flag goes from stage 0 to 3.
//!
//! `cargo run --example tonic` goes the whole way in a second; with `-- --serve`
//! it stays up: type a command, see the stage.

mod service;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::SocketAddr};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};
use tower_migration::{
    BoxError, FailurePolicy, MigrationHandle, MigrationLayer, Side, protocol::grpc::Grpc,
    reconcile::Key,
};

use self::service::{
    Store,
    proto::{Airport, DeleteRequest, GetRequest, PutRequest},
    proto::{airports_client::AirportsClient, airports_server::AirportsServer},
};

/// What the build of a real service leaves behind: `protoc --descriptor_set_out`.
const DESCRIPTORS: &[u8] = include_bytes!("airports.bin");

/// Which calls read, and what each is about.
fn grpc() -> Result<Grpc, BoxError> {
    Ok(Grpc::new()
        .descriptors(DESCRIPTORS)? // `NO_SIDE_EFFECTS` methods are reads
        .reads(["/airports.v1.Airports/Follow"])? // so is this, which cannot say so
        .deletes(["/airports.v1.Airports/Delete"])?
        .key_field("/airports.v1.Airports/Get", "code")?
        .key_field("/airports.v1.Airports/Put", "airport.code")?
        .key_field("/airports.v1.Airports/Delete", "code")?)
}

/// Serves old behind the layer, with new as the other side.
async fn serve() -> Result<(MigrationHandle, Store, Store, SocketAddr), BoxError> {
    let (handle, old, new) = (MigrationHandle::new("airports"), Store::new(), Store::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = |store: &Store| Routes::new(AirportsServer::new(store.clone()));
    let layer = MigrationLayer::with_protocol(handle.clone(), routes(&new), grpc()?)
        .failure_policy(FailurePolicy::AwaitBoth); // an answered write is on both
    let server = Server::builder().layer(layer).add_routes(routes(&old));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok((handle, old, new, address))
}

/// Makes new equal to old, key by key, under whatever traffic there is.
async fn copy(handle: &MigrationHandle, old: &Store, new: &Store) -> Result<(), BoxError> {
    handle.settled().await;
    let codes = [old, new].map(|store| store.rows().keys().cloned().collect::<Vec<_>>());
    for code in codes.concat() {
        let once = async || {
            let row = old.rows().get(&code).cloned();
            drop(row.map_or_else(|| new.rows().remove(&code), |row| new.keep(row)));
            Ok::<_, Infallible>(())
        };
        handle.copy_key(&Key::from(code.as_str()), Side::Old, once).await?;
    }
    Ok(handle.confirm_synced(Side::New).await?)
}

fn airport(code: &str, name: &str) -> Airport {
    Airport { code: code.into(), name: name.into(), ..Airport::default() }
}

async fn story() -> Result<(), BoxError> {
    let (handle, old, new, address) = serve().await?;
    let mut client = AirportsClient::connect(format!("http://{address}")).await?;
    let get = || GetRequest { code: "EDDF".into() };
    let put = |name| PutRequest { airport: Some(airport("EDDF", name)) };

    let rows = csv::Reader::from_path("examples/data/airports.csv")?.into_records();
    let rows: Vec<_> = rows.take(500).collect::<Result<_, _>>()?;
    let import = tokio_stream::iter(rows.into_iter().map(|row| airport(&row[0], &row[2])));
    let imported = client.import(import).await?.into_inner().imported;
    println!("old-only: {imported} airports imported into old");

    handle.advance().await?;
    handle.set_shadow_rate(1.0)?;
    client.put(put("Frankfurt")).await?;
    copy(&handle, &old, &new).await?;
    client.get(get()).await?;
    println!("write-both: new has {} airports, reads come from old", new.rows().len());

    handle.advance().await?;
    client.put(put("Frankfurt am Main")).await?;
    let read = client.get(get()).await?.into_inner();
    println!("read-new: new says {:?}, a way back is one call", read.name);
    if !handle.dirty_keys().is_empty() || *old.rows() != *new.rows() {
        return Err("the two stores differ".into());
    }

    handle.advance().await?;
    client.delete(DeleteRequest { code: "EDDF".into() }).await?;
    println!("new-only: old is left as it was\n\n{}", handle.status());
    let there = [&old, &new].map(|store| store.rows().contains_key("EDDF"));
    if there == [true, false] { Ok(()) } else { Err("the delete is not on new alone".into()) }
}

/// Stays up, and moves the flag as it is told on its standard input.
async fn stay() -> Result<(), BoxError> {
    let (handle, old, new, address) = serve().await?;
    println!("serving gRPC on {address}\nadvance, rollback, copy, status, quit");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let done = match line.trim() {
            "advance" => handle.advance().await.map(drop).map_err(BoxError::from),
            "rollback" => handle.rollback().await.map(drop).map_err(BoxError::from),
            "copy" => copy(&handle, &old, &new).await,
            "quit" => break,
            _ => Ok(()),
        };
        done.unwrap_or_else(|error| println!("{error}"));
        println!("{}", handle.status());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    match std::env::args().nth(1).as_deref() {
        None => story().await,
        Some("--serve") => stay().await,
        Some(other) => Err(format!("unknown argument {other}: there is only --serve").into()),
    }
}
