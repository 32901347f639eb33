//! What handlers extract from a request.

use std::net::SocketAddr;

use axum::{
    Extension, Form, Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::AppendHeaders,
    routing::{post, put},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tower_migration::{Dispatch, Side, Stage};

use super::{Rig, Seat, Wire, keep, whole};
use crate::support::Latch;

#[derive(Debug, Deserialize, Serialize)]
struct Thing {
    name: String,
    size: u32,
}

/// Sends the same request over both versions of HTTP in every stage, and
/// checks what each side that must see it has seen.
async fn everywhere(rig: &Rig, request: impl Fn() -> http::Request<Body>, seen: &str) {
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            let (status, _) = rig.ask(wire, request()).await;
            assert_eq!(status, StatusCode::OK, "{stage} {wire:?}");
            rig.saw(seen).await;
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

fn things(seat: Seat) -> Router {
    let (write, read) = (seat.clone(), seat);
    Router::new()
        .route(
            "/{kind}/{id}",
            put(
                async move |State(state): State<&'static str>,
                            Path((kind, id)): Path<(String, u32)>,
                            Query(thing): Query<Thing>,
                            headers: HeaderMap,
                            body: String| {
                    let tags: Vec<_> = headers.get_all("x-tag").iter().collect();
                    write.note(format!("{state} {kind} {id} {thing:?} {tags:?} {body}"));
                },
            )
            .get(
                async move |Path((kind, id)): Path<(String, u32)>, Query(thing): Query<Thing>| {
                    read.note(format!("{kind} {id} {thing:?}"));
                },
            ),
        )
        .with_state("state")
}

#[tokio::test]
async fn path_query_headers_and_body_of_a_write() {
    let rig = Rig::new(things).await;
    let request = || {
        rig.request("PUT", "/air%20ports/7?name=a%26b&size=3")
            .header("x-tag", "one")
            .header("x-tag", "two")
            .body(Body::from("body"))
            .unwrap()
    };
    let seen = r#"state air ports 7 Thing { name: "a&b", size: 3 } ["one", "two"] body"#;
    everywhere(&rig, request, seen).await;
}

#[tokio::test]
async fn path_and_query_of_a_read() {
    let rig = Rig::new(things).await;
    let request =
        || rig.request("GET", "/airports/7?name=%C3%A4&size=3").body(Body::empty()).unwrap();
    everywhere(&rig, request, r#"airports 7 Thing { name: "ä", size: 3 }"#).await;
}

#[tokio::test]
async fn json_of_a_write_and_of_a_read_with_a_body() {
    let side = |seat: Seat| {
        let take = async move |Json(thing): Json<Thing>| {
            seat.note(format!("{thing:?}"));
            Json(thing)
        };
        Router::new().route("/json", post(take.clone())).route("/search", post(take))
    };
    for path in ["/json", "/search"] {
        let rig = Rig::new(side).await;
        let request = || {
            let body = serde_json::to_vec(&Thing { name: "a".into(), size: 3 }).unwrap();
            rig.request("POST", path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .unwrap()
        };
        everywhere(&rig, request, r#"Thing { name: "a", size: 3 }"#).await;
    }
}

#[tokio::test]
async fn a_form_and_a_form_in_parts() {
    const PARTS: &str = "--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\
                         \r\n\r\n\u{0}\u{1}\r\n--cut--\r\n";
    let side = |seat: Seat| {
        let parts = seat.clone();
        Router::new()
            .route(
                "/form",
                post(async move |Form(thing): Form<Thing>| seat.note(format!("{thing:?}"))),
            )
            .route(
                "/parts",
                post(async move |headers: HeaderMap, body: Bytes| {
                    // What every parser of such a form starts from.
                    let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
                    let (_, cut) = kind.split_once("boundary=").unwrap();
                    assert!(body.starts_with(format!("--{cut}\r\n").as_bytes()));
                    parts.note(String::from_utf8(body.to_vec()).unwrap());
                }),
            )
    };
    let rig = Rig::new(side).await;
    let request = || {
        rig.request("POST", "/form")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from("name=a+b&size=3"))
            .unwrap()
    };
    everywhere(&rig, request, r#"Thing { name: "a b", size: 3 }"#).await;
    let rig = Rig::new(side).await;
    let request = || {
        rig.request("POST", "/parts")
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=cut")
            .body(Body::from(PARTS))
            .unwrap()
    };
    everywhere(&rig, request, PARTS).await;
}

#[tokio::test]
async fn what_an_extractor_rejects_both_sides_reject() {
    let rig = Rig::new(things).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in ["/airports/no-number?name=a&size=1", "/airports/7?name=a"] {
            let request = rig.request("PUT", path).body(Body::from("body")).unwrap();
            let (status, _) = rig.ask(Wire::H1, request).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{stage} {path}");
        }
    }
    rig.is_clean();
}

#[tokio::test]
async fn an_extension_of_an_outer_layer_and_the_clients_address() {
    let side = |seat: Seat| {
        let any = async move |Extension(outer): Extension<&'static str>,
                              ConnectInfo(client): ConnectInfo<SocketAddr>| {
            seat.note(format!("{outer} {}", client.ip()));
        };
        Router::new().route("/", put(any.clone()).get(any))
    };
    let put_it = |layered| whole(layered).layer(Extension("outer"));
    for method in ["PUT", "GET"] {
        let rig = Rig::with(side, keep, put_it).await;
        let request = || rig.request(method, "/").body(Body::empty()).unwrap();
        everywhere(&rig, request, "outer 127.0.0.1").await;
    }
}

/// Two copies of a request hold the same `Arc`: both sides write into it.
#[tokio::test]
async fn an_extension_with_something_shared_in_it_is_shared_unless_it_is_stripped() {
    type Jar = Latch;
    let side = |seat: Seat| {
        Router::new().route(
            "/",
            put(
                async move |jar: Option<Extension<Jar>>,
                            Extension(dispatch): Extension<Dispatch>| {
                    seat.note(if jar.is_some() { "a jar" } else { "no jar" });
                    // The other side alone opens what the authority waits for.
                    match jar {
                        Some(Extension(jar)) if dispatch.side == Side::New => jar.open(),
                        Some(Extension(jar)) => jar.passed().await,
                        None => {}
                    }
                },
            ),
        )
    };
    for strips in [false, true] {
        let set = |layer: tower_migration::MigrationLayer<Router>| match strips {
            true => layer.strip_extension::<Jar>(),
            false => layer,
        };
        let put_it = |layered| whole(layered).layer(Extension(Jar::default()));
        let rig = Rig::with(side, set, put_it).await.at(Stage::WriteBoth).await;
        let request = rig.request("PUT", "/").body(Body::empty()).unwrap();
        assert_eq!(rig.ask(Wire::H1, request).await.0, StatusCode::OK);
        rig.saw(if strips { "no jar" } else { "a jar" }).await;
    }
}

#[tokio::test]
async fn cookies_reach_both_sides_and_only_the_authoritys_come_back() {
    let side = |seat: Seat| {
        let any = async move |headers: HeaderMap| {
            let cookies = headers.get_all(header::COOKIE).iter();
            let cookies: Vec<_> = cookies.map(|value| value.to_str().unwrap()).collect();
            seat.note(cookies.join("; "));
            let set = [format!("a={}", seat.side), format!("b={}", seat.side)];
            AppendHeaders(set.map(|cookie| (header::SET_COOKIE, cookie)))
        };
        Router::new().route("/", put(any.clone()).get(any))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            for method in ["PUT", "GET"] {
                let mut request = rig.request(method, "/");
                // HTTP/2 lets a client send each cookie by itself.
                request = match wire {
                    Wire::H1 => request.header(header::COOKIE, "x=1; y=2"),
                    Wire::H2 => request.header(header::COOKIE, "x=1").header(header::COOKIE, "y=2"),
                };
                let answer = rig.send(wire, request.body(Body::empty()).unwrap()).await;
                let side = stage.authority();
                let cookies: Vec<_> = answer.headers().get_all(header::SET_COOKIE).iter().collect();
                assert_eq!(cookies, [&format!("a={side}"), &format!("b={side}")], "{stage}");
                rig.saw("x=1; y=2").await;
            }
        }
    }
}
