//! The record on the disk: read whole, replaced at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::text::{self, Unreadable};
use crate::{
    files,
    flag::{Record, StoreError, StoreErrorKind},
};

/// Where the record and the files beside it are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The record.
    pub(super) record: PathBuf,
    /// The next record, until it takes the record's name.
    next: PathBuf,
    /// Locked by the process that owns the flag.
    pub(super) owner: PathBuf,
    /// Locked, together, by the processes that follow.
    pub(super) followers: PathBuf,
}

impl Paths {
    /// Links are followed now, once: the record is replaced where it lies, not
    /// where a link to it lies.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let name = path.file_name().ok_or_else(|| {
            let what = format!("{} names no file", path.display());
            StoreError::of(StoreErrorKind::Missing, what)
        })?;
        let record = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if path.is_symlink() => {
                // Else the link would be taken for a place where nothing ever was.
                let doing = format!("the link {} leads nowhere", path.display());
                return Err(StoreError::io(doing, error));
            }
            Err(_) => {
                let dir = match path.parent() {
                    Some(dir) if !dir.as_os_str().is_empty() => dir,
                    _ => Path::new("."),
                };
                let doing = format!("cannot find the directory of {}", path.display());
                dir.canonicalize().map_err(|error| StoreError::io(doing, error))?.join(name)
            }
        };
        let beside = |end: &str| files::beside(&record, end);
        let (next, owner, followers) = (beside(".next"), beside(".lock"), beside(".followers"));
        Ok(Self { record, next, owner, followers })
    }

    /// The record, if there is one.
    pub(super) fn load(&self) -> Result<Option<Record>, StoreError> {
        let path = self.record.display();
        let bytes = match fs::read(&self.record) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(format!("cannot read {path}"), error)),
        };
        text::read(&bytes).map(Some).map_err(|unreadable| match unreadable {
            Unreadable::Newer(format) => StoreError::of(
                StoreErrorKind::NewerFormat,
                format!(
                    "{path} has format {format}, and this version reads up to {}",
                    text::FORMAT
                ),
            ),
            Unreadable::Damaged(what) => {
                StoreError::of(StoreErrorKind::Corrupt, format!("{path} is damaged: {what}"))
            }
        })
    }

    /// Puts `record` in the place of the one with the epoch `replaces`; `None`:
    /// there is none.
    pub(super) fn replace(&self, replaces: Option<u64>, record: &Record) -> Result<(), StoreError> {
        let path = self.record.display();
        let found = self.load()?.map(|record| record.epoch);
        if found != replaces {
            let name = |epoch: Option<u64>| match epoch {
                Some(epoch) => format!("the record of epoch {epoch}"),
                None => "no record".to_owned(),
            };
            let what = format!(
                "{path} was changed by somebody else: {} was to be replaced, but {} is there",
                name(replaces),
                name(found)
            );
            return Err(StoreError::of(StoreErrorKind::Conflict, what));
        }
        let bytes = text::write(record);
        files::replace(&self.record, &self.next, bytes.as_bytes())
            .map_err(|error| StoreError::io(format!("cannot write {path}"), error))?;
        // From here on the new record may be the one that is found.
        files::sync_directory(&self.record).map_err(|error| {
            let doing = format!("{path} is written, but may not survive a power cut");
            StoreError::io(doing, error).with_kind(StoreErrorKind::Unknown)
        })
    }
}
