//! What keeps the two sides equal: keys and their order, dirty keys, copying.

mod copy;
mod dirty;
mod dirty_log;
mod key;
mod order;

pub use self::copy::{Copied, CopyError};
pub use self::dirty::DirtyKey;
pub(crate) use self::dirty::{DirtySet, Marked, StoredMark};
pub(crate) use self::dirty_log::{Begun, DirtyLog, LogFailed, SideNote};
pub use self::key::{Key, Keys};
pub(crate) use self::order::{KeyOrder, Observation, Place, Turn, Unsure};
pub use crate::stage::RightSide;
