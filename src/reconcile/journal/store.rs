//! One file: redb's table behind the header.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    JournalError, JournalErrorKind,
    header::{self, BODY, Identity, Unreadable, checksum},
    left::Left,
    medium::{Body, InMemory, Medium},
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("journal");
/// Where the table says what must be in it.
const TOTALS: &[u8] = b"!";
/// Enough for far more than the dirty keys of a flag; redb's own limit is 1 GiB.
const CACHE: usize = 16 << 20;

/// Rows to write, or to remove.
pub(super) type Changes = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// What must be in the table. A row that is lost is noticed by this, and so is
/// an older state of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    commits: u64,
    rows: u64,
    /// Of the checksums of all rows.
    sum: u64,
}

impl Totals {
    fn to_bytes(self) -> Vec<u8> {
        [self.commits, self.rows, self.sum].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [commits, rows, sum] = numbers else { return None };
        let [commits, rows, sum] = [commits, rows, sum].map(|n| u64::from_le_bytes(*n));
        rest.is_empty().then_some(Self { commits, rows, sum })
    }

    fn put(&mut self, sum: u64) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(sum);
    }

    fn removed(&mut self, sum: u64) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(sum);
    }
}

/// A row's value with its checksum. The file's id goes into it, so that a page of
/// another file does not fit.
fn seal(id: u64, about: &[u8], value: &[u8]) -> (Vec<u8>, u64) {
    let sum = checksum(&[&id.to_le_bytes(), about, value]);
    ([value, &sum.to_le_bytes()].concat(), sum)
}

fn unseal<'a>(id: u64, about: &[u8], sealed: &'a [u8]) -> Option<(&'a [u8], u64)> {
    let (value, sum) = sealed.split_last_chunk()?;
    let sum = u64::from_le_bytes(*sum);
    (sum == checksum(&[&id.to_le_bytes(), about, value])).then_some((value, sum))
}

/// The open file of this process.
#[derive(Debug)]
pub(super) struct Store {
    db: Database,
    medium: Arc<dyn Medium>,
    id: u64,
    totals: Totals,
}

impl Store {
    /// Makes a file in an empty one.
    pub(super) fn make(medium: Arc<dyn Medium>, identity: &Identity) -> Result<Self, JournalError> {
        let doing = "cannot make a journal";
        header::begin(&*medium, identity).map_err(|error| JournalError::io(doing, error))?;
        let db = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(Body(Arc::clone(&medium)))
            .map_err(|error| JournalError::redb(doing, error.into()))?;
        let mut store = Self { db, medium, id: identity.id, totals: Totals::default() };
        store.commit(&Changes::new())?;
        Ok(store)
    }

    /// Makes the changes durable, all of them or none: one fsync.
    ///
    /// After an error nothing more can be written.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<(), JournalError> {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            self.write(changes).map_err(|error| JournalError::redb("cannot write", error))
        }));
        self.totals = caught.map_err(|panic| {
            let what = format!("redb panicked: {}", text_of(&*panic));
            JournalError::of(JournalErrorKind::Other, what)
        })??;
        header::rely_on(&*self.medium, self.id, self.totals.commits)
            .map_err(|error| JournalError::io("cannot write", error))
    }

    fn write(&self, changes: &Changes) -> Result<Totals, redb::Error> {
        let mut totals = Totals { commits: self.totals.commits + 1, ..self.totals };
        let transaction = self.db.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (about, value) in changes {
                let about = about.as_slice();
                let old = match value {
                    Some(value) => {
                        let (sealed, sum) = seal(self.id, about, value);
                        totals.put(sum);
                        table.insert(about, sealed.as_slice())?
                    }
                    None => table.remove(about)?,
                };
                let old_sum = old.as_ref().map(|old| old.value().last_chunk().copied());
                if let Some(sum) = old_sum {
                    totals.removed(u64::from_le_bytes(sum.unwrap_or_default()));
                }
            }
            let (sealed, _) = seal(self.id, TOTALS, &totals.to_bytes());
            table.insert(TOTALS, sealed.as_slice())?;
        }
        transaction.commit()?;
        Ok(totals)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Whose file these bytes are the beginning of.
pub(super) fn identity(path: &Path, bytes: &[u8]) -> Result<Identity, JournalError> {
    Identity::read(bytes).map_err(|unreadable| refused(path, &unreadable))
}

fn refused(path: &Path, unreadable: &Unreadable) -> JournalError {
    let path_text = path.display();
    match unreadable {
        Unreadable::Damaged(what) => JournalError::corrupt(path, what),
        Unreadable::Newer(format) => JournalError::of(
            JournalErrorKind::NewerFormat,
            format!("{path_text} has format {format}, and this version reads up to 1"),
        ),
        Unreadable::Foreign => JournalError::of(
            JournalErrorKind::Foreign,
            format!("{path_text} is a database of another program"),
        ),
    }
}

/// Reads a file whole: all that was ever relied on, or an error.
///
/// redb finds most damage, some of it by a panic. The rest is found by the
/// checksums and totals here.
pub(super) fn read(path: &Path, bytes: Vec<u8>) -> Result<(Identity, Left), JournalError> {
    let identity = identity(path, &bytes)?;
    let relied = header::relied_on(&bytes, identity.id).map_err(|error| refused(path, &error))?;
    if bytes.len() as u64 <= BODY {
        // redb would take this for a new file.
        return Err(JournalError::corrupt(path, "it is cut off"));
    }
    let content = catch_unwind(|| content(bytes, identity.id, relied)).unwrap_or_else(|panic| {
        Err(format!("redb panicked while it read it: {}", text_of(&*panic)))
    });
    match content {
        Ok(left) => Ok((identity, left)),
        Err(what) => Err(JournalError::corrupt(path, what)),
    }
}

fn content(bytes: Vec<u8>, id: u64, relied: u64) -> Result<Left, String> {
    let medium = Body(Arc::new(InMemory::new(bytes)));
    let mut db = Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(medium)
        .map_err(|error| error.to_string())?;
    // Whether it had to mend something says nothing: what counts is what is left.
    let _ = db.check_integrity().map_err(|error| error.to_string())?;
    let (left, totals, found) = rows(&db, id)?;
    let totals = totals.ok_or("its totals are lost")?;
    if (totals.rows, totals.sum) != (found.rows, found.sum) {
        return Err(format!("it has {} rows, and had {}", found.rows, totals.rows));
    }
    if totals.commits < relied {
        let commits = totals.commits;
        return Err(format!("it ends with commit {commits}, and commit {relied} was relied on"));
    }
    Ok(left)
}

fn rows(db: &Database, id: u64) -> Result<(Left, Option<Totals>, Totals), String> {
    let (mut left, mut totals, mut found) = (Left::default(), None, Totals::default());
    let transaction = db.begin_read().map_err(|error| error.to_string())?;
    let table = transaction.open_table(TABLE).map_err(|error| error.to_string())?;
    for row in table.iter().map_err(|error| error.to_string())? {
        let (about, sealed) = row.map_err(|error| error.to_string())?;
        let (about, sealed) = (about.value(), sealed.value());
        let (value, sum) = unseal(id, about, sealed).ok_or("a row has changed")?;
        if about == TOTALS {
            totals = Some(Totals::from_bytes(value).ok_or("its totals make no sense")?);
        } else {
            found.put(sum);
            left.row(about, value).ok_or("a row makes no sense")?;
        }
    }
    Ok((left, totals, found))
}
