//! Clients over HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http::{Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    history::{History, ICAOS},
    stores::{Airport, Rows},
};

const CLIENTS: usize = 3;
/// Far above what any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections to one process.
#[derive(Clone)]
pub struct Wire {
    address: SocketAddr,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// The connection broke, as it does when its process is killed.
    Broken,
    /// Nothing came for a long time.
    Hung,
}

impl Wire {
    pub fn to(address: SocketAddr) -> Self {
        Self { address, http: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Airport>,
    ) -> Result<(StatusCode, Bytes), Silence> {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri);
        let request = match body {
            Some(row) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(serde_json::to_vec(row).unwrap())),
            None => request.body(Full::default()),
        };
        let answered = async {
            let answer = self.http.request(request.unwrap()).await.map_err(|_| Silence::Broken)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|_| Silence::Broken)?;
            Ok((status, body.to_bytes()))
        };
        timeout(PATIENCE, answered).await.unwrap_or(Err(Silence::Hung))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        match self.ask(Method::GET, path, None).await {
            Ok((StatusCode::OK, body)) => {
                serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
            }
            other => Err(format!("{path}: {other:?}")),
        }
    }

    pub async fn status(&self) -> Result<serde_json::Value, String> {
        self.get("/status").await
    }

    /// What the two stores hold.
    pub async fn sides(&self) -> Result<[Rows; 2], String> {
        self.get("/sides").await
    }

    /// What a read through the service finds.
    async fn read(&self, icao: &str) -> Result<Result<Option<Airport>, String>, Silence> {
        let (status, body) = self.ask(Method::GET, &format!("/airports/{icao}"), None).await?;
        Ok(match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map(Some).map_err(|error| error.to_string())
            }
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(format!("a read of {icao} was answered {other}")),
        })
    }

    /// Reads every key through the service: nothing acknowledged may be missing.
    pub async fn judge(&self, history: &History) -> Result<(), String> {
        for icao in ICAOS {
            let acked = history.acked(icao);
            let found = self.read(icao).await.map_err(|why| format!("{icao}: {why:?}"))??;
            history.judge(icao, found.as_ref(), acked)?;
        }
        Ok(())
    }
}

/// Writes and reads until they are told to stop.
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    history: Arc<History>,
    /// The processes that take requests.
    wires: Mutex<Vec<Wire>>,
    stop: AtomicBool,
    deletes: bool,
    judges: bool,
}

impl Clients {
    /// `strict`: whatever a read finds is judged, and keys are deleted too.
    pub fn start(wires: Vec<Wire>, history: &Arc<History>, strict: bool, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            history: Arc::clone(history),
            wires: Mutex::new(wires),
            stop: AtomicBool::new(false),
            deletes: strict,
            judges: strict,
        });
        let mut seeds = Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            tasks.spawn(live(Arc::clone(&shared), client, seeds.fork()));
        }
        Self { shared, tasks }
    }

    /// From now on these processes are asked.
    pub fn ask(&self, wires: Vec<Wire>) {
        *self.shared.wires.lock().unwrap_or_else(PoisonError::into_inner) = wires;
    }

    pub async fn stop(mut self) -> Result<(), String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        self.shared.history.complaint().map_or(Ok(()), Err)
    }
}

async fn live(shared: Arc<Shared>, client: usize, mut rng: Rng) {
    let mine: Vec<_> = ICAOS.into_iter().skip(client).step_by(CLIENTS).collect();
    while !shared.stop.load(Ordering::SeqCst) {
        let wire = {
            let wires = shared.wires.lock().unwrap_or_else(PoisonError::into_inner);
            wires[rng.usize(..wires.len())].clone()
        };
        let done = if rng.u8(..10) < 3 {
            read(&shared, &wire, ICAOS[rng.usize(..ICAOS.len())]).await
        } else {
            let delete = shared.deletes && rng.u8(..12) == 0;
            write(&shared, &wire, mine[rng.usize(..mine.len())], delete).await
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(why)) => shared.history.complain(why),
            Err(Silence::Hung) => shared.history.complain("no answer for a long time".to_owned()),
            // Killed, or about to be.
            Err(Silence::Broken) => sleep(Duration::from_millis(2)).await,
        }
        // Else the side that nobody waits for falls behind for ever on a slow
        // machine, and no step finds its keys clean.
        sleep(Duration::from_micros(rng.u64(..4_000))).await;
    }
}

async fn read(
    shared: &Shared,
    wire: &Wire,
    icao: &'static str,
) -> Result<Result<(), String>, Silence> {
    let acked = if shared.judges { shared.history.acked(icao) } else { 0 };
    let found = wire.read(icao).await?;
    Ok(found.and_then(|found| shared.history.judge(icao, found.as_ref(), acked)))
}

async fn write(
    shared: &Shared,
    wire: &Wire,
    icao: &'static str,
    delete: bool,
) -> Result<Result<(), String>, Silence> {
    let history = &shared.history;
    let version = history.send(icao, delete);
    let row = Airport::new(icao, version);
    let (method, body) = if delete { (Method::DELETE, None) } else { (Method::PUT, Some(&row)) };
    let (status, body) = wire.ask(method, &format!("/airports/{icao}"), body).await?;
    Ok(if status == StatusCode::NO_CONTENT || (delete && status == StatusCode::NOT_FOUND) {
        history.ack(icao, version);
        Ok(())
    } else {
        Err(format!("version {version} of {icao} was answered {status}: {body:?}"))
    })
}
