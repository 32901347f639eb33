//! A durable copy of what is known of dirty keys.

use std::{fmt, sync::Arc};

use super::{Key, Keys, StoredMark};
use crate::{
    flag::BoxFuture,
    stage::{Side, SyncState},
};

/// What is known of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SideNote {
    pub(crate) state: SyncState,
    pub(crate) span: u64,
}

/// Nothing is durable any more.
#[derive(Clone, Debug)]
pub(crate) struct LogFailed(pub(crate) Arc<str>);

impl fmt::Display for LogFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Begun;

impl Begun {
    pub(crate) async fn durable(&self) -> Result<(), LogFailed> {
        Ok(())
    }
}

pub(crate) trait DirtyLog: Send + Sync + fmt::Debug + 'static {
    fn id(&self) -> u64;
    fn marks_before(&self) -> bool;
    fn put(&self, key: &Key, mark: StoredMark);
    fn remove(&self, key: &Key);
    fn side(&self, side: Side, note: SideNote);
    fn begin(&self, keys: &Keys, nameless: bool, right: Side) -> Begun;
    fn flush(&self) -> BoxFuture<'static, Result<(), LogFailed>>;
}
