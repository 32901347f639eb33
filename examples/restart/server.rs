//! The server process: what a service of one's own would look like.

use std::{net::Ipv4Addr, path::PathBuf};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use tokio::{io::AsyncReadExt, net::TcpListener, task::spawn_blocking};
use tower_layer::Layer;
use tower_migration::{
    BoxError, FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Side,
    reconcile::{CopyError, Key},
};

use crate::stores::{Airport, Documents, Store, Table, copy};

pub(crate) async fn serve(dir: PathBuf) -> Result<(), BoxError> {
    // The first start makes the record, every other one finds it. One that is
    // damaged or gone is an error here, never a migration that starts anew.
    let flag = FileStore::create_or_open(dir.join("airports.flag"))?;
    let migration = MigrationHandle::open("airports", flag).await?;
    let (old, new) = (Table::open(&dir)?, Documents::open(&dir)?);

    // Two processes do not share the order of keys, and a deployment has two for
    // a while: so a write is acknowledged when both sides have it.
    let layer = MigrationLayer::new(migration.clone(), airports(new.clone()))
        .failure_policy(FailurePolicy::AwaitBoth);
    let operator = Operator { migration: migration.clone(), old: old.clone(), new };
    let app = Router::new()
        .route(
            "/migration",
            get(async |State(op): State<Operator>| op.migration.status().to_string()),
        )
        .route("/migration/advance", post(advance))
        .route("/migration/rollback", post(rollback))
        .route("/migration/copy", post(copy_all))
        .with_state(operator)
        .fallback_service(layer.layer(airports(old)));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    // Stop accepting, finish what runs, and only then say that the stop is a
    // clean one.
    axum::serve(listener, app).with_graceful_shutdown(told_to_stop()).await?;
    migration.shutdown().await;
    Ok(())
}

/// The end of the standard input, since that is the same on every system. A
/// service would wait for SIGTERM: `tokio::signal::unix::signal`.
async fn told_to_stop() {
    let mut input = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut input).await;
}

/// The airports in one store. It knows nothing of a migration.
fn airports<S: Store>(store: S) -> Router {
    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, StatusCode> {
        let done = spawn_blocking(work).await.map_err(BoxError::from).flatten();
        done.map_err(|error| {
            eprintln!("a store failed: {error}");
            StatusCode::INTERNAL_SERVER_ERROR
        })
    }
    let read = async |State(store): State<S>, Path(icao): Path<String>| {
        let found = blocking(move || store.get(&icao)).await?;
        found.map(Json).ok_or(StatusCode::NOT_FOUND)
    };
    let write =
        async |State(store): State<S>, Path(icao): Path<String>, Json(row): Json<Airport>| {
            if row.icao != icao {
                return Err(StatusCode::UNPROCESSABLE_ENTITY);
            }
            blocking(move || store.put(&row)).await
        };
    let delete = async |State(store): State<S>, Path(icao): Path<String>| {
        let was = blocking(move || store.delete(&icao)).await?;
        if was { Ok(StatusCode::NO_CONTENT) } else { Err(StatusCode::NOT_FOUND) }
    };
    Router::new().route("/airports/{icao}", get(read).put(write).delete(delete)).with_state(store)
}

#[derive(Clone)]
struct Operator {
    migration: MigrationHandle,
    old: Table,
    new: Documents,
}

/// What was done, or why not.
type Said = Result<String, (StatusCode, String)>;

fn refused(why: impl Into<BoxError>) -> (StatusCode, String) {
    (StatusCode::CONFLICT, why.into().to_string())
}

async fn advance(State(op): State<Operator>) -> Said {
    let moved = op.migration.advance().await.map_err(refused)?;
    Ok(format!("{} -> {}", moved.from, moved.to))
}

async fn rollback(State(op): State<Operator>) -> Said {
    let moved = op.migration.rollback().await.map_err(refused)?;
    Ok(format!("{} -> {}", moved.from, moved.to))
}

/// Makes the side that is not the authority equal to the one that is, while
/// clients go on, and says so.
async fn copy_all(State(op): State<Operator>) -> Said {
    let Operator { migration, old, new } = &op;
    let from = migration.stage().authority();
    migration.settled().await;
    // Of both sides: what only the other one has must go there.
    let keys = old.keys().and_then(|keys| Ok(&keys | &new.keys()?)).map_err(refused)?;
    for icao in &keys {
        let key = Key::from(format!("/airports/{icao}"));
        loop {
            let copied = migration.copy_key(&key, from, || {
                let (old, new, icao) = (old.clone(), new.clone(), icao.clone());
                let copied = spawn_blocking(move || match from {
                    Side::Old => copy(&old, &new, &icao),
                    Side::New => copy(&new, &old, &icao),
                });
                async { copied.await.map_err(BoxError::from).flatten().map_err(|e| e.to_string()) }
            });
            match copied.await {
                Ok(_) => break,
                Err(CopyError::NotSettled) => migration.settled().await,
                Err(why) => return Err(refused(why.to_string())),
            }
        }
    }
    migration.confirm_synced(from.other()).await.map_err(refused)?;
    Ok(format!("{} airports copied from {from}; {} is synced", keys.len(), from.other()))
}
