//! The journal's directory: a file for each process, living and dead.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Instant, JournalError, JournalErrorKind,
    header::Identity,
    left::Left,
    medium::Medium,
    store::{self, Store},
};

/// The end of a file's name.
const FILE: &str = "redb";
/// Then of one that is still being made.
const UNFINISHED: &str = "new";
/// Somebody else looks at a dead file for a moment only.
const LOOK: Duration = Duration::from_secs(10);

/// The directory, wherever the process goes later.
pub(super) fn find(dir: &Path) -> Result<PathBuf, JournalError> {
    let found = dir.canonicalize().and_then(|dir| fs::read_dir(&dir).map(|_| dir));
    found.map_err(|error| JournalError::io(format!("cannot open {}", dir.display()), error))
}

pub(super) fn find_or_make(dir: &Path) -> Result<PathBuf, JournalError> {
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(|error| {
            JournalError::io(format!("cannot make the directory {}", dir.display()), error)
        })?;
        if let Some(above) = find(dir)?.parent() {
            sync(above)?;
        }
    }
    find(dir)
}

/// Makes names survive a power cut.
pub(super) fn sync(dir: &Path) -> Result<(), JournalError> {
    // Elsewhere a directory cannot be synced, and a name is as durable as the
    // file system makes it.
    if cfg!(unix) {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced
            .map_err(|error| JournalError::io(format!("cannot sync {}", dir.display()), error))?;
    }
    Ok(())
}

fn list(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, JournalError> {
    let paths = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut paths =
        paths.map_err(|error| JournalError::io(format!("cannot list {}", dir.display()), error))?;
    paths.retain(|path| path.extension() == Some(OsStr::new(ending)));
    // In the order of their last change, as far as the clock says.
    paths.sort_by_cached_key(|path| {
        let changed = fs::metadata(path).and_then(|about| about.modified());
        (changed.ok(), path.clone())
    });
    Ok(paths)
}

/// A file that no living process holds. Locked as long as this lives.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) path: PathBuf,
    file: File,
}

