//! Request bodies of dual writes: whole on both sides, or on neither.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    BoxError, Limits, MigrationHandle, MigrationLayer, Stage, UpgradeToken, body::CopyBody,
};

use crate::support::*;

async fn limited(limits: Limits) -> Rig {
    Rig::with(Fake::says(200, ""), Fake::says(200, ""), |layer| layer.limits(limits).unwrap())
        .at(Stage::WriteBoth)
        .await
}

fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn untouched(rig: &Rig) {
    assert_eq!((rig.old.count(), rig.new.count()), (0, 0), "neither side has seen it");
    assert!(rig.handle.dirty_keys().is_empty());
    let status = rig.handle.status();
    assert_eq!((status.on_old.writes, status.on_new.writes), (0, 0));
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_before_either_side_has_seen_it() {
    let rig = limited(Limits::default().body(4)).await;
    assert_eq!(rig.ask(put("/a", "1234")).await.0, 200);
    let rig = limited(Limits::default().body(4)).await;
    let (status, problem) = rig.ask(put("/a", "12345")).await;
    assert_eq!(status, 413);
    assert!(problem.contains(r#""type":"body-too-large""#), "{problem}");
    untouched(&rig);
    // Without a length that could be known before.
    let chunks = frames(vec![data("12"), data("34"), data("5"), Err("not read".into())]);
    let (status, _) = rig.ask(Request::put("/a").body(chunks).unwrap()).await;
    assert_eq!(status, 413);
    untouched(&rig);
}

#[tokio::test]
async fn on_a_one_sided_stage_a_body_has_no_limit() {
    let rig = Rig::with(Fake::says(200, ""), Fake::says(200, ""), |layer| {
        layer.limits(Limits::default().body(4)).unwrap()
    });
    assert_eq!(rig.ask(put("/a", "12345")).await.0, 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400_and_neither_side_has_seen_it() {
    let rig = limited(Limits::default()).await;
    let broken = frames(vec![data("half"), Err("connection reset".into())]);
    let (status, problem) = rig.ask(Request::put("/a").body(broken).unwrap()).await;
    assert_eq!(status, 400);
    assert!(problem.contains("body-broken"), "{problem}");
    untouched(&rig);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_slow_is_408_and_neither_side_has_seen_it() {
    let rig = limited(Limits::default().body_timeout(SECOND)).await;
    let stuck = Body::new(StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>()));
    let (status, problem) = rig.ask(Request::put("/a").body(stuck).unwrap()).await;
    assert_eq!(status, 408);
    assert!(problem.contains("body-timeout"), "{problem}");
    untouched(&rig);
}

#[tokio::test]
async fn over_the_bytes_of_all_bodies_a_write_is_503_before_either_side_has_seen_it() {
    let (old, latch) = latched(200, "");
    let rig = Rig::with(old, Fake::says(200, ""), |layer| {
        layer.limits(Limits::default().body(6).buffered_bytes(8)).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    let first = tokio::spawn(rig.service.clone().call(put("/a", "12345")));
    rig.quiesce().await;
    let (status, problem) = rig.ask(put("/b", "1234")).await;
    assert_eq!(status, 503);
    assert!(problem.contains("buffered-bytes"), "{problem}");
    assert_eq!(rig.old.count(), 1);
    latch.open();
    drop(first.await.unwrap().unwrap());
    rig.quiesce().await;
    assert_eq!(rig.ask(put("/b", "1234")).await.0, 200, "the bytes came back");
}

#[tokio::test]
async fn chunks_and_trailers_reach_both_sides() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let side = || {
        let seen = std::sync::Arc::clone(&seen);
        tower::service_fn(move |request: Req| {
            let seen = std::sync::Arc::clone(&seen);
            async move {
                let body = request.into_body().collect().await?;
                let trailers = body.trailers().cloned();
                seen.lock().unwrap().push((body.to_bytes(), trailers));
                Ok::<_, BoxError>(answer(200, ""))
            }
        })
    };
    let handle = MigrationHandle::new("x");
    handle.advance().await.unwrap();
    let service = MigrationLayer::new(handle.clone(), side())
        .noise(tower_migration::compare::Noise::off())
        .layer(side());
    let sent =
        frames(vec![data("ab"), data("cd"), data("ef"), Ok(Frame::trailers(trailers.clone()))]);
    service.oneshot(Request::put("/a").body(sent).unwrap()).await.unwrap();
    handle.shutdown().await;
    let expected = (Bytes::from("abcdef"), Some(trailers));
    assert_eq!(*seen.lock().unwrap(), [expected.clone(), expected]);
}

#[tokio::test]
async fn every_body_type_can_be_copied() {
    async fn round<B: CopyBody>() -> (Bytes, bool)
    where
        B::Error: std::fmt::Debug,
    {
        let trailers = HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())]);
        let body = B::from_collected(Bytes::from("data"), Some(trailers));
        let body = body.collect().await.unwrap();
        let has_trailers = body.trailers().is_some();
        (body.to_bytes(), has_trailers)
    }
    let data = Bytes::from("data");
    assert_eq!(round::<Full<Bytes>>().await, (data.clone(), false));
    assert_eq!(round::<Body>().await, (data.clone(), true));
    assert_eq!(
        round::<http_body_util::combinators::BoxBody<Bytes, BoxError>>().await,
        (data.clone(), true)
    );
    assert_eq!(round::<axum::body::Body>().await, (data.clone(), true));
    assert_eq!(round::<tonic::body::Body>().await, (data, true));
}

#[tokio::test(start_paused = true)]
async fn a_full_body_is_watched_too() {
    let side = |text: &'static str| {
        tower::service_fn(move |request: Request<Full<Bytes>>| async move {
            let body = request.into_body().collect().await?.to_bytes();
            assert_eq!(body, "query");
            Ok::<_, BoxError>(answer(200, text))
        })
    };
    let handle = MigrationHandle::new("x");
    handle.advance().await.unwrap();
    handle.confirm_synced(tower_migration::Side::New).await.unwrap();
    handle.set_shadow_rate(1.0).unwrap();
    let service = MigrationLayer::new(handle.clone(), side("new"))
        .noise(tower_migration::compare::Noise::off())
        .classify(|_: &tower_migration::protocol::Head<'_>| tower_migration::Operation::Read)
        .layer(side("old"));
    let post = Request::post("/search").body(Full::from("query")).unwrap();
    let answer = service.oneshot(post).await.unwrap();
    assert_eq!(text(answer).await, "old");
    handle.shutdown().await;
    assert_eq!(handle.recent_mismatches().len(), 1);
}

#[tokio::test]
async fn connect_and_get_upgrades_go_to_the_authority_alone() {
    for (method, upgrade) in [(Method::CONNECT, false), (Method::GET, true)] {
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            let tokens = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let side = || {
                let tokens = std::sync::Arc::clone(&tokens);
                Fake::new(move |call| {
                    tokens.lock().unwrap().extend(call.extensions.get::<UpgradeToken>().cloned());
                    async { Ok(answer(200, "")) }
                })
            };
            let rig = Rig::new(side(), side()).at(stage).await;
            rig.handle.set_shadow_rate(1.0).unwrap();
            let mut request = Request::builder().method(method.clone()).uri("/ws");
            if upgrade {
                request = request.header(header::UPGRADE, "websocket");
                request = request.header(header::CONNECTION, "Upgrade");
            }
            assert_eq!(rig.ask(request.body(body("")).unwrap()).await.0, 200);
            rig.quiesce().await;
            let authority = rig.side(stage.authority());
            assert_eq!(authority.count(), 1);
            assert_eq!(rig.side(stage.authority().other()).count(), 0);
            let [call] = &authority.calls()[..] else { panic!("one call") };
            assert_eq!(call.headers.contains_key("upgrade"), upgrade, "untouched");
            drop(call.clone());
            let status = rig.handle.status();
            assert_eq!(status.upgraded_on_old + status.upgraded_on_new, 1);
            assert!(status.to_string().contains("upgraded connections: "), "{status}");
        }
    }
}

#[tokio::test]
async fn a_writes_upgrade_headers_are_removed_and_both_sides_get_it() {
    let rig = limited(Limits::default()).await;
    let mut request = put("/a", "v");
    for (name, value) in
        [("upgrade", "h2c"), ("connection", "upgrade, http2-settings"), ("http2-settings", "x")]
    {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    rig.ask(request).await;
    rig.quiesce().await;
    for side in tower_migration::Side::ALL {
        let [call] = &rig.side(side).calls()[..] else { panic!("one call") };
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(!call.headers.contains_key(name), "{side} {name}");
        }
    }
}
