//! The bytes of one file, and the part of them that redb is given.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::header::BODY;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What lies under these locks is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a file's bytes are.
pub(super) trait Medium: Send + Sync + fmt::Debug + 'static {
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// A file on the disk.
#[derive(Debug)]
pub(super) struct OnDisk(Mutex<File>);

impl OnDisk {
    pub(super) const fn new(file: File) -> Self {
        Self(Mutex::new(file))
    }
}

impl Medium for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        locked(&self.0).set_len(len)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = locked(&self.0);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = locked(&self.0);
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        locked(&self.0).sync_data()
    }
}

/// A copy of a file. What redb does when it opens one that was not closed is
/// done here: nothing is changed on the disk by looking.
#[derive(Debug)]
pub(super) struct InMemory(Mutex<Vec<u8>>);

impl InMemory {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }
}

/// Far above what a repair needs: a damaged number must not fill the memory.
const MOST_GROWTH: u64 = 64 << 20;

impl Medium for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut bytes = locked(&self.0);
        if len > bytes.len() as u64 + MOST_GROWTH {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        bytes.resize(len, 0);
        Ok(())
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = locked(&self.0);
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let part = at.checked_add(out.len()).and_then(|end| bytes.get(at..end));
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, at: u64, part: &[u8]) -> io::Result<()> {
        let mut bytes = locked(&self.0);
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let place = at.checked_add(part.len()).and_then(|end| bytes.get_mut(at..end));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(part);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What redb takes for its file: all behind the header.
///
/// It locks nothing. The journal locks the whole file before redb sees it.
#[derive(Debug)]
pub(super) struct Body(pub(super) Arc<dyn Medium>);

fn place(at: u64) -> io::Result<u64> {
    at.checked_add(BODY).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl redb::StorageBackend for Body {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(BODY))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(place(offset)?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(place(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(place(offset)?, data)
    }
}
