//! For how long does a flip of the authority hold writes?
//!
//! # What is measured
//!
//! `WriteBoth` to `ReadNew` and back, in order, over and over: the time from the
//! moment in which new writes begin to wait to the moment in which they go on
//! ([`Moved::held`](tower_migration::Moved::held)). In it lie the end of what
//! runs, the last checks, and the record, durable before the flip.
//!
//! `quiet` has nobody writing, `load` has eight clients that write without a
//! pause to sides that take a millisecond. `memory` keeps the flag in memory,
//! `file` in a file, with a write, a sync, a rename and a sync of the directory.
//! `sync` is a file written and synced by hand, in the same run.
//!
//! # Budget
//!
//! At quiet load under 10 ms.
//!
//! # How to read it
//!
//! Milliseconds, median and largest. A disk that syncs slowly shows in `file`
//! and in `sync` alike.

mod support;

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};
use tower_layer::Layer;
use tower_migration::{FileStore, MemoryStore, MigrationHandle, MigrationLayer, Side, Stage};

use support::{after, ask, put};

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let largest = times.last().copied().unwrap_or_default();
    println!("{what:<16} median {:>8.3} ms   largest {:>8.3} ms", ms(median), ms(largest));
}

async fn held(handle: MigrationHandle, flips: u32, clients: u32) -> Vec<Duration> {
    handle.advance().await.expect("a first step");
    handle.settled().await;
    handle.confirm_synced(Side::New).await.expect("nothing has been written");
    let service = MigrationLayer::new(handle.clone(), after(1)).layer(after(1));
    let done = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..clients)
        .map(|client| {
            let path = ["/a", "/b", "/c", "/d"][client as usize % 4];
            let (mut service, done) = (service.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    ask(&mut service, put(path)).await;
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for _ in 0..flips {
        for to in [Stage::ReadNew, Stage::WriteBoth] {
            // Else the clients would hardly be under way again.
            sleep(Duration::from_millis(5)).await;
            times.push(handle.move_to(to).await.expect("a step in order").held);
        }
    }
    done.store(true, Ordering::Relaxed);
    for client in writing {
        client.await.expect("no panic");
    }
    times
}

fn synced(dir: &Path, times: u32) -> Vec<Duration> {
    let path = dir.join("by hand");
    let one = || -> std::io::Result<Duration> {
        let began = Instant::now();
        let mut file = File::create(&path)?;
        file.write_all(&[b'x'; 200])?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(began.elapsed())
    };
    (0..times).map(|_| one().expect("a file")).collect()
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let flips = if timed { 200 } else { 2 };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        report("sync", synced(dir.path(), flips * 2));
        for (load, clients) in [("quiet", 0), ("load", 8)] {
            let memory = MigrationHandle::open("memory", MemoryStore::new()).await;
            let memory = memory.expect("a new flag");
            report(&format!("{load}/memory"), held(memory, flips, clients).await);
            let path = dir.path().join(format!("{load}.flag"));
            let file = FileStore::create(path).expect("a new file");
            let file = MigrationHandle::open("file", file).await.expect("a new flag");
            report(&format!("{load}/file"), held(file, flips, clients).await);
        }
    });
}
