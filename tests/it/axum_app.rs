//! Whole axum applications, every way a layer can be put into one.

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Path, State},
    http::{Request, StatusCode},
    routing::{get, post, put},
};
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer, Side, Stage};

async fn walk(handle: &MigrationHandle, to: Stage) {
    while handle.stage() < to {
        handle.advance().await.unwrap();
        if handle.stage() == Stage::WriteBoth {
            handle.confirm_synced(Side::New).await.unwrap();
        }
    }
}

async fn ask(app: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::from("body")).unwrap()
}

/// A router that says who it is and what it extracted.
fn router(name: &'static str) -> Router {
    Router::new()
        .route(
            "/things/{id}",
            put(move |Path(id): Path<u32>, matched: MatchedPath, body: String| async move {
                format!("{name} {id} {} {body}", matched.as_str())
            })
            .get(
                move |Path(id): Path<u32>, State(state): State<&'static str>| async move {
                    format!("{name} {id} {state}")
                },
            ),
        )
        .with_state("state")
}

#[tokio::test]
async fn around_whole_routers_both_sides_route_for_themselves() {
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), router("new"))
        .failure_policy(FailurePolicy::RequireBoth);
    let app = Router::new().fallback_service(layer.layer(router("old")));
    for stage in Stage::ALL {
        walk(&handle, stage).await;
        let by = stage.authority();
        let (status, text) = ask(&app, request("GET", "/things/7")).await;
        assert_eq!((status, text), (StatusCode::OK, format!("{by} 7 state")));
        let (status, text) = ask(&app, request("PUT", "/things/7")).await;
        assert_eq!((status, text), (StatusCode::OK, format!("{by} 7 /things/{{id}} body")));
        let (status, _) = ask(&app, request("PUT", "/nowhere")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    assert!(handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn nested_under_a_prefix() {
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), router("new"))
        .failure_policy(FailurePolicy::RequireBoth);
    let app = Router::new().nest_service("/api", layer.layer(router("old")));
    for stage in Stage::ALL {
        walk(&handle, stage).await;
        let (status, text) = ask(&app, request("PUT", "/api/things/7")).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.starts_with(stage.authority().as_str()), "{text}");
    }
}

#[tokio::test]
async fn router_layer_shares_one_state_among_its_routes() {
    let handle = MigrationHandle::new("x");
    // A new side that does no routing: see the trap below.
    let new = tower::service_fn(|request: Request<Body>| async move {
        let text = format!("new {}", request.uri().path());
        Ok::<_, std::convert::Infallible>(axum::response::Response::new(Body::from(text)))
    });
    let app = Router::new()
        .route("/a/{id}", put(|Path(id): Path<String>| async move { format!("old {id}") }))
        .route("/b/{id}", put(|Path(id): Path<String>| async move { format!("old {id}") }))
        .layer(MigrationLayer::new(handle.clone(), new).failure_policy(FailurePolicy::RequireBoth));
    for stage in Stage::ALL {
        walk(&handle, stage).await;
        for path in ["/a/7", "/b/8"] {
            let (status, text) = ask(&app, request("PUT", path)).await;
            assert_eq!(status, StatusCode::OK);
            assert!(text.starts_with(stage.authority().as_str()), "{stage} {text}");
        }
    }
    assert!(handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn the_trap_a_routed_request_given_to_a_router_has_its_parameters_twice() {
    let handle = MigrationHandle::new("x");
    let app = router("old").layer(
        MigrationLayer::new(handle.clone(), router("new")).failure_policy(FailurePolicy::AwaitBoth),
    );
    walk(&handle, Stage::WriteBoth).await;
    let (status, _) = ask(&app, request("PUT", "/things/7")).await;
    assert_eq!(status, StatusCode::OK, "old does not notice");
    assert_eq!(handle.dirty_keys().len(), 1, "new answered 500, and that is not lost");
}

#[tokio::test]
async fn as_a_route_service_and_as_a_method_layer() {
    let handle = MigrationHandle::new("x");
    let text = |name: &'static str| {
        tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, std::convert::Infallible>(axum::response::Response::new(Body::from(name)))
        })
    };
    let layer = MigrationLayer::new(handle.clone(), text("new"));
    let app = Router::new()
        .route_service("/service", layer.layer(text("old")))
        .route("/method", get(|| async { "old" }).layer(layer));
    for stage in Stage::ALL {
        walk(&handle, stage).await;
        for path in ["/service", "/method"] {
            let (_, text) = ask(&app, request("GET", path)).await;
            assert_eq!(text, stage.authority().as_str());
        }
    }
}

#[tokio::test]
async fn in_a_service_builder_among_other_layers() {
    let handle = MigrationHandle::new("x");
    let service = ServiceBuilder::new()
        .concurrency_limit(4)
        .layer(MigrationLayer::new(handle.clone(), router("new")))
        .service(router("old"));
    walk(&handle, Stage::ReadNew).await;
    let response = service.oneshot(request("GET", "/things/1")).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes, "new 1 state");
}

#[tokio::test]
async fn what_travels_in_the_request_reaches_both_sides() {
    use std::net::SocketAddr;
    let side = |name: &'static str| {
        Router::new().route(
            "/who",
            post(move |ConnectInfo(who): ConnectInfo<SocketAddr>, body: String| async move {
                format!("{name} {} {}", who.port(), body.len())
            })
            .layer(DefaultBodyLimit::max(8)),
        )
    };
    let handle = MigrationHandle::new("x");
    let layer =
        MigrationLayer::new(handle.clone(), side("new")).failure_policy(FailurePolicy::RequireBoth);
    let app = Router::new().fallback_service(layer.layer(side("old")));
    walk(&handle, Stage::WriteBoth).await;
    let mut with_info = request("POST", "/who");
    with_info.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711))));
    assert_eq!(ask(&app, with_info).await, (StatusCode::OK, "old 4711 4".to_owned()));
    assert!(handle.status().sync.new.is_synced());

    let mut long = request("POST", "/who");
    long.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    *long.body_mut() = Body::from("longer than eight");
    let (status, _) = ask(&app, long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "both sides' own limit");
    assert!(handle.dirty_keys().is_empty());
}
