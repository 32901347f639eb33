//! A file that makes room for itself.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

/// A file of lines, with older ones beside it.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    /// `None`: it could not be opened again after it was moved away.
    file: Option<File>,
    size: u64,
    max_bytes: u64,
    keep: u32,
    /// The last line may be cut: the next one begins with an end of line.
    torn: bool,
}

fn open(path: &PathBuf) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl Rotating {
    pub(super) fn open(path: PathBuf, max_bytes: u64, keep: u32) -> io::Result<Self> {
        let (file, size) = open(&path)?;
        // Whoever wrote it before may have been killed in the middle of a line.
        let torn = size > 0;
        Ok(Self { path, file: Some(file), size, max_bytes, keep, torn })
    }

    /// Writes one line, its end included. It is there as a whole or not at all, for
    /// whoever skips lines that are no JSON.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let (file, size) = open(&self.path)?;
            (self.file, self.size, self.torn) = (Some(file), size, size > 0);
        }
        if self.size > 0 && self.size + line.len() as u64 > self.max_bytes {
            self.rotate()?;
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
        let (file, size) = open(&self.path)?;
        (self.file, self.size, self.torn) = (Some(file), size, false);
        Ok(())
    }
}
