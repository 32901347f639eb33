//! The rows that old had before, and what differs in the end.

use tokio::task::spawn_blocking;
use tower_migration::{BoxError, MigrationHandle, Side};

use crate::airports::{Airport, Airports, StoreError, key};

/// Makes new equal to old, key by key, while writes go on.
pub(crate) async fn copy<Old: Airports, New: Airports>(
    migration: &MigrationHandle,
    old: &Old,
    new: &New,
) -> Result<usize, BoxError> {
    // New is known to be empty; else its keys would have to be copied too.
    let all = old.clone();
    let rows = spawn_blocking(move || all.list("", usize::MAX)).await??;
    for Airport { icao, .. } in &rows {
        let one = || {
            let (old, new, icao) = (old.clone(), new.clone(), icao.clone());
            let one = spawn_blocking(move || copy_one(&old, &new, &icao));
            async { one.await.unwrap_or_else(|gone| Err(StoreError::Failed(gone.to_string()))) }
        };
        migration.copy_key(&key(icao), Side::Old, one).await?;
    }
    Ok(rows.len())
}

fn copy_one(old: &impl Airports, new: &impl Airports, icao: &str) -> Result<(), StoreError> {
    match old.get(icao) {
        Ok(airport) => new.put(&airport),
        Err(StoreError::NotFound) => match new.delete(icao) {
            Err(StoreError::NotFound) => Ok(()),
            deleted => deleted,
        },
        Err(error) => Err(error),
    }
}

pub(crate) fn differing(
    old: &impl Airports,
    new: &impl Airports,
) -> Result<Vec<String>, StoreError> {
    let (old, new) = (old.list("", usize::MAX)?, new.list("", usize::MAX)?);
    println!("  {} rows in old, {} in new", old.len(), new.len());
    let only = |these: &[Airport], those: &[Airport], side: Side| {
        let lone = these.iter().filter(|airport| !those.contains(airport));
        lone.map(|airport| format!("only {side} has {airport:?}")).collect::<Vec<_>>()
    };
    Ok([only(&old, &new, Side::Old), only(&new, &old, Side::New)].concat())
}
