//! A directory of files, each there as a whole or not at all.

use std::{collections::BTreeMap, fs, hash::Hasher, io, io::Read, path::PathBuf};

use axum::{Router, body::Body, extract::Path, http::StatusCode, routing::put};
use futures_util::StreamExt;
use tempfile::NamedTempFile;
use tokio::{fs::File, io::AsyncWriteExt};
use tower_migration::BoxError;

/// The hash of each file.
pub(crate) type Hashes = BTreeMap<String, u64>;

pub(crate) fn hasher() -> impl Hasher {
    siphasher::sip::SipHasher::new()
}

#[derive(Clone)]
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn create(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir(&dir).map(|()| Self(dir))
    }

    pub(crate) fn router(&self) -> Router {
        let this = self.clone();
        let store = |Path(name): Path<String>, body: Body| async move {
            match this.store(&name, body).await {
                Ok(()) => (StatusCode::CREATED, String::new()),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        };
        Router::new().route("/files/{name}", put(store))
    }

    pub(crate) async fn store(&self, name: &str, body: Body) -> Result<(), BoxError> {
        if name.starts_with('.') || name.contains('/') {
            return Err("no such name".into());
        }
        // Removed when it is dropped: an upload that breaks off leaves nothing.
        let part = NamedTempFile::new_in(&self.0)?;
        let mut file = File::from_std(part.reopen()?);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            file.write_all(&chunk?).await?;
        }
        file.sync_all().await?;
        part.persist(self.0.join(name))?;
        Ok(File::open(&self.0).await?.sync_all().await?)
    }

    /// What `from` has under this name, if anything, shall be here.
    pub(crate) async fn take_over(&self, from: &Self, name: &str) -> io::Result<()> {
        let part = NamedTempFile::new_in(&self.0)?;
        match tokio::fs::copy(from.0.join(name), &part).await {
            Ok(_) => part.persist(self.0.join(name)).map(drop).map_err(Into::into),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(self.0.join(name))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn hashes(&self) -> io::Result<Hashes> {
        let (mut hashes, mut buffer) = (Hashes::new(), vec![0; 1 << 20]);
        for entry in fs::read_dir(&self.0)? {
            let (entry, mut hash) = (entry?, hasher());
            let mut file = fs::File::open(entry.path())?;
            while let read @ 1.. = file.read(&mut buffer)? {
                hash.write(&buffer[..read]);
            }
            hashes.insert(entry.file_name().to_string_lossy().into_owned(), hash.finish());
        }
        Ok(hashes)
    }
}

/// Says what differs, half-written files included.
pub(crate) fn compare(side: &str, found: &Hashes, known: &Hashes) -> Result<(), BoxError> {
    let mut wrong: Vec<_> = found.keys().chain(known.keys()).collect();
    wrong.retain(|name| found.get(*name) != known.get(*name));
    if wrong.is_empty() { Ok(()) } else { Err(format!("on {side}: {wrong:?}").into()) }
}
