//! A shadow as one writes it without the layer: quickly, and carefully.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use tokio::{
    sync::{RwLock, Semaphore},
    time::timeout,
};
use tower::{Service, service_fn};
use tower_migration::BoxError;

use crate::{
    servers::Servers,
    sides::{Health, side},
};

static EQUAL: AtomicU64 = AtomicU64::new(0);

/// How many both have compared and found equal.
pub(super) fn equal() -> u64 {
    EQUAL.load(Ordering::Relaxed)
}

/// What one would write: the client's answer, and a task that asks the other side and
/// compares. Nothing is bounded, named, counted by route or told from a race.
async fn spawned(
    mut old: Router,
    mut new: Router,
    request: Request,
) -> Result<Response, Infallible> {
    let (head, _) = request.into_parts();
    let copy = Request::from_parts(head.clone(), Body::empty());
    let answer = old.call(Request::from_parts(head, Body::empty())).await?;
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let (status, of_old) = (head.status, body.clone());
    tokio::spawn(async move {
        let Ok(answer) = new.call(copy).await;
        let same_status = answer.status() == status;
        let of_new = to_bytes(answer.into_body(), 1 << 20).await.unwrap_or_default();
        if same_status && of_new == of_old {
            EQUAL.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Serves it, with two routers that are made once, the new one of this health.
pub(super) fn start(servers: &Servers, new: Health) -> Result<SocketAddr, BoxError> {
    let (old, new) = (side(Health::Fine), side(new));
    servers.service(service_fn(move |request| spawned(old.clone(), new.clone(), request)))
}

/// What a careful one shares among its reads.
struct Careful {
    /// Whoever flips takes it whole, and so waits for the shadows under way.
    flag: Arc<RwLock<u8>>,
    slots: Arc<Semaphore>,
    /// How many reads are under way for a key, and how many writes of it have begun. None
    /// is made here; reads pay for looking all the same.
    keys: Mutex<HashMap<String, [u64; 2]>>,
    /// Found equal, raced by a write, different.
    routes: Mutex<HashMap<String, [u64; 3]>>,
}

impl Careful {
    fn begins(&self, key: &str) -> u64 {
        let mut keys = self.keys.lock().expect("no panic under it");
        if let Some([reads, writes]) = keys.get_mut(key) {
            *reads += 1;
            return *writes;
        }
        keys.insert(key.to_owned(), [1, 0]);
        0
    }

    /// How many writes have begun by now.
    fn ends(&self, key: &str) -> u64 {
        let mut keys = self.keys.lock().expect("no panic under it");
        let Some([reads, writes]) = keys.get_mut(key) else { return 0 };
        *reads -= 1;
        let (reads, writes) = (*reads, *writes);
        if reads == 0 {
            keys.remove(key);
        }
        writes
    }

    fn count(&self, route: &str, verdict: usize) {
        let mut routes = self.routes.lock().expect("no panic under it");
        match routes.get_mut(route) {
            Some(counts) => counts[verdict] += 1,
            None => {
                let mut counts = [0; 3];
                counts[verdict] = 1;
                routes.insert(route.to_owned(), counts);
            }
        }
    }
}

/// The same, but bounded, with a time limit, counted by route, told from a race, and asked
/// again before it is called different. A flip waits for it.
async fn careful(
    shared: Arc<Careful>,
    mut old: Router,
    mut new: Router,
    request: Request,
) -> Result<Response, Infallible> {
    let flag = Arc::clone(&shared.flag).read_owned().await;
    let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
        return old.call(request).await;
    };
    let (head, _) = request.into_parts();
    let key = head.uri.path().to_owned();
    let writes = shared.begins(&key);
    let asked = head.clone();
    let answer = old.call(Request::from_parts(head, Body::empty())).await?;
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let (status, headers, of_old) = (head.status, head.headers.clone(), body.clone());
    tokio::spawn(async move {
        let _held = (slot, flag);
        let mut equal = false;
        for _ in 0..2 {
            let request = Request::from_parts(asked.clone(), Body::empty());
            let Ok(answer) = timeout(Duration::from_secs(5), new.call(request)).await else {
                break;
            };
            let Ok(answer) = answer;
            let (head, body) = answer.into_parts();
            let of_new = to_bytes(body, 1 << 20).await.unwrap_or_default();
            equal = status == head.status && headers == head.headers && of_old == of_new;
            if equal {
                break;
            }
        }
        let raced = shared.ends(&key) != writes;
        shared.count(&key, if equal { 0 } else { 2 - usize::from(raced) });
        if equal {
            EQUAL.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Serves it, with as many slots as there may be reads under way.
pub(super) fn start_careful(servers: &Servers, new: Health) -> Result<SocketAddr, BoxError> {
    let (old, new) = (side(Health::Fine), side(new));
    let shared = Arc::new(Careful {
        flag: Arc::new(RwLock::new(1)),
        slots: Arc::new(Semaphore::new(100_000)),
        keys: Mutex::default(),
        routes: Mutex::default(),
    });
    servers.service(service_fn(move |request| {
        careful(Arc::clone(&shared), old.clone(), new.clone(), request)
    }))
}
