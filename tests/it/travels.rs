//! What travels in a request and in its answer, over real sockets and both
//! versions of HTTP: through the layer, in every stage, to both sides.

mod bodies;
mod chunks;
mod continues;
mod ends;
mod extractors;
mod faucet;
mod h2;
mod limits;
mod memory;
mod nesting;
mod open_streams;
mod raw;
mod resets;
mod trailers;
mod wire;
mod write_streams;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Builder};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, time::timeout};
use tower::Layer;
use tower_migration::{
    FailurePolicy, Migration, MigrationHandle, MigrationLayer, Operation, Side, Stage,
    protocol::{ByMethod, Classify, Head},
};

use self::faucet::Faucet;

/// Anything that takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(20);

const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth];

/// Waits for something that must come soon.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// Waits for something that another task brings about.
async fn until(what: &str, check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(what, wait).await;
}

/// One side's seat: who it is, and what its handlers have noted.
#[derive(Clone)]
struct Seat {
    side: Side,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Seat {
    fn new(side: Side) -> Self {
        Self { side, notes: Arc::default() }
    }

    fn note(&self, text: impl Into<String>) {
        self.notes.lock().unwrap().push(text.into());
    }

    fn noted(&self) -> usize {
        self.notes.lock().unwrap().len()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }
}

/// The version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    H1,
    H2,
}

impl Wire {
    const BOTH: [Self; 2] = [Self::H1, Self::H2];
}

type Layered = Migration<Router, Router>;

/// A served application whose old and new are made alike, with a client of
/// each kind.
struct Rig {
    handle: MigrationHandle,
    address: SocketAddr,
    seats: [Seat; 2],
    clients: [Client<HttpConnector, Body>; 2],
}

fn whole(layered: Layered) -> Router {
    Router::new().fallback_service(layered)
}

fn keep(layer: MigrationLayer<Router>) -> MigrationLayer<Router> {
    layer
}

/// `POST /search` is a read.
fn search_is_a_read(head: &Head<'_>) -> Operation {
    match head.uri.path() {
        "/search" => Operation::Read,
        _ => ByMethod.classify(head),
    }
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

impl Rig {
    /// Around whole routers; answers wait for both sides, and every read is
    /// shadowed.
    async fn new(side: impl Fn(Seat) -> Router) -> Self {
        Self::with(side, keep, whole).await
    }

    async fn with(
        side: impl Fn(Seat) -> Router,
        set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
        put: impl FnOnce(Layered) -> Router,
    ) -> Self {
        Self::on(MigrationHandle::new("travels"), side, set, put).await
    }

    async fn on(
        handle: MigrationHandle,
        side: impl Fn(Seat) -> Router,
        set: impl FnOnce(MigrationLayer<Router>) -> MigrationLayer<Router>,
        put: impl FnOnce(Layered) -> Router,
    ) -> Self {
        let seats = Side::ALL.map(Seat::new);
        let [old, new] = seats.clone().map(side);
        let layer = MigrationLayer::new(handle.clone(), new)
            .noise(tower_migration::compare::Noise::off())
            .failure_policy(FailurePolicy::RequireBoth)
            .classify(search_is_a_read);
        let app = put(set(layer).layer(old));
        Self::serving(handle, seats, app).await
    }

    async fn serving(handle: MigrationHandle, seats: [Seat; 2], app: Router) -> Self {
        handle.set_shadow_rate(1.0).unwrap();
        let address = serve(app).await;
        let clients = Wire::BOTH.map(|wire| {
            let mut client = Client::builder(TokioExecutor::new());
            client.http2_only(wire == Wire::H2).build(HttpConnector::new())
        });
        Self { handle, address, seats, clients }
    }

    async fn walk(&self, to: Stage) {
        while self.handle.stage() < to {
            soon("a step", self.handle.advance()).await.unwrap();
            if self.handle.stage() == Stage::WriteBoth {
                soon("a word", self.handle.confirm_synced(Side::New)).await.unwrap();
            }
        }
    }

    async fn at(self, stage: Stage) -> Self {
        self.walk(stage).await;
        self
    }

    fn request(&self, method: &str, path: &str) -> Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    async fn send(&self, wire: Wire, request: Request<Body>) -> Response<Incoming> {
        let what = format!("{wire:?} {} {}", request.method(), request.uri());
        soon(&what, self.clients[wire as usize].request(request)).await.unwrap()
    }

    async fn ask(&self, wire: Wire, request: Request<Body>) -> (StatusCode, String) {
        let response = self.send(wire, request).await;
        let status = response.status();
        (status, text(response).await)
    }

    /// The sides that must see a request, one way or the other.
    fn reached(&self) -> Vec<&Seat> {
        let stage = self.handle.stage();
        let reached = |seat: &&Seat| stage.is_two_sided() || stage.authority() == seat.side;
        self.seats.iter().filter(reached).collect()
    }

    fn seat(&self, side: Side) -> &Seat {
        &self.seats[usize::from(side == Side::New)]
    }

    /// Takes what the sides that are needed have noted, one note each, and
    /// checks that it is this, and that the other side noted nothing.
    async fn saw(&self, expected: &str) {
        let stage = self.handle.stage();
        for seat in self.reached() {
            let side = seat.side;
            until(&format!("{side} at {stage} to see it"), || seat.noted() > 0).await;
            assert_eq!(seat.take(), [expected], "{side} at {stage}");
        }
        for seat in &self.seats {
            assert_eq!(seat.take(), [""; 0], "{} at {stage} is not needed", seat.side);
        }
    }

    fn writes(&self) -> (u64, u64) {
        let status = self.handle.status();
        (status.on_old.writes, status.on_new.writes)
    }

    /// Nothing that was sent has left the sides apart.
    fn is_clean(&self) {
        assert!(self.handle.dirty_keys().is_empty(), "{:?}", self.handle.dirty_keys());
        assert!(
            self.handle.recent_mismatches().is_empty(),
            "{:?}",
            self.handle.recent_mismatches()
        );
        let evidence = self.handle.evidence();
        assert_eq!(evidence.shadows.failed, 0, "{evidence}");
    }
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let body = soon("the answer's end", response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// The next chunk of an answer, or `None` at its end.
async fn chunk(body: &mut Incoming) -> Option<String> {
    loop {
        let frame = soon("a chunk", body.frame()).await?.unwrap();
        let data = frame.into_data().unwrap();
        // An empty frame of HTTP/2 says that the stream has ended.
        if !data.is_empty() {
            return Some(String::from_utf8(data.to_vec()).unwrap());
        }
    }
}
