//! Over real sockets: clients that hang up, upgrades, HTTP/1.1 and HTTP/2.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ws::{Message, WebSocketUpgrade},
    routing::{any, get, put},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tower::Layer;
use tower_migration::{
    FailurePolicy, MigrationHandle, MigrationLayer, Side, Stage, UpgradeToken,
    body::{BoxRequestLayer, RequestBody},
};

/// Anything that takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(20);

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn synced(handle: &MigrationHandle) {
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
}

/// A side whose writes begin, wait to be allowed, and are counted at both ends.
#[derive(Clone)]
struct Slow {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    allowed: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        let count = || Arc::new(AtomicUsize::new(0));
        Self { begun: count(), ended: count(), allowed: Arc::new(Semaphore::new(0)) }
    }

    fn router(&self) -> Router {
        let this = self.clone();
        let write = move |_: String| {
            let this = this.clone();
            async move {
                this.begun.fetch_add(1, Ordering::SeqCst);
                this.allowed.acquire().await.unwrap().forget();
                this.ended.fetch_add(1, Ordering::SeqCst);
                "done"
            }
        };
        Router::new().route("/k", put(write).get(|| async { "read" }))
    }

    fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
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

const WRITE: &[u8] =
    b"PUT /k HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_at_any_point_leaves_both_sides_or_neither() {
    let (old, new) = (Slow::new(), Slow::new());
    let handle = MigrationHandle::new("x");
    let layer =
        MigrationLayer::new(handle.clone(), new.router()).failure_policy(FailurePolicy::AwaitBoth);
    let address = serve(Router::new().fallback_service(layer.layer(old.router()))).await;
    synced(&handle).await;
    let connect = || async {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(WRITE).await.unwrap();
        client
    };

    // Before the body has come.
    let mut client = connect().await;
    client.write_all(b"ha").await.unwrap();
    until("the write to be in flight", || handle.status().on_old.writes == 1).await;
    drop(client);
    until("the write to be gone", || handle.status().on_old.writes == 0).await;
    assert_eq!((old.counts(), new.counts()), ((0, 0), (0, 0)));

    // While both legs run.
    let mut client = connect().await;
    client.write_all(b"half").await.unwrap();
    until("both legs to begin", || old.counts().0 == 1 && new.counts().0 == 1).await;
    drop(client);
    old.allowed.add_permits(1);
    new.allowed.add_permits(1);
    until("both legs to end", || old.counts().1 == 1 && new.counts().1 == 1).await;

    // Between the legs: old has answered, new has not.
    let mut client = connect().await;
    client.write_all(b"half").await.unwrap();
    old.allowed.add_permits(1);
    until("old to end", || old.counts().1 == 2 && new.counts().0 == 2).await;
    drop(client);
    new.allowed.add_permits(1);
    until("new to end", || new.counts().1 == 2).await;

    // After the answer.
    let mut client = connect().await;
    client.write_all(b"half").await.unwrap();
    old.allowed.add_permits(1);
    new.allowed.add_permits(1);
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    drop(client);
    assert_eq!((old.counts(), new.counts()), ((3, 3), (3, 3)));

    timeout(LIMIT, handle.shutdown()).await.unwrap();
    assert!(handle.dirty_keys().is_empty());
    let status = handle.status();
    assert_eq!((status.on_old.writes, status.on_new.writes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_comes_at_once_whatever_the_other_side_does() {
    let (old, new) = (Slow::new(), Slow::new());
    old.allowed.add_permits(1);
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), new.router());
    let address = serve(Router::new().fallback_service(layer.layer(old.router()))).await;
    synced(&handle).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let write = Request::put(format!("http://{address}/k")).body(Full::from("half")).unwrap();
    let answer = timeout(LIMIT, client.request(write)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(new.counts().1, 0, "new still works on it");
    new.allowed.add_permits(1);
    timeout(LIMIT, handle.shutdown()).await.unwrap();
    assert_eq!(new.counts().1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_under_hyper_over_both_versions_of_http() {
    let side = |name: Side| {
        tower::service_fn(move |request: Request<RequestBody>| async move {
            let version = format!("{:?}", request.version());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{name} {version} {}", body.len());
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::<bytes::Bytes>::from(text)))
        })
    };
    let handle = MigrationHandle::new("bare");
    let layer = MigrationLayer::new(handle.clone(), side(Side::New))
        .noise(tower_migration::compare::Noise::off())
        .failure_policy(FailurePolicy::RequireBoth);
    let service = BoxRequestLayer.layer(layer.layer(side(Side::Old)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    for stage in Stage::ALL {
        if handle.stage() != stage {
            handle.move_to(stage).await.unwrap();
        }
        if stage == Stage::WriteBoth {
            handle.confirm_synced(Side::New).await.unwrap();
        }
        for (h2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
            let client = Client::builder(TokioExecutor::new())
                .http2_only(h2)
                .build_http::<Full<bytes::Bytes>>();
            let write =
                Request::post(format!("http://{address}/x")).body(Full::from("body")).unwrap();
            let answer = timeout(LIMIT, client.request(write)).await.unwrap().unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("{} {version} 4", stage.authority()));
        }
    }
    assert!(handle.status().sync.new.is_synced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_socket_is_the_authoritys_alone_and_is_counted_while_it_is_open() {
    let opened = Arc::new(AtomicUsize::new(0));
    let side = |name: &'static str| {
        let opened = Arc::clone(&opened);
        Router::new().route(
            "/ws",
            any(
                move |upgrade: WebSocketUpgrade, token: axum::Extension<UpgradeToken>| async move {
                    opened.fetch_add(1, Ordering::SeqCst);
                    upgrade.on_upgrade(move |mut socket| async move {
                        let _ = socket.send(Message::Text(name.into())).await;
                        while socket.recv().await.is_some() {}
                        drop(token);
                    })
                },
            ),
        )
    };
    let handle = MigrationHandle::new("ws");
    let layer = MigrationLayer::new(handle.clone(), side("new"))
        .noise(tower_migration::compare::Noise::off());
    let address = serve(Router::new().fallback_service(layer.layer(side("old")))).await;
    synced(&handle).await;
    handle.set_shadow_rate(1.0).unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"old") {
        let mut buffer = [0; 512];
        let n = timeout(LIMIT, client.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    assert_eq!(handle.status().upgraded_on_old, 1);
    let moved = handle.advance().await.unwrap();
    assert_eq!(moved.upgraded, 1, "named by the step, and no reason to refuse it");
    drop(client);
    until("the socket to close", || handle.status().upgraded_on_old == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_modified_no_content_head_and_huge_answers_pass_through_while_shadowed() {
    const HUGE: usize = 8 << 20;
    let side = || {
        Router::new()
            .route("/none", get(|| async { StatusCode::NO_CONTENT }))
            .route("/same", get(|| async { StatusCode::NOT_MODIFIED }))
            .route("/text", get(|| async { "text" }))
            .route("/huge", get(|| async { Body::from(vec![7; HUGE]) }))
    };
    let handle = MigrationHandle::new("x");
    let layer =
        MigrationLayer::new(handle.clone(), side()).noise(tower_migration::compare::Noise::off());
    let address = serve(Router::new().fallback_service(layer.layer(side()))).await;
    synced(&handle).await;
    handle.set_shadow_rate(1.0).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    for (method, path, status, length) in [
        ("GET", "none", 204, 0),
        ("GET", "same", 304, 0),
        ("GET", "text", 200, 4),
        ("HEAD", "text", 200, 0),
        ("HEAD", "huge", 200, 0),
        ("OPTIONS", "text", 405, 0),
        ("GET", "huge", 200, HUGE),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}/{path}"))
            .body(Full::default())
            .unwrap();
        let answer = timeout(LIMIT, client.request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        if method == "HEAD" && path == "text" {
            assert_eq!(answer.headers()["content-length"], "4");
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), length, "{method} {path}");
    }
    timeout(LIMIT, handle.shutdown()).await.unwrap();
    assert!(handle.recent_mismatches().is_empty(), "{:?}", handle.recent_mismatches());
}

/// Writers and readers over sockets, on a runtime with threads, while the flag
/// goes there and back; what was acknowledged must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_acknowledged_write_is_lost_while_the_flag_goes_there_and_back() {
    use std::{collections::HashMap, sync::Mutex};
    type Rows = Arc<Mutex<HashMap<String, u64>>>;
    let store = || {
        let rows = Rows::default();
        let (put_rows, get_rows) = (Arc::clone(&rows), Arc::clone(&rows));
        let write = move |axum::extract::Path(key): axum::extract::Path<String>, body: String| {
            let rows = Arc::clone(&put_rows);
            async move {
                tokio::time::sleep(Duration::from_micros(fastrand::u64(0..2_000))).await;
                rows.lock().unwrap().insert(key, body.parse().unwrap());
            }
        };
        let read = move |axum::extract::Path(key): axum::extract::Path<String>| {
            let rows = Arc::clone(&get_rows);
            async move { rows.lock().unwrap().get(&key).copied().unwrap_or(0).to_string() }
        };
        (Router::new().route("/{key}", put(write).get(read)), rows)
    };
    let ((old, in_old), (new, in_new)) = (store(), store());
    let handle = MigrationHandle::new("x");
    let layer =
        MigrationLayer::new(handle.clone(), new).noise(tower_migration::compare::Noise::off());
    let address = serve(Router::new().fallback_service(layer.layer(old))).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let uri = format!("http://{address}/{n}");
                let mut last = 0_u64;
                while !stop.load(Ordering::SeqCst) {
                    last += 1;
                    let body = Full::from(last.to_string());
                    let write = Request::put(&uri).body(body).unwrap();
                    assert_eq!(client.request(write).await.unwrap().status(), 200);
                    let read = Request::get(&uri).body(Full::default()).unwrap();
                    let seen = client.request(read).await.unwrap();
                    let seen = seen.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(seen, last.to_string(), "a read after its own write");
                }
                last
            })
        })
        .collect();
    let pause = || tokio::time::sleep(Duration::from_millis(30));
    handle.advance().await.unwrap();
    handle.settled().await;
    for n in 0..8 {
        let key = n.to_string();
        let copy = || async {
            let row = in_old.lock().unwrap().get(&key).copied();
            if let Some(row) = row {
                in_new.lock().unwrap().insert(key.clone(), row);
            }
            Ok::<(), std::convert::Infallible>(())
        };
        handle.copy_key(&format!("/{n}").as_str().into(), Side::Old, copy).await.unwrap();
    }
    handle.confirm_synced(Side::New).await.unwrap();
    for _ in 0..10 {
        for to in [Stage::ReadNew, Stage::WriteBoth] {
            pause().await;
            timeout(LIMIT, handle.move_to(to)).await.unwrap().unwrap();
        }
    }
    pause().await;
    stop.store(true, Ordering::SeqCst);
    for (n, client) in clients.into_iter().enumerate() {
        let last = client.await.unwrap();
        assert!(last > 10, "client {n} made {last} writes");
        timeout(LIMIT, handle.shutdown()).await.unwrap();
        assert_eq!(in_old.lock().unwrap()[&n.to_string()], last);
        assert_eq!(in_new.lock().unwrap()[&n.to_string()], last);
    }
    assert!(handle.dirty_keys().is_empty());
}
