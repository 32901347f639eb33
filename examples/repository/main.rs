//! A migration below HTTP: the storage trait behind the handlers becomes a
//! service, and its two implementations, SQLite and redb, go behind the flag.
//!
//! ```sh
//! cargo run --example repository
//! ```
//!
//! A few requests go through axum handlers at each stage, the rows that old had
//! before are copied, and the two stores are compared. The exit status is 0 only
//! if they are equal and no acknowledged write is missing.
//!
//! | file | what |
//! |---|---|
//! | `airports` | the trait, **the service made of it, and its protocol** |
//! | `http` | the handlers, and the `if` that they had |
//! | `sqlite`, `redb` | the two stores |
//! | `copy` | the rows of before, and what differs in the end |
//! | `clients` | who asks, and what was acknowledged |

mod airports;
mod clients;
mod copy;
mod http;
mod redb;
mod sqlite;
#[cfg(test)]
mod tests;

use std::{path::Path, process::ExitCode};

use tower_layer::Layer;
use tower_migration::{BoxError, FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Side};

use crate::{
    airports::{Airport, Airports, Served, protocol},
    clients::Client,
    copy::{copy, differing},
    redb::Redb,
    sqlite::Sqlite,
};

const CSV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airports.csv");

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(wrong) if wrong.is_empty() => {
            println!("the stores were equal, and no acknowledged write is missing");
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            wrong.iter().for_each(|line| eprintln!("{line}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong in the end.
async fn run() -> Result<Vec<String>, BoxError> {
    let dir = tempfile::tempdir()?;
    let (old, new) =
        (Sqlite::open(dir.path().join("old.db"))?, Redb::open(dir.path().join("new.redb"))?);
    old.load(&seed(CSV)?)?;
    migrate(dir.path(), old, new).await
}

/// The airports of one country.
fn seed(path: impl AsRef<Path>) -> Result<Vec<Airport>, BoxError> {
    let mut rows = csv::Reader::from_path(path)?;
    let country = rows.headers()?.iter().position(|h| h == "country").ok_or("no country")?;
    let rows: Vec<_> = rows.records().collect::<Result<_, _>>()?;
    let german = rows.into_iter().filter(|row| &row[country] == "DE");
    Ok(german
        .map(|row| Airport { icao: row[0].into(), name: row[2].into(), city: row[3].into() })
        .collect())
}

async fn migrate<Old: Airports, New: Airports>(
    dir: &Path,
    old: Old,
    new: New,
) -> Result<Vec<String>, BoxError> {
    let flag = FileStore::create_or_open(dir.join("airports.flag"))?;
    let migration = MigrationHandle::open("airports", flag).await?;

    // These four lines are what the `if`s in the handlers become.
    let layer = MigrationLayer::with_protocol(migration.clone(), Served(new.clone()), protocol());
    let layer = layer.failure_policy(FailurePolicy::AwaitBoth);
    let airports = layer.layer(Served(old.clone()));
    let app = http::router(airports);

    let mut client = Client::new(app);
    say(&migration, "as it was");
    client.requests("EDDF").await?;

    migration.advance().await?;
    migration.settled().await;
    say(&migration, "writes go to both, and the rows of before are copied");
    let (copied, asked) = tokio::join!(copy(&migration, &old, &new), client.requests("EDDM"));
    asked?;
    println!("  {} rows copied while clients wrote", copied?);
    migration.confirm_synced(Side::New).await?;
    migration.set_shadow_rate(1.0)?;
    client.requests("EDDH").await?;
    migration.drained(Side::New).await;
    let seen = migration.evidence().shadows;
    println!("  {} reads compared, {} differ", seen.compared(), seen.mismatches);

    migration.advance().await?;
    say(&migration, "new answers; one call goes back");
    client.requests("EDDB").await?;
    migration.rollback().await?;
    say(&migration, "gone back");
    client.requests("EDDL").await?;
    migration.advance().await?;
    say(&migration, "and forth again");
    client.requests("EDDS").await?;
    let mut wrong = differing(&old, &new)?;
    wrong.extend(migration.dirty_keys().iter().map(|dirty| format!("{} is dirty", dirty.key)));

    migration.advance().await?;
    say(&migration, "old is not written any more");
    client.requests("EDDK").await?;
    wrong.extend(client.missing(&new));
    migration.shutdown().await;
    Ok(wrong)
}

fn say(migration: &MigrationHandle, what: &str) {
    println!("{}: {what}", migration.stage());
}
