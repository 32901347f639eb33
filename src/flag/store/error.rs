//! What goes wrong where the flag is kept, and what to do about it.

use std::{error::Error, fmt, io, sync::Arc};

use crate::{BoxError, flag::ConfigError};

/// Kinds of [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no record where one must be.
    Missing,
    /// There is a record already, and a new one was to be made.
    Exists,
    /// The record is damaged.
    Corrupt,
    /// The record was written by a newer version of this crate.
    NewerFormat,
    /// Another record is there than the one that was to be replaced: somebody
    /// else has changed it.
    Conflict,
    /// This instance does not own the flag.
    NotOwner,
    /// Another instance is there that would miss the step.
    Shared,
    /// No room to write.
    Full,
    /// Permission denied, or a read-only file system.
    Denied,
    /// The record may have been written or not.
    Unknown,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// What to do.
    #[must_use]
    pub const fn lifted_by(self) -> &'static str {
        match self {
            Self::Missing => {
                "put the very record back; if it is lost, find out which stage the service was \
                 at, and make a new one there (FileStore::create_at); only if this migration has \
                 never run, create a new one"
            }
            Self::Exists => "open it instead, or move it away if it is another migration's",
            Self::Corrupt => {
                "put a copy back from which no step was taken since, and no write served; if \
                 there is none, move it away, find out which stage the service was at, and make \
                 a new record there (FileStore::create_at)"
            }
            Self::NewerFormat => "run the version that wrote it, or a newer one",
            Self::Conflict => {
                "put the record back that this process wrote, or stop the process and start it \
                 again with the one that is there"
            }
            Self::NotOwner => "ask the process that owns the flag, or wait until it has ended",
            Self::Shared => "end the other process first; a flag that two obey is not moved",
            Self::Full => "free some space, then try again",
            Self::Denied => "let the process write the record's directory, then try again",
            Self::Unknown | Self::Other => "mend the flag's store, then try again",
        }
    }
}

/// A store that failed: what it was doing, why, and what to do.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    /// What was being done, to what.
    doing: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self {
            kind: StoreErrorKind::Other,
            doing: format!("the flag's store failed: {source}").into(),
            source: Some(Arc::from(source)),
        }
    }

    /// Says what went wrong.
    pub fn of(kind: StoreErrorKind, doing: impl Into<Arc<str>>) -> Self {
        Self { kind, doing: doing.into(), source: None }
    }

    /// The same error, of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: StoreErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn io(doing: impl fmt::Display, error: io::Error) -> Self {
        use io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => StoreErrorKind::Missing,
            ErrorKind::AlreadyExists => StoreErrorKind::Exists,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreErrorKind::Full
            }
            _ => StoreErrorKind::Other,
        };
        Self { kind, doing: format!("{doing}: {error}").into(), source: Some(Arc::new(error)) }
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// What to do.
    #[must_use]
    pub const fn lifted_by(&self) -> &'static str {
        self.kind.lifted_by()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

/// As a person reads it who returned the error from `main`.
impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({:?}: {self} ({}))", self.kind, self.lifted_by())
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Why a handle could not be opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// A limit makes no sense.
    Config(ConfigError),
    /// The store could not be read or written. The stage is unknown, so nothing
    /// may be served: mend the store and start again.
    Store(StoreError),
    /// The journal of dirty keys is damaged, missing, or not the one that the
    /// record names. Nothing may be served before somebody has said what to do.
    Journal {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// The store holds no record. Creating one is an explicit act of the
    /// store's own constructor: if this migration has run before, its record
    /// is missing.
    Missing,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the handle's configuration cannot work"),
            Self::Store(error) => {
                write!(f, "the flag cannot be opened: {error} ({})", error.lifted_by())
            }
            Self::Journal { what, hint } => {
                write!(f, "the flag cannot be opened: {what} ({hint})")
            }
            Self::Missing => f.write_str(
                "the store holds no record of the flag: create one only if this migration has \
                 never run",
            ),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Journal { .. } | Self::Missing => None,
        }
    }
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
