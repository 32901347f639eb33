//! Going through all keys, for a backfill or a verify.
//!
//! A feed hands out one key after the other; workers do the run's job to them, as
//! many at once as the pace allows; a window knows up to which key all are done, and
//! that goes into the checkpoint. What fails is set aside and tried again at the end.

mod engine;
mod error;
mod feed;
mod options;
mod pace;
mod progress;
mod tally;
mod told;
mod walk;
mod window;

use self::engine::LOOK;
pub(super) use self::engine::{Job, Run, Start};
pub use self::error::SweepError;
pub(super) use self::error::{Trouble, Wait};
pub(super) use self::feed::{Item, Listed};
pub use self::options::Sweep;
pub(super) use self::pace::Pace;
pub use self::pace::SlowDown;
pub use self::progress::{Phase, Progress};
pub(crate) use self::tally::DEEDS;
pub use self::tally::{Deed, FailedKey};
pub(super) use self::tally::{Failed, Tally};
pub(super) use self::walk::Walk;
