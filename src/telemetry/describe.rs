//! What a recorder is told of each metric.

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub(super) fn describe() {
    describe_gauge!("tower_migration_stage", "the read-write flag, 0 old-only to 3 new-only");
    describe_gauge!("tower_migration_ramp", "share of the keys that reads new at write-both");
    describe_gauge!("tower_migration_follower", "1 while another process moves the flag");
    describe_gauge!("tower_migration_epoch", "grows with every flip");
    describe_gauge!(
        "tower_migration_synced",
        "1 the side holds all data, 0 it may not, -1 suspect"
    );
    describe_gauge!("tower_migration_shadow_rate", "share of reads that are shadowed");
    describe_counter!("tower_migration_requests_total", "legs that ended");
    describe_histogram!(
        "tower_migration_duration_seconds",
        metrics::Unit::Seconds,
        "time to a leg's head"
    );
    describe_gauge!("tower_migration_in_flight", "legs running now");
    describe_counter!(
        "tower_migration_disagreements_total",
        "dual writes whose legs did not agree"
    );
    describe_counter!("tower_migration_legs_skipped_total", "other legs that were not run");
    describe_counter!("tower_migration_leg_faults_total", "legs that failed without an answer");
    describe_gauge!("tower_migration_running_legs", "other legs running or queued");
    describe_gauge!("tower_migration_key_places", "legs and copies that run or queue");
    describe_gauge!("tower_migration_keys_in_use", "keys with legs or readers now");
    describe_gauge!("tower_migration_dirty_keys", "dirty keys by the side that is right");
    describe_counter!("tower_migration_dirty_marks_total", "dirty marks set");
    describe_counter!("tower_migration_refused_total", "requests answered by the layer itself");
    describe_counter!("tower_migration_shadow_total", "shadow reads by verdict");
    describe_gauge!("tower_migration_shadow_running", "shadow tasks now");
    describe_counter!("tower_migration_noise_reads_total", "reads of the authority against itself");
    describe_gauge!("tower_migration_places", "places at which answers differ at this stage");
    describe_counter!("tower_migration_report_overflow_total", "what the report had no room for");
    describe_counter!(
        "tower_migration_compares_offloaded_total",
        "comparisons made on threads of their own"
    );
    describe_counter!("tower_migration_observer_dropped_total", "events that observers lost");
    describe_gauge!(
        "tower_migration_captured_bytes",
        metrics::Unit::Bytes,
        "bytes kept for comparing now"
    );
    describe_counter!(
        "tower_migration_captured_bytes_total",
        metrics::Unit::Bytes,
        "bytes ever kept for comparing"
    );
    describe_gauge!(
        "tower_migration_buffered_bytes",
        metrics::Unit::Bytes,
        "request bytes buffered for dual writes now"
    );
    describe_counter!("tower_migration_read_fallbacks_total", "reads answered by the other side");
    describe_gauge!("tower_migration_upgraded", "open upgraded connections that hold their token");
    describe_counter!("tower_migration_upgrades_total", "upgrades and CONNECTs passed to a side");
    describe_counter!("tower_migration_steps_total", "changes of the stage");
    describe_counter!("tower_migration_ramp_changes_total", "changes of a ramp's share");
    describe_gauge!(
        "tower_migration_alarm",
        "1 new fails its clients, or the flag has gone back and was not re-armed"
    );
    describe_counter!("tower_migration_auto_rollbacks_total", "rollbacks that nobody asked for");
    describe_counter!("tower_migration_steps_blocked_total", "steps refused");
    describe_counter!("tower_migration_held_writes_total", "writes that waited for a flip");
    describe_counter!("tower_migration_unlisted_total", "requests in no list, taken for writes");
    describe_counter!(
        "tower_migration_closed_streams_total",
        "streaming writes broken off since they kept a step waiting"
    );
    describe_counter!("tower_migration_copies_total", "keys copied");
    describe_counter!("tower_migration_swept_keys_total", "keys that a run has visited");
    describe_gauge!("tower_migration_sweep_keys", "keys of the run that goes on, or the last one");
    describe_gauge!("tower_migration_sweep_rate", "keys that a run visits in a second");
    describe_counter!(
        "tower_migration_checkpoints_failed_total",
        "checkpoints that could not be written"
    );
    describe_gauge!(
        "tower_migration_dirty_oldest_seconds",
        metrics::Unit::Seconds,
        "age of the oldest dirty key"
    );
    describe_gauge!("tower_migration_dirty_parked", "dirty keys that are rarely tried only");
    describe_counter!("tower_migration_journal_commits_total", "commits of the journal");
    describe_counter!("tower_migration_journal_rows_total", "rows that they have changed");
    describe_gauge!("tower_migration_journal_waiting", "writes that wait for a commit");
    describe_gauge!("tower_migration_journal_begun", "keys noted as begun");
    describe_gauge!("tower_migration_journal_failed", "1 the journal has failed");
    describe_counter!("tower_migration_repairs_total", "tries of a repair");
    describe_counter!("tower_migration_observer_panics_total", "panics in an observer");
}
