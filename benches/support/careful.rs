//! A dual write and a shadow as a careful team writes them by hand: without the layer,
//! but with most of what it promises.
//!
//! `join!` and an empty spawn promise nothing, so what lies between them and the layer
//! is two things: what the promises cost whoever keeps them, and what the layer costs
//! beyond. This tells one from the other. What it does not do, and the layer does: ask
//! the authority again as well before it calls an answer different, wait for a side to be
//! ready, keep a leg's place while it outlives its time limit, `RequireBoth`, spans and
//! labels for the handlers, bodies of any length, synced and unsynced sides, a journal,
//! metrics. A flip waits for its shadows, too.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::{
    sync::{
        Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock,
        Semaphore, oneshot,
    },
    time::{sleep, timeout},
};
use tower_service::Service;

use super::{Broken, Hello, Other, Req, Res};

/// As long as a leg or a shadow may take.
const AT_MOST: Duration = Duration::from_secs(10);

/// As many as may be under way.
const SHADOWS: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Careful {
    shared: Arc<Shared>,
    awaits_both: bool,
}

#[derive(Debug)]
struct Shared {
    /// Whoever flips takes it whole, and so waits for the writes under way.
    flag: Arc<RwLock<u8>>,
    writes: Arc<Semaphore>,
    shadows: Arc<Semaphore>,
    keys: Mutex<HashMap<String, Key>>,
    dirty: Mutex<HashSet<String>>,
    routes: Mutex<HashMap<String, Counts>>,
    reads: AtomicU64,
}

/// A key that something is under way for.
#[derive(Debug, Default)]
struct Key {
    /// Held by the write whose turn it is, until both legs have ended.
    turn: Arc<AsyncMutex<()>>,
    /// Writes that have begun, so that a read knows whether it raced one.
    begun: u64,
    users: usize,
}

#[derive(Debug, Default)]
struct Counts {
    equal: u64,
    raced: u64,
    differ: u64,
}

impl Shared {
    fn keys(&self) -> MutexGuard<'_, HashMap<String, Key>> {
        self.keys.lock().expect("no panic under it")
    }
}

/// A key in use; forgotten by the last one who uses it.
#[derive(Debug)]
struct Use {
    shared: Arc<Shared>,
    key: String,
    begun: u64,
    /// A write was under way when this began.
    crowded: bool,
    turn: Arc<AsyncMutex<()>>,
}

impl Use {
    fn new(shared: &Arc<Shared>, key: &str, of_a_write: bool) -> Self {
        let mut keys = shared.keys();
        if !keys.contains_key(key) {
            keys.insert(key.to_owned(), Key::default());
        }
        let entry = keys.get_mut(key).expect("just made");
        entry.users += 1;
        entry.begun += u64::from(of_a_write);
        let (begun, turn) = (entry.begun, Arc::clone(&entry.turn));
        let crowded = !of_a_write && turn.try_lock().is_err();
        drop(keys);
        Self { shared: Arc::clone(shared), key: key.to_owned(), begun, crowded, turn }
    }

