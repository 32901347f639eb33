//! The two questions at the end: are the sides equal, and is every
//! acknowledged write there?

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tower_migration::{BoxError, Side};

use crate::{
    history::{History, Seen},
    model::{Airport, ListQuery, Store},
    world::World,
};

/// What a comparison of the stores found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) keys: u64,
    /// The codes of the airports that are not the same on both.
    pub(crate) differing: BTreeSet<String>,
    pub(crate) samples: Vec<String>,
}

/// What a comparison of a store with the history found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified {
    pub(crate) keys: u64,
    pub(crate) lost: u64,
    /// A value nobody wrote, or one whose writer was refused.
    pub(crate) strange: u64,
    /// As the two above, but announced by the emergency exit.
    pub(crate) announced: u64,
    pub(crate) samples: Vec<String>,
}

/// All rows of a store.
pub(crate) type Dump = BTreeMap<String, Airport>;

const SAMPLES: usize = 5;

/// Waits until nothing runs on either side. The clients are held, so what is
/// left are legs that nobody waits for.
pub(crate) async fn quiet(world: &World) -> Result<(), BoxError> {
    world.migration.settled().await;
    let began = Instant::now();
    loop {
        let status = world.migration.status();
        if status.on_old.writes + status.on_new.writes == 0 {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(format!("writes run on although no client does:\n{status}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Everything in the store.
pub(crate) fn dump(store: &impl Store) -> Result<Dump, BoxError> {
    let mut rows = Dump::new();
    loop {
        let query = ListQuery {
            after: rows.last_key_value().map(|(icao, _)| icao.clone()),
            limit: Some(1_000),
            ..ListQuery::default()
        };
        let page = store.list(&query).map_err(|error| format!("cannot list a store: {error:?}"))?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page.into_iter().map(|row| (row.icao.clone(), row)));
    }
}

/// The rows of one side.
pub(crate) async fn dump_of(world: &World, side: Side) -> Result<Dump, BoxError> {
    let (old, new) = (world.old.clone(), world.new.clone());
    spawn_blocking(move || match side {
        Side::Old => dump(&old),
        Side::New => dump(&new),
    })
    .await?
}

/// Compares the stores key by key.
pub(crate) fn compare(old: &Dump, new: &Dump) -> Result<Checked, BoxError> {
    let mut checked = Checked::default();
    let only_new = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(only_new) {
        checked.keys += 1;
        let (mine, theirs) = (old.get(key), new.get(key));
        // The text tells more apart than `==` does: -0.0 from 0.0.
        if serde_json::to_string(&mine)? == serde_json::to_string(&theirs)? {
            continue;
        }
        checked.differing.insert(key.clone());
        if checked.samples.len() < SAMPLES {
            checked.samples.push(format!("{key}: old {mine:?}, new {theirs:?}"));
        }
    }
    Ok(checked)
}

/// Compares what is in a store with what the clients were told.
pub(crate) fn verify(history: &History, rows: &Dump) -> Verified {
    let mut keys = history.keys();
    keys.extend(rows.keys().cloned());
    let mut verified = Verified::default();
    for key in keys {
        verified.keys += 1;
        let value = rows.get(&key).map(|row| &*row.name);
        let seen = history.judge_last(&key, value);
        match seen {
            Seen::Fresh => continue,
            _ if history.is_announced(&key, value) => verified.announced += 1,
            Seen::Stale => verified.lost += 1,
            Seen::Refused | Seen::Foreign => verified.strange += 1,
        }
        if verified.samples.len() < SAMPLES {
            verified.samples.push(format!("{key}: {value:?} is {seen:?}"));
        }
    }
    verified
}
