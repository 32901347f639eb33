//! What does a journal cost that notes writes before their legs begin?
//!
//! # What is measured
//!
//! Sixty-four writers, each with one write after the other, through a layer with
//! `AwaitBoth`: without a journal, with one that notes what fails (`on-failure`), and
//! with one that notes what begins (`before-legs`). All on the same disk.
//!
//! `disk` has stores that commit each write to the disk before they acknowledge it, as
//! databases do: SQLite and redb. `1 ms` has sides that answer after a millisecond and
//! touch no disk, so the journal's share shows. `cold` writes another key each time,
//! `hot` one of a hundred, which stay noted.
//!
//! # Budget
//!
//! `before-legs` at least 0.5 of the throughput without a journal, on the same disk.
//!
//! # How to read it
//!
//! Thousands of writes in a second, the median of alternating runs; the ratio to `none`;
//! and how many writes shared one fsync of the journal.

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::{
    runtime::Builder,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_migration::{
    BoxError, FailurePolicy, FileStore, MigrationHandle, MigrationLayer, Operation, Side,
    protocol::Plain,
    reconcile::{Journal, JournalMode},
};

use support::stores::{Stores, name};

const WRITERS: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sides {
    Disk,
    Millisecond,
}

async fn open(dir: &Path, mode: Option<JournalMode>) -> Result<MigrationHandle, BoxError> {
    let mut builder = MigrationHandle::builder("bench");
    if let Some(mode) = mode {
        builder = builder.journal(Journal::create_or_open(dir.join("journal"))?.mode(mode));
    }
    let handle = builder.open(FileStore::create(dir.join("flag"))?).await?;
    handle.advance().await?;
    handle.settled().await;
    handle.confirm_synced(Side::New).await?;
    Ok(handle)
}

/// Writes in a second, and how many of them shared a commit of the journal.
async fn run(
    sides: Sides,
    hot: bool,
    mode: Option<JournalMode>,
    length: Duration,
) -> Result<(f64, Option<f64>), BoxError> {
    let dir = tempfile::tempdir()?;
    let handle = open(dir.path(), mode).await?;
    let stores = Stores::open(dir.path(), true)?;
    stores.sync_old()?;
    let side = |side: Side| {
        let stores = stores.clone();
        service_fn(move |key: u32| {
            let stores = stores.clone();
            async move {
                match sides {
                    Sides::Millisecond => sleep(Duration::from_millis(1)).await,
                    Sides::Disk => {
                        let write = spawn_blocking(move || match side {
                            Side::Old => stores.put_old(&name(key), "row"),
                            Side::New => stores.put_new(&name(key), Some("row")),
                        });
                        write.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                    }
                }
                Ok::<_, String>(())
            }
        })
    };
    let classify = |_: &u32| Operation::Write;
    let plain = Plain::<u32, (), String>::new(classify, |refused| refused.to_string())
        .keys(|key: &u32| name(*key));
    let layer = MigrationLayer::with_protocol(handle.clone(), side(Side::New), plain)
        .failure_policy(FailurePolicy::AwaitBoth);
    let service = layer.layer(side(Side::Old));
    let next = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (service, next) = (service.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                while began.elapsed() < length {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let key = if hot { n % 100 } else { n };
                    service.clone().oneshot(key).await?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let writes = f64::from(next.load(Ordering::Relaxed));
    let rate = writes / began.elapsed().as_secs_f64();
    let shared = commits(&handle).filter(|commits| *commits > 0.0).map(|commits| writes / commits);
    handle.shutdown().await;
    Ok((rate, shared))
}

fn commits(handle: &MigrationHandle) -> Option<f64> {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || handle.publish_metrics());
    recorder.snapshotter().snapshot().into_vec().into_iter().find_map(|(key, _, _, value)| {
        match value {
            DebugValue::Counter(n)
                if key.key().name() == "tower_migration_journal_commits_total" =>
            {
                Some(n as f64)
            }
            _ => None,
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), BoxError> {
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let (length, runs) =
        if timed { (Duration::from_secs(2), 7) } else { (Duration::from_millis(20), 1) };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let modes = [None, Some(JournalMode::OnFailure), Some(JournalMode::BeforeLegs)];
        for (sides, hot) in [
            (Sides::Disk, false),
            (Sides::Disk, true),
            (Sides::Millisecond, false),
            (Sides::Millisecond, true),
        ] {
            let mut rates = modes.map(|_| Vec::new());
            let mut shares = modes.map(|_| Vec::new());
            for _ in 0..runs {
                for (at, mode) in modes.into_iter().enumerate() {
                    let (rate, shared) = run(sides, hot, mode, length).await?;
                    rates[at].push(rate / 1e3);
                    shares[at].extend(shared);
                }
            }
            let none = median(rates[0].clone());
            for ((mode, rates), shares) in modes.into_iter().zip(rates).zip(shares) {
                let mode = mode.map_or("none", JournalMode::as_str);
                let sides = if sides == Sides::Disk { "disk" } else { "1 ms" };
                let keys = if hot { "hot" } else { "cold" };
                let rate = median(rates);
                let shared = match median(shares) {
                    0.0 => String::new(),
                    shared => format!("   {shared:.1} writes an fsync"),
                };
                let ratio = rate / none;
                println!("{sides} {keys:<4} {mode:<12} {rate:>8.2} k/s   ratio {ratio:.2}{shared}");
            }
        }
        Ok(())
    })
}
