//! Limits of a handle, and what a bad one looks like.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "journal")]
use crate::reconcile::Journal;

use super::{
    AutoRollback, Core, FlagStore, MigrationHandle, OpenError,
    gates::{Gate, Gates},
};

/// A configuration that cannot work, found when it is given.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A rate is not a number from 0 to 1.
    Rate {
        /// What was given.
        rate: f64,
    },
    /// A limit is zero.
    Zero {
        /// The limit's name.
        limit: &'static str,
    },
    /// One limit must be at least another.
    TooSmall {
        /// The limit that is too small.
        limit: &'static str,
        /// The one that it must reach.
        than: &'static str,
    },
    /// A number is outside of its range.
    OutOfRange {
        /// What it is for.
        what: &'static str,
        /// What was given.
        given: f64,
        /// What it must be.
        range: &'static str,
    },
    /// There can be one only, and there is one already.
    Twice {
        /// What.
        what: &'static str,
    },
    /// A pattern for paths or fields that is none.
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something has to be said.
    Missing {
        /// What.
        what: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { rate } => write!(f, "rate {rate} is not between 0 and 1"),
            Self::Zero { limit } => {
                write!(f, "limit `{limit}` is 0, which would refuse everything: give at least 1")
            }
            Self::TooSmall { limit, than } => {
                write!(f, "limit `{limit}` must be at least `{than}`")
            }
            Self::OutOfRange { what, given, range } => {
                write!(f, "`{what}` is {given} and must be {range}")
            }
            Self::Twice { what } => write!(f, "{what} is at work already: stop it first"),
            Self::Pattern { pattern, why } => write!(f, "pattern {pattern:?} is none: {why}"),
            Self::Missing { what } => write!(f, "{what} is missing"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A rate from 0 to 1, or the error that says so.
pub(crate) fn check_rate(rate: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err(ConfigError::Rate { rate }) }
}

/// A share strictly between 0 and 1, or the error that says so.
pub(super) fn check_share(what: &'static str, share: f64) -> Result<f64, ConfigError> {
    if share > 0.0 && share < 1.0 {
        return Ok(share);
    }
    Err(ConfigError::OutOfRange { what, given: share, range: "more than 0 and less than 1" })
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) dirty_keys: usize,
    pub(crate) recent_mismatches: usize,
    pub(crate) report_routes: usize,
    pub(crate) report_places: usize,
    pub(crate) hold: Duration,
    pub(crate) step_deadline: Duration,
    pub(crate) linger: Duration,
    #[cfg(feature = "journal")]
    pub(super) journal: Option<Journal>,
    pub(super) without_journal: bool,
    pub(super) gates: Gates,
    pub(super) auto_rollback: Option<AutoRollback>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dirty_keys: 100_000,
            recent_mismatches: 64,
            report_routes: 64,
            report_places: 32,
            hold: Duration::from_secs(1),
            step_deadline: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            #[cfg(feature = "journal")]
            journal: None,
            without_journal: false,
            gates: Gates::default(),
            auto_rollback: None,
        }
    }
}

