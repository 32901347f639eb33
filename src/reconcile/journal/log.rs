//! A journal in use.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    JournalError, JournalErrorKind, JournalMode,
    begun::Subject,
    dir,
    left::Left,
    medium::Medium,
    row::{self, About},
    writer::Shared,
};
use crate::{
    flag::BoxFuture,
    reconcile::{
        Key, Keys,
        dirty_log::{Begun, DirtyLog, Found, Lineage, LogFailed, LogStats, SideNote, StoredMark},
    },
    stage::Side,
};

/// How long the last handle waits for what is still to be written.
const CLOSE: Duration = Duration::from_secs(5);

/// A journal in use: its own file, and the thread that writes it.
pub(super) struct JournalLog {
    shared: Arc<Shared>,
    id: u64,
    mode: JournalMode,
    estate: Arc<Estate>,
    thread: Option<JoinHandle<()>>,
    /// Held even when the log has failed: nobody may take over the file while
    /// this process makes keys dirty.
    _lock: File,
}

impl JournalLog {
    /// Makes a file in `dir`. Blocks.
    pub(super) fn start(
        dir: PathBuf,
        name: &str,
        mode: JournalMode,
        keep: Duration,
        through: impl Fn(File) -> Arc<dyn Medium>,
    ) -> Result<Self, JournalError> {
        let dir::Own { store, id, lock } = dir::make(&dir, name, through)?;
        let shared = Arc::new(Shared::new(keep));
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("migration-journal".to_owned())
            .spawn(move || writer.write(store))
            .map_err(|error| JournalError::io("cannot start the journal's thread", error))?;
        let estate =
            Estate { shared: Arc::clone(&shared), dir, name: name.into(), turn: Mutex::new(()) };
        Ok(Self { shared, id, mode, estate: Arc::new(estate), thread: Some(thread), _lock: lock })
    }
}

impl DirtyLog for JournalLog {
    fn id(&self) -> u64 {
        self.id
    }

    fn marks_before(&self) -> bool {
        self.mode == JournalMode::BeforeLegs
    }

    fn put(&self, key: &Key, mark: StoredMark) {
        let place = About::Mark(key).to_bytes();
        self.shared.change(|state| state.queue(place, Some(row::mark(mark))));
    }

    fn remove(&self, key: &Key) {
        let place = About::Mark(key).to_bytes();
        self.shared.change(|state| state.queue(place, None));
    }

    fn side(&self, side: Side, note: SideNote) {
        let place = About::Side(side).to_bytes();
        self.shared.change(|state| state.queue(place, Some(row::side(note))));
    }

    fn begin(&self, keys: &Keys, nameless: bool, right: Side) -> Begun {
        if !self.marks_before() || (keys.is_empty() && !nameless) {
            return Begun::unnoted();
        }
        let nameless = nameless.then_some(Subject::Nameless(right));
        let subjects: Box<[Subject]> =
            keys.iter().cloned().map(Subject::Key).chain(nameless).collect();
        match self.shared.begin(&subjects, right) {
            Ok(wait) => {
                let shared = Arc::clone(&self.shared);
                Begun::noted(wait, Running { shared, subjects, right })
            }
            Err(failed) => Begun::failed(failed),
        }
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), LogFailed>> {
        let flushed = self.shared.flush();
        Box::pin(async move {
            match flushed? {
                Some(wait) => wait.durable().await,
                None => Ok(()),
            }
        })
    }

    fn adopt(&self, lineage: Option<Lineage>) -> BoxFuture<'static, Result<Found, LogFailed>> {
        let estate = Arc::clone(&self.estate);
        let (answer, answered) = oneshot::channel();
        // Not the writer's thread: writes that begin meanwhile wait for that.
        let spawned = thread::Builder::new()
            .name("migration-adopt".to_owned())
            .spawn(move || answer.send(estate.adopt(lineage)));
        Box::pin(async move {
            let what = "cannot start a thread to read the journal";
            spawned.map_err(|error| JournalError::io(what, error))?;
            answered.await.unwrap_or_else(|_| {
                let what = "the thread that reads the journal has panicked";
                Err(JournalError::of(JournalErrorKind::Other, what).into())
            })
        })
    }

    fn took_over(&self, round: u64) {
        self.shared.took_over(round);
    }

    fn failure(&self) -> Option<Arc<str>> {
        self.shared.failure().map(|failed| Arc::clone(failed.what()))
    }

    fn stats(&self) -> LogStats {
        self.shared.stats()
    }
}

impl fmt::Debug for JournalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalLog")
            .field("dir", &self.estate.dir)
            .field("id", &format_args!("{:016x}", self.id))
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Drop for JournalLog {
    fn drop(&mut self) {
        // A disk that hangs must not hang the process. The file stays locked
        // until the thread is done with it.
        if self.shared.close(CLOSE)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Ends a write.
struct Running {
    shared: Arc<Shared>,
    subjects: Box<[Subject]>,
    right: Side,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.end(&self.subjects, self.right);
    }
}

/// What the dead leave, and who takes it over.
#[derive(Debug)]
struct Estate {
    shared: Arc<Shared>,
    dir: PathBuf,
    name: Box<str>,
    /// One at a time.
    turn: Mutex<()>,
}

impl Estate {
    /// Blocks.
    fn adopt(&self, lineage: Option<Lineage>) -> Result<Found, LogFailed> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (dead, left) = read_dead(&self.dir, &self.name, &self.shared.ids(), lineage)?;
        let found = self.shared.take_over(&left)?;
        // Only now: what is in two files is found twice, what is in none is lost.
        let any = !dead.is_empty();
        for file in dead {
            file.remove()?;
        }
        dir::sweep(&self.dir)?;
        if any {
            // Else a file could come back with keys that were mended long ago.
            dir::sync(&self.dir)?;
        }
        Ok(found)
    }
}

/// What dead processes have left, merged. `known` were taken over before.
pub(super) fn read_dead(
    dir: &Path,
    name: &str,
    known: &[u64],
    lineage: Option<Lineage>,
) -> Result<(Vec<dir::Dead>, Left), JournalError> {
    let dead = dir::dead(dir)?;
    let mut files = Vec::new();
    for file in &dead {
        let (identity, left) = file.read()?;
        dir::must_be_of(name, &file.path, &identity)?;
        files.push((identity.id, left));
    }
    // A process that died before it could remove a file that it had taken over
    // knew more than that file.
    let mut taken: Vec<u64> = known.to_vec();
    taken.extend(files.iter().flat_map(|(_, left)| &left.ids));
    let is_heir = |(id, left): &(u64, Left)| {
        lineage
            .is_none_or(|of| of.id == Some(*id) || of.id.is_some_and(|of| left.ids.contains(&of)))
    };
    let left = || files.iter().filter(|(id, _)| !taken.contains(id));
    let mut all = Left::default();
    for (id, left) in left().filter(|file| is_heir(file)) {
        all.merge(left);
        all.ids(&[*id]);
    }
    let inherits = left().any(is_heir);
    if let Some(Lineage { id, spans }) = lineage {
        let known = |side: usize| all.sides[side].map_or(spans[side], |note| note.span);
        let spans = [known(0), known(1)];
        for (id, left) in left().filter(|file| !is_heir(file)) {
            all.merge(&left.of_a_follower(spans));
            all.ids(&[*id]);
        }
        // The one that the next start looks for is never too old.
        if let Some(id) = id.filter(|_| inherits) {
            all.ids(&[id]);
        }
    }
    Ok((dead, all))
}
