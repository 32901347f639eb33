//! Verdicts in a file, one line of JSON each.

mod file;
mod line;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::JoinHandle,
};

use self::{file::Rotating, line::line};
use super::{Event, Observer, OwnedEvent};
use crate::{compare::Verdict, flag::ConfigError};

/// Writes verdicts to a file, for study: one JSON object a line.
///
/// An observer that never waits for the disk: a thread of its own writes, and what
/// it is too slow for is lost and counted. So is what a full disk does not take; it
/// goes on when there is room again.
///
/// By default everything but matches is written: mismatches with all that differs,
/// and what was inconclusive, skipped or failed; also disagreements of writes. What a
/// rule redacts is not in it. The file can be read by its owner alone.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("verdicts.ndjson");
/// use tower_migration::{MigrationHandle, MigrationLayer, NdjsonFile};
///
/// let file = NdjsonFile::at(&path).max_bytes(16 << 20).keep(4).open()?;
/// let layer = MigrationLayer::new(MigrationHandle::new("airports"), ())
///     .observer(file.clone());
/// // When the service has ended:
/// file.close();
/// # let _ = layer;
/// # Ok::<(), tower_migration::BoxError>(())
/// ```
///
/// # A line
///
/// ```json
/// {"at":"2026-11-28T12:00:00.5Z","kind":"shadow","request":"GET /airports/EDDF",
///  "route":"GET /airports/*","keys":["/airports/EDDF"],"stage":"write-both",
///  "authority":"old","verdict":"mismatch","reason":null,
///  "differs":[{"what":"/name","place":"/name","authority":"Zürich","other":"Zurich"}],
///  "error":null,"rereads":2,"authority_us":310,"other_us":290}
/// ```
///
/// (on one line). A disagreement has `"kind":"disagreement"`, `request`, `keys`,
/// `stage`, `authority`, for each leg its outcome and what it said, and `dirty`.
///
/// # Rotation
///
/// A file that would grow past [`max_bytes`](Self::max_bytes) (default 64 MiB) becomes
/// `name.1`, that one `name.2`, and so on; beyond [`keep`](Self::keep) (default 4) old
/// files the oldest is removed. An existing file is appended to. One that somebody else
/// has moved away or removed is noticed within a second, and a new one begun. A line
/// that is longer than `max_bytes` is lost and counted.
#[derive(Clone, Debug)]
#[must_use = "nothing is written before `open`"]
pub struct NdjsonFile {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    capacity: usize,
    matches: bool,
}

impl NdjsonFile {
    /// At this path, once [`open`](Self::open) is called.
    pub fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self { path, max_bytes: 64 << 20, keep: 4, capacity: 1_024, matches: false }
    }

    /// How large the file may grow, in bytes (default 64 MiB).
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many older files are kept (default 4). 0: none.
    pub const fn keep(mut self, files: u32) -> Self {
        self.keep = files;
        self
    }

    /// How many events may wait for the disk (default 1024).
    pub const fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Whether matches are written too (default no).
    pub const fn matches(mut self, on: bool) -> Self {
        self.matches = on;
        self
    }

    /// Opens the file and starts the thread that writes it.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for appending, the thread not started, or a limit
    /// is zero.
    pub fn open(self) -> io::Result<NdjsonSink> {
        let zero = |limit| {
            let error = ConfigError::Zero { limit };
            Err(io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        if self.max_bytes == 0 {
            return zero("max_bytes");
        }
        if self.capacity == 0 {
            return zero("capacity");
        }
        let file = Rotating::open(self.path.clone(), self.max_bytes, self.keep)?;
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = mpsc::sync_channel(self.capacity);
        let written = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("tower-migration-ndjson".to_owned())
            .spawn(move || write(receiver, file, &written))?;
        let inner = Inner {
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            counts,
            matches: self.matches,
        };
        Ok(NdjsonSink(Arc::new(inner)))
    }
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

/// What [`NdjsonFile::open`] makes: an [`Observer`]. Clones share the file.
#[derive(Clone)]
pub struct NdjsonSink(Arc<Inner>);

struct Inner {
    sender: Mutex<Option<SyncSender<OwnedEvent>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    matches: bool,
}

impl NdjsonSink {
    /// Lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.counts.written.load(Ordering::Relaxed)
    }

    /// Waits until everything that was handed over is written, and ends the thread.
    /// What is observed afterwards is lost and counted. Blocks its thread: for when
    /// the service has ended.
    ///
    /// Without it the thread writes what it has when the last clone is dropped, and
    /// nobody waits for that.
    pub fn close(&self) {
        let sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(sender);
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of that thread has been shown, and there is nothing to add to it.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Observer for NdjsonSink {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Shadow(read) = event
            && read.verdict == Verdict::Match
            && !self.0.matches
        {
            return;
        }
        let sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = match sender {
            Some(sender) => sender.try_send(event.into()),
            None => Err(TrySendError::Disconnected(event.into())),
        };
        if sent.is_err() {
            self.0.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dropped(&self) -> u64 {
        self.0.counts.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for NdjsonSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NdjsonSink")
            .field("written", &self.written())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "its end is the end of the thread")]
fn write(events: mpsc::Receiver<OwnedEvent>, mut file: Rotating, counts: &Counts) {
    let mut failing = false;
    for event in &events {
        match file.write(&line(&event)) {
            Ok(()) => {
                counts.written.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut failing) {
                    tracing::warn!(target: "tower_migration", "verdicts are written again");
                }
            }
            Err(error) => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(
                        target: "tower_migration", %error,
                        "verdicts cannot be written, and are lost until they can"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
