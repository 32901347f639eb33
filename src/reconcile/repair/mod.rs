//! Mending dirty keys, in the background.

mod schedule;
mod work;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use self::work::{Running, Shared};
use super::Rows;
use crate::flag::{ConfigError, MigrationHandle};

/// What a [`Repair`] does about a key whose marks name both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflicts {
    /// Nothing: a person decides, with
    /// [`resolve_conflict`](MigrationHandle::resolve_conflict). The default.
    #[default]
    Leave,
    /// Takes the authority of that moment for the right side: its data is what clients
    /// see. Right where nothing is acknowledged that the authority has not, which
    /// [`AwaitBoth`](crate::FailurePolicy::AwaitBoth) and
    /// [`RequireBoth`](crate::FailurePolicy::RequireBoth) see to.
    TrustAuthority,
}

/// Copies dirty keys from the side that is right, as they come, in the background.
///
/// A key that cannot be copied is tried again after a pause that doubles each time,
/// with jitter; after [`park_after`](Self::park_after) tries it is *parked*: tried
/// rarely only, and listed with its last error by
/// [`dirty_keys`](MigrationHandle::dirty_keys), until it heals or you call
/// [`retry_parked`](Repairing::retry_parked). While nothing can be copied at all, since
/// a side is down, one key at a time is tried, seldom.
///
/// # Example
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
/// # runtime.block_on(async {
/// # use std::{collections::HashMap, convert::Infallible, sync::{Arc, Mutex}};
/// # use tower_migration::{MigrationHandle, Side, reconcile::{Key, Repair, Rows}};
/// # #[derive(Default)]
/// # struct Tables([Mutex<HashMap<String, String>>; 2]);
/// # impl Rows for Tables {
/// #     type Row = String;
/// #     type Error = Infallible;
/// #     async fn read(&self, side: Side, key: &Key) -> Result<Option<String>, Infallible> {
/// #         Ok(self.0[side as usize].lock().unwrap().get(key.as_str()).cloned())
/// #     }
/// #     async fn write(&self, side: Side, key: &Key, row: Option<&String>) -> Result<(), Infallible> {
/// #         let mut table = self.0[side as usize].lock().unwrap();
/// #         match row {
/// #             Some(row) => table.insert(key.to_string(), row.clone()),
/// #             None => table.remove(key.as_str()),
/// #         };
/// #         Ok(())
/// #     }
/// # }
/// # let tables = Arc::new(Tables::default());
/// // `tables` is how rows are read and written: see `Rows`.
/// let migration = MigrationHandle::new("airports");
/// migration.advance().await.unwrap();
/// let repairing = Repair::new(&migration, tables).concurrency(2).start()?;
///
/// // A leg fails, or a person has looked:
/// migration.mark_dirty(&Key::from("EDDF"), Side::Old);
/// migration.clean().await;
/// assert_eq!(repairing.counts().healed, 1);
/// repairing.stop().await;
/// # Ok::<(), tower_migration::ConfigError>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a repair does nothing until it is started"]
pub struct Repair<R> {
    handle: MigrationHandle,
    rows: Arc<R>,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    concurrency: usize,
    rate: f64,
    first_pause: Duration,
    longest_pause: Duration,
    park_after: u32,
    parked_pause: Duration,
    key_timeout: Duration,
    conflicts: Conflicts,
    rereads: bool,
    beside_others: bool,
}

impl<R: Rows> Repair<R> {
    /// A repair with the defaults.
    pub fn new(handle: &MigrationHandle, rows: R) -> Self {
        let options = Options {
            concurrency: 4,
            rate: 1_000.0,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(60),
            park_after: 10,
            parked_pause: Duration::from_secs(600),
            key_timeout: Duration::from_secs(30),
            conflicts: Conflicts::Leave,
            rereads: true,
            beside_others: false,
        };
        Self { handle: handle.clone(), rows: Arc::new(rows), options }
    }

    /// How many keys are copied at once, at the most (default 4).
    pub const fn concurrency(mut self, keys: usize) -> Self {
        self.options.concurrency = keys;
        self
    }

    /// How many copies are begun in a second, at the most (default 1000): a hundred
    /// thousand dirty keys must not be felt by the clients.
    pub const fn rate(mut self, keys_per_second: f64) -> Self {
        self.options.rate = keys_per_second;
        self
    }

