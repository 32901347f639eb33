//! How copies read, write and list the airports, and what is done with that: the
//! repair, the backfill and the verify.

use std::time::Duration;

use axum::{Router, body::Body};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};
use tower_migration::{
    BoxError, ConfigError, Side,
    reconcile::{
        Backfill, BackfillReport, Conflicts, Key, Listing, Progress, Repair, Repairing, Rest,
        Sweep, Verify, VerifyReport,
    },
};

use crate::{
    console::Console,
    model::{self, Store},
    new::RedbStore,
    old::SqliteStore,
    world::{World, icao_of, path_of},
};

/// How long dirty keys are waited for before the example gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Copies are GET, PUT and DELETE on the two routers themselves: through the layer
/// each would be a write to both. No code is needed for that.
pub(crate) type Sides = Rest<Router, Router, Body>;

/// The keys of each side, from the stores' own order: that of the codes' bytes.
#[derive(Clone)]
pub(crate) struct Codes {
    old: SqliteStore,
    new: RedbStore,
}

impl Listing for Codes {
    type Error = BoxError;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, BoxError> {
        let (codes, after) = (self.clone(), after.map(|key| icao_of(key.as_str()).to_owned()));
        let page = spawn_blocking(move || match side {
            Side::Old => codes.old.keys(after.as_deref(), limit),
            Side::New => codes.new.keys(after.as_deref(), limit),
        });
        let page = page.await?.map_err(|error| format!("cannot list {side}: {error:?}"))?;
        Ok(page.into_iter().map(|icao| Key::from(path_of(&icao))).collect())
    }

    async fn count(&self, side: Side) -> Option<u64> {
        let codes = self.clone();
        let count = spawn_blocking(move || match side {
            Side::Old => codes.old.len(),
            Side::New => codes.new.len(),
        });
        count.await.ok()?.ok()
    }
}

impl World {
    /// Whatever makes requests to a side fail meets copies too.
    pub(crate) fn sides(&self) -> Sides {
        let old = self.old_faults.around(model::router(self.old.clone()));
        let new = self.new_faults.around(model::router(self.new.clone()));
        Rest::new(&self.migration, old, new)
    }

    fn codes(&self) -> Codes {
        Codes { old: self.old.clone(), new: self.new.clone() }
    }

    /// Mends dirty keys from now on, as they come.
    pub(crate) fn repair(&self) -> Result<Repairing, ConfigError> {
        Repair::new(&self.migration, self.sides())
            // The authority's data is what the clients see, and no acknowledged
            // write is missing on it (see the failure policy). Elsewhere a conflict
            // may be a person's decision.
            .conflicts(Conflicts::TrustAuthority)
            // Some of these keys are written all the time: a copy of one waits.
            .concurrency(16)
            // The faults here last for a second, not for an hour.
            .backoff(Duration::from_millis(20), Duration::from_millis(500))
            .park_after(1_000)
            .start()
    }

    pub(crate) fn backfill(&self, sweep: Sweep) -> Backfill<Sides> {
        let backfill = Backfill::new(&self.migration, self.sides()).listing(self.codes());
        // Nothing writes the stores past the layer.
        backfill.reread(false).sweep(sweep)
    }

    pub(crate) fn verify(&self, sweep: Sweep) -> Verify<Sides> {
        Verify::new(&self.migration, self.sides()).listing(self.codes()).sweep(sweep)
    }

    /// Waits until the repair has mended every dirty key.
    pub(crate) async fn healed(&self) -> Result<(), BoxError> {
        let began = Instant::now();
        loop {
            let dirty = self.migration.dirty_keys();
            let Some(first) = dirty.first() else {
                return Ok(());
            };
            if began.elapsed() > PATIENCE {
                let count = dirty.len();
                return Err(format!("{count} keys are still dirty, such as {first:?}").into());
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Copies everything from the authority to the other side while clients go on, with
/// a bar.
pub(crate) async fn copy_all(world: &World, console: &Console) -> Result<BackfillReport, BoxError> {
    let backfill = world.backfill(Sweep::new());
    let bar = show(console, backfill.progress());
    let report = backfill.run().await;
    bar.abort();
    console.done();
    Ok(report?)
}

/// Compares everything while clients go on, with a bar.
pub(crate) async fn compare_all(
    world: &World,
    console: &Console,
) -> Result<VerifyReport, BoxError> {
    let verify = world.verify(Sweep::new());
    let bar = show(console, verify.progress());
    let report = verify.run().await;
    bar.abort();
    console.done();
    Ok(report?)
}

/// Moves the bar with the run.
fn show(console: &Console, mut progress: watch::Receiver<Progress>) -> JoinHandle<()> {
    let bar = console.bar();
    tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            let now = *progress.borrow_and_update();
            if let Some(total) = now.total {
                bar.set_length(total.max(now.done));
            }
            bar.set_position(now.done);
        }
    })
}
