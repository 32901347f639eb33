//! The two stores, the two routers over them, the layer between, one port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::Router;
use bytes::Bytes;
use http::Method;
use indicatif::HumanCount;
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};
use tower_layer::Layer;
use tower_migration::{
    BoxError, Event, FailurePolicy, MigrationHandle, MigrationLayer,
    compare::{Compare, Headers, Status, Verdict, json::Json},
    protocol::{Head, HttpKeys, KeyOf},
    reconcile::Keys,
    stage::Agreement,
};

use crate::{
    faults::Faults,
    history::History,
    model::{self, ApiError},
    new::{RedbStore, Saves},
    old::SqliteStore,
    ops::Rows,
    stats::Stats,
    witness::Witness,
};

/// Verdicts of shadow reads, and writes whose legs disagreed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) matches: AtomicU64,
    pub(crate) mismatches: AtomicU64,
    pub(crate) raced: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) failed: AtomicU64,
    disagreements: AtomicU64,
}

/// Everything that the parts of the example share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) migration: MigrationHandle,
    pub(crate) old: SqliteStore,
    pub(crate) new: RedbStore,
    pub(crate) old_faults: Faults,
    pub(crate) new_faults: Faults,
    pub(crate) witness: Witness,
    pub(crate) policy: FailurePolicy,
    pub(crate) tally: Arc<Tally>,
}

/// Only plain data lies under the example's locks.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of an airport, which is its key too.
pub(crate) fn path_of(icao: &str) -> String {
    format!("/airports/{icao}")
}

/// The airport's code in a key.
pub(crate) fn icao_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// What a request is about. By default a create has no key before its answer
/// names one (`Location`). Here the client chooses the key, so it is known from
/// the start: creates of one airport are ordered too, and one that fails makes
/// that airport dirty instead of all of its side suspect.
fn keys(head: &Head<'_>, body: &Bytes) -> Keys {
    #[derive(Deserialize)]
    struct Id {
        icao: String,
    }
    if head.method != Method::POST {
        return HttpKeys.of_request(head, body);
    }
    match serde_json::from_slice::<Id>(body) {
        Ok(Id { icao }) => Keys::from(path_of(&icao)),
        Err(_) => Keys::none(),
    }
}

impl World {
    /// Fills the old store; the new one stays empty.
    pub(crate) fn build(dir: &Path, rows: Rows, seed: u64) -> Result<Self, BoxError> {
        let (old, new) = stores(dir, Saves::Seldom)?;
        old.load(rows.all().iter().cloned()).map_err(|error| unopened(&error))?;
        // In memory is enough for a run of a minute; a service of one's own keeps
        // the flag in a store, with `MigrationHandle::open`, as `--chaos` does.
        let migration = MigrationHandle::new("airports");
        Ok(Self::over(migration, (old, new), Witness::new(rows), seed))
    }

    /// A service over these stores.
    pub(crate) fn over(
        migration: MigrationHandle,
        (old, new): (SqliteStore, RedbStore),
        witness: Witness,
        seed: u64,
    ) -> Self {
        Self {
            migration,
            old,
            new,
            old_faults: Faults::new(seed),
            new_faults: Faults::new(!seed),
            witness,
            // A client hears "done" only once both legs have ended. So nothing
            // acknowledged is missing on old when the emergency exit flips the
            // reads back at once, which `AuthorityWins` cannot promise. Nor does
            // a sick other side fail any request, only slow it down: with
            // `RequireBoth` the clients would go on to see errors after the
            // rollback, although the side that answers them is well.
            policy: FailurePolicy::AwaitBoth,
            tally: Arc::default(),
        }
    }

    pub(crate) fn layer(&self) -> MigrationLayer<Router> {
        self.layer_to(self.new_faults.around(model::router(self.new.clone())))
    }

    /// With new behind this router.
    pub(crate) fn layer_to(&self, new: Router) -> MigrationLayer<Router> {
        let (tally, history) = (Arc::clone(&self.tally), Arc::clone(&self.witness.history));
        MigrationLayer::new(self.migration.clone(), new)
            .keys(keys)
            .failure_policy(self.policy)
            // The stores answer the same bytes. Should they not, it names the field.
            .compare(Status.and(Headers::default()).and(Json::new()))
            .observer(move |event: &Event<'_>| tally.hear(event, &history))
    }

    /// Both routers behind the layer.
    pub(crate) fn router(&self) -> Router {
        let old = self.old_faults.around(model::router(self.old.clone()));
        // Around whole routers, before any routing.
        Router::new().fallback_service(self.layer().layer(old))
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.witness.history()
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.witness.stats()
    }
}

fn unopened(error: &ApiError) -> BoxError {
    format!("cannot make or open the stores: {error:?}").into()
}

/// Opens both stores, and makes what is not there.
pub(crate) fn stores(dir: &Path, saves: Saves) -> Result<(SqliteStore, RedbStore), BoxError> {
    let old = SqliteStore::open(dir.join("old.db")).map_err(|error| unopened(&error))?;
    let new = RedbStore::open(dir.join("new.redb"), saves).map_err(|error| unopened(&error))?;
    Ok((old, new))
}

impl Tally {
    pub(crate) fn verdicts(&self) -> String {
        let count = |of: &AtomicU64| HumanCount(of.load(Ordering::Relaxed)).to_string();
        format!(
            "shadow reads: {} equal, {} different, {} raced a write, {} skipped, {} failed",
            count(&self.matches),
            count(&self.mismatches),
            count(&self.raced),
            count(&self.skipped),
            count(&self.failed)
        )
    }

    /// Writes whose legs did not say the same.
    pub(crate) fn disagreements(&self) -> u64 {
        self.disagreements.load(Ordering::Relaxed)
    }

    /// Starts to count the verdicts anew.
    pub(crate) fn forget_verdicts(&self) {
        for count in [&self.matches, &self.mismatches, &self.raced, &self.skipped, &self.failed] {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn hear(&self, event: &Event<'_>, history: &Mutex<History>) {
        let count = match event {
            Event::Shadow(read) => match &read.verdict {
                Verdict::Match => &self.matches,
                Verdict::Mismatch(_) => &self.mismatches,
                Verdict::Inconclusive(_) => &self.raced,
                Verdict::Skipped(_) => &self.skipped,
                _ => &self.failed,
            },
            Event::Disagreement(write) => {
                if write.agreement == Agreement::Dirty {
                    let mut history = locked(history);
                    for key in &write.keys {
                        history.doubt(icao_of(key.as_str()));
                    }
                }
                &self.disagreements
            }
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves a router on a free port of this machine.
pub(crate) async fn serve(router: Router) -> Result<(SocketAddr, JoinHandle<()>), BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            eprintln!("the server stopped: {error}");
        }
    });
    Ok((address, task))
}
