//! How one key is read and written on each side, behind the layer's back.

use std::{fmt::Write, sync::Arc};

use super::Key;
use crate::{BoxError, compare::Diff, stage::Side};

/// How a row is read and written on each side: what copying, repairing,
/// backfilling and verifying are made of.
///
/// It goes to the two stores (or services) themselves, never through the layer.
/// [`Rest`](super::Rest) is ready-made for HTTP resources.
///
/// # The implementor's contract
///
/// *Whole.* [`read`](Self::read) gives the key's present state, with everything
/// that belongs to it, or `None` if there is none. Never a state from a cache or
/// a replica that lags: what a client was told is written has to be in it.
///
/// *Idempotent.* [`write`](Self::write) makes the key on that side equal to what
/// it is given, whatever was there before; for `None` it deletes, and one that is
/// not there already is no error. It may be called again with the same row, or
/// with another. It returns once the row is as durable as any write of that side.
///
/// *Nothing left behind.* When `write` returns an error, nothing of it is to land
/// later. Where that cannot be known, let it take longer instead, or answer when
/// it is. A `write` that is dropped half-way may land; its key is kept from other
/// writes for the [`linger`](crate::HandleBuilder::linger).
///
/// *When.* Called for one key at a time, with the key's place in the order of
/// writes on the side that is written; for several keys at once.
///
/// # Writers that the layer does not see
///
/// Writes of this process through the layer are in order with copies. A program
/// that writes a store past the layer is not: a copy reads the source again after
/// it has written, and repeats until nothing has moved, which covers a program
/// that writes the *source* first and then the target. What it cannot cover,
/// only the store can: let `write` be conditional on a version that the source
/// gives (`… where version < excluded.version`), deletions included. The example
/// `postgres` does.
///
/// # Example
///
/// ```
/// use std::{collections::HashMap, convert::Infallible, sync::Mutex};
/// use tower_migration::{Side, reconcile::{Key, Rows}};
///
/// type Table = Mutex<HashMap<String, String>>;
///
/// struct Airports { old: Table, new: Table }
///
/// impl Airports {
///     fn on(&self, side: Side) -> &Table {
///         match side { Side::Old => &self.old, Side::New => &self.new }
///     }
/// }
///
/// impl Rows for Airports {
///     type Row = String;
///     type Error = Infallible;
///
///     async fn read(&self, side: Side, key: &Key) -> Result<Option<String>, Infallible> {
///         Ok(self.on(side).lock().unwrap().get(key.as_str()).cloned())
///     }
///
///     async fn write(&self, side: Side, key: &Key, row: Option<&String>) -> Result<(), Infallible> {
///         let mut table = self.on(side).lock().unwrap();
///         match row {
///             Some(row) => table.insert(key.to_string(), row.clone()),
///             None => table.remove(key.as_str()),
///         };
///         Ok(())
///     }
/// }
/// ```
pub trait Rows: Send + Sync + 'static {
    /// The state of one key, in a form that both sides can be read into.
    type Row: PartialEq + Send + Sync + 'static;
    /// Why a side could not be read or written. Reports and logs show it with its
    /// sources.
    type Error: Into<BoxError> + Send + 'static;

    /// The key's present state on `side`; `None`: there is none.
    fn read(
        &self,
        side: Side,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Self::Row>, Self::Error>> + Send;

    /// Makes the key on `side` equal to `row`; `None`: deletes it.
    fn write(
        &self,
        side: Side,
        key: &Key,
        row: Option<&Self::Row>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What differs between the authority's state of a key and the other side's.
    /// Asked by a [`Verify`](super::Verify), and before a row is written that may
    /// be equal already.
    ///
    /// By default the rows are compared with `==`, and what differs is called
    /// `row`.
    fn differ(&self, key: &Key, authority: Option<&Self::Row>, other: Option<&Self::Row>) -> Diff {
        let _ = key;
        default_diff(authority, other)
    }
}

/// An error with its sources: some say no more than "db error" by themselves.
pub(super) fn said(error: impl Into<BoxError>) -> String {
    let error = error.into();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// What differs as far as `==` tells.
pub(super) fn default_diff<R: PartialEq>(authority: Option<&R>, other: Option<&R>) -> Diff {
    let shown = |row: Option<&R>| if row.is_some() { "there" } else { "missing" };
    match (authority, other) {
        (Some(a), Some(b)) => Diff::when(a != b, "row", "one", "another"),
        (a, b) => Diff::when(a.is_some() != b.is_some(), "row", shown(a), shown(b)),
    }
}

impl<R: Rows + ?Sized> Rows for Arc<R> {
    type Row = R::Row;
    type Error = R::Error;

    fn read(
        &self,
        side: Side,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Self::Row>, Self::Error>> + Send {
        (**self).read(side, key)
    }

    fn write(
        &self,
        side: Side,
        key: &Key,
        row: Option<&Self::Row>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        (**self).write(side, key, row)
    }

    fn differ(&self, key: &Key, authority: Option<&Self::Row>, other: Option<&Self::Row>) -> Diff {
        (**self).differ(key, authority, other)
    }
}
