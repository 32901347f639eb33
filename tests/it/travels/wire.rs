//! What can only be seen on the wire of HTTP/1.1: keep-alive, pipelines, hosts.

use std::time::Duration;

use axum::{Router, body::Body, extract::Request, routing::any};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tower_migration::{Limits, MigrationLayer, Side, Stage};

use super::{Rig, Seat, Wire, keep, raw::Raw, whole};

/// Notes and answers every request in a few words.
fn side(seat: Seat) -> Router {
    let any = async move |request: Request| {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let host = parts.headers.get(header::HOST).map(|host| host.to_str().unwrap().to_owned());
        let seen = format!("{} {} {host:?} {}", parts.method, parts.uri, body.escape_ascii());
        seat.note(seen.clone());
        seen
    };
    Router::new().fallback(any)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let mut client = Raw::connect(&rig).await;
        let one = "PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none";
        let two = "GET /b HTTP/1.1\r\nhost: x\r\n\r\n";
        let three = "POST /search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
             5\r\nthree\r\n0\r\n\r\n";
        let four = "DELETE /c HTTP/1.1\r\nhost: x\r\n\r\n";
        client.send([one, two, three, four].concat()).await;
        let expected = [
            r#"PUT /a Some("x") one"#,
            r#"GET /b Some("x") "#,
            r#"POST /search Some("x") three"#,
            r#"DELETE /c Some("x") "#,
        ];
        for expected in expected {
            let (status, _, text) = client.answer().await.unwrap();
            assert_eq!((status, &*text), (200, expected), "{stage}");
        }
        for seat in rig.reached() {
            super::until("all four to be seen", || seat.noted() == 4).await;
            let mut seen = seat.take();
            seen.sort();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{} {stage}", seat.side);
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn the_host_is_seen_by_both_sides() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for method in ["PUT", "GET"] {
            let mut client = Raw::connect(&rig).await;
            client.send(format!("{method} /a HTTP/1.1\r\nhost: example.test:8080\r\n\r\n")).await;
            let seen = format!(r#"{method} /a Some("example.test:8080") "#);
            assert_eq!(client.answer().await.unwrap().2, seen);
            rig.saw(&seen).await;
            // HTTP/2 has it in the URI.
            let request = rig.request(method, "/a?x=1").body(Body::empty()).unwrap();
            let (_, text) = rig.ask(Wire::H2, request).await;
            assert_eq!(text, format!("{method} http://{}/a?x=1 None ", rig.address));
            rig.saw(&text).await;
        }
    }
}

#[tokio::test]
async fn a_uri_in_absolute_form_is_seen_as_it_came_and_names_the_same_key() {
    let seen = |seat: Seat| {
        let refuse = match seat.side {
            Side::New => StatusCode::CONFLICT,
            Side::Old => StatusCode::OK,
        };
        let put = async move |request: Request| {
            seat.note(request.uri().to_string());
            refuse
        };
        Router::new().route("/things/{id}", any(put))
    };
    for uri in ["http://example.test/things/7?x=1", "/things/7"] {
        // What one side refuses, the other not, names its key.
        let set = |layer: MigrationLayer<Router>| {
            layer.failure_policy(tower_migration::FailurePolicy::AwaitBoth)
        };
        let rig = Rig::with(seen, set, whole).await;
        for stage in Stage::ALL {
            if stage > Stage::WriteBoth {
                // The key is dirty, which no orderly step would leave behind.
                rig.handle.force(stage, "for the test").await.unwrap();
            } else {
                rig.walk(stage).await;
            }
            let mut client = Raw::connect(&rig).await;
            client.send(format!("PUT {uri} HTTP/1.1\r\nhost: example.test\r\n\r\n")).await;
            let status = if stage.authority() == Side::Old { 200 } else { 409 };
            assert_eq!(client.answer().await.unwrap().0, status, "{stage}");
            rig.saw(uri).await;
            if stage == Stage::WriteBoth {
                let dirty = rig.handle.dirty_keys();
                assert_eq!(dirty.len(), 1);
                assert_eq!(dirty[0].key.to_string(), "/things/7");
            }
        }
    }
}

#[tokio::test]
async fn options_of_the_server_itself_pass_through() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        let mut client = Raw::connect(&rig).await;
        client.send("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().2, r#"OPTIONS * Some("x") "#);
        rig.saw(r#"OPTIONS * Some("x") "#).await;
    }
}

/// A body that looks like a request: it must never be taken for one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn after_a_413_the_rest_of_the_upload_is_never_taken_for_a_request() {
    let set = |layer: MigrationLayer<Router>| layer.limits(Limits::default().body(8)).unwrap();
    let rig = Rig::with(side, set, whole).await;
    let next = "PUT /next HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nnext";
    let length = SMUGGLED.len();
    let by_length = format!("PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let chunked = "PUT /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let in_a_chunk = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        rig.walk(stage).await;
        for (head, body) in [(&*by_length, SMUGGLED), (chunked, &in_a_chunk)] {
            for at_once in [true, false] {
                let mut client = Raw::connect(&rig).await;
                let first =
                    if at_once { [head, body].concat() } else { format!("{head}{}", &body[..6]) };
                client.send(first).await;
                if !at_once && head == chunked {
                    // Not enough was sent to be too much.
                    client.send(&body[6..20]).await;
                }
                let (status, _, problem) = client.answer().await.unwrap();
                assert_eq!(status, 413, "{stage} {problem}");
                if at_once {
                    // The whole upload was here: the connection may go on.
                    client.send(next).await;
                    if let Some((status, _, text)) = client.answer().await {
                        assert_eq!((status, &*text), (200, r#"PUT /next Some("x") next"#));
                    }
                } else {
                    client.closes().await;
                }
                for seat in &rig.seats {
                    let seen = seat.take();
                    assert!(seen.iter().all(|seen| seen.starts_with("PUT /next")), "{seen:?}");
                }
            }
        }
        // And a new connection is served.
        let mut client = Raw::connect(&rig).await;
        client.send(next).await;
        assert_eq!(client.answer().await.unwrap().0, 200, "{stage}");
        rig.saw(r#"PUT /next Some("x") next"#).await;
    }
    rig.is_clean();
}

#[tokio::test]
async fn after_a_408_the_connection_ends_and_neither_side_has_seen_anything() {
    let set = |layer: MigrationLayer<Router>| {
        layer.limits(Limits::default().body_timeout(Duration::from_millis(20))).unwrap()
    };
    let rig = Rig::with(side, set, whole).await;
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        rig.walk(stage).await;
        for head in ["content-length: 8\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nha"] {
            let mut client = Raw::connect(&rig).await;
            client.send(format!("PUT /a HTTP/1.1\r\nhost: x\r\n{head}")).await;
            let (status, _, problem) = client.answer().await.unwrap();
            assert_eq!(status, 408, "{stage}");
            assert!(problem.contains("body-timeout"), "{problem}");
            client.closes().await;
        }
        assert!(rig.seats.iter().all(|seat| seat.noted() == 0), "{stage}");
        assert_eq!(rig.writes(), (0, 0));
    }
    rig.is_clean();
}

#[tokio::test]
async fn an_answer_over_http_1_0_ends_with_its_connection() {
    let rig = Rig::with(side, keep, whole).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for method in ["PUT", "GET"] {
            let mut client = Raw::connect(&rig).await;
            client.send(format!("{method} /a HTTP/1.0\r\n\r\n")).await;
            let (status, _, text) = client.answer().await.unwrap();
            assert_eq!((status, text), (200, format!("{method} /a None ")), "{stage}");
            client.closes().await;
            rig.saw(&format!("{method} /a None ")).await;
        }
    }
}
