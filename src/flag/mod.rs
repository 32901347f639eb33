//! The read-write flag: the handle, who is in flight, the rules of a flip, and
//! where the flag is kept.

mod admission;
mod asking;
mod blocked;
mod claims;
mod core;
mod following;
mod gate;
pub mod gates;
mod guard;
mod handle;
mod journal;
mod ledger;
mod oldest;
mod opening;
mod options;
mod publisher;
mod sides;
mod status;
mod steps;
mod store;

pub(crate) use self::admission::{Admission, Plan};
pub use self::blocked::{Blocked, Reason};
pub(crate) use self::core::Core;
pub(crate) use self::gate::Word;
pub use self::guard::{Alarm, AlarmReason, AutoRollback};
pub use self::handle::MigrationHandle;
pub use self::ledger::Mark;
pub(crate) use self::ledger::{End, Kind, Ledger, later};
pub use self::oldest::OldestWrite;
pub(crate) use self::options::check_rate;
pub use self::options::{ConfigError, HandleBuilder};
pub use self::status::{Forced, InFlight, JournalStatus, Moved, Status};
pub use self::store::{
    BoxFuture, Claim, FileStore, FlagStore, JournalNote, MemoryStore, OpenError, Presence, Record,
    Spans, Standing, StoreError, StoreErrorKind,
};
