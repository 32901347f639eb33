//! Matched paths, nested routers and the original URI, wherever the layer is.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, OriginalUri, Path, Request},
    http::StatusCode,
    response::Response,
    routing::{any_service, get, put},
};
use tower::{Layer, Service};
use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer, Side, Stage};

use super::{Rig, Seat, Wire, keep, whole};

/// A router that notes how the request came to it.
fn routes(seat: Seat) -> Router {
    let any = async move |matched: MatchedPath,
                          OriginalUri(original): OriginalUri,
                          Path(path): Path<Vec<(String, String)>>,
                          request: Request| {
        let path: Vec<_> = path.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let uri = request.uri().path_and_query().unwrap();
        let original = original.path_and_query().unwrap();
        seat.note(format!("{} {} {uri} {original}", matched.as_str(), path.join(",")));
    };
    Router::new().route("/things/{id}", put(any.clone()).get(any))
}

async fn everywhere(rig: &Rig, path: &str, seen: &str) {
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            for method in ["PUT", "GET"] {
                let request = rig.request(method, path).body(Body::empty()).unwrap();
                let (status, text) = rig.ask(wire, request).await;
                assert_eq!(status, StatusCode::OK, "{stage} {wire:?} {method} {text}");
                rig.saw(seen).await;
            }
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn around_whole_routers() {
    let rig = Rig::new(routes).await;
    everywhere(&rig, "/things/7?x=1", "/things/{id} id=7 /things/7?x=1 /things/7?x=1").await;
}

#[tokio::test]
async fn inside_nest_service() {
    let rig = Rig::with(routes, keep, |layered| Router::new().nest_service("/api", layered)).await;
    let seen = "/api/things/{id} id=7 /things/7?x=1 /api/things/7?x=1";
    everywhere(&rig, "/api/things/7?x=1", seen).await;
}

#[tokio::test]
async fn inside_nest_service_with_a_parameter() {
    let put_it = |layered| Router::new().nest_service("/of/{tenant}", layered);
    let rig = Rig::with(routes, keep, put_it).await;
    let seen = "/of/{tenant}/things/{id} tenant=a,id=7 /things/7 /of/a/things/7";
    everywhere(&rig, "/of/a/things/7", seen).await;
}

#[tokio::test]
async fn sides_that_nest_routers_themselves() {
    let side = |seat| Router::new().nest("/v1", Router::new().nest("/{tenant}", routes(seat)));
    let rig = Rig::new(side).await;
    let seen = "/v1/{tenant}/things/{id} tenant=a,id=7 /things/7 /v1/a/things/7";
    everywhere(&rig, "/v1/a/things/7", seen).await;
}

#[tokio::test]
async fn sides_that_nest_inside_a_nested_layer() {
    let side = |seat| Router::new().nest("/v1", routes(seat));
    let rig = Rig::with(side, keep, |layered| Router::new().nest_service("/api", layered)).await;
    let seen = "/api/v1/things/{id} id=7 /things/7 /api/v1/things/7";
    everywhere(&rig, "/api/v1/things/7", seen).await;
}

#[tokio::test]
async fn beside_routes_of_an_outer_router() {
    let put_it = |layered| whole(layered).route("/health", get(|| async { "well" }));
    let rig = Rig::with(routes, keep, put_it).await;
    everywhere(&rig, "/things/7", "/things/{id} id=7 /things/7 /things/7").await;
    let health = rig.request("GET", "/health").body(Body::empty()).unwrap();
    assert_eq!(rig.ask(Wire::H1, health).await, (StatusCode::OK, "well".to_owned()));
    let nowhere = rig.request("PUT", "/nowhere").body(Body::empty()).unwrap();
    assert_eq!(rig.ask(Wire::H1, nowhere).await.0, StatusCode::NOT_FOUND);
}

/// A side that does no routing: it notes what the outer router found out.
fn found(
    seat: Seat,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: Request| {
        let extensions = request.extensions();
        let matched = extensions.get::<MatchedPath>().unwrap().as_str();
        let original = extensions.get::<OriginalUri>().unwrap().path_and_query().unwrap();
        seat.note(format!("{matched} id=7 {} {original}", request.uri().path()));
        async { Ok(Response::new(Body::empty())) }
    })
}

/// In `Router::layer` and below, the new side is a service that does no routing.
#[tokio::test]
async fn inside_router_layer_the_new_side_sees_what_the_outer_router_matched() {
    for inside in [true, false] {
        let seats = Side::ALL.map(Seat::new);
        let handle = MigrationHandle::new("travels");
        let layer = MigrationLayer::new(handle.clone(), found(seats[1].clone()))
            .noise(tower_migration::compare::Noise::off())
            .failure_policy(FailurePolicy::RequireBoth);
        let old = routes(seats[0].clone());
        let app = match inside {
            true => Router::new().nest("/api", old.layer(layer)),
            false => Router::new().nest("/api", old).layer(layer),
        };
        let rig = Rig::serving(handle, seats, app).await;
        if inside {
            let seen = "/api/things/{id} id=7 /things/7 /api/things/7";
            everywhere(&rig, "/api/things/7", seen).await;
            continue;
        }
        // Around what is nested, the prefix is still there for new.
        for stage in Stage::ALL {
            rig.walk(stage).await;
            let request = rig.request("PUT", "/api/things/7").body(Body::empty()).unwrap();
            assert_eq!(rig.ask(Wire::H1, request).await.0, StatusCode::OK);
            for seat in rig.reached() {
                let path = if seat.side == Side::Old { "/things/7" } else { "/api/things/7" };
                let seen = format!("/api/things/{{id}} id=7 {path} /api/things/7");
                assert_eq!(seat.take(), [seen], "{} at {stage}", seat.side);
            }
        }
    }
}

#[tokio::test]
async fn a_route_service_and_a_layered_method_see_what_the_outer_router_matched() {
    for method in [true, false] {
        let seats = Side::ALL.map(Seat::new);
        let handle = MigrationHandle::new("travels");
        let layer = MigrationLayer::new(handle.clone(), found(seats[1].clone()))
            .noise(tower_migration::compare::Noise::off())
            .failure_policy(FailurePolicy::RequireBoth);
        let old = found(seats[0].clone());
        let app = match method {
            true => Router::new().route("/things/{id}", any_service(old).layer(layer)),
            false => Router::new().route_service("/things/{id}", layer.layer(old)),
        };
        let rig = Rig::serving(handle, seats, app).await;
        everywhere(&rig, "/things/7", "/things/{id} id=7 /things/7 /things/7").await;
    }
}
