//! What the crate counts, and under which names.
//!
//! The crate's own counters are the truth: status, gates and tests read them.
//! A task publishes them to the [`metrics`] facade once a second, so a recorder
//! installed before or after the layer sees them, and nothing is looked up by
//! name on the request path. Call
//! [`publish_metrics`](crate::MigrationHandle::publish_metrics) to publish at
//! once. Logs and spans have the target `tower_migration`.
//!
//! Every metric has the label `migration` (the handle's name).
//!
//! | metric | kind | further labels | what it counts |
//! |---|---|---|---|
//! | `tower_migration_stage` | gauge | – | the flag, 0 to 3 |
//! | `tower_migration_ramp` | gauge | – | share of the keys that reads new at `WriteBoth`, 0 to 1 |
//! | `tower_migration_follower` | gauge | – | 1 while another process moves the flag |
//! | `tower_migration_epoch` | gauge | – | grows with every flip |
//! | `tower_migration_synced` | gauge | `side` | 1 synced, 0 not, -1 suspect |
//! | `tower_migration_shadow_rate` | gauge | – | share of reads that are shadowed, 0 to 1 |
//! | `tower_migration_requests_total` | counter | `side`, `role`, `operation`, `outcome` | legs that ended; `outcome` is `applied` (2xx, most 3xx), `refused` (4xx; 304, 307, 308), `unknown` (5xx, 408, errors, timeouts, panics) or `dropped` (the client left first) |
//! | `tower_migration_duration_seconds` | histogram | `side`, `role`, `operation` | time to a leg's head: all legs of dual writes and shadow reads, one-sided requests and other reads only with [`durations`](crate::MigrationLayer::durations) on |
//! | `tower_migration_in_flight` | gauge | `side`, `role`, `operation` | legs running now |
//! | `tower_migration_disagreements_total` | counter | `authority`, `other` | dual writes whose legs did not agree, by both outcomes |
//! | `tower_migration_legs_skipped_total` | counter | `reason` | other legs that were not run: see [`SkippedLeg`] |
//! | `tower_migration_leg_faults_total` | counter | `side`, `fault` | legs that timed out, panicked, were not ready, or were abandoned: see [`LegFault`] |
//! | `tower_migration_running_legs` | gauge | – | other legs running or queued, and copies |
//! | `tower_migration_key_places` | gauge | `side` | legs of writes and copies that run there, or queue for their key |
//! | `tower_migration_keys_in_use` | gauge | – | keys with legs or readers now |
//! | `tower_migration_dirty_keys` | gauge | `right` | dirty keys by the side that is right: `old`, `new` or `conflict` |
//! | `tower_migration_dirty_marks_total` | counter | `result` | marks set: `new`, `again`, `conflict`, or `full` (the set was full and the side was un-synced) |
//! | `tower_migration_refused_total` | counter | `reason` | requests answered by the layer itself: see [`Refused`] |
//! | `tower_migration_shadow_total` | counter | `verdict`, `reason` | shadow reads by verdict: `match`, `mismatch`, `inconclusive`, `skipped`, `failed` |
//! | `tower_migration_shadow_running` | gauge | – | shadow tasks now |
//! | `tower_migration_captured_bytes` | gauge | – | bytes kept for comparing now |
//! | `tower_migration_captured_bytes_total` | counter | – | bytes ever kept for comparing |
//! | `tower_migration_buffered_bytes` | gauge | – | request bytes buffered for dual writes now |
//! | `tower_migration_read_fallbacks_total` | counter | `side` | reads answered by the other side, by that side |
//! | `tower_migration_upgraded` | gauge | `side` | open upgraded connections that hold their [`UpgradeToken`](crate::UpgradeToken) |
//! | `tower_migration_upgrades_total` | counter | `side` | upgrades and CONNECTs passed to a side |
//! | `tower_migration_steps_total` | counter | `from`, `to` | changes of the stage |
//! | `tower_migration_ramp_changes_total` | counter | – | changes of a ramp's share |
//! | `tower_migration_auto_rollbacks_total` | counter | `reason` | rollbacks that nobody asked for: see [`AlarmReason`](crate::AlarmReason) |
//! | `tower_migration_alarm` | gauge | – | 1 while new fails its clients and the flag may not go back by itself, and after it has, until [`rearm`](crate::MigrationHandle::rearm) |
//! | `tower_migration_steps_blocked_total` | counter | – | steps refused |
//! | `tower_migration_held_writes_total` | counter | – | writes that waited for a flip |
//! | `tower_migration_closed_streams_total` | counter | – | streaming writes that were broken off since they kept a step waiting (gRPC: `close_streams_after`) |
//! | `tower_migration_unlisted_total` | counter | – | requests of which nobody has said whether they read or write, taken for writes (gRPC: methods in no list and no descriptor) |
//! | `tower_migration_copies_total` | counter | `result` | keys copied: `copied`, `failed` |
//! | `tower_migration_swept_keys_total` | counter | `job`, `result` | keys that a backfill or a verify has visited: a [`Deed`](crate::reconcile::Deed), or `failed` |
//! | `tower_migration_sweep_keys` | gauge | `job`, `state` | of the run that goes on, or the last one: `done`, `failed`, and `total` if that is known |
//! | `tower_migration_sweep_rate` | gauge | `job` | keys in a second, of late |
//! | `tower_migration_checkpoints_failed_total` | counter | – | checkpoints that could not be written |
//! | `tower_migration_dirty_oldest_seconds` | gauge | `right` | age of the oldest dirty key, 0 where there is none |
//! | `tower_migration_dirty_parked` | gauge | – | dirty keys that a repair tries rarely only |
//! | `tower_migration_journal_commits_total` | counter | – | commits of the journal, each with one fsync |
//! | `tower_migration_journal_rows_total` | counter | – | rows written or removed by them |
//! | `tower_migration_journal_waiting` | gauge | – | writes that wait for a commit |
//! | `tower_migration_journal_begun` | gauge | – | keys noted as begun: of writes that run, and of those that ended a moment ago |
//! | `tower_migration_journal_failed` | gauge | – | 1 once the journal has failed |
//! | `tower_migration_repairs_total` | counter | `result` | tries of a repair: see [`RepairEnd`] |
//! | `tower_migration_noise_reads_total` | counter | `result` | reads of the authority against itself: see [`NoiseRead`] |
//! | `tower_migration_places` | gauge | `kind` | places at which answers differ at this stage: see [`PlaceKind`](crate::PlaceKind) |
//! | `tower_migration_report_overflow_total` | counter | `what` | reads of `routes`, and differences at `places`, for which the report had no room |
//! | `tower_migration_compares_offloaded_total` | counter | – | comparisons made on threads of the blocking pool |
//! | `tower_migration_observer_dropped_total` | counter | – | events that observers lost: see [`Observer::dropped`](crate::Observer::dropped) |
//! | `tower_migration_observer_panics_total` | counter | – | panics in an [`Observer`](crate::Observer) |
//!
//! Histograms are published as bucket middles: off by at most an eighth of the
//! value.

mod counters;
mod describe;
mod histogram;
mod publish;

pub(crate) use self::counters::Counters;
pub use self::counters::{LegFault, NoiseRead, Refused, RepairEnd, SkippedLeg};
pub(crate) use self::histogram::{BUCKETS, bucket, middle};
pub(crate) use self::publish::{INTERVAL, Published, Snapshot};
