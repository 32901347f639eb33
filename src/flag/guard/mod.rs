//! The automatic rollback: new is watched while it serves clients, and the flag
//! goes back by itself when it fails them.
//!
//! [`window`] and [`watch`] are the arithmetic and the decision, without a clock
//! or a task of their own; [`wiring`] feeds them once a second, from the task
//! that publishes the counters, and does what they say.

mod alarm;
mod config;
mod watch;
mod window;
mod wiring;

pub use self::alarm::{Alarm, AlarmReason};
pub use self::config::AutoRollback;
pub(super) use self::wiring::Guard;
