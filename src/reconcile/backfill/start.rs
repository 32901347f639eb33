//! Where a backfill begins.

use std::time::{Duration, SystemTime};

use super::Backfill;
use crate::{
    reconcile::{Checkpoint, JobKind, Rows, SweepError, listing::Source, sweep::Start},
    stage::Side,
};

/// How far the moment that [`changed_since`](Backfill::changed_since) is given lies
/// before the run's begin: clocks of two machines differ, and a database may stamp a
/// row with the begin of a transaction that ends later.
const CLOCKS: Duration = Duration::from_secs(60);

impl<R: Rows> Backfill<R> {
    /// Where the run begins: at the start, or at its checkpoint if that still counts.
    pub(super) async fn start(
        &self,
        source: &Source,
        from: Side,
        span: u64,
        ahead: bool,
    ) -> Result<Start, SweepError> {
        let core = &self.walk.handle.core;
        let mut checkpoint = Checkpoint::begin(JobKind::Backfill, &self.walk.handle, from, span);
        let store = self.walk.sweep.checkpoints.as_ref().filter(|_| !self.dry_run);
        let found = match store {
            Some(store) => store.load().await?,
            None => None,
        };
        if let Source::Changed(_) = source {
            let ahead_of_flag = found.filter(|found| {
                found.is_of(&checkpoint)
                    && !found.stage.is_two_sided()
                    && found.is_complete()
                    && !ahead
            });
            let run = ahead_of_flag.ok_or(SweepError::NoRunAhead)?;
            checkpoint.began = run.began.checked_sub(CLOCKS).unwrap_or(SystemTime::UNIX_EPOCH);
            return Ok(Start { checkpoint, both: true, kept: false });
        }
        match found {
            Some(found) if found.goes_on(&checkpoint) => checkpoint = found,
            Some(found) if !found.is_complete() => tracing::warn!(
                target: "tower_migration",
                migration = %self.walk.handle.name(), began = ?found.began,
                "a checkpoint does not count any more: the backfill begins anew"
            ),
            _ => {}
        }
        let kept = store.is_some();
        if !self.target_empty {
            return Ok(Start { checkpoint, both: true, kept });
        }
        if !checkpoint.target_empty && !core.was_found_empty(from.other(), span) {
            self.look_empty(from.other()).await?;
        }
        checkpoint.target_empty = true;
        Ok(Start { checkpoint, both: false, kept })
    }
}
