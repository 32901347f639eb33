//! Do clients feel a hundred thousand dirty keys being mended?
//!
//! # What is measured
//!
//! The time of requests through a layer at `WriteBoth` with `AwaitBoth`, half reads and
//! half writes, sides of a millisecond, sent at a fixed rate whatever the answers do
//! (open loop: the time counts from when a request was due). In turns `quiet`, with
//! nothing dirty, and `repair`, while a `Repair` with its defaults works off a hundred
//! thousand dirty keys.
//!
//! # Budget
//!
//! The 99th percentile during a repair at most 1.2 of the quiet one.
//!
//! # How to read it
//!
//! Milliseconds, over all turns of a kind; and how many keys were mended in a second.

mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_migration::{
    BoxError, FailurePolicy, MigrationHandle, MigrationLayer, Operation, Side,
    protocol::Plain,
    reconcile::{Key, Repair, Rows},
};

use support::stores::name;

/// Rows in memory, a millisecond away.
#[derive(Clone, Default)]
struct Tables(Arc<[Mutex<HashMap<Key, u32>>; 2]>);

impl Rows for Tables {
    type Row = u32;
    type Error = Infallible;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<u32>, Infallible> {
        sleep(Duration::from_millis(1)).await;
        let table = self.0[side as usize].lock().unwrap_or_else(PoisonError::into_inner);
        Ok(table.get(key).copied())
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&u32>) -> Result<(), Infallible> {
        sleep(Duration::from_millis(1)).await;
        let mut table = self.0[side as usize].lock().unwrap_or_else(PoisonError::into_inner);
        match row {
            Some(row) => table.insert(key.clone(), *row),
            None => table.remove(key),
        };
        Ok(())
    }
}

/// Answers so many requests in a second, and notes how long each took.
async fn load<S>(service: S, rate: u32, length: Duration, times: &mut Histogram<u64>)
where
    S: tower::Service<u32, Response = (), Error = String> + Clone + Send + 'static,
    S::Future: Send,
{
    let began = Instant::now();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let requests = (length.as_secs_f64() * f64::from(rate)) as u32;
    for n in 0..requests {
        let due = began + Duration::from_secs(1) * n / rate;
        sleep_until(due).await;
        let (service, tell) = (service.clone(), tell.clone());
        tokio::spawn(async move {
            let answered = service.oneshot(n).await;
            answered.expect("a side that does not fail");
            let _ = tell.send(due.elapsed());
        });
    }
    drop(tell);
    while let Some(took) = told.recv().await {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        times.record(micros).expect("a histogram that grows");
    }
}

fn main() -> Result<(), BoxError> {
    let args: Vec<_> = std::env::args().collect();
    let timed = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let (keys, turns, length) = if timed {
        (100_000, 5, Duration::from_secs(8))
    } else {
        (1_000, 1, Duration::from_millis(200))
    };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let migration = MigrationHandle::builder("bench").dirty_keys(keys as usize).build()?;
        migration.advance().await?;
        migration.settled().await;
        migration.confirm_synced(Side::New).await?;
        let tables = Tables::default();
        let side = || {
            service_fn(|_: u32| async {
                sleep(Duration::from_millis(1)).await;
                Ok::<_, String>(())
            })
        };
        let classify =
            |n: &u32| if n.is_multiple_of(2) { Operation::Read } else { Operation::Write };
        let plain = Plain::<u32, (), String>::new(classify, |refused| refused.to_string())
            .keys(|n: &u32| format!("client {}", n % 1_000));
        let layer = MigrationLayer::with_protocol(migration.clone(), side(), plain)
            .failure_policy(FailurePolicy::AwaitBoth);
        let service = layer.layer(side());
        let mut times = [Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?];
        load(service.clone(), 1_000, length / 4, &mut Histogram::new(3)?).await;
        let mut mended = 0;
        for _ in 0..turns {
            load(service.clone(), 1_000, length, &mut times[0]).await;
            for n in 0..keys {
                migration.mark_dirty(&Key::from(name(n)), Side::Old);
            }
            let repairing = Repair::new(&migration, tables.clone()).start()?;
            load(service.clone(), 1_000, length, &mut times[1]).await;
            repairing.stop().await;
            mended += keys as usize - migration.dirty_keys().len();
            // The next turn is quiet again.
            for dirty in migration.dirty_keys() {
                let nothing = || async { Ok::<_, Infallible>(()) };
                migration.copy_key(&dirty.key, Side::Old, nothing).await?;
            }
        }
        let at = |times: &Histogram<u64>, q| times.value_at_quantile(q) as f64 / 1e3;
        for (what, times) in ["quiet", "repair"].into_iter().zip(&times) {
            println!(
                "{what:<8} p50 {:>7.3} ms   p99 {:>7.3} ms   {} requests",
                at(times, 0.5),
                at(times, 0.99),
                times.len()
            );
        }
        let seconds = length.as_secs_f64() * f64::from(turns);
        println!(
            "p99 ratio {:.2}, {:.0} keys mended in a second",
            at(&times[1], 0.99) / at(&times[0], 0.99),
            mended as f64 / seconds
        );
        Ok(())
    })
}