/// Makes a [`MigrationHandle`] with other limits than the defaults.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::MigrationHandle;
///
/// let migration = MigrationHandle::builder("airports")
///     .hold(Duration::from_millis(500))
///     .dirty_keys(10_000)
///     .build()?;
/// assert_eq!(migration.name(), "airports");
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build` or `open`"]
#[derive(Clone, Debug)]
pub struct HandleBuilder {
    name: Arc<str>,
    options: Options,
}

impl HandleBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), options: Options::default() }
    }

    /// How many dirty keys are kept in memory (default 100 000). A key that
    /// does not fit un-syncs the side that is wrong: nothing is lost, but the
    /// side has to be copied or verified as a whole.
    pub fn dirty_keys(mut self, limit: usize) -> Self {
        self.options.dirty_keys = limit;
        self
    }

    /// How many mismatches
    /// [`recent_mismatches`](MigrationHandle::recent_mismatches) keeps, the
    /// newest (default 64).
    pub fn recent_mismatches(mut self, limit: usize) -> Self {
        self.options.recent_mismatches = limit;
        self
    }

    /// How many routes the [`Report`](crate::Report) tells apart (default 64). Reads
    /// of further ones are counted together, as `(others)`.
    pub fn report_routes(mut self, limit: usize) -> Self {
        self.options.report_routes = limit;
        self
    }

    /// At how many places of one route the [`Report`](crate::Report) counts
    /// differences (default 32). Those at further places are counted as one number,
    /// and in the way of the advice to go on.
    pub fn report_places(mut self, limit: usize) -> Self {
        self.options.report_places = limit;
        self
    }

    /// How long a flip that changes the authority may hold writes (default
    /// 1 s). If what runs has not ended by then, nothing changes and the held
    /// writes go on.
    ///
    /// A step from a two-sided stage to a one-sided one has been taken when it holds
    /// writes: until the legs before it have ended, so that none lands on top of a newer
    /// write. If one has not by then, the log names its keys, and the held writes go on.
    pub fn hold(mut self, limit: Duration) -> Self {
        self.options.hold = limit;
        self
    }

    /// How long a step waits for earlier writes before it gives up, the hold
    /// not counted (default 10 s). Nothing is held during that wait.
    pub fn step_deadline(mut self, limit: Duration) -> Self {
        self.options.step_deadline = limit;
        self
    }

    /// How long a write that was cut off (its client hung up on a one-sided
    /// stage, it was abandoned, or its process died; likewise a copy whose caller
    /// went away) is believed to be able to land still
    /// (default 1 s). It delays [`settled`](MigrationHandle::settled) and any
    /// copy of its key by that much. Zero switches it off.
    pub fn linger(mut self, length: Duration) -> Self {
        self.options.linger = length;
        self
    }

    /// Keeps the dirty keys in a journal, so that they outlive the process; see
    /// [`JournalMode`](crate::reconcile::JournalMode) for what survives which crash. For
    /// [`open`](Self::open).
    ///
    /// The flag's record names it from then on: without it the flag cannot be opened any
    /// more, until somebody says [`without_journal`](Self::without_journal).
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// use tower_migration::{FileStore, MigrationHandle, Side, reconcile::{Journal, JournalMode}};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let (flag, journal) = (dir.path().join("a.flag"), dir.path().join("a.journal"));
    /// let open = async || -> Result<MigrationHandle, tower_migration::BoxError> {
    ///     let journal = Journal::create_or_open(&journal)?.mode(JournalMode::BeforeLegs);
    ///     let builder = MigrationHandle::builder("airports").journal(journal);
    ///     Ok(builder.open(FileStore::create_or_open(&flag)?).await?)
    /// };
    /// let migration = open().await?;
    /// migration.advance().await?;
    /// migration.mark_dirty(&"/airports/EDDF".into(), Side::Old);
    /// migration.shutdown().await;
    /// drop(migration);
    ///
    /// assert_eq!(open().await?.dirty_keys()[0].key.as_str(), "/airports/EDDF");
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "journal")]
    #[cfg_attr(docsrs, doc(cfg(feature = "journal")))]
    pub fn journal(mut self, journal: Journal) -> Self {
        self.options.journal = Some(journal);
        self
    }

    /// Does without a journal that the flag's record names: it is lost, or not wanted
    /// any more. What it knew is given up, so what holds of the sides is what holds after
    /// a crash without one. With `journal` too, the new one is used, and
    /// what it finds there is dropped.
    pub fn without_journal(mut self) -> Self {
        self.options.without_journal = true;
        self
    }

    /// Adds a gate: every step towards new asks it, after the conditions that
    /// are built in. See [`gates`](crate::gates) for ready-made ones. All of
    /// them are asked, and all that they say is reported at once.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// use tower_migration::{MigrationHandle, Side, gates::{Evidence, MinComparisons, named}};
    ///
    /// let migration = MigrationHandle::builder("airports")
    ///     .gate(MinComparisons::new(1_000)?)
    ///     .gate(named("sign-off", |_: &Evidence| Err("nobody has signed".into())))
    ///     .build()?;
    /// let blocked = migration.advance().await.unwrap_err();
    /// assert_eq!(blocked.reasons().len(), 1, "nothing to compare at old-only");
    /// assert!(blocked.to_string().contains("gate sign-off: nobody has signed"));
    /// # Ok::<(), tower_migration::ConfigError>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn gate(mut self, gate: impl Gate) -> Self {
        self.options.gates.push(gate);
        self
    }

    /// Lets the flag go back from `ReadNew` by itself when new fails too many
    /// clients (default: off). See [`AutoRollback`].
    ///
    /// ```
    /// use tower_migration::{AutoRollback, ConfigError, MigrationHandle};
    ///
    /// let builder = MigrationHandle::builder("airports");
    /// let watched = builder.clone().auto_rollback(AutoRollback::new().error_share(0.05));
    /// assert!(watched.build().is_ok());
    /// let nonsense = builder.auto_rollback(AutoRollback::new().error_share(5.0));
    /// assert!(matches!(nonsense.build(), Err(ConfigError::OutOfRange { .. })));
    /// ```
    pub fn auto_rollback(mut self, config: AutoRollback) -> Self {
        self.options.auto_rollback = Some(config);
        self
    }

    fn check(self) -> Result<(Arc<str>, Options), ConfigError> {
        let options = self.options;
        let zero = |limit| Err(ConfigError::Zero { limit });
        if options.dirty_keys == 0 {
            return zero("dirty_keys");
        }
        if options.recent_mismatches == 0 {
            return zero("recent_mismatches");
        }
        if options.report_routes == 0 {
            return zero("report_routes");
        }
        if options.report_places == 0 {
            return zero("report_places");
        }
        if options.hold.is_zero() {
            return zero("hold");
        }
        if options.step_deadline.is_zero() {
            return zero("step_deadline");
        }
        options.auto_rollback.as_ref().map_or(Ok(()), AutoRollback::check)?;
        Ok((self.name, options))
    }

    /// A handle that forgets its stage with the process, as
    /// [`MigrationHandle::new`] makes.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a limit is zero, or if [`AutoRollback`] makes no
    /// sense.
    pub fn build(self) -> Result<MigrationHandle, ConfigError> {
        let (name, options) = self.check()?;
        #[cfg(feature = "journal")]
        if options.journal.is_some() {
            let what = "a store for the flag (a journal needs one: use open)";
            return Err(ConfigError::Missing { what });
        }
        Ok(MigrationHandle { core: Core::in_memory(name, options) })
    }

    /// A handle that keeps its stage in `store`, as [`MigrationHandle::open`]
    /// makes.
    ///
    /// # Errors
    ///
    /// [`OpenError::Config`] where [`build`](Self::build) has an error, or
    /// whatever [`MigrationHandle::open`] says.
    pub async fn open(self, store: impl FlagStore) -> Result<MigrationHandle, OpenError> {
        let (name, options) = self.check()?;
        Ok(MigrationHandle { core: Core::open(name, options, Arc::new(store)).await? })
    }
}
