//! Over real sockets, with both versions of HTTP.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body as AxumBody, routing::put};
use futures_util::StreamExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tower_migration::body::SlowLeg;

use super::*;

/// Anything that takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(20);
const LENGTH: usize = 32 << 20;

/// What a side's handlers have come to.
#[derive(Clone, Default)]
struct Tally {
    begun: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    whole: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Tally {
    fn router(&self) -> Router {
        let this = self.clone();
        let upload = move |body: AxumBody| {
            let this = this.clone();
            async move {
                this.begun.fetch_add(1, Ordering::SeqCst);
                let mut chunks = body.into_data_stream();
                while let Some(chunk) = chunks.next().await {
                    let Ok(chunk) = chunk else {
                        this.broken.fetch_add(1, Ordering::SeqCst);
                        return http::StatusCode::INTERNAL_SERVER_ERROR;
                    };
                    this.bytes.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                this.whole.fetch_add(1, Ordering::SeqCst);
                http::StatusCode::CREATED
            }
        };
        let early = || async { http::StatusCode::ACCEPTED };
        Router::new().route("/k", put(upload)).route("/early", put(early))
    }

    /// Begun, whole, broken.
    fn counts(&self) -> [usize; 3] {
        [&self.begun, &self.whole, &self.broken].map(|count| count.load(Ordering::SeqCst))
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }
}

struct Server {
    handle: MigrationHandle,
    old: Tally,
    new: Tally,
    address: SocketAddr,
    /// The task of each connection.
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    async fn start(old: Tally, old_routes: Router) -> Self {
        let new = Tally::default();
        let handle = MigrationHandle::new("x");
        let layer = MigrationLayer::new(handle.clone(), new.router())
            .stream_bodies(Streaming::new().above(0).slow_leg(SlowLeg::Hold(LIMIT)))
            .unwrap();
        let app = Router::new().fallback_service(layer.layer(old_routes));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<Vec<JoinHandle<()>>>>::default();
        let tasks = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(app.clone());
                let task = tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
                tasks.lock().unwrap().push(task);
            }
        });
        handle.advance().await.unwrap();
        handle.confirm_synced(Side::New).await.unwrap();
        Self { handle, old, new, address, connections }
    }

    async fn new() -> Self {
        let old = Tally::default();
        let routes = old.router();
        Self::start(old, routes).await
    }

    fn client(&self, h2: bool) -> (Client<HttpConnector, Body>, String) {
        let client = Client::builder(TokioExecutor::new()).http2_only(h2).build_http();
        (client, format!("http://{}", self.address))
    }

    fn is_settled(&self) -> bool {
        let status = self.handle.status();
        (status.on_old.writes, status.on_new.writes) == (0, 0)
    }

    fn dirty(&self) -> usize {
        self.handle.dirty_keys().len()
    }

    /// Both sides have begun, read so many bytes, and are still at it.
    async fn reads(&self, bytes: usize) {
        until("both sides to read", || self.old.bytes() == bytes && self.new.bytes() == bytes)
            .await;
        assert_eq!((self.old.counts(), self.new.counts()), ([1, 0, 0], [1, 0, 0]));
    }

    /// Neither side has taken the part for the whole.
    async fn both_break_off(&self) {
        until("the legs to end", || self.is_settled()).await;
        assert_eq!((self.old.counts(), self.new.counts()), ([1, 0, 1], [1, 0, 1]));
        assert_eq!(self.dirty(), 1);
        timeout(LIMIT, self.handle.shutdown()).await.unwrap();
    }
}

/// Waits for something that another task brings about.
async fn until(what: &str, check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_reach_both_sides_whole() {
    for h2 in [false, true] {
        let server = Server::new().await;
        let (client, at) = server.client(h2);
        for length in [None, Some(LENGTH)] {
            let chunks = (0..LENGTH >> 16).map(|_| Ok(Frame::data(Bytes::from(vec![7; 1 << 16]))));
            let chunks = futures_util::stream::iter(chunks);
            let mut request = Request::put(format!("{at}/k"));
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let request = request.body(Body::new(http_body_util::StreamBody::new(chunks))).unwrap();
            let answer = timeout(LIMIT, client.request(request)).await.unwrap().unwrap();
            assert_eq!(answer.status(), 201);
        }
        timeout(LIMIT, server.handle.shutdown()).await.unwrap();
        for side in [&server.old, &server.new] {
            assert_eq!((side.counts(), side.bytes()), ([2, 2, 0], 2 * LENGTH), "h2: {h2}");
        }
        assert_eq!(server.dirty(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_in_the_middle_breaks_it_off_on_both_sides() {
    for h2 in [false, true] {
        let server = Server::new().await;
        let (client, at) = server.client(h2);
        let (feed, request) = upload(&format!("{at}/k"));
        let sent = tokio::spawn(client.request(request));
        feed.gives("half");
        server.reads(4).await;
        // h1 closes the connection, h2 resets the stream.
        sent.abort();
        drop(client);
        server.both_break_off().await;
    }
}

/// As raw bytes, so that it is known where the client stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_that_ends_a_body_too_early_or_not_at_all() {
    for (head, half) in [
        ("content-length: 10\r\n", "half"),
        ("transfer-encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("transfer-encoding: chunked\r\n", "4\r\nhalf\r\n9\r\n"),
    ] {
        for shutdown_only in [true, false] {
            let server = Server::new().await;
            let mut client = TcpStream::connect(server.address).await.unwrap();
            let head = format!("PUT /k HTTP/1.1\r\nhost: x\r\n{head}\r\n{half}");
            client.write_all(head.as_bytes()).await.unwrap();
            server.reads(4).await;
            if shutdown_only {
                client.shutdown().await.unwrap();
                server.both_break_off().await;
            } else {
                drop(client);
                server.both_break_off().await;
            }
        }
    }
}

/// A server that stops, or has lost its patience, drops the connection's task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_a_connection_that_the_server_drops() {
    for (h2, length) in [(false, None), (false, Some(10)), (true, None), (true, Some(10))] {
        let server = Server::new().await;
        let (client, at) = server.client(h2);
        let (feed, mut request) = upload(&format!("{at}/k"));
        if let Some(length) = length {
            request.headers_mut().insert("content-length", length.into());
        }
        let sent = tokio::spawn(client.request(request));
        feed.gives("half");
        server.reads(4).await;
        server.connections.lock().unwrap().drain(..).for_each(|task| task.abort());
        server.both_break_off().await;
        assert!(timeout(LIMIT, sent).await.unwrap().unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_side_gets_the_rest_after_the_authority_has_answered() {
    for h2 in [false, true] {
        let old = Tally::default();
        let server = Server::start(old, Router::new().route("/k", put(|| async { "early" }))).await;
        let (client, at) = server.client(h2);
        let (mut feed, request) = upload(&format!("{at}/k"));
        feed.gives("one ");
        let answer = timeout(LIMIT, client.request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let body = timeout(LIMIT, answer.into_body().collect()).await.unwrap();
        let went_on = body.is_ok();
        feed.gives("two");
        feed.ends();
        until("new to end", || server.is_settled()).await;
        let [begun, whole, broken] = server.new.counts();
        assert_eq!((begun, whole + broken), (1, 1));
        // Whole, or broken and dirty: whether a client goes on is its business.
        assert_eq!((whole, server.dirty()), if broken == 0 { (1, 0) } else { (0, 1) });
        if whole == 1 {
            assert_eq!(server.new.bytes(), 7);
        }
        println!("h2: {h2}, answered: {went_on}, whole: {whole}");
        drop(client);
    }
}