impl Dead {
    /// Takes the file, unless a living process holds it, or it is gone.
    fn take(path: PathBuf, shared: bool) -> Result<Option<Self>, JournalError> {
        let doing = |error| JournalError::io(format!("cannot open {}", path.display()), error);
        match fs::metadata(&path) {
            Ok(about) if about.is_file() => {}
            Ok(_) => return Err(JournalError::corrupt(&path, "it is no file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(error)),
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(doing(error)),
        };
        let until = Instant::now() + LOOK;
        loop {
            let lock = if shared { file.try_lock_shared() } else { file.try_lock() };
            match lock {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(doing(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if shared {
                return Ok(None);
            }
            // Whoever only looks shares the lock. The living do not.
            match file.try_lock_shared() {
                Ok(()) => file.unlock().map_err(doing)?,
                Err(TryLockError::Error(error)) => return Err(doing(error)),
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
            if Instant::now() >= until {
                return Err(doing(io::ErrorKind::ResourceBusy.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        // It may have been taken over before it was locked.
        Ok(path.exists().then_some(Self { path, file }))
    }

    pub(super) fn read(&self) -> Result<(Identity, Left), JournalError> {
        let mut bytes = Vec::new();
        (&self.file).read_to_end(&mut bytes).map_err(|error| {
            JournalError::io(format!("cannot read {}", self.path.display()), error)
        })?;
        store::read(&self.path, bytes)
    }

    pub(super) fn remove(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(|error| {
            JournalError::io(format!("cannot remove {}", self.path.display()), error)
        })
    }
}

/// All files of dead processes.
pub(super) fn dead(dir: &Path) -> Result<Vec<Dead>, JournalError> {
    let files = list(dir, FILE)?.into_iter().map(|path| Dead::take(path, false));
    files.filter_map(Result::transpose).collect()
}

/// Reads each file of a dead process, and whose the other ones are.
pub(super) fn check(dir: &Path) -> Result<Vec<(PathBuf, Identity)>, JournalError> {
    let mut checked = Vec::new();
    for path in list(dir, FILE)? {
        let identity = match Dead::take(path.clone(), true)? {
            Some(dead) => Some(dead.read()?.0),
            // Its first page never changes. If it is gone by now: no matter.
            None => first_page(&path).and_then(|page| store::identity(&path, &page).ok()),
        };
        checked.extend(identity.map(|identity| (path, identity)));
    }
    Ok(checked)
}

fn first_page(path: &Path) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    File::open(path).ok()?.take(4096).read_to_end(&mut page).ok()?;
    Some(page)
}

/// Two migrations in one directory would take over each other's keys.
pub(super) fn must_be_of(name: &str, path: &Path, identity: &Identity) -> Result<(), JournalError> {
    if identity.is_of(name) {
        return Ok(());
    }
    let what = format!(
        "{} belongs to the migration {:?}, and this is {name:?}",
        path.display(),
        identity.name
    );
    Err(JournalError::of(JournalErrorKind::Foreign, what))
}

/// Removes what processes have left that died while they made their file.
pub(super) fn sweep(dir: &Path) -> Result<(), JournalError> {
    for path in list(dir, UNFINISHED)? {
        let ours = path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some());
        if ours
            && path.is_file()
            && let Some(dead) = Dead::take(path, false)?
        {
            dead.remove()?;
        }
    }
    Ok(())
}

/// Moves away all files that no living process holds.
pub(super) fn set_aside(dir: &Path) -> Result<(), JournalError> {
    sweep(dir)?;
    let mut aside = None;
    for path in list(dir, FILE)? {
        // What is no file can be locked by nobody.
        let _dead = match Dead::take(path.clone(), false) {
            Ok(None) => continue,
            Ok(dead) => dead,
            Err(error) if error.kind() == JournalErrorKind::Corrupt => None,
            Err(error) => return Err(error),
        };
        let aside: &PathBuf = match &mut aside {
            Some(aside) => aside,
            aside => aside.insert(make_aside(dir)?),
        };
        let name = path.file_name().unwrap_or_default();
        fs::rename(&path, aside.join(name)).map_err(|error| {
            JournalError::io(format!("cannot move {} aside", path.display()), error)
        })?;
    }
    if let Some(aside) = aside {
        sync(&aside)?;
        sync(dir)?;
    }
    Ok(())
}

fn make_aside(dir: &Path) -> Result<PathBuf, JournalError> {
    let mut number = 1_u64;
    loop {
        let aside = dir.join(format!("aside-{number}"));
        match fs::create_dir(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => {
                return Err(JournalError::io(format!("cannot make {}", aside.display()), error));
            }
        }
    }
}

/// A file that was just made.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) store: Store,
    pub(super) id: u64,
    /// Locked as long as this lives.
    pub(super) lock: File,
}

/// Makes a file of this process. It has its name once it is whole.
pub(super) fn make(
    dir: &Path,
    name: &str,
    through: impl Fn(File) -> Arc<dyn Medium>,
) -> Result<Own, JournalError> {
    loop {
        let id = RandomState::new().hash_one((process::id(), Instant::now())).max(1);
        let path = dir.join(format!("{}-{id:016x}.{FILE}", process::id()));
        let unfinished = path.with_extension(format!("{FILE}.{UNFINISHED}"));
        let identity = Identity::new(id, name);
        match make_at(&unfinished, &path, &identity, &through) {
            Ok(Some((store, lock))) => {
                sync(dir)?;
                return Ok(Own { store, id, lock });
            }
            Ok(None) => {}
            Err(error) => {
                // Nor what fills the disk.
                let _ = fs::remove_file(&unfinished);
                return Err(error);
            }
        }
    }
}

/// `None`: somebody has swept it away, or has that name.
fn make_at(
    unfinished: &Path,
    path: &Path,
    identity: &Identity,
    through: &impl Fn(File) -> Arc<dyn Medium>,
) -> Result<Option<(Store, File)>, JournalError> {
    let doing = |error| JournalError::io(format!("cannot make {}", path.display()), error);
    let file = match OpenOptions::new().read(true).write(true).create_new(true).open(unfinished) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(doing(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(doing(error)),
    }
    let lock = file.try_clone().map_err(doing)?;
    let store = Store::make(through(file), identity)?;
    lock.sync_all().map_err(doing)?;
    match fs::rename(unfinished, path) {
        Ok(()) => Ok(Some((store, lock))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(doing(error)),
    }
}
