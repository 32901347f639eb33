//! The durable journal of dirty keys.

mod begun;
mod dir;
mod error;
mod header;
mod left;
mod log;
mod medium;
mod row;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use self::error::{JournalError, JournalErrorKind};
use self::{header::Identity, log::JournalLog, medium::OnDisk};
use super::dirty_log::DirtyLog;

/// By this clock the journal's thread waits, which has no runtime.
#[expect(clippy::disallowed_types, reason = "a thread cannot wait by tokio's clock")]
type Instant = std::time::Instant;

/// How long a write's note is kept after it has ended.
const KEEP: Duration = Duration::from_millis(500);

/// When dirty keys are written to the journal.
///
/// | what happens | [`OnFailure`](Self::OnFailure) | [`BeforeLegs`](Self::BeforeLegs) |
/// |---|---|---|
/// | a write goes wrong on one side, then the process is killed | its keys are found, but for those of the last few milliseconds | its keys are found |
/// | the process is killed while a write has reached one side alone | nobody knows the keys | its keys are found |
/// | the same, with a power cut in place of the kill | nobody knows the keys | its keys are found, if the disk keeps what it has synced |
/// | the journal's disk is full, or fails | the log says so, and no key is kept any more | the same; until the flag's record says so, writes get 503 (`journal`), before either side has seen them |
///
/// Where nobody knows the keys, a side is unsynced after the crash, and has to be
/// copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum JournalMode {
    /// When a write has gone wrong. Costs nothing where none does: no write
    /// waits for the journal.
    #[default]
    OnFailure,
    /// Also before either leg of a write to both sides starts, with the side
    /// that is right. A write waits for one `fsync`, which it shares with all
    /// the others that begin at that moment. A key that was written a moment ago
    /// is still noted, and its next write waits for nothing.
    BeforeLegs,
}

impl JournalMode {
    /// `on-failure` or `before-legs`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::BeforeLegs => "before-legs",
        }
    }
}

impl fmt::Display for JournalMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A directory in which dirty keys outlive the process.
///
/// # The files
///
/// Each process has a file of its own there, named `<pid>-<id>.redb` and locked
/// while it lives. The process that owns the flag takes over the files of those
/// that have ended, and removes them. An empty journal is never a default: a
/// file that is damaged, cut off or of a newer format is an error that says what
/// to do. A process that is killed, or a power cut, does not damage a file.
///
/// Leave the files there. Give each migration a directory of its own, on a local
/// disk: locks over a network file system are a matter of luck. A backup of a
/// journal is of no use, since keys have been mended and written since.
///
/// # Hot keys
///
/// With [`JournalMode::BeforeLegs`], a key stays noted for a moment after its
/// write has ended ([`keep`](Self::keep)). So a key that is written all the time
/// is noted once, and its writes do not wait. DRBD's activity log and the
/// write-intent bitmap of Linux md work like this. After a crash a few keys are
/// found that are equal on both sides; to compare or copy them once more does no
/// harm.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: PathBuf,
    mode: JournalMode,
    keep: Duration,
    /// Whatever was there before is given up.
    starts_over: bool,
    /// Whose files were there.
    files: Vec<(PathBuf, Identity)>,
}

impl Journal {
    /// Opens the journal in the directory `dir`, which must be there.
    ///
    /// Reads each file that no living process holds, so that a damaged one is
    /// found now.
    ///
    /// # Errors
    ///
    /// [`JournalError`], by kind: `Missing`, `Corrupt`, `NewerFormat`,
    /// `Foreign`, `Denied`. Its text says what to do.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::at(dir::find(dir.as_ref())?)
    }

    /// Opens the journal in the directory `dir`, or makes the directory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for `Missing`.
    pub fn create_or_open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::at(dir::find_or_make(dir.as_ref())?)
    }

    /// Starts an empty journal in the directory `dir`: the way out of one that is
    /// lost or damaged.
    ///
    /// All files that no living process holds are moved to `aside-<n>` in the
    /// directory. The flag un-syncs each side that it cannot vouch for without
    /// them.
    ///
    /// # Errors
    ///
    /// [`JournalError`], by kind: `Denied`, `Full`.
    pub fn start_over(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        let dir = dir::find_or_make(dir.as_ref())?;
        dir::set_aside(&dir)?;
        Ok(Self { starts_over: true, ..Self::at(dir)? })
    }

    fn at(dir: PathBuf) -> Result<Self, JournalError> {
        let files = dir::check(&dir)?;
        let mode = JournalMode::default();
        Ok(Self { dir, mode, keep: KEEP, starts_over: false, files })
    }

    /// When keys are written. [`JournalMode::OnFailure`] by default.
    #[must_use]
    pub const fn mode(mut self, mode: JournalMode) -> Self {
        self.mode = mode;
        self
    }

    /// How long a key stays noted after its write has ended, with
    /// [`JournalMode::BeforeLegs`]. Half a second by default; up to twice as long
    /// where nothing else is written.
    ///
    /// A longer time spares keys that are written less often the wait; after a
    /// crash more keys are looked at that need not be.
    #[must_use]
    pub const fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    pub(crate) const fn starts_over(&self) -> bool {
        self.starts_over
    }

    /// Makes this process's file, and starts to write it. Blocks for a few
    /// `fsync`s.
    pub(crate) fn start(self, name: &str) -> Result<Arc<dyn DirtyLog>, JournalError> {
        for (path, identity) in &self.files {
            dir::must_be_of(name, path, identity)?;
        }
        let through = |file| Arc::new(OnDisk::new(file)) as _;
        let log = JournalLog::start(self.dir, name, self.mode, self.keep, through)?;
        Ok(Arc::new(log))
    }
}
