//! What goes wrong with a journal, and what to do about it.

use std::{error::Error, fmt, io, path::Path, sync::Arc};

use crate::reconcile::dirty_log::LogFailed;

/// Kinds of [`JournalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The directory is not there.
    Missing,
    /// A file is damaged, or something that is no journal has its name.
    Corrupt,
    /// A file was written by a newer version of this crate.
    NewerFormat,
    /// A file belongs to another migration, or to another program.
    Foreign,
    /// Permission denied, or a read-only file system.
    Denied,
    /// No room to write.
    Full,
    /// Anything else.
    Other,
}

impl JournalErrorKind {
    /// What to do.
    #[must_use]
    pub const fn lifted_by(self) -> &'static str {
        match self {
            Self::Missing => {
                "put the directory back; if it is lost, or never was, Journal::create_or_open"
            }
            Self::Corrupt => {
                "put the very file back, if it was moved, and never an older copy; if it is lost, \
                 Journal::start_over, and copy the side that is unsynced then"
            }
            Self::NewerFormat => "run the version that wrote it, or a newer one",
            Self::Foreign => "give each migration a directory of its own",
            Self::Denied => "let the process read and write the journal's directory",
            Self::Full => "free some space, then start the process again",
            Self::Other => "mend the journal's disk, then start the process again",
        }
    }
}

/// A journal that failed: what it was doing, why, and what to do.
#[derive(Clone)]
pub struct JournalError {
    kind: JournalErrorKind,
    /// What was being done, to what.
    what: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl JournalError {
    pub(super) fn of(kind: JournalErrorKind, what: impl Into<Arc<str>>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// What is at `path` is no good journal.
    pub(super) fn corrupt(path: &Path, what: impl fmt::Display) -> Self {
        Self::of(JournalErrorKind::Corrupt, format!("{} is damaged: {what}", path.display()))
    }

    pub(super) fn io(doing: impl fmt::Display, error: io::Error) -> Self {
        let kind = kind_of(&error);
        Self { kind, what: format!("{doing}: {error}").into(), source: Some(Arc::new(error)) }
    }

    pub(super) fn redb(doing: impl fmt::Display, error: redb::Error) -> Self {
        let kind = match &error {
            redb::Error::Io(error) => kind_of(error),
            redb::Error::Corrupted(_) => JournalErrorKind::Corrupt,
            _ => JournalErrorKind::Other,
        };
        Self { kind, what: format!("{doing}: {error}").into(), source: Some(Arc::new(error)) }
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn kind(&self) -> JournalErrorKind {
        self.kind
    }

    /// What to do.
    #[must_use]
    pub const fn lifted_by(&self) -> &'static str {
        self.kind.lifted_by()
    }
}

fn kind_of(error: &io::Error) -> JournalErrorKind {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => JournalErrorKind::Missing,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => JournalErrorKind::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            JournalErrorKind::Full
        }
        _ => JournalErrorKind::Other,
    }
}

impl From<JournalError> for LogFailed {
    fn from(error: JournalError) -> Self {
        Self::new(Arc::clone(&error.what), error.lifted_by())
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// As a person reads it who returned the error from `main`.
impl fmt::Debug for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalError({:?}: {self} ({}))", self.kind, self.lifted_by())
    }
}

impl Error for JournalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
