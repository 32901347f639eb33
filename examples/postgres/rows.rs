//! How copies read, write and list.

use tower_migration::{
    BoxError, Side,
    reconcile::{Key, Listing, Rows},
};

use crate::{
    postgres::Postgres,
    sqlite::Sqlite,
    store::{Row, Store},
};

#[derive(Clone)]
pub(crate) struct Both {
    pub(crate) old: Sqlite,
    pub(crate) new: Postgres,
}

impl Rows for Both {
    type Row = Row;
    type Error = BoxError;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<Row>, BoxError> {
        match side {
            Side::Old => self.old.get(key.as_str()).await,
            Side::New => self.new.get(key.as_str()).await,
        }
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&Row>) -> Result<(), BoxError> {
        let Some(row) = row else {
            // Deletions leave a row. So this key was written past the migration, and
            // nothing says which side is right: a person has to.
            return Err(format!("{key} is on {side} alone, and has never been elsewhere").into());
        };
        // One that is late is done: there is a newer one, of a writer that the copy
        // does not know.
        match side {
            Side::Old => self.old.apply(key.as_str(), row).await.map(drop),
            Side::New => self.new.apply(key.as_str(), row).await.map(drop),
        }
    }
}

impl Listing for Both {
    type Error = BoxError;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, BoxError> {
        let after = after.map_or("", Key::as_str);
        let codes = match side {
            Side::Old => self.old.codes(after, limit).await?,
            Side::New => self.new.codes(after, limit).await?,
        };
        Ok(codes.into_iter().map(Key::from).collect())
    }
}
