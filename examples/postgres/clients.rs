//! Who writes, and what they were told.

use std::{
    collections::BTreeMap,
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{task::JoinSet, time::sleep};
use tower::ServiceExt;
use tower_migration::BoxError;

use crate::{
    service::{Op, Service},
    store::{Row, Store},
};

/// For so long most clients write the same airport, in both processes, and then another:
/// whatever has gone wrong in between is not written over.
const BUSY: Duration = Duration::from_millis(20);

/// Of which airport, under which version, and what.
type Writes = BTreeMap<(String, i64), Option<String>>;

/// Every write that was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Acked(Arc<Mutex<Writes>>);

impl Acked {
    fn lock(&self) -> MutexGuard<'_, Writes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn all(&self) -> Writes {
        self.lock().clone()
    }

    /// A version that was given out twice is a write that overwrote another unseen.
    pub(crate) fn add(&self, code: String, row: Row) -> Result<(), BoxError> {
        match self.lock().insert((code, row.version), row.name) {
            None => Ok(()),
            Some(other) => Err(format!("version {} was {other:?} as well", row.version).into()),
        }
    }

    /// What is not in the store, in words. All but the last write of an airport are
    /// history; and every write was answered, so there is none that nobody knows.
    pub(crate) async fn missing_from(&self, store: &impl Store) -> Result<Vec<String>, BoxError> {
        let rows =
            self.all().into_iter().map(|((code, version), name)| (code, Row { name, version }));
        let mut missing = Vec::new();
        for (code, told) in rows.collect::<BTreeMap<_, _>>() {
            let found = store.get(&code).await?;
            if found.as_ref() != Some(&told) {
                missing.push(format!("{code}: {told:?} was acknowledged, there is {found:?}"));
            }
        }
        Ok(missing)
    }
}

/// Clients that write until they are stopped.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), BoxError>>,
}

impl Clients {
    pub(crate) fn start(service: &Service, codes: &[String], acked: &Acked) -> Self {
        let (stop, codes) = (Arc::new(AtomicBool::new(false)), Arc::<[String]>::from(codes));
        let client = |_| write(service.clone(), codes.clone(), acked.clone(), stop.clone());
        let tasks = (0..4).map(client).collect();
        Self { stop, tasks }
    }

    /// Fails if any of them was not told that all is well, each time.
    pub(crate) async fn stop(mut self) -> Result<(), BoxError> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn write(
    service: Service,
    codes: Arc<[String]>,
    acked: Acked,
    stop: Arc<AtomicBool>,
) -> Result<(), BoxError> {
    while !stop.load(Ordering::SeqCst) {
        let code = codes[next(codes.len())?].clone();
        let deletes = fastrand::usize(..10) == 0;
        let name = (!deletes).then(|| format!("{}-{:08x}", process::id(), fastrand::u32(..)));
        let row = service.clone().oneshot(Op::Set(code.clone(), name)).await?;
        let row = row.ok_or("a write was answered nothing")?;
        // Whichever store reads come from now, it has that write.
        match service.clone().oneshot(Op::Get(code.clone())).await? {
            Some(found) if found.version >= row.version => acked.add(code, row)?,
            found => return Err(format!("{code}: {row:?} was written, {found:?} read").into()),
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Which airport is written next.
fn next(all: usize) -> Result<usize, BoxError> {
    if fastrand::usize(..4) == 0 {
        return Ok(fastrand::usize(..all));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let nth = usize::try_from(since.as_millis() / BUSY.as_millis())?;
    Ok(nth.wrapping_mul(7919) % all) // a prime, so that all have their turn
}
