//! What the clients know, and what they have met with.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::{history::History, ops::Rows, stats::Stats, world::locked};

/// The memory that all clients share. It outlives the service.
#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) rows: Rows,
    pub(crate) history: Arc<Mutex<History>>,
    stats: Arc<Mutex<Stats>>,
}

impl Witness {
    /// Of a store that holds these rows.
    pub(crate) fn new(rows: Rows) -> Self {
        let start = rows.all().iter().map(|row| (&*row.icao, &*row.name));
        let history = Arc::new(Mutex::new(History::starting_with(start)));
        Self { rows, history, stats: Arc::default() }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        locked(&self.history)
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        locked(&self.stats)
    }
}
