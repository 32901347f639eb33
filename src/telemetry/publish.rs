//! The crate's counters, copied to the `metrics` facade.

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use metrics::{SharedString, counter, gauge, histogram};

use super::{
    BUCKETS, Counters, LegFault, NoiseRead, Refused, RepairEnd, SkippedLeg, describe::describe,
    histogram::middle,
};
use crate::{
    compare::{FailReason, InconclusiveReason, SkipReason},
    flag::{AlarmReason, End, Kind, Ledger},
    reconcile::{Deed, JobKind, LogStats, Progress},
    report::PlaceKind,
    stage::{Outcome, Side, Stage, SyncState, SyncTable},
};

/// What is published besides the counters.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) stage: Stage,
    pub(crate) ramp: f64,
    pub(crate) follows: bool,
    pub(crate) epoch: u64,
    pub(crate) sync: SyncTable,
    /// Whether an alarm stands, or a rollback that nobody has answered.
    pub(crate) alarm: bool,
    pub(crate) shadow_rate: f64,
    pub(crate) ledger: &'static Ledger,
    pub(crate) counters: &'a Counters,
    pub(crate) keys_in_use: usize,
    /// By side.
    pub(crate) places: [usize; 2],
    /// By right side: old, new, conflict; with the age of the oldest.
    pub(crate) dirty: [(usize, Option<Duration>); 3],
    pub(crate) parked: usize,
    /// Of each kind of run, the one that goes on or the last one.
    pub(crate) sweeps: [Option<Progress>; JobKind::ALL.len()],
    /// Its numbers, and whether it has failed.
    pub(crate) journal: Option<(LogStats, bool)>,
    /// Places at which answers differ, by kind.
    pub(crate) places_differing: [u64; PlaceKind::ALL.len()],
    /// Routes and places for which the report had no room.
    pub(crate) overflown: &'a [AtomicU64; 2],
    /// Events that observers lost.
    pub(crate) unobserved: u64,
    pub(crate) captured_bytes: usize,
    pub(crate) buffered_bytes: usize,
    pub(crate) upgraded: [usize; 2],
}

/// What has been published already, where the facade wants differences.
#[derive(Debug, Default)]
pub(crate) struct Published {
    described: bool,
    durations: Vec<[u64; BUCKETS]>,
}

/// Whether a recorder is installed. The facade's stand-in for none has no
/// size; every recorder that records anything has some.
fn has_recorder() -> bool {
    metrics::with_recorder(|recorder| size_of_val(recorder) > 0)
}

impl Published {
    /// Publishes everything. Does nothing, and loses nothing, while no
    /// recorder is installed.
    pub(crate) fn publish(&mut self, now: &Snapshot<'_>) {
        if !has_recorder() {
            return;
        }
        if !self.described {
            self.described = true;
            describe();
        }
        now.publish_flag();
        now.publish_counters();
        now.publish_shadows();
        self.publish_legs(now);
    }

    fn publish_legs(&mut self, now: &Snapshot<'_>) {
        self.durations.resize(Kind::all().count(), [0; BUCKETS]);
        for (kind, published) in Kind::all().zip(&mut self.durations) {
            let labels = |extra: Option<&'static str>| {
                let mut labels = vec![
                    now.label(),
                    ("side".into(), kind.side().as_str().into()),
                    ("role".into(), kind.role().as_str().into()),
                    ("operation".into(), kind.operation().as_str().into()),
                ];
                labels.extend(extra.map(|outcome| ("outcome".into(), outcome.into())));
                labels.iter().map(metrics::Label::from).collect::<Vec<_>>()
            };
            for (end, label) in End::PUBLISHED {
                counter!("tower_migration_requests_total", labels(Some(label)))
                    .absolute(now.ledger.ended(kind, end));
            }
            gauge!("tower_migration_in_flight", labels(None))
                .set(now.ledger.in_flight(kind) as f64);
            let durations = histogram!("tower_migration_duration_seconds", labels(None));
            let counts = now.ledger.durations(kind);
            for (at, (count, before)) in counts.iter().zip(published.iter_mut()).enumerate() {
                let new = usize::try_from(count.saturating_sub(*before)).unwrap_or(0);
                if new > 0 {
                    durations.record_many(middle(at) / 1e6, new);
                }
                *before = *count;
            }
        }
    }
}

type Label = (SharedString, SharedString);

