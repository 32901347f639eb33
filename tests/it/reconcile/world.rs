//! Two tables, with a service over each, and everything that copies between them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use tokio::time::sleep;
use tower_migration::{
    MigrationHandle, MigrationLayer, Side,
    reconcile::{Backfill, Key, Listing, Repair, Rows, Verify},
};

use crate::support::*;

pub type Table = BTreeMap<String, i64>;

/// What a key's rows do when they are read or written behind the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Fails,
    Panics,
    Hangs,
}

#[derive(Default)]
pub struct Inner {
    tables: [Mutex<Table>; 2],
    reads: [AtomicU64; 2],
    writes: [AtomicU64; 2],
    pages: AtomicU64,
    down: [AtomicBool; 2],
    /// Milliseconds that each read and write takes.
    pub slow: AtomicU64,
    pub ways: Mutex<BTreeMap<String, Way>>,
    /// Runs once, between a read of the source and the write of the target.
    pub between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// Behind the layer's back.
#[derive(Clone, Default)]
pub struct Tables(Arc<Inner>);

impl std::ops::Deref for Tables {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Tables {
    pub fn on(&self, side: Side) -> MutexGuard<'_, Table> {
        self.0.tables[side as usize].lock().unwrap()
    }

    pub fn old(&self) -> MutexGuard<'_, Table> {
        self.on(Side::Old)
    }

    pub fn newer(&self) -> MutexGuard<'_, Table> {
        self.on(Side::New)
    }

    pub fn fill(&self, side: Side, keys: impl IntoIterator<Item = (u32, i64)>) {
        self.on(side).extend(keys.into_iter().map(|(key, value)| (name(key), value)));
    }

    pub fn writes(&self, side: Side) -> u64 {
        self.0.writes[side as usize].load(Ordering::SeqCst)
    }

    pub fn reads(&self, side: Side) -> u64 {
        self.0.reads[side as usize].load(Ordering::SeqCst)
    }

    /// From now on everything that goes to this side fails.
    pub fn down(&self, side: Side, down: bool) {
        self.0.down[side as usize].store(down, Ordering::SeqCst);
    }

    pub fn way(&self, key: u32, way: Option<Way>) {
        let mut ways = self.0.ways.lock().unwrap();
        match way {
            Some(way) => ways.insert(name(key), way),
            None => ways.remove(&name(key)),
        };
    }

    pub fn assert_equal(&self) {
        assert_eq!(*self.old(), *self.newer());
    }

    async fn touch(&self, side: Side, key: &Key) -> Result<(), String> {
        sleep(Duration::from_millis(self.0.slow.load(Ordering::SeqCst))).await;
        if self.0.down[side as usize].load(Ordering::SeqCst) {
            return Err(format!("{side} is down"));
        }
        let way = self.0.ways.lock().unwrap().get(key.as_str()).copied();
        match way {
            None => Ok(()),
            Some(Way::Fails) => Err("on purpose".to_owned()),
            Some(Way::Panics) => std::panic::resume_unwind(Box::new("on purpose")),
            Some(Way::Hangs) => pending().await,
        }
    }
}

impl Rows for Tables {
    type Row = i64;
    type Error = String;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<i64>, String> {
        self.touch(side, key).await?;
        self.0.reads[side as usize].fetch_add(1, Ordering::SeqCst);
        Ok(self.on(side).get(key.as_str()).copied())
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&i64>) -> Result<(), String> {
        let between = self.0.between.lock().unwrap().take();
        if let Some(between) = between {
            between();
        }
        self.touch(side, key).await?;
        self.0.writes[side as usize].fetch_add(1, Ordering::SeqCst);
        match row {
            Some(row) => self.on(side).insert(key.to_string(), *row),
            None => self.on(side).remove(key.as_str()),
        };
        Ok(())
    }
}

impl Listing for Tables {
    type Error = Infallible;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>, Infallible> {
        self.0.pages.fetch_add(1, Ordering::SeqCst);
        let table = self.on(side);
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
        // Small pages: every walk has several.
        let rest = table.range::<str, _>((from, Bound::Unbounded)).take(limit.min(7));
        Ok(rest.map(|(key, _)| Key::from(&**key)).collect())
    }

    async fn count(&self, side: Side) -> Option<u64> {
        Some(self.on(side).len() as u64)
    }
}

pub fn name(key: u32) -> String {
    format!("/{key:04}")
}

/// The tables, the layer before them, and a service that goes through it.
pub struct World {
    pub tables: Tables,
    pub rig: Rig,
}

impl World {
    pub fn new() -> Self {
        Self::on(MigrationHandle::new("test"), |layer| layer)
    }

    pub fn on(
        handle: MigrationHandle,
        set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
    ) -> Self {
        Self::over(Tables::default(), handle, set)
    }

    pub fn over(
        tables: Tables,
        handle: MigrationHandle,
        set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
    ) -> Self {
        let [old, new] = Side::ALL.map(|side| served(&tables, side, |_| 0));
        Self { rig: Rig::on(handle, old, new, set), tables }
    }

    pub fn handle(&self) -> &MigrationHandle {
        &self.rig.handle
    }

    pub fn backfill(&self) -> Backfill<Tables> {
        Backfill::new(self.handle(), self.tables.clone()).listing(self.tables.clone())
    }

    pub fn verify(&self) -> Verify<Tables> {
        Verify::new(self.handle(), self.tables.clone()).listing(self.tables.clone())
    }

    pub fn repair(&self) -> Repair<Tables> {
        Repair::new(self.handle(), self.tables.clone())
    }

    pub async fn advance(&self) {
        self.handle().advance().await.unwrap();
    }
}

/// PUT sets, PATCH adds, DELETE removes; each after so many milliseconds.
pub fn served(
    tables: &Tables,
    side: Side,
    latency: impl Fn(u64) -> u64 + Send + Sync + 'static,
) -> Fake {
    let tables = tables.clone();
    let calls = AtomicU64::new(0);
    Fake::new(move |call| {
        let tables = tables.clone();
        let pause = latency(calls.fetch_add(1, Ordering::SeqCst));
        async move {
            sleep(Duration::from_millis(pause)).await;
            if tables.0.down[side as usize].load(Ordering::SeqCst) {
                return Ok(answer(500, "down"));
            }
            let key = call.uri.path().to_owned();
            let number = std::str::from_utf8(&call.body)?.parse().unwrap_or(0);
            let mut table = tables.on(side);
            Ok(match call.method {
                Method::GET => match table.get(&key) {
                    Some(row) => answer(200, row.to_string()),
                    None => answer(404, ""),
                },
                Method::PUT => {
                    table.insert(key, number);
                    answer(200, "")
                }
                // Of a row that is there: on new it is refused until it was copied.
                Method::PATCH => match table.get_mut(&key) {
                    Some(row) => {
                        *row += number;
                        answer(200, "")
                    }
                    None => answer(404, ""),
                },
                _ => answer(if table.remove(&key).is_some() { 204 } else { 404 }, ""),
            })
        }
    })
}

pub fn change(method: Method, key: u32, number: i64) -> Req {
    Request::builder().method(method).uri(name(key)).body(body(number.to_string())).unwrap()
}

pub fn set(key: u32, number: i64) -> Req {
    change(Method::PUT, key, number)
}
