//! What a metrics recorder and a log see.

use std::{collections::HashMap, convert::Infallible, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio_test::{assert_pending, task};
use tower::Service;
use tower_migration::{
    FileStore, Limits, MigrationHandle, Side, Stage,
    reconcile::{Backfill, Journal, Key, Listing, Rows},
};

use crate::support::*;

/// The metrics by `name{label=value,…}`, the migration's name left out.
fn scrape(snapshotter: &Snapshotter) -> HashMap<String, f64> {
    let mut all = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<_> = key
            .labels()
            .filter(|label| label.key() != "migration" && !label.value().is_empty())
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(n) => n as f64,
            DebugValue::Gauge(n) => n.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        all.insert(format!("{}{{{}}}", key.name(), labels.join(",")), value);
    }
    all
}

async fn traffic(rig: &Rig) {
    rig.ask(get("/a")).await;
    rig.walk(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    rig.ask(put("/a", "v")).await;
    rig.handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_recorder_installed_after_the_layer_sees_everything() {
    let rig = Rig::with(Fake::says(200, "a"), Fake::says(500, "b"), |layer| {
        layer.limits(Limits::default().rereads(0)).unwrap()
    });
    traffic(&rig).await;
    // Seconds pass with no recorder at all; nothing may get lost.
    tokio::time::sleep(SECOND * 3).await;

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    tokio::time::sleep(SECOND * 3 / 2).await;
    let seen = scrape(&snapshotter);
    for (name, value) in [
        ("stage{}", 1.0),
        ("synced{side=new}", 1.0),
        ("shadow_rate{}", 1.0),
        ("requests_total{side=old,role=authority,operation=read,outcome=applied}", 2.0),
        ("requests_total{side=old,role=authority,operation=write,outcome=applied}", 1.0),
        ("requests_total{side=new,role=other,operation=write,outcome=unknown}", 1.0),
        ("requests_total{side=new,role=shadow,operation=read,outcome=unknown}", 1.0),
        ("in_flight{side=old,role=authority,operation=write}", 0.0),
        ("duration_seconds{side=old,role=authority,operation=write}", 1.0),
        ("duration_seconds{side=new,role=other,operation=write}", 1.0),
        ("duration_seconds{side=new,role=shadow,operation=read}", 1.0),
        ("disagreements_total{authority=applied,other=unknown}", 1.0),
        ("dirty_marks_total{result=new}", 1.0),
        ("dirty_keys{right=old}", 1.0),
        ("shadow_total{verdict=mismatch}", 1.0),
        ("captured_bytes_total{}", 2.0),
        ("captured_bytes{}", 0.0),
        ("buffered_bytes{}", 0.0),
        ("steps_total{from=old-only,to=write-both}", 1.0),
        ("keys_in_use{}", 0.0),
    ] {
        let name = format!("tower_migration_{name}");
        assert_eq!(seen.get(&name), Some(&value), "{name} in {seen:#?}");
    }
}

/// One service for all calls, as a loop over a mock has it.
#[test]
fn a_service_that_was_called_without_a_runtime_publishes_once_there_is_one() {
    let rig = Rig::on(MigrationHandle::new("test"), Fake::says(200, "a"), Fake::hangs(), |l| l);
    let mut service = rig.service;
    let mut ask = || {
        let ready = task::spawn(std::future::poll_fn(|cx| service.poll_ready(cx))).poll();
        assert!(matches!(ready, std::task::Poll::Ready(Ok(()))));
        let answer = task::spawn(service.call(get("/a"))).poll();
        assert!(matches!(answer, std::task::Poll::Ready(Ok(_))));
    };
    (0..3).for_each(|_| ask());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    runtime.block_on(async {
        (0..64).for_each(|_| ask());
        tokio::time::sleep(SECOND * 3).await;
    });
    let seen = scrape(&snapshotter);
    let reads = "requests_total{side=old,role=authority,operation=read,outcome=applied}";
    assert_eq!(seen.get(&format!("tower_migration_{reads}")), Some(&67.0), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_recorder_installed_before_the_layer_sees_everything_and_each_sample_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::with(Fake::says(200, ""), Fake::says(200, ""), |layer| layer.durations(true));
    for _ in 0..7 {
        rig.ask(get("/a")).await;
    }
    tokio::time::sleep(SECOND * 5 / 2).await;
    rig.handle.publish_metrics();
    let seen = scrape(&snapshotter);
    let labels = "{side=old,role=authority,operation=read";
    let count = |name: &str| seen[&format!("tower_migration_{name}")];
    assert_eq!(count(&format!("requests_total{labels},outcome=applied}}")) as u64, 7);
    assert_eq!(count(&format!("duration_seconds{labels}}}")) as u64, 7, "not once a second");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_and_a_client_that_hangs_up_is_not() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::new(Fake::panics(), Fake::says(200, ""));
    let mut expected = [0.0, 0.0];
    // As it is handed on, and as it is watched for a shadow.
    for rate in [0.0, 1.0] {
        rig.handle.set_shadow_rate(rate).unwrap();
        rig.old.becomes(&Fake::panics());
        // The future is dropped by whoever caught the panic, later.
        let caught = AssertUnwindSafe(rig.send(get("/a"))).catch_unwind().await;
        assert!(caught.is_err());
        rig.old.becomes(&Fake::hangs());
        let mut read = task::spawn(rig.send(get("/a")));
        assert_pending!(read.poll());
        drop(read);
        expected = expected.map(|n| n + 1.0);
        rig.handle.publish_metrics();
        let seen = scrape(&snapshotter);
        let count = |outcome: &str| {
            let labels = "side=old,role=authority,operation=read";
            seen[&format!("tower_migration_requests_total{{{labels},outcome={outcome}}}")]
        };
        assert_eq!([count("unknown"), count("dropped")], expected);
        rig.walk(Stage::WriteBoth).await;
    }
}

/// Tables with nothing in them.
struct Nothing;

impl Rows for Nothing {
    type Row = ();
    type Error = Infallible;

    async fn read(&self, _: Side, _: &Key) -> Result<Option<()>, Infallible> {
        Ok(None)
    }

    async fn write(&self, _: Side, _: &Key, _: Option<&()>) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Listing for Nothing {
    type Error = Infallible;

    async fn page(&self, _: Side, _: Option<&Key>, _: usize) -> Result<Vec<Key>, Infallible> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn every_metric_that_is_published_is_in_the_documented_table() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create_or_open(dir.path().join("journal")).unwrap();
    let flag = FileStore::create_or_open(dir.path().join("flag")).unwrap();
    let handle =
        MigrationHandle::builder("test").hold(DISK).journal(journal).open(flag).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    Backfill::new(&rig.handle, Nothing).listing(Nothing).dry_run().run().await.unwrap();
    traffic(&rig).await;
    let table = include_str!("../../src/telemetry/mod.rs");
    let documented: Vec<_> =
        table.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next()).collect();
    let mut published: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, description, _)| {
            assert!(description.is_some(), "{} is described", key.key().name());
            key.key().name().to_owned()
        })
        .collect();
    published.sort();
    published.dedup();
    let mut missing: Vec<_> = documented.clone();
    missing.retain(|name| !published.iter().any(|p| p == name));
    assert!(missing.is_empty(), "documented and not published: {missing:?}");
    published.retain(|name| !documented.contains(&name.as_str()));
    assert!(published.is_empty(), "published and not documented: {published:?}");
}