impl Snapshot<'_> {
    fn label(&self) -> Label {
        ("migration".into(), SharedString::from(Arc::clone(&self.name)))
    }

    fn labels<const N: usize>(
        &self,
        more: [(&'static str, &'static str); N],
    ) -> Vec<metrics::Label> {
        let own = self.label();
        std::iter::once(metrics::Label::from(&own))
            .chain(more.iter().map(metrics::Label::from))
            .collect()
    }

    fn count<const N: usize>(
        &self,
        name: &'static str,
        more: [(&'static str, &'static str); N],
        cell: &AtomicU64,
    ) {
        counter!(name, self.labels(more)).absolute(cell.load(Ordering::Relaxed));
    }

    fn level<const N: usize>(
        &self,
        name: &'static str,
        more: [(&'static str, &'static str); N],
        value: f64,
    ) {
        gauge!(name, self.labels(more)).set(value);
    }

    fn publish_flag(&self) {
        self.level("tower_migration_stage", [], f64::from(u8::from(self.stage)));
        self.level("tower_migration_ramp", [], self.ramp);
        self.level("tower_migration_follower", [], f64::from(u8::from(self.follows)));
        self.level("tower_migration_epoch", [], self.epoch as f64);
        self.level("tower_migration_shadow_rate", [], self.shadow_rate);
        self.level("tower_migration_alarm", [], f64::from(u8::from(self.alarm)));
        for side in Side::ALL {
            let synced = match self.sync.get(side) {
                SyncState::Synced => 1.0,
                SyncState::Unsynced => 0.0,
                SyncState::Suspect => -1.0,
            };
            let label = [("side", side.as_str())];
            self.level("tower_migration_synced", label, synced);
            let places = self.places[side.index()] as f64;
            self.level("tower_migration_key_places", label, places);
            self.level("tower_migration_upgraded", label, self.upgraded[side.index()] as f64);
        }
        let running: u64 =
            Side::ALL.into_iter().map(|side| self.ledger.in_flight(Kind::other_write(side))).sum();
        self.level("tower_migration_running_legs", [], running as f64);
        let shadows: u64 =
            Side::ALL.into_iter().map(|side| self.ledger.in_flight(Kind::shadow(side))).sum();
        // Each task has a mark on both sides.
        self.level("tower_migration_shadow_running", [], shadows as f64 / 2.0);
        self.level("tower_migration_keys_in_use", [], self.keys_in_use as f64);
        self.level("tower_migration_captured_bytes", [], self.captured_bytes as f64);
        self.level("tower_migration_buffered_bytes", [], self.buffered_bytes as f64);
        for (right, (count, oldest)) in ["old", "new", "conflict"].into_iter().zip(self.dirty) {
            let label = [("right", right)];
            self.level("tower_migration_dirty_keys", label, count as f64);
            let oldest = oldest.unwrap_or_default().as_secs_f64();
            self.level("tower_migration_dirty_oldest_seconds", label, oldest);
        }
        self.level("tower_migration_dirty_parked", [], self.parked as f64);
        if let Some((stats, failed)) = self.journal {
            let count = |name, count| counter!(name, self.labels([])).absolute(count);
            count("tower_migration_journal_commits_total", stats.commits);
            count("tower_migration_journal_rows_total", stats.rows);
            self.level("tower_migration_journal_waiting", [], stats.waiting as f64);
            self.level("tower_migration_journal_begun", [], stats.begun as f64);
            self.level("tower_migration_journal_failed", [], f64::from(u8::from(failed)));
        }
        for (job, progress) in JobKind::ALL.iter().zip(self.sweeps) {
            let Some(progress) = progress else {
                continue;
            };
            let job = job.as_str();
            let states = [
                ("done", Some(progress.done)),
                ("failed", Some(progress.failed)),
                ("total", progress.total),
            ];
            for (state, count) in states {
                if let Some(count) = count {
                    let labels = [("job", job), ("state", state)];
                    self.level("tower_migration_sweep_keys", labels, count as f64);
                }
            }
            self.level("tower_migration_sweep_rate", [("job", job)], progress.rate);
        }
    }

    fn publish_counters(&self) {
        let c = self.counters;
        for (authority, row) in Outcome::ALL.into_iter().zip(&c.disagreements) {
            for (other, cell) in Outcome::ALL.into_iter().zip(row) {
                let labels = [("authority", authority.as_str()), ("other", other.as_str())];
                self.count("tower_migration_disagreements_total", labels, cell);
            }
        }
        for (reason, cell) in SkippedLeg::ALL.iter().zip(&c.skipped_legs) {
            self.count("tower_migration_legs_skipped_total", [("reason", reason.as_str())], cell);
        }
        for (side, row) in Side::ALL.into_iter().zip(&c.faults) {
            for (fault, cell) in LegFault::ALL.iter().zip(row) {
                let labels = [("side", side.as_str()), ("fault", fault.as_str())];
                self.count("tower_migration_leg_faults_total", labels, cell);
            }
        }
        for (reason, cell) in Refused::ALL.iter().zip(&c.refused) {
            self.count("tower_migration_refused_total", [("reason", reason.as_str())], cell);
        }
        for (result, cell) in ["new", "again", "conflict", "full"].into_iter().zip(&c.marks) {
            self.count("tower_migration_dirty_marks_total", [("result", result)], cell);
        }
        for (from, row) in Stage::ALL.into_iter().zip(&c.steps) {
            for (to, cell) in Stage::ALL.into_iter().zip(row) {
                if from != to {
                    let labels = [("from", from.as_str()), ("to", to.as_str())];
                    self.count("tower_migration_steps_total", labels, cell);
                }
            }
        }
        for (result, cell) in ["copied", "failed"].into_iter().zip(&c.copies) {
            self.count("tower_migration_copies_total", [("result", result)], cell);
        }
        for (job, row) in JobKind::ALL.iter().zip(&c.swept) {
            let results = Deed::ALL.iter().map(|deed| deed.as_str()).chain(["failed"]);
            for (result, cell) in results.zip(row) {
                let labels = [("job", job.as_str()), ("result", result)];
                self.count("tower_migration_swept_keys_total", labels, cell);
            }
        }
        for (end, cell) in RepairEnd::ALL.iter().zip(&c.repairs) {
            self.count("tower_migration_repairs_total", [("result", end.as_str())], cell);
        }
        self.count("tower_migration_checkpoints_failed_total", [], &c.checkpoints_failed);
        self.count("tower_migration_ramp_changes_total", [], &c.ramped);
        for (reason, cell) in AlarmReason::ALL.iter().zip(&c.auto_rollbacks) {
            self.count("tower_migration_auto_rollbacks_total", [("reason", reason.as_str())], cell);
        }
        self.count("tower_migration_steps_blocked_total", [], &c.blocked);
        self.count("tower_migration_held_writes_total", [], &c.held);
        self.count("tower_migration_closed_streams_total", [], &c.closed_streams);
        self.count("tower_migration_unlisted_total", [], &c.unlisted);
        self.count("tower_migration_observer_panics_total", [], &c.observer_panics);
    }

    fn publish_shadows(&self) {
        let c = self.counters;
        let name = "tower_migration_shadow_total";
        let verdict = |verdict, reason, cell: &AtomicU64| {
            self.count(name, [("verdict", verdict), ("reason", reason)], cell);
        };
        verdict("match", "", &c.matches);
        verdict("mismatch", "", &c.mismatches);
        for (reason, cell) in InconclusiveReason::ALL.iter().zip(&c.inconclusive) {
            verdict("inconclusive", reason.as_str(), cell);
        }
        for (reason, cell) in SkipReason::ALL.iter().zip(&c.skipped) {
            verdict("skipped", reason.as_str(), cell);
        }
        for (reason, cell) in FailReason::ALL.iter().zip(&c.failed) {
            verdict("failed", reason.as_str(), cell);
        }
        for (read, cell) in NoiseRead::ALL.iter().zip(&c.noise_reads) {
            self.count("tower_migration_noise_reads_total", [("result", read.as_str())], cell);
        }
        for (kind, count) in PlaceKind::ALL.iter().zip(self.places_differing) {
            self.level("tower_migration_places", [("kind", kind.as_str())], count as f64);
        }
        for (what, cell) in ["routes", "places"].into_iter().zip(self.overflown) {
            self.count("tower_migration_report_overflow_total", [("what", what)], cell);
        }
        self.count("tower_migration_compares_offloaded_total", [], &c.offloaded);
        counter!("tower_migration_observer_dropped_total", self.labels([]))
            .absolute(self.unobserved);
        self.count("tower_migration_captured_bytes_total", [], &c.captured);
        for (side, (fallbacks, upgrades)) in
            Side::ALL.into_iter().zip(c.fallbacks.iter().zip(&c.upgrades))
        {
            let label = [("side", side.as_str())];
            self.count("tower_migration_read_fallbacks_total", label, fallbacks);
            self.count("tower_migration_upgrades_total", label, upgrades);
        }
    }
}

/// How often the counters are published.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
