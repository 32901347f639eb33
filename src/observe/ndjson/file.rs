//! A file that makes room for itself.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    time::Duration,
};

use tokio::time::Instant;

/// A file of lines, with older ones beside it.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    /// `None`: it could not be opened again after it was moved away.
    file: Option<File>,
    /// When it was last seen that the file is still the one of that name.
    looked: Instant,
    size: u64,
    max_bytes: u64,
    keep: u32,
    /// The last line may be cut: the next one begins with an end of line.
    torn: bool,
}

/// How long lines may go to a file that somebody has moved or removed.
const UNSEEN: Duration = Duration::from_secs(1);

/// The file, its size, and whether its last line has no end: whoever wrote it before
/// may have been killed in the middle of it.
fn open(path: &PathBuf) -> io::Result<(File, u64, bool)> {
    let mut options = OpenOptions::new();
    options.append(true).read(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let size = file.metadata()?.len();
    let mut last = [b'\n'];
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, size, last != [b'\n']))
}

/// Whether this is still the file of that name.
#[cfg(unix)]
fn is_there(file: &File, path: &PathBuf) -> bool {
    use std::os::unix::fs::MetadataExt;

    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(named)) => (own.dev(), own.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_there(_: &File, path: &PathBuf) -> bool {
    path.exists()
}

impl Rotating {
    pub(super) fn open(path: PathBuf, max_bytes: u64, keep: u32) -> io::Result<Self> {
        let (file, size, torn) = open(&path)?;
        let looked = Instant::now();
        Ok(Self { path, file: Some(file), looked, size, max_bytes, keep, torn })
    }

    /// Writes one line, its end included. It is there as a whole or not at all, for
    /// whoever skips lines that are no JSON.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= UNSEEN {
            self.look();
        }
        if self.file.is_none() {
            self.open_again()?;
        }
        if self.size > 0 && self.size + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        if line.len() as u64 > self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let whole = if self.torn { [b"\n", line].concat() } else { line.to_vec() };
        let written = file.write_all(&whole);
        self.torn = written.is_err();
        match &written {
            Ok(()) => self.size += whole.len() as u64,
            // Nobody knows how much of it is there.
            Err(_) => self.size = file.metadata().map_or(self.size, |data| data.len()),
        }
        written
    }

    /// Lets go of a file that was moved or removed: what is written there, nobody reads.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        if self.file.as_ref().is_some_and(|file| !is_there(file, &self.path)) {
            self.file = None;
        }
    }

    fn open_again(&mut self) -> io::Result<()> {
        let (file, size, torn) = open(&self.path)?;
        (self.file, self.size, self.torn) = (Some(file), size, torn);
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Closed first: there are systems that do not move open files.
        self.file = None;
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                let older = self.numbered(number);
                if older.exists() {
                    fs::rename(&older, self.numbered(number + 1))?;
                }
            }
            fs::rename(&self.path, self.numbered(1))?;
        }
        self.open_again()
    }
}
