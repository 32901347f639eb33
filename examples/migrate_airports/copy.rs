//! Making the two sides equal: all keys, and those that are dirty.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use indicatif::ProgressBar;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};
use tower_migration::{
    BoxError, Side,
    reconcile::{Copied, CopyError, DirtyKey, Key, RightSide},
};

use crate::{
    console::Console,
    model::{ApiError, Store},
    world::{World, icao_of, locked, path_of},
};

/// Keys that are copied at the same time.
const AT_ONCE: usize = 16;

/// How long dirty keys are mended before the example gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a copy of many keys did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) copied: u64,
    /// Copied more than once, because a client wrote the key meanwhile.
    pub(crate) repeated: u64,
    /// Writes that waited for the copy and were part of it already.
    pub(crate) absorbed: u64,
    /// Left for [`heal`]: dirty in another way than the copy goes.
    pub(crate) left: u64,
}

impl Sum {
    fn add(&mut self, copied: Copied) {
        self.copied += 1;
        self.repeated += u64::from(copied.attempts > 1);
        self.absorbed += copied.absorbed as u64;
    }
}

/// Makes `to` equal to `from` for one airport, a missing one included.
fn copy_row(from: &impl Store, to: &impl Store, icao: &str) -> Result<(), ApiError> {
    match from.get(icao) {
        Ok(airport) => to.replace(&airport).map(drop),
        Err(ApiError::NotFound) => match to.delete(icao) {
            Err(ApiError::NotFound) => Ok(()),
            other => other,
        },
        Err(error) => Err(error),
    }
}

/// Copies one key from the side that is right, between the stores themselves:
/// through the layer it would be a write to both.
async fn copy(world: &World, key: &Key, from: Side) -> Result<Copied, CopyError<String>> {
    loop {
        let copied = world.migration.copy_key(key, from, || {
            let (old, new) = (world.old.clone(), world.new.clone());
            let icao = icao_of(key.as_str()).to_owned();
            async move {
                let copied = spawn_blocking(move || match from {
                    Side::Old => copy_row(&old, &new, &icao),
                    Side::New => copy_row(&new, &old, &icao),
                });
                match copied.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(format!("{error:?}")),
                    Err(panic) => Err(panic.to_string()),
                }
            }
        });
        match copied.await {
            Err(CopyError::NotSettled) => world.migration.settled().await,
            other => return other,
        }
    }
}

/// The keys of both sides: one that is only on the target must go there.
async fn all_keys(world: &World) -> Result<Vec<Key>, BoxError> {
    let (old, new) = (world.old.clone(), world.new.clone());
    let keys = spawn_blocking(move || {
        let mut keys = BTreeSet::new();
        collect(&old, &mut keys)?;
        collect(&new, &mut keys)?;
        Ok::<_, ApiError>(keys)
    });
    let keys = keys.await?.map_err(|error| format!("cannot list the keys: {error:?}"))?;
    Ok(keys.iter().map(|icao| Key::from(path_of(icao))).collect())
}

fn collect(store: &impl Store, into: &mut BTreeSet<String>) -> Result<(), ApiError> {
    let mut after = None;
    loop {
        let page = store.keys(after.as_deref(), 1_000)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        into.extend(page);
    }
}

/// Copies every key from `from` to the other side while clients go on. Keys
/// that clients make meanwhile reach both sides by themselves.
pub(crate) async fn copy_all(
    world: &World,
    console: &Console,
    from: Side,
) -> Result<Sum, BoxError> {
    let keys = all_keys(world).await?;
    let bar = console.bar(keys.len() as u64);
    let queue = Arc::new(Mutex::new(keys.into_iter()));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        workers.spawn(work(world.clone(), from, Arc::clone(&queue), bar.clone()));
    }
    let mut sum = Sum::default();
    while let Some(ended) = workers.join_next().await {
        let part = ended.map_err(BoxError::from).and_then(|part| part)?;
        sum.copied += part.copied;
        sum.repeated += part.repeated;
        sum.absorbed += part.absorbed;
        sum.left += part.left;
    }
    console.done(&bar);
    Ok(sum)
}

async fn work(
    world: World,
    from: Side,
    queue: Arc<Mutex<std::vec::IntoIter<Key>>>,
    bar: ProgressBar,
) -> Result<Sum, BoxError> {
    let mut sum = Sum::default();
    loop {
        let next = locked(&queue).next();
        let Some(key) = next else {
            return Ok(sum);
        };
        match copy(&world, &key, from).await {
            Ok(copied) => sum.add(copied),
            Err(CopyError::WrongWay(_) | CopyError::Conflict | CopyError::Contended) => {
                sum.left += 1;
            }
            Err(error) => return Err(format!("cannot copy {key}: {error}").into()),
        }
        bar.inc(1);
    }
}

/// What was done about dirty keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Healed {
    pub(crate) from_old: u64,
    pub(crate) from_new: u64,
    pub(crate) conflicts: u64,
}

/// Copies each dirty key from the side that is right, until none is left.
///
/// A conflict (marks that name both sides) is resolved in favour of the
/// authority of this moment: its data is what the clients see. That is right
/// here because no acknowledged write is missing on it (see the failure policy);
/// elsewhere it may be a person's decision.
pub(crate) async fn heal(world: &World) -> Result<Healed, BoxError> {
    let began = Instant::now();
    let mut healed = Healed::default();
    loop {
        let dirty = world.migration.dirty_keys();
        if dirty.is_empty() {
            return Ok(healed);
        }
        for DirtyKey { key, right, .. } in dirty {
            let from = match right {
                RightSide::Is(side) => side,
                _ => {
                    let authority = world.migration.stage().authority();
                    healed.conflicts +=
                        u64::from(world.migration.resolve_conflict(&key, authority));
                    authority
                }
            };
            match (copy(world, &key, from).await, from) {
                (Ok(_), Side::Old) => healed.from_old += 1,
                (Ok(_), Side::New) => healed.from_new += 1,
                // Marked anew just now: the next round knows better.
                (Err(CopyError::WrongWay(_) | CopyError::Conflict | CopyError::Contended), _) => {}
                (Err(error), _) => return Err(format!("cannot copy {key}: {error}").into()),
            }
        }
        if began.elapsed() > PATIENCE {
            let left = world.migration.dirty_keys().len();
            return Err(format!("{left} keys are still dirty after {PATIENCE:?}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
}
