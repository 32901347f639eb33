//! A checkpoint in a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;

use super::{Checkpoint, CheckpointError, CheckpointStore, text};
use crate::{files, flag::BoxFuture};

/// A checkpoint in a file: a few lines that a person can read, with a checksum,
/// replaced at once.
///
/// One that is damaged is an error, not a run from the start: whoever moves it away
/// knows that it takes longer then, and that nothing is harmed. One run at a time
/// uses it.
///
/// ```
/// use tower_migration::reconcile::FileCheckpoints;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("airports.backfill");
/// // Nothing there yet: the first run begins from the start.
/// let checkpoints = FileCheckpoints::at(&path)?;
/// # let _ = checkpoints;
/// // A path that cannot be is found now.
/// assert!(FileCheckpoints::at("/no/such/directory/airports.backfill").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileCheckpoints {
    paths: Arc<Paths>,
}

#[derive(Debug)]
struct Paths {
    file: PathBuf,
    next: PathBuf,
}

impl FileCheckpoints {
    /// The checkpoint at `path`, whether there is one yet or not.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if its directory is not there, or if what is there is no
    /// checkpoint.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let file = path.as_ref().to_owned();
        let dir = match file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let doing = || format!("cannot find the directory of {}", file.display());
        let is_dir = fs::metadata(dir).map_err(|error| CheckpointError::io(doing(), error))?;
        if !is_dir.is_dir() {
            return Err(CheckpointError::io(doing(), io::ErrorKind::NotADirectory.into()));
        }
        let next = files::beside(&file, ".next");
        let paths = Arc::new(Paths { file, next });
        paths.load()?;
        Ok(Self { paths })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Paths) -> Result<T, CheckpointError> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let paths = Arc::clone(&self.paths);
        let done = spawn_blocking(move || work(&paths)).await;
        done.unwrap_or_else(|error| Err(CheckpointError::new(error)))
    }
}

impl Paths {
    fn load(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let path = self.file.display();
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::io(format!("cannot read {path}"), error)),
        };
        Checkpoint::read(&bytes, &path).map(Some)
    }

    fn save(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let written = files::replace(&self.file, &self.next, text::write(checkpoint).as_bytes())
            .and_then(|()| files::sync_directory(&self.file));
        let doing = || format!("cannot write {}", self.file.display());
        written.map_err(|error| CheckpointError::io(doing(), error))
    }
}

impl CheckpointStore for FileCheckpoints {
    fn load(&self) -> BoxFuture<'_, Result<Option<Checkpoint>, CheckpointError>> {
        Box::pin(self.blocking(Paths::load))
    }

    fn save(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>> {
        Box::pin(self.blocking(move |paths| paths.save(&checkpoint)))
    }
}
