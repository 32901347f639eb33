//! How far a run had come when it stopped.

mod file;
mod text;

use std::{error::Error, fmt, io, str::FromStr, sync::Arc, time::SystemTime};

pub use self::file::FileCheckpoints;
use self::text::Unreadable;
use super::{Key, sweep::Tally};
use crate::{
    flag::BoxFuture,
    reason::reasons,
    stage::{Side, Stage},
};

reasons! {
    /// What kind of run it was.
    pub enum JobKind {
        /// A [`Backfill`](super::Backfill).
        Backfill = "backfill",
        /// A [`Verify`](super::Verify).
        Verify = "verify",
    }
}

/// How far a run has come: enough to go on from there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// What kind of run.
    pub job: JobKind,
    /// The handle's name.
    pub migration: String,
    /// The side that is right.
    pub from: Side,
    /// The stage at which the run began.
    pub stage: Stage,
    /// The epoch in which it began, for people.
    pub epoch: u64,
    /// The number that the target had: see [`Spans`](crate::Spans). With another one,
    /// what the run has done is void.
    pub span: u64,
    /// When it began, by the machine's clock.
    pub began: SystemTime,
    /// Whether it has visited every key.
    pub finished: bool,
    /// Whether the target was found empty before both sides were written.
    pub target_empty: bool,
    /// Every key up to this one was visited.
    pub up_to: Option<Key>,
    /// Of those, these have to be visited again.
    pub again: Vec<Key>,
    /// More had to be than were kept: the next run begins anew.
    pub again_lost: u64,
    pub(super) tally: Tally,
}

/// As the text that [`FileCheckpoints`] writes, for stores of one's own.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::write(self))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        Self::read(text.as_bytes(), &"the text")
    }
}

impl Checkpoint {
    fn read(bytes: &[u8], what: &dyn fmt::Display) -> Result<Self, CheckpointError> {
        text::read(bytes).map_err(|unreadable| match unreadable {
            Unreadable::Newer(format) => CheckpointError::newer(format!(
                "{what} has format {format}, and this version reads up to {}",
                text::FORMAT
            )),
            Unreadable::Damaged(why) => {
                CheckpointError::damaged(format!("{what} is damaged: {why}"))
            }
        })
    }
}

/// Where checkpoints are kept.
///
/// The text of a [`Checkpoint`] (`to_string` and `parse`) is all that has to be kept.
///
/// # The implementor's contract
///
/// [`save`](Self::save) replaces the checkpoint whole, and durably; one that is
/// dropped half-way leaves the one before or the one after. [`load`](Self::load)
/// gives the last one, or an error, never a default. One run at a time uses a store.
pub trait CheckpointStore: Send + Sync + 'static {
    /// The last checkpoint that was saved; `None`: none was.
    fn load(&self) -> BoxFuture<'_, Result<Option<Checkpoint>, CheckpointError>>;

    /// Replaces it. Called about once a second, and at the run's end.
    fn save(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>>;
}

/// Why a checkpoint could not be read or written.
#[derive(Clone, Debug)]
pub struct CheckpointError {
    what: Arc<str>,
    lifted_by: &'static str,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl CheckpointError {
    /// Wraps what went wrong.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        let what = format!("the checkpoint's store failed: {source}").into();
        Self { what, lifted_by: "mend it, then try again", source: Some(Arc::new(source)) }
    }

    pub(super) fn io(doing: impl fmt::Display, error: io::Error) -> Self {
        let what = format!("{doing}: {error}").into();
        let lifted_by = "make the path readable and writable for the process, then try again";
        Self { what, lifted_by, source: Some(Arc::new(error)) }
    }

    pub(super) fn damaged(what: impl fmt::Display) -> Self {
        let lifted_by = "move the file away: the next run begins from the start, which costs time \
                         and harms nothing";
        Self { what: what.to_string().into(), lifted_by, source: None }
    }

    pub(super) fn newer(what: impl fmt::Display) -> Self {
        let lifted_by = "run the version that wrote it, or move the file away and begin anew";
        Self { what: what.to_string().into(), lifted_by, source: None }
    }

    /// What to do.
    #[must_use]
    pub const fn lifted_by(&self) -> &'static str {
        self.lifted_by
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for CheckpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