    /// The pause after a key's first failure (default 100 ms), which doubles with each
    /// further one up to `longest` (default 60 s), give or take a half.
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.options.first_pause = first;
        self.options.longest_pause = longest;
        self
    }

    /// After how many failures a key is parked (default 10).
    pub const fn park_after(mut self, attempts: u32) -> Self {
        self.options.park_after = attempts;
        self
    }

    /// How often a parked key is tried (default every 10 min).
    pub const fn parked_pause(mut self, pause: Duration) -> Self {
        self.options.parked_pause = pause;
        self
    }

    /// How long one copy may take, waiting for its place included (default 30 s).
    pub const fn key_timeout(mut self, limit: Duration) -> Self {
        self.options.key_timeout = limit;
        self
    }

    /// What to do about keys in conflict. Default: [`Conflicts::Leave`].
    pub const fn conflicts(mut self, conflicts: Conflicts) -> Self {
        self.options.conflicts = conflicts;
        self
    }

    /// As [`Backfill::reread`](super::Backfill::reread).
    pub const fn reread(mut self, on: bool) -> Self {
        self.options.rereads = on;
        self
    }

    /// As [`Backfill::beside_other_processes`](super::Backfill::beside_other_processes).
    pub const fn beside_other_processes(mut self) -> Self {
        self.options.beside_others = true;
        self
    }

    /// Starts it. It goes on until [`stop`](Repairing::stop),
    /// [`shutdown`](MigrationHandle::shutdown), or the end of the runtime, whether the
    /// answer is kept or not.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a limit is zero, or if a repair of this handle runs already.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> Result<Repairing, ConfigError> {
        let Self { handle, rows, options } = self;
        options.check()?;
        if !handle.core.begin_repair() {
            return Err(ConfigError::Twice { what: "a repair" });
        }
        let shared = Arc::new(Shared::new(&handle.core, options));
        let running = Arc::new(Running(Arc::downgrade(&handle.core)));
        let workers = (0..options.concurrency).map(|_| {
            let (rows, shared) = (Arc::clone(&rows), Arc::clone(&shared));
            tokio::spawn(work::work(rows, shared, Arc::clone(&running)))
        });
        let workers = Arc::new(tokio::sync::Mutex::new(workers.collect()));
        Ok(Repairing { shared, workers })
    }
}

impl Options {
    fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("concurrency", self.concurrency == 0),
            ("park_after", self.park_after == 0),
            ("key_timeout", self.key_timeout.is_zero()),
            ("backoff", self.first_pause.is_zero()),
            ("parked_pause", self.parked_pause.is_zero()),
        ];
        if let Some((limit, _)) = zero.into_iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero { limit });
        }
        if self.longest_pause < self.first_pause {
            return Err(ConfigError::TooSmall { limit: "longest", than: "first" });
        }
        let given = self.rate;
        if !(given > 0.0 && given.is_finite() && 1.0 / given < 1e9) {
            return Err(ConfigError::OutOfRange { what: "rate", given, range: "more than 0" });
        }
        Ok(())
    }
}

impl<R> fmt::Debug for Repair<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repair")
            .field("handle", &self.handle)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A [`Repair`] that goes on. Dropping it does not stop it.
#[derive(Clone)]
pub struct Repairing {
    shared: Arc<Shared>,
    workers: Arc<tokio::sync::Mutex<Vec<JoinHandle<()>>>>,
}

impl Repairing {
    /// Gives parked keys a fresh start, and a side that was down its next try at once:
    /// for when you have mended what was in the way. Answers how many keys were parked.
    pub fn retry_parked(&self) -> usize {
        self.shared.retry_parked()
    }

    /// What this handle's repairs have come to so far.
    #[must_use]
    pub fn counts(&self) -> RepairCounts {
        self.shared.counts()
    }

    /// Whether nothing could be copied of late: a side seems to be down, and one key at
    /// a time is tried.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused()
    }

    /// Begins no further copy, and waits for those under way.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again; it stops all the same.
    pub async fn stop(&self) {
        self.shared.stop();
        let mut workers = self.workers.lock().await;
        while let Some(worker) = workers.last_mut() {
            let _ = worker.await;
            workers.pop();
        }
    }
}

impl fmt::Debug for Repairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repairing").field("is_paused", &self.is_paused()).finish_non_exhaustive()
    }
}

/// What repairs have come to: how many tries ended in which way. See
/// [`RepairEnd`](crate::telemetry::RepairEnd).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RepairCounts {
    /// Keys that are clean.
    pub healed: u64,
    /// Copies after which a write made the key dirty again.
    pub again: u64,
    /// Tries that failed, those that parked a key included.
    pub failed: u64,
    /// Keys that were parked.
    pub parked: u64,
    /// Conflicts that were decided for the authority.
    pub decided: u64,
}

/// Tells that `shutdown` was called.
type Closing = watch::Receiver<bool>;
