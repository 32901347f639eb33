//! What keeps the two sides equal: keys and their order, dirty keys, copying.

mod copy;
mod dirty;
#[allow(dead_code, reason = "the flag does not use it yet")]
mod dirty_log;
#[cfg(feature = "journal")]
#[allow(dead_code, reason = "the flag does not use it yet")]
mod journal;
mod key;
mod order;

pub use self::copy::{Copied, CopyError};
pub use self::dirty::DirtyKey;
pub(crate) use self::dirty::{DirtySet, Marked};
#[cfg(feature = "journal")]
pub use self::journal::{Journal, JournalError, JournalErrorKind, JournalMode};
pub use self::key::{Key, Keys};
pub(crate) use self::order::{KeyOrder, Observation, Place, Turn, Unsure};
pub use crate::stage::RightSide;
