//! Who owns the file, and who follows.
//!
//! Both locks belong to an open file, so the system takes them away from a
//! process however it ends. The lock files stay when their processes are gone:
//! to remove one that is in use would let a second owner in.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
};

use super::disk::Paths;
use crate::flag::{Claim, StoreError, StoreErrorKind};

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| StoreError::io(format!("cannot open {}", path.display()), error))
}

/// The lock, or `None` while somebody else has one that speaks against it.
fn locked(path: &Path, lock: Result<(), TryLockError>) -> Result<Option<()>, StoreError> {
    match lock {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(StoreError::io(format!("cannot lock {}", path.display()), error))
        }
    }
}

/// The lock of the process that owns the flag.
#[derive(Debug)]
pub(super) struct Ownership(File);

impl Ownership {
    /// Takes it, if nobody has it.
    pub(super) fn take(paths: &Paths) -> Result<Option<Self>, StoreError> {
        let file = open(&paths.owner)?;
        Ok(locked(&paths.owner, file.try_lock())?.map(|()| Self(file)))
    }

    /// Whether a record was ever made beside this lock: then one that is not
    /// there is lost, and not yet to be made.
    pub(super) fn had_record(&self) -> bool {
        self.0.metadata().is_ok_and(|about| about.len() > 0)
    }

    pub(super) fn note_record(&mut self) -> Result<(), StoreError> {
        if self.had_record() {
            return Ok(());
        }
        let text = b"Locked by the process that moves the flag beside this file. Its record \
                     exists; if it is gone, it was lost. Do not remove this file.\n";
        let noted = self.0.write_all(text).and_then(|()| self.0.sync_all());
        noted.map_err(|error| StoreError::io("cannot write the flag's lock file", error))
    }
}

/// A follower's lock, and its line in the list of those that came and went.
#[derive(Debug)]
pub(super) struct Following {
    file: File,
    name: String,
}

impl Following {
    /// Joins, unless a step is being taken.
    pub(super) fn join(paths: &Paths, name: &str) -> Result<Option<Self>, StoreError> {
        let mut file = open(&paths.followers)?;
        if locked(&paths.followers, file.try_lock_shared())?.is_none() {
            return Ok(None);
        }
        note(&mut file, '+', name)?;
        Ok(Some(Self { file, name: name.to_owned() }))
    }

    /// Goes in order. Without this, whoever claims next knows that one was lost.
    pub(super) fn leave(mut self) -> Result<(), StoreError> {
        note(&mut self.file, '-', &self.name)
    }
}

fn note(file: &mut File, sign: char, name: &str) -> Result<(), StoreError> {
    // One write, so that lines of several followers do not mix.
    let line = format!("{sign}{name}\n");
    file.write_all(line.as_bytes())
        .map_err(|error| StoreError::io("cannot write the list of followers", error))
}

/// The right to take a step: no follower is there, and none joins meanwhile.
pub(super) fn claim(paths: &Paths) -> Result<Claim, StoreError> {
    let mut file = open(&paths.followers)?;
    if locked(&paths.followers, file.try_lock())?.is_none() {
        let what = format!("another process follows the flag in {}", paths.record.display());
        return Err(StoreError::of(StoreErrorKind::Shared, what));
    }
    let lost = lost_one(&mut file)
        .map_err(|error| StoreError::io("cannot read the list of followers", error))?;
    Ok(Claim::new(file).with_lost_instance(lost))
}

/// Whether one came and did not go in order; the list starts anew.
fn lost_one(file: &mut File) -> io::Result<bool> {
    let mut list = String::new();
    file.read_to_string(&mut list)?;
    if list.is_empty() {
        return Ok(false);
    }
    let mut there = HashSet::new();
    for line in list.lines() {
        match line.split_at_checked(1) {
            Some(("+", name)) => {
                there.insert(name);
            }
            Some(("-", name)) => {
                there.remove(name);
            }
            // Cut off by a full disk, or written by nobody we know.
            _ => {
                there.insert(line);
            }
        }
    }
    let lost = !there.is_empty();
    file.set_len(0)?;
    Ok(lost)
}
