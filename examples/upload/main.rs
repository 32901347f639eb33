//! Large files, streamed into two directories at once.
//!
//! `cargo run --example upload -- --mib 64` uploads three files of 64 MiB on each
//! stage, breaks one off half-way and repairs it with `copy_key`. The exit status
//! is 0 only if every acknowledged file is there, whole, on each side that should
//! have it.

mod files;
#[cfg(test)]
mod tests;

use std::{fs, hash::Hasher, io, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use axum::{Router, body::Body, body::Bytes, http::Request};
use files::{Files, Hashes, compare, hasher};
use futures_util::stream;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::Layer;
use tower_migration::{
    BoxError, MigrationHandle, MigrationLayer, Side, Stage,
    body::{SlowLeg, Streaming},
    reconcile::Key,
};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let told = async {
        let mib = match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => 8,
            ["--mib", mib] => mib.parse()?,
            _ => return Err("usage: cargo run --example upload -- [--mib N]".into()),
        };
        tell(tempfile::tempdir()?.path(), mib).await
    };
    if let Err(why) = told.await {
        eprintln!("\nFAILED: {why}");
        return ExitCode::FAILURE;
    }
    // Linux says how much memory was used at most.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    ExitCode::SUCCESS
}

async fn tell(dir: &Path, mib: usize) -> Result<(), BoxError> {
    let (old, new) = (Files::create(dir.join("old"))?, Files::create(dir.join("new"))?);
    let migration = MigrationHandle::new("files");
    // At most 1 MiB apart; over 64 KiB, a file is not collected first. A slower
    // side holds the other up, and is not cut off before it has stalled.
    let hold = SlowLeg::Hold(Duration::from_secs(10));
    let streaming = Streaming::new().lag(1 << 20).above(64 << 10).slow_leg(hold);
    let layer = MigrationLayer::new(migration.clone(), new.router()).stream_bodies(streaming)?;
    let app = Router::new().fallback_service(layer.layer(old.router()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (at, mut known) = (listener.local_addr()?, Hashes::new());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    upload(at, Stage::OldOnly, mib, &mut known).await?;
    migration.advance().await?;
    migration.settled().await;
    upload(at, Stage::WriteBoth, mib, &mut known).await?;
    let half = (0..mib.div_ceil(2)).map(|_| Ok(piece())).chain([Err(io::Error::other("gone"))]);
    if put(at, "old-only-0", Body::from_stream(stream::iter(half))).await.unwrap_or(false) {
        return Err("half a file was taken for the whole".into());
    }
    // It may take a moment until the server knows; then all that is on old only.
    while migration.dirty_keys().is_empty() {
        tokio::task::yield_now().await;
    }
    let dirty = migration.dirty_keys().into_iter().map(|dirty| dirty.key.to_string());
    let repaired: Vec<_> = dirty.inspect(|key| println!("broken off, to repair: {key}")).collect();
    let all = old.hashes()?.into_keys().map(|name| format!("/files/{name}"));
    for key in repaired.into_iter().chain(all) {
        let copy = || new.take_over(&old, key.trim_start_matches("/files/"));
        migration.copy_key(&Key::from(key.as_str()), Side::Old, copy).await?;
    }
    migration.confirm_synced(Side::New).await?;
    migration.advance().await?;
    upload(at, Stage::ReadNew, mib, &mut known).await?;
    let on_both = known.clone();
    migration.advance().await?;
    upload(at, Stage::NewOnly, mib, &mut known).await?;
    migration.shutdown().await;
    server.abort();
    compare("old", &old.hashes()?, &on_both)?;
    compare("new", &new.hashes()?, &known)?;
    println!("{} files are where they should be", known.len());
    Ok(())
}

/// A MiB that no other file has.
fn piece() -> Bytes {
    let mut piece = vec![0; 1 << 20];
    fastrand::fill(&mut piece);
    piece.into()
}

async fn put(at: SocketAddr, name: &str, body: Body) -> Result<bool, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::put(format!("http://{at}/files/{name}")).body(body)?;
    Ok(client.request(request).await?.status().is_success())
}

/// Uploads some files, and notes what was acknowledged.
async fn upload(
    at: SocketAddr,
    stage: Stage,
    mib: usize,
    known: &mut Hashes,
) -> Result<(), BoxError> {
    for name in (0..3).map(|n| format!("{stage}-{n}")) {
        let (piece, mut hash) = (piece(), hasher());
        (0..mib).for_each(|_| hash.write(&piece));
        let pieces = (0..mib).map(move |_| Ok::<_, io::Error>(piece.clone()));
        if !put(at, &name, Body::from_stream(stream::iter(pieces))).await? {
            return Err(format!("{name} was not taken").into());
        }
        known.insert(name, hash.finish());
    }
    println!("{stage}: 3 files of {mib} MiB");
    Ok(())
}
