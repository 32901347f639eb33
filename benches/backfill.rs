//! What does a backfill cost over a loop written by hand?
//!
//! # What is measured
//!
//! *Throughput*: rows of 200 bytes from SQLite to an empty redb, both in files, sixteen
//! at once. `by hand` is what a team would write: keys page by page, then read and
//! write each through `buffer_unordered`. `backfill` is the crate's with its defaults,
//! which also reads each row of the source again after it was written; `no reread` is
//! the same without that. `durable` commits each row to the disk, as a database does by
//! default; `quick` leaves that out, so that the crate's own cost shows. Runs alternate.
//!
//! *Memory*: the peak of the process (`VmHWM`, Linux) after runs over more and more keys,
//! which are made as they are listed, so nothing but the run has a size.
//!
//! # Budget
//!
//! At least 0.8 of the loop's throughput; memory flat from 10 thousand keys to 10
//! million.
//!
//! # How to read it
//!
//! Thousands of rows in a second, the median of the runs, and the ratio to `by hand`.

mod support;

use std::{
    convert::Infallible,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{runtime::Builder, time::Instant};
use tower_migration::{
    BoxError, MigrationHandle, Side,
    reconcile::{Backfill, Key, Listing, Rows, Sweep},
};

use support::stores::Stores;

const AT_ONCE: usize = 16;

/// The loop that a team would write.
async fn by_hand(stores: &Stores) -> Result<u64, BoxError> {
    let pages = stream::try_unfold(None::<Key>, |after| async move {
        let page = stores.page(Side::Old, after.as_ref(), 1_000).await?;
        let last = page.last().cloned();
        Ok::<_, BoxError>(last.map(|last| (stream::iter(page).map(Ok), Some(last))))
    });
    let copies = pages.try_flatten().map(|key: Result<Key, BoxError>| async move {
        let key = key?;
        let row = stores.read(Side::Old, &key).await?;
        stores.write(Side::New, &key, row.as_ref()).await
    });
    copies.buffer_unordered(AT_ONCE).try_fold(0, async |n, ()| Ok(n + 1)).await
}

async fn backfill(stores: &Stores, reread: bool) -> Result<u64, BoxError> {
    let migration = MigrationHandle::new("bench");
    migration.advance().await?;
    let backfill = Backfill::new(&migration, stores.clone())
        .listing(stores.clone())
        .sweep(Sweep::new().concurrency(AT_ONCE))
        .reread(reread);
    let report = backfill.run().await?;
    assert!(report.synced, "{report}");
    Ok(report.written)
}

async fn throughput(rows: u32, runs: usize, durable: bool) -> Result<(), BoxError> {
    let ways = ["by hand", "backfill", "no reread"];
    let mut rates = ways.map(|_| Vec::new());
    for _ in 0..runs {
        for (way, rates) in ways.iter().zip(&mut rates) {
            let dir = tempfile::tempdir()?;
            let stores = Stores::open(dir.path(), durable)?;
            stores.fill(rows)?;
            let began = Instant::now();
            let written = match *way {
                "by hand" => by_hand(&stores).await?,
                "backfill" => backfill(&stores, true).await?,
                _ => backfill(&stores, false).await?,
            };
            assert_eq!(written, u64::from(rows));
            rates.push(f64::from(rows) / began.elapsed().as_secs_f64() / 1e3);
        }
    }
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let kind = if durable { "durable" } else { "quick" };
    for (way, median) in ways.iter().zip(medians) {
        let ratio = median / medians[0];
        println!("{kind:<8} {way:<10} {median:>9.2} k/s   ratio {ratio:.2}");
    }
    Ok(())
}

/// As many keys as it is told, none of which is anywhere.
struct Numbers {
    keys: u32,
    written: AtomicU64,
}

impl Listing for Numbers {
    type Error = Infallible;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Infallible> {
        let from = after.map_or(0, |key| key.as_str().parse::<u32>().unwrap_or(u32::MAX) + 1);
        let to = if side == Side::Old { self.keys } else { 0 };
        Ok((from..to).take(limit).map(|n| Key::from(support::stores::name(n))).collect())
    }
}

impl Rows for Numbers {
    type Row = [u8; 32];
    type Error = Infallible;

    async fn read(&self, _: Side, _: &Key) -> Result<Option<[u8; 32]>, Infallible> {
        Ok(Some([7; 32]))
    }

    async fn write(&self, _: Side, _: &Key, _: Option<&[u8; 32]>) -> Result<(), Infallible> {
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The most memory that this process has had, in MiB.
fn peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1_024.0)
}

async fn memory(keys: u32) -> Result<(), BoxError> {
    let migration = MigrationHandle::new("bench");
    migration.advance().await?;
    let numbers = Arc::new(Numbers { keys, written: AtomicU64::new(0) });
    let began = Instant::now();
    let backfill = Backfill::new(&migration, Arc::clone(&numbers)).listing(Arc::clone(&numbers));
    let report = backfill.run().await?;
    assert_eq!(report.written, u64::from(keys));
    let rate = f64::from(keys) / began.elapsed().as_secs_f64() / 1e3;
    let peak = peak().map_or_else(|| "unknown".to_owned(), |peak| format!("{peak:.1} MiB"));
    println!("memory   {keys:>10} keys   peak {peak:>10}   {rate:>8.1} k/s");
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // First, while the process has had nothing else in memory.
        let sizes: &[u32] =
            if timed { &[10_000, 100_000, 1_000_000, 10_000_000] } else { &[1_000, 5_000] };
        for keys in sizes {
            memory(*keys).await?;
        }
        for (durable, rows) in [(true, 10_000), (false, 50_000)] {
            let (rows, runs) = if timed { (rows, 7) } else { (200, 1) };
            throughput(rows, runs, durable).await?;
        }
        Ok(())
    })
}
