//! A tonic service whose storage is replaced while a client uses it.
//!
//! Old and new serve `airports.v1.Airports`; the layer stands around tonic's
//! routes, and a real client walks the flag from stage 0 to 3.
//!
//! ```sh
//! cargo run --example tonic            # the whole way, in a second
//! cargo run --example tonic -- --serve # stays up: type a command, see the stage
//! ```

mod service;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, process::ExitCode};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, service::Routes, transport::Server};
use tower_migration::{
    BoxError, MigrationHandle, MigrationLayer, Side, Stage, protocol::grpc::Grpc, reconcile::Key,
};

use self::service::{
    Store,
    proto::{airports_client::AirportsClient, airports_server::AirportsServer, *},
};

/// What the build of a real service leaves behind: `protoc --descriptor_set_out`.
const DESCRIPTORS: &[u8] = include_bytes!("airports.bin");

/// Which calls read, and what each is about.
fn grpc() -> Result<Grpc, BoxError> {
    let grpc = Grpc::new()
        .descriptors(DESCRIPTORS)? // `NO_SIDE_EFFECTS` methods are reads
        .reads(["/airports.v1.Airports/Follow"])? // so is this, which cannot say so
        .deletes(["/airports.v1.Airports/Delete"])?
        .key_field("/airports.v1.Airports/Get", "code")?
        .key_field("/airports.v1.Airports/Put", "airport.code")?
        .key_field("/airports.v1.Airports/Delete", "code")?;
    Ok(grpc)
}

/// Serves old behind the layer, with new as the other side.
async fn serve(handle: &MigrationHandle, old: &Store, new: &Store) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = |store: &Store| Routes::new(AirportsServer::new(store.clone()));
    let layer = MigrationLayer::with_protocol(handle.clone(), routes(new), grpc()?);
    let server = Server::builder().layer(layer).add_routes(routes(old));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}

/// Makes new equal to old, key by key, under whatever traffic there is.
async fn copy(handle: &MigrationHandle, old: &Store, new: &Store) -> Result<(), BoxError> {
    handle.settled().await;
    for code in old.codes().into_iter().chain(new.codes()) {
        let once = || async { new.put_or_delete(&code, old.row(&code)) };
        handle.copy_key(&Key::from(code.as_str()), Side::Old, once).await?;
    }
    Ok(handle.confirm_synced(Side::New).await?)
}

fn airport(code: &str, name: &str) -> Airport {
    Airport { code: code.into(), name: name.into(), ..Airport::default() }
}

async fn story() -> Result<(), BoxError> {
    let (old, new) = (Store::default(), Store::default());
    let handle = MigrationHandle::new("airports");
    let address = serve(&handle, &old, &new).await?;
    let mut client = AirportsClient::connect(format!("http://{address}")).await?;

    let rows = csv::Reader::from_path("examples/data/airports.csv")?.into_records();
    let rows: Vec<_> = rows.take(500).collect::<Result<_, _>>()?;
    let import = tokio_stream::iter(rows.into_iter().map(|row| airport(&row[0], &row[2])));
    let imported = client.import(import).await?.into_inner().imported;
    println!("old-only: {imported} airports imported into old, new has {}", new.codes().len());

    handle.advance().await?;
    handle.set_shadow_rate(1.0)?;
    let put = |name| PutRequest { airport: Some(airport("EDDF", name)) };
    client.put(put("Frankfurt")).await?;
    copy(&handle, &old, &new).await?;
    client.get(GetRequest { code: "EDDF".into() }).await?;
    println!("write-both: new has {} airports, reads come from old", new.codes().len());

    handle.advance().await?;
    client.put(put("Frankfurt am Main")).await?;
    let refused = client.delete(DeleteRequest { code: "XXXX".into() }).await;
    assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::NotFound));
    let read = client.get(GetRequest { code: "EDDF".into() }).await?.into_inner();
    println!("read-new: new says {:?}, a way back is one call", read.name);
    handle.settled().await;
    let dirty = handle.dirty_keys();
    let equal = old.rows() == new.rows();

    handle.advance().await?;
    client.delete(DeleteRequest { code: "EDDF".into() }).await?;
    let there = old.row("EDDF").is_some() && new.row("EDDF").is_none();
    println!("new-only: old is left as it was\n\n{}", handle.status());
    let all = handle.stage() == Stage::NewOnly && equal && there && dirty.is_empty();
    if all { Ok(println!("All is well.")) } else { Err("the two stores differ".into()) }
}

/// Stays up, and moves the flag as it is told on its standard input.
async fn stay() -> Result<(), BoxError> {
    let (old, new) = (Store::default(), Store::default());
    let handle = MigrationHandle::new("airports");
    println!("serving gRPC on {}", serve(&handle, &old, &new).await?);
    println!("advance, rollback, copy, status, quit");
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
async fn main() -> ExitCode {
    let told = match std::env::args().nth(1).as_deref() {
        None => story().await,
        Some("--serve") => stay().await,
        Some(other) => Err(format!("unknown argument {other}: there is only --serve").into()),
    };
    if let Err(error) = &told {
        eprintln!("{error}");
    }
    ExitCode::from(u8::from(told.is_err()))
}
