//! What a verify does to one key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Differing;
use crate::{
    compare::Diff,
    flag::MigrationHandle,
    reconcile::{
        CopyError, Deed, JobKind, Key, Keys, Rows, SweepError,
        copy::{How, Terms},
        rows::said,
        sweep::{Item, Job, Pace, Trouble},
    },
    stage::Side,
};

/// How many different names of what differs a report counts apart.
const FIELDS: usize = 256;

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What differs, as far as it is kept.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) differing: Vec<Differing>,
    pub(super) fields: BTreeMap<String, u64>,
}

impl Findings {
    fn add(&mut self, key: &Key, diff: Diff, kept: usize) {
        for difference in diff.differences() {
            let name = &difference.what;
            if self.fields.len() >= FIELDS && !self.fields.contains_key(name) {
                *self.fields.entry("(others)".to_owned()).or_default() += 1;
            } else {
                *self.fields.entry(name.clone()).or_default() += 1;
            }
        }
        if self.differing.len() < kept {
            self.differing.push(Differing { key: key.clone(), diff });
        }
    }
}

/// Compares a key, and copies what differs if asked to.
pub(super) struct CompareJob<R> {
    pub(super) handle: MigrationHandle,
    pub(super) rows: Arc<R>,
    pub(super) from: Side,
    pub(super) mends: bool,
    pub(super) rereads: u32,
    pub(super) pause: Duration,
    pub(super) kept: usize,
    pub(super) beside_others: bool,
    pub(super) findings: Arc<Mutex<Findings>>,
}

impl<R: Rows> CompareJob<R> {
    async fn compare(&self, key: &Key, pace: &Pace) -> Result<Diff, String> {
        let began = Instant::now();
        let row = self.rows.read(self.from, key).await.map_err(said)?;
        pace.took(began.elapsed());
        let there = self.rows.read(self.from.other(), key).await;
        let there = there.map_err(said)?;
        Ok(self.rows.differ(key, row.as_ref(), there.as_ref()))
    }

    /// With the key's place in hand: no write of it runs on either side.
    async fn compare_alone(&self, key: &Key, pace: &Pace) -> Result<Diff, Trouble> {
        let terms = Terms { ahead: false, beside_others: self.beside_others, looks: true };
        let found = Mutex::new(Diff::none());
        let looked = self.handle.run_copy(key, self.from, terms, || async {
            let diff = self.compare(key, pace).await?;
            *locked(&found) = diff;
            Ok(())
        });
        let looked: Result<_, CopyError<String>> = looked.await;
        looked.map_err(|error| Trouble::of(error, self.from))?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_dirty(&self, key: &Key) -> bool {
        self.handle.core.dirty().get(key).is_some()
    }

    async fn mend(&self, key: &Key, pace: &Pace) -> Result<Deed, Trouble> {
        let terms = Terms { ahead: false, beside_others: self.beside_others, looks: false };
        let how = How { terms, looks_first: false, rereads: true };
        let copied = self.handle.copy_row(&*self.rows, key, self.from, how, Some(pace));
        match copied.await {
            Ok(_) => Ok(Deed::Mended),
            Err(error) => Err(Trouble::of(error, self.from)),
        }
    }
}

impl<R: Rows> Job for CompareJob<R> {
    fn kind(&self) -> JobKind {
        JobKind::Verify
    }

    async fn one(&self, item: &Item, pace: &Pace) -> Result<Deed, Trouble> {
        let key = &item.key;
        let stage = self.handle.stage();
        if !stage.is_two_sided() || stage.authority() != self.from {
            return Err(Trouble::Stop(SweepError::Moved { from: self.from, stage }));
        }
        if self.is_dirty(key) {
            return Ok(Deed::Dirty);
        }
        let order = &self.handle.core.order;
        // In nobody's way at first. What a write has raced says nothing, not even if it
        // is equal: half of an increment can hide a difference.
        let watched = order.observe(&Keys::from(key.clone()));
        let mut diff = self.compare(key, pace).await.map_err(Trouble::Failed)?;
        let raced = watched.raced();
        drop(watched);
        if diff.is_empty() && raced {
            diff = self.compare_alone(key, pace).await?;
        }
        let mut pause = self.pause;
        for _ in 0..=self.rereads {
            if diff.is_empty() {
                return Ok(Deed::Equal);
            }
            // A write without a key has no place in any order: each that may have been
            // about this one ends first.
            let age = order.now();
            sleep(pause).await;
            pause = pause.saturating_mul(2);
            order.until(|| !order.has_nameless_before(age)).await;
            diff = self.compare_alone(key, pace).await?;
        }
        if diff.is_empty() {
            return Ok(Deed::Equal);
        }
        if self.is_dirty(key) {
            return Ok(Deed::Dirty);
        }
        locked(&self.findings).add(key, diff, self.kept);
        if self.mends { self.mend(key, pace).await } else { Ok(Deed::Differing) }
    }
}