    fn raced(&self) -> bool {
        if self.crowded {
            return true;
        }
        let keys = self.shared.keys();
        keys.get(&self.key)
            .is_none_or(|key| key.begun != self.begun || key.turn.try_lock().is_err())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut keys = self.shared.keys();
        if let Some(key) = keys.get_mut(&self.key) {
            key.users -= 1;
            if key.users == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

/// A write under way. Whatever ends it before both sides have taken it (a panic, a time
/// limit, the end of the runtime) leaves its key dirty.
#[derive(Debug)]
struct Write {
    both: bool,
    of: Use,
    _turn: OwnedMutexGuard<()>,
    _slot: OwnedSemaphorePermit,
    _flag: OwnedRwLockReadGuard<u8>,
}

impl Write {
    /// Takes all of it, so that all of it goes with the task: one field, which is what a
    /// closure would capture, would not hold the turn.
    fn ended(mut self, both: bool) {
        self.both = both;
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.both {
            let mut dirty = self.of.shared.dirty.lock().expect("no panic under it");
            dirty.insert(self.of.key.clone());
        }
    }
}

/// One leg: neither a panic nor a side that hangs reaches the other one.
async fn leg(call: impl Future<Output = Result<Res, Broken>>) -> Result<Res, Broken> {
    match timeout(AT_MOST, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        _ => Err(Broken),
    }
}

fn applied(answer: &Result<Res, Broken>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.status().is_success())
}

async fn whole(body: Full<Bytes>) -> Bytes {
    let Ok(body) = body.collect().await;
    body.to_bytes()
}

impl Careful {
    pub(crate) fn new(awaits_both: bool) -> Self {
        let shared = Shared {
            flag: Arc::new(RwLock::new(1)),
            writes: Arc::new(Semaphore::new(1024)),
            shadows: Arc::new(Semaphore::new(SHADOWS)),
            keys: Mutex::default(),
            dirty: Mutex::default(),
            routes: Mutex::default(),
            reads: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), awaits_both }
    }

    /// To both sides, in a task that no client who hangs up can end. The next write of
    /// the key waits for both legs: the layer's waits on each side for that side's.
    pub(crate) async fn write(&self, request: Req) -> Result<Res, Broken> {
        let flag = Arc::clone(&self.shared.flag).read_owned().await;
        let slot = Arc::clone(&self.shared.writes).try_acquire_owned().map_err(|_| Broken)?;
        let (head, body) = request.into_parts();
        let body = whole(body).await;
        let of = Use::new(&self.shared, head.uri.path(), true);
        let turn = Arc::clone(&of.turn).lock_owned().await;
        let write = Write { both: false, of, _turn: turn, _slot: slot, _flag: flag };

        let copy = Req::from_parts(head.clone(), Full::new(body.clone()));
        let request = Req::from_parts(head, Full::new(body));
        if self.awaits_both {
            let both = tokio::spawn(async move {
                let (old, new) = (leg(Hello.call(request)), leg(Hello.call(copy)));
                let (old, new) = tokio::join!(old, new);
                write.ended(applied(&old) && applied(&new));
                old
            });
            return both.await.unwrap_or(Err(Broken));
        }
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let old = async {
                let answer = leg(Hello.call(request)).await;
                let applied = applied(&answer);
                // A client who has hung up does not want it.
                let _ = tell.send(answer);
                applied
            };
            let (old, new) = tokio::join!(old, leg(Hello.call(copy)));
            write.ended(old && applied(&new));
        });
        told.await.unwrap_or(Err(Broken))
    }

    /// From the authority; the other side is asked in a task, and compared.
    pub(crate) async fn read(&self, request: Req) -> Result<Res, Broken> {
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        let flag = Arc::clone(&self.shared.flag).read_owned().await;
        let Ok(slot) = Arc::clone(&self.shared.shadows).try_acquire_owned() else {
            return Hello.call(request).await;
        };
        let of = Use::new(&self.shared, request.uri().path(), false);
        let copy = request.clone();
        let (head, body) = Hello.call(request).await?.into_parts();
        let body = whole(body).await;
        let (status, headers, of_old) = (head.status, head.headers.clone(), body.clone());
        tokio::spawn(async move {
            let _held = (slot, flag);
            let equal = async |copy: Req| {
                let Ok(answer) = leg(Other::Fine.call(copy)).await else { return false };
                let (head, body) = answer.into_parts();
                status == head.status && headers == head.headers && of_old == whole(body).await
            };
            // Once more, before anybody is told.
            let equal = equal(copy.clone()).await || equal(copy).await;
            let raced = of.raced();
            let mut routes = of.shared.routes.lock().expect("no panic under it");
            if !routes.contains_key(&of.key) {
                routes.insert(of.key.clone(), Counts::default());
            }
            let counts = routes.get_mut(&of.key).expect("just made");
            match (equal, raced) {
                (true, _) => counts.equal += 1,
                (false, true) => counts.raced += 1,
                (false, false) => counts.differ += 1,
            }
        });
        Ok(Response::from_parts(head, Full::new(body)))
    }

    pub(crate) async fn shadows_have_ended(&self) {
        while self.shared.shadows.available_permits() < SHADOWS {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// A bench that left some of it out has measured something else.
    pub(crate) fn all_was_done(&self) {
        assert!(self.shared.dirty.lock().expect("no panic").is_empty(), "a leg was not run");
        assert!(self.shared.keys().is_empty(), "a task was not run");
        let routes = self.shared.routes.lock().expect("no panic");
        let equal: u64 = routes.values().map(|counts| counts.equal).sum();
        let reads = self.shared.reads.load(Ordering::Relaxed);
        assert_eq!(equal, reads, "some were not compared, or not equal");
    }
}
