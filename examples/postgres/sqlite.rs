//! The old store.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::task::spawn_blocking;
use tower_migration::BoxError;

use crate::store::{APPLY, GET, Row, SET, Store};

#[derive(Clone)]
pub(crate) struct Sqlite(Arc<Mutex<Connection>>);

impl Sqlite {
    pub(crate) fn open(dir: &Path) -> Result<Self, BoxError> {
        let db = Connection::open(dir.join("old.db"))?;
        db.busy_timeout(Duration::from_secs(10))?;
        // WAL, since two processes write. It need not survive the machine.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE IF NOT EXISTS airports
             (code TEXT PRIMARY KEY, name TEXT, version INTEGER NOT NULL) STRICT",
        )?;
        Ok(Self(Arc::new(Mutex::new(db))))
    }

    /// Calls of SQLite block, so they run where that does no harm; each as a
    /// transaction.
    async fn run<T: Send + 'static>(
        &self,
        kind: TransactionBehavior,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BoxError> {
        let db = Arc::clone(&self.0);
        let run = move || {
            let mut db = db.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = db.transaction_with_behavior(kind)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        spawn_blocking(run).await?
    }
}

fn row(found: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { name: found.get(0)?, version: found.get(1)? })
}

impl Store for Sqlite {
    async fn get(&self, code: &str) -> Result<Option<Row>, BoxError> {
        let code = code.to_owned();
        let get = move |db: &Connection| db.prepare_cached(GET)?.query_row([code], row).optional();
        self.run(TransactionBehavior::Deferred, get).await
    }

    async fn set(&self, code: &str, name: Option<&str>) -> Result<Row, BoxError> {
        let (code, name) = (code.to_owned(), name.map(str::to_owned));
        let set =
            move |db: &Connection| db.prepare_cached(SET)?.query_row(params![code, name], row);
        self.run(TransactionBehavior::Immediate, set).await
    }

    async fn apply(&self, code: &str, row: &Row) -> Result<bool, BoxError> {
        let (code, Row { name, version }) = (code.to_owned(), row.clone());
        let apply =
            move |db: &Connection| db.prepare_cached(APPLY)?.execute(params![code, name, version]);
        Ok(self.run(TransactionBehavior::Immediate, apply).await? > 0)
    }

    async fn codes(&self, after: &str, limit: usize) -> Result<Vec<String>, BoxError> {
        let (after, limit) = (after.to_owned(), i64::try_from(limit)?);
        // Text is BINARY unless told otherwise: in the order of its bytes.
        let page = "SELECT code FROM airports WHERE code > ?1 ORDER BY code LIMIT ?2";
        let codes = move |db: &Connection| {
            db.prepare_cached(page)?.query_map(params![after, limit], |row| row.get(0))?.collect()
        };
        self.run(TransactionBehavior::Deferred, codes).await
    }
}
