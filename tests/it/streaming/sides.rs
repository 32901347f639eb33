//! What the two sides get: the same, at the same time, and each its own mark.

use http::HeaderName;
use tower_migration::Role;

use super::*;

#[tokio::test]
async fn both_get_the_same_bytes_headers_and_trailers_and_each_its_dispatch() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let set =
            |layer: MigrationLayer<_>| layer.dispatch_header(HeaderName::from_static("x-dispatch"));
        let rig = Rig::with(stage, stores(), stores(), Streaming::new().above(0), &set).await;
        // As a body of HTTP/2 that says its length and has trailers all the same.
        let (mut feed, mut request) = upload("/a");
        request.headers_mut().insert("content-length", "8".parse().unwrap());
        let sent = rig.send(request);
        feed.gives("one ");
        feed.gives("");
        feed.gives("half");
        feed.trailers(trailers());
        feed.ends();
        assert_eq!(sent.status().await, 200);
        settle_tasks().await;
        for side in Side::ALL {
            let seen = match side {
                Side::Old => rig.old.one(),
                Side::New => rig.new.one(),
            };
            let role = if side == stage.authority() { Role::Authority } else { Role::Other };
            let dispatch = seen.dispatch.unwrap();
            assert_eq!((dispatch.stage, dispatch.side, dispatch.role), (stage, side, role));
            assert_eq!(seen.headers["x-dispatch"], format!("{stage}; {side}; {role}"));
            assert_eq!(seen.headers["content-length"], "8");
            assert_eq!((seen.data.as_slice(), seen.end), (&b"one half"[..], Some(End::Whole)));
            assert_eq!(seen.trailers, Some(trailers()));
        }
        assert!(rig.dirty().is_empty());
        rig.is_quiet().await;
    }
}

#[tokio::test]
async fn the_first_chunk_is_on_both_sides_before_the_client_has_sent_the_second() {
    for policy in POLICIES {
        let rig = Rig::under(policy, stores(), stores()).await;
        let (mut feed, request) = upload("/a");
        let sent = rig.send(request);
        for (chunk, all) in [("one ", "one "), ("two ", "one two "), ("three", "one two three")] {
            feed.gives(chunk);
            settle_tasks().await;
            assert_eq!((rig.old.data().as_str(), rig.new.data().as_str()), (all, all));
        }
        assert!(!sent.has_answer());
        assert_eq!(rig.in_flight(), (1, 1));
        feed.ends();
        assert_eq!(sent.answer().await, (200, "200".into()), "{policy:?}");
        rig.is_quiet().await;
    }
}

#[tokio::test]
async fn the_key_and_prepare_see_a_body_of_nothing() {
    for length in [None, Some(4)] {
        let set = |layer: MigrationLayer<_>| {
            layer
                .keys(|head: &tower_migration::protocol::Head<'_>, body: &Bytes| {
                    assert!(body.is_empty());
                    Some(head.uri.path().to_owned())
                })
                .prepare(|request| {
                    assert!(request.body().is_empty());
                    request.headers_mut().insert("x-id", "17".parse().unwrap());
                    // Dropped, with the length that a careful hook gives it.
                    *request.body_mut() = Bytes::from_static(b"something");
                    request.headers_mut().insert("content-length", "9".parse().unwrap());
                })
        };
        let streaming = Streaming::new().above(0);
        let rig = Rig::with(Stage::WriteBoth, stores(), reads(9, Then::Error), streaming, &set);
        let rig = rig.await;
        let (mut feed, request) = match length {
            None => upload("/a"),
            Some(length) => sized("/a", length),
        };
        let sent = rig.send(request);
        feed.gives("body");
        feed.ends();
        assert_eq!(sent.status().await, 200);
        settle_tasks().await;
        for side in rig.sides() {
            let seen = side.one();
            assert_eq!(seen.headers["x-id"], "17");
            assert_eq!(seen.data, b"body");
            let stated = seen.headers.get("content-length").map(|value| value.to_str().unwrap());
            assert_eq!(stated, length.map(|_| "4"));
        }
        assert_eq!(rig.dirty(), ["/a"]);
    }
}
