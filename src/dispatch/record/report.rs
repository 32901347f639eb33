//! What a leg owes its write: how it ended.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Record;
use crate::{
    observe::{LegDetail, LegResult},
    stage::{Outcome, Role},
    telemetry::{LegFault, SkippedLeg},
};

/// One leg's duty to say how it ended. Dropped without a word, it says that it
/// was dropped.
pub(in crate::dispatch) struct Report<P: Send + Sync + 'static> {
    pub(super) record: Option<Arc<Record<P>>>,
    pub(super) role: Role,
    pub(super) began: Instant,
    /// Once it is known: the clock is asked once.
    pub(super) took: Option<Duration>,
}

impl<P: Send + Sync + 'static> Report<P> {
    /// How long the leg has taken, to its head.
    pub(in crate::dispatch) fn took(&mut self) -> Duration {
        *self.took.get_or_insert_with(|| self.began.elapsed())
    }

    /// The leg goes on after its head.
    pub(in crate::dispatch) const fn goes_on(&mut self) {
        self.took = None;
    }

    fn send(&mut self, outcome: Outcome, detail: LegDetail) -> Outcome {
        if let Some(record) = self.record.take() {
            let side = match self.role {
                Role::Other => record.authority.other(),
                _ => record.authority,
            };
            let counters = &record.settings.core.counters;
            match &detail {
                LegDetail::Fault(fault) => counters.fault(side, *fault),
                LegDetail::Error(_) if outcome == Outcome::Unknown => {
                    counters.fault(side, LegFault::Error);
                }
                LegDetail::Skipped(reason) => counters.leg_skipped(*reason),
                LegDetail::Code(_) | LegDetail::Error(_) | LegDetail::Absorbed => {}
            }
            let took = self.took();
            let over = detail != LegDetail::Fault(LegFault::Timeout);
            let result = LegResult { outcome, detail, took };
            record.reported(self.role, self.began + took, result, over);
        }
        outcome
    }

    pub(in crate::dispatch) fn answered(mut self, outcome: Outcome, code: u16) -> Outcome {
        self.send(outcome, LegDetail::Code(code))
    }

    pub(in crate::dispatch) fn absorbed(mut self) -> Outcome {
        self.send(Outcome::Applied, LegDetail::Absorbed)
    }

    pub(in crate::dispatch) fn errored(
        mut self,
        outcome: Outcome,
        error: &impl std::fmt::Display,
    ) -> Outcome {
        self.send(outcome, LegDetail::Error(crate::text::short(&error)))
    }

    pub(in crate::dispatch) fn failed(mut self, fault: LegFault) -> Outcome {
        self.send(Outcome::Unknown, LegDetail::Fault(fault))
    }

    pub(in crate::dispatch) fn skipped(mut self, reason: SkippedLeg) -> Outcome {
        self.send(Outcome::NotRun, LegDetail::Skipped(reason))
    }
}

impl<P: Send + Sync + 'static> Drop for Report<P> {
    fn drop(&mut self) {
        self.send(Outcome::Unknown, LegDetail::Fault(LegFault::Dropped));
    }
}
