//! What a run tells of itself: its progress, and where the next one goes on.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{Job, Phase, Progress, Run, Tally};
use crate::{
    flag::MigrationHandle,
    reconcile::{Checkpoint, JobKind},
    stage::Side,
};

impl<J: Job> Run<J> {
    pub(super) fn tell(&self, phase: Phase) {
        let at_once = self.pace.allowed();
        let mut state = self.lock();
        let done = state.tally.sum();
        let failed = state.failed.count();
        let rate = state.meter.rate(done);
        drop(state);
        self.progress.send_modify(|progress| {
            // A count is from the run's begin, and of one side.
            let total = progress.total.map(|total| total.max(done + failed));
            let rest = total.map(|total| total.saturating_sub(done + failed));
            let left = rest.filter(|_| rate > 0.0).map(|rest| rest as f64 / rate);
            let left = left.and_then(|left| Duration::try_from_secs_f64(left).ok());
            *progress = Progress { phase, done, failed, total, rate, left, at_once };
        });
        self.handle.core.note_sweep(self.job.kind(), *self.progress.borrow());
    }

    /// What the next run goes on from. One that cannot be written costs that run
    /// time, and this one nothing.
    pub(super) async fn save(&self, finished: bool) {
        let Some(store) = self.options.checkpoints.as_ref().filter(|_| self.start.kept) else {
            return;
        };
        let checkpoint = {
            let state = self.lock();
            let again = state.failed.keys.iter().map(|failed| &failed.key);
            // Until they have been tried, those of the run before are still to do.
            let before = self.start.checkpoint.again.iter().filter(|_| !finished);
            let again: BTreeSet<_> = again.chain(&state.retrying).chain(before).cloned().collect();
            Checkpoint {
                finished,
                up_to: state.window.up_to().cloned(),
                again: again.into_iter().collect(),
                again_lost: state.failed.lost,
                tally: state.tally,
                ..self.start.checkpoint.clone()
            }
        };
        if let Err(error) = store.save(checkpoint).await {
            self.handle.core.counters.checkpoint_failed();
            tracing::error!(
                target: "tower_migration",
                migration = %self.handle.name(), %error, hint = error.lifted_by(),
                "a checkpoint could not be written: a run that goes on begins further back"
            );
        }
    }
}

impl Checkpoint {
    /// Of a run that begins.
    pub(in crate::reconcile) fn begin(
        job: JobKind,
        handle: &MigrationHandle,
        from: Side,
        span: u64,
    ) -> Self {
        let word = handle.core.word();
        Self {
            job,
            migration: handle.name().to_owned(),
            from,
            stage: word.stage(),
            epoch: word.epoch(),
            span,
            began: SystemTime::now(),
            finished: false,
            target_empty: false,
            up_to: None,
            again: Vec::new(),
            again_lost: 0,
            tally: Tally::default(),
        }
    }
}
