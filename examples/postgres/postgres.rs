//! The new store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio_postgres::{Client, NoTls, Statement};
use tower_migration::BoxError;

use crate::store::{APPLY, GET, Row, SET, Store};

/// The index is in this order too, so a page is read from where it begins.
const CODES: &str = "
    SELECT code FROM airports WHERE code > $1 COLLATE \"C\" ORDER BY code COLLATE \"C\" LIMIT $2";

/// Where the table is: the schema is the example's own, and goes with it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) schema: String,
}

impl Place {
    pub(crate) async fn create(url: &str) -> Result<Self, BoxError> {
        let schema = format!("tower_migration_{:016x}", fastrand::u64(..));
        let place = Self { url: url.to_owned(), schema };
        let table = "CREATE TABLE airports
            (code text COLLATE \"C\" PRIMARY KEY, name text, version bigint NOT NULL)";
        let client = place.client().await?;
        client.batch_execute(&format!("CREATE SCHEMA {}", place.schema)).await?;
        client.batch_execute(table).await?;
        Ok(place)
    }

    pub(crate) async fn remove(&self) -> Result<(), BoxError> {
        let client = self.client().await?;
        Ok(client.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await?)
    }

    pub(crate) async fn client(&self) -> Result<Client, BoxError> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("the connection broke: {error}");
            }
        });
        client.batch_execute(&format!("SET search_path TO {}", self.schema)).await?;
        Ok(client)
    }
}

/// One connection: what several tasks ask for goes down it one after the other,
/// without waiting for the answers. A service of size would have a pool of them.
#[derive(Clone)]
pub(crate) struct Postgres(Arc<Connected>);

struct Connected {
    client: Client,
    get: Statement,
    set: Statement,
    apply: Statement,
    codes: Statement,
    late: AtomicU64,
}

impl Postgres {
    pub(crate) async fn connect(place: &Place) -> Result<Self, BoxError> {
        let client = place.client().await?;
        Ok(Self(Arc::new(Connected {
            get: client.prepare(GET).await?,
            set: client.prepare(SET).await?,
            apply: client.prepare(APPLY).await?,
            codes: client.prepare(CODES).await?,
            late: AtomicU64::new(0),
            client,
        })))
    }

    /// How many rows of this process came when there was one as new or newer.
    pub(crate) fn late(&self) -> u64 {
        self.0.late.load(Ordering::Relaxed)
    }
}

fn row(found: &tokio_postgres::Row) -> Result<Row, BoxError> {
    Ok(Row { name: found.try_get(0)?, version: found.try_get(1)? })
}

impl Store for Postgres {
    async fn get(&self, code: &str) -> Result<Option<Row>, BoxError> {
        let found = self.0.client.query_opt(&self.0.get, &[&code]).await?;
        found.as_ref().map(row).transpose()
    }

    async fn set(&self, code: &str, name: Option<&str>) -> Result<Row, BoxError> {
        row(&self.0.client.query_one(&self.0.set, &[&code, &name]).await?)
    }

    async fn apply(&self, code: &str, row: &Row) -> Result<bool, BoxError> {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&code, &row.name, &row.version];
        let applied = self.0.client.execute(&self.0.apply, &values).await? > 0;
        self.0.late.fetch_add(u64::from(!applied), Ordering::Relaxed);
        Ok(applied)
    }

    async fn codes(&self, after: &str, limit: usize) -> Result<Vec<String>, BoxError> {
        let limit = i64::try_from(limit)?;
        let codes = self.0.client.query(&self.0.codes, &[&after, &limit]).await?;
        codes.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
