//! What both stores do, and the statements that they do it with.

use tower_migration::BoxError;

/// One airport. Every write of it has a version of its own, counted from 1; a
/// deletion is a write that leaves no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: Option<String>,
    pub(crate) version: i64,
}

pub(crate) trait Store: Clone + Send + Sync + 'static {
    /// `None`: there never was one.
    fn get(&self, code: &str) -> impl Future<Output = Result<Option<Row>, BoxError>> + Send;

    /// As the authority: writes it, under the next version.
    fn set(
        &self,
        code: &str,
        name: Option<&str>,
    ) -> impl Future<Output = Result<Row, BoxError>> + Send;

    /// As the other side, and for copies: takes the row over, unless the one that is
    /// there is as new or newer. Says whether it did.
    fn apply(&self, code: &str, row: &Row) -> impl Future<Output = Result<bool, BoxError>> + Send;

    /// Up to `limit` codes behind `after`, in the order of their bytes.
    fn codes(
        &self,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>, BoxError>> + Send;
}

// SQLite and PostgreSQL read these alike: `$1` is a name to the one, a number to the
// other.

pub(crate) const GET: &str = "SELECT name, version FROM airports WHERE code = $1";

/// The version is counted in the statement that writes, under the row's lock: two
/// writes never get the same one, whichever processes they come from.
pub(crate) const SET: &str = "
    INSERT INTO airports (code, name, version) VALUES ($1, $2, 1)
    ON CONFLICT (code) DO UPDATE SET name = excluded.name, version = airports.version + 1
    RETURNING name, version";

/// The condition is asked of the row as it is once its lock is had, so it holds
/// against writes that are under way as well.
pub(crate) const APPLY: &str = "
    INSERT INTO airports (code, name, version) VALUES ($1, $2, $3)
    ON CONFLICT (code) DO UPDATE SET name = excluded.name, version = excluded.version
    WHERE airports.version < excluded.version";
