//! Two stores in real files, with a service over each.

use std::{
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use rusqlite::{Connection, OptionalExtension};
use tokio::task::spawn_blocking;
use tower_migration::{
    BoxError, Side,
    reconcile::{Key, Listing, Rows},
};

const ROWS: TableDefinition<'_, &str, &str> = TableDefinition::new("rows");

/// Old in SQLite, new in redb. Each commit of new is on the disk before it is
/// acknowledged if `durable`; of old once [`sync_old`](Stores::sync_old) was called.
#[derive(Clone)]
pub(crate) struct Stores {
    old: Arc<Mutex<Connection>>,
    new: Arc<Database>,
    durable: bool,
}

impl Stores {
    pub(crate) fn open(dir: &Path, durable: bool) -> Result<Self, BoxError> {
        let old = Connection::open(dir.join("old.db"))?;
        old.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID",
        )?;
        let new = Database::create(dir.join("new.redb"))?;
        let tx = new.begin_write()?;
        tx.open_table(ROWS)?;
        tx.commit()?;
        Ok(Self { old: Arc::new(Mutex::new(old)), new: Arc::new(new), durable })
    }

    /// Puts so many rows of about 200 bytes into old.
    pub(crate) fn fill(&self, rows: u32) -> Result<(), BoxError> {
        let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = old.transaction()?;
        for n in 0..rows {
            let row = format!("{n:0200}");
            tx.prepare_cached("INSERT INTO rows VALUES (?1, ?2)")?.execute([name(n), row])?;
        }
        Ok(tx.commit()?)
    }

    /// From here on old commits each write to the disk too.
    pub(crate) fn sync_old(&self) -> Result<(), BoxError> {
        let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(old.execute_batch("PRAGMA synchronous = FULL")?)
    }

    fn get_old(&self, key: &str) -> Result<Option<String>, BoxError> {
        let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let mut get = old.prepare_cached("SELECT row FROM rows WHERE key = ?1")?;
        Ok(get.query_row([key], |row| row.get(0)).optional()?)
    }

    pub(crate) fn put_old(&self, key: &str, row: &str) -> Result<(), BoxError> {
        let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let mut put = old.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2)")?;
        put.execute([key, row])?;
        Ok(())
    }

    pub(crate) fn put_new(&self, key: &str, row: Option<&str>) -> Result<(), BoxError> {
        let mut tx = self.new.begin_write()?;
        if !self.durable {
            tx.set_durability(Durability::None)?;
        }
        {
            let mut rows = tx.open_table(ROWS)?;
            match row {
                Some(row) => rows.insert(key, row)?,
                None => rows.remove(key)?,
            };
        }
        Ok(tx.commit()?)
    }

    fn page_old(&self, after: &str, limit: usize) -> Result<Vec<Key>, BoxError> {
        let old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page =
            old.prepare_cached("SELECT key FROM rows WHERE key > ?1 ORDER BY key LIMIT ?2")?;
        let limit = i64::try_from(limit)?;
        let keys = page.query_map((after, limit), |row| row.get::<_, String>(0))?;
        Ok(keys.map(|key| key.map(Key::from)).collect::<Result<_, _>>()?)
    }

    fn page_new(&self, after: &str, limit: usize) -> Result<Vec<Key>, BoxError> {
        let rows = self.new.begin_read()?.open_table(ROWS)?;
        let range = rows.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?;
        range.take(limit).map(|row| Ok(Key::from(row?.0.value()))).collect()
    }
}

pub(crate) fn name(n: u32) -> String {
    format!("{n:08}")
}

async fn blocking<T: Send + 'static>(
    stores: &Stores,
    work: impl FnOnce(&Stores) -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    let stores = stores.clone();
    spawn_blocking(move || work(&stores)).await?
}

impl Rows for Stores {
    type Row = String;
    type Error = BoxError;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<String>, BoxError> {
        let key = key.clone();
        blocking(self, move |stores| match side {
            Side::Old => stores.get_old(key.as_str()),
            Side::New => {
                let rows = stores.new.begin_read()?.open_table(ROWS)?;
                Ok(rows.get(key.as_str())?.map(|row| row.value().to_owned()))
            }
        })
        .await
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&String>) -> Result<(), BoxError> {
        let (key, row) = (key.clone(), row.cloned());
        blocking(self, move |stores| match side {
            Side::Old => Err("nothing here copies to old".into()),
            Side::New => stores.put_new(key.as_str(), row.as_deref()),
        })
        .await
    }
}

impl Listing for Stores {
    type Error = BoxError;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, BoxError> {
        let after = after.map(ToString::to_string).unwrap_or_default();
        blocking(self, move |stores| match side {
            Side::Old => stores.page_old(&after, limit),
            Side::New => stores.page_new(&after, limit),
        })
        .await
    }
}
