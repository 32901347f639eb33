//! What came of a sampled read, and who is told.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{super::Settings, Shadow, judge::Found};
use crate::{
    compare::{Diff, Mismatch, SkipReason, Verdict},
    observe::{Event, ShadowRead},
    reconcile::Keys,
    report::Finding,
    stage::Stage,
};

/// A sampled read that is not compared.
#[derive(Clone, Copy)]
pub(in crate::dispatch) struct Skipped<'a> {
    pub(in crate::dispatch) route: &'a Arc<str>,
    pub(in crate::dispatch) stage: Stage,
    pub(in crate::dispatch) generation: u64,
    pub(in crate::dispatch) reason: SkipReason,
}

impl<P: Send + Sync + 'static> Shadow<P> {
    /// Tells everybody who wants to know.
    pub(super) fn tell(
        &self,
        found: Found,
        label: impl Fn() -> Arc<str>,
        other_took: Option<Duration>,
    ) {
        let Found { verdict, error, .. } = found;
        let rereads = self.progress.rereads.load(Ordering::Relaxed);
        if let Verdict::Mismatch(diff) = &verdict {
            let label = label();
            tracing::warn!(
                target: "tower_migration",
                migration = %self.settings.core.name(),
                request = %label,
                keys = %self.keys,
                differs = %differing(diff),
                rereads,
                "the two sides answer a read differently"
            );
            self.settings.core.remember(Mismatch {
                request: label,
                route: Arc::clone(&self.route),
                keys: self.keys.clone(),
                authority: self.stage.authority(),
                diff: diff.clone(),
                rereads,
                authority_took: self.authority_took,
                other_took: other_took.unwrap_or_default(),
                at: SystemTime::now(),
            });
        }
        self.settings.verdict(&verdict, error.as_deref(), &label);
        if !self.settings.observed {
            return;
        }
        self.settings.observe(&Event::Shadow(&ShadowRead {
            request: label(),
            route: Arc::clone(&self.route),
            keys: self.keys.clone(),
            stage: self.stage,
            authority: self.stage.authority(),
            verdict,
            error,
            rereads,
            authority_took: Some(self.authority_took),
            other_took,
            at: SystemTime::now(),
        }));
    }
}

/// What differs, without the values: those may be nobody's business in a log.
fn differing(diff: &Diff) -> String {
    let what: Vec<_> = diff.differences().iter().map(|d| d.what.as_str()).collect();
    what.join(", ")
}

impl<P> Settings<P> {
    /// A sampled read that is not compared, known before its task began.
    pub(in crate::dispatch) fn skipped(&self, skipped: Skipped<'_>, keys: Keys) {
        let Skipped { route, stage, generation, reason } = skipped;
        let read = not_compared(Arc::clone(route), keys, stage, reason);
        self.core.report.count(&Finding {
            generation,
            route,
            request: None,
            authority: read.authority,
            verdict: &read.verdict,
            differs: &[],
            contradicted: &[],
            unresolved: false,
            authority_took: None,
            other_took: None,
            is_measured: false,
        });
        self.tell(&read);
    }

    pub(super) fn tell(&self, read: &ShadowRead) {
        let error = read.error.as_deref();
        self.verdict(&read.verdict, error, || Arc::clone(&read.request));
        self.observe(&Event::Shadow(read));
    }

    /// Counts and logs. The request's name is made if the log wants it.
    fn verdict(&self, verdict: &Verdict, error: Option<&str>, request: impl Fn() -> Arc<str>) {
        self.core.counters.verdict(verdict);
        tracing::debug!(
            target: "tower_migration",
            migration = %self.core.name(),
            request = %request(),
            verdict = verdict.as_str(),
            reason = verdict.reason(),
            error,
            "shadow read"
        );
    }
}

pub(super) fn not_compared(
    route: Arc<str>,
    keys: Keys,
    stage: Stage,
    reason: SkipReason,
) -> ShadowRead {
    ShadowRead {
        request: Arc::default(),
        route,
        keys,
        stage,
        authority: stage.authority(),
        verdict: Verdict::Skipped(reason),
        error: None,
        rereads: 0,
        authority_took: None,
        other_took: None,
        at: SystemTime::now(),
    }
}
