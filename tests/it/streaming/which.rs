//! Which requests are streamed, and which are collected.

use http_body_util::Full;
use tower_migration::{Limits, Operation, WriteOrder, body::CopyBody, protocol::Head};

use super::*;

/// Whether both sides have been called before the body has ended.
async fn is_streamed(rig: &Rig, (mut feed, request): (Feed, Req), whole: &'static str) -> bool {
    let sent = rig.send(request);
    settle_tasks().await;
    let called = rig.sides().map(|side| side.seen().len());
    feed.gives(whole);
    feed.ends();
    assert_eq!(sent.status().await, 200);
    settle_tasks().await;
    for side in rig.sides() {
        assert_eq!(side.seen().last().unwrap().data, whole.as_bytes());
        side.seen.lock().unwrap().clear();
    }
    assert!(rig.dirty().is_empty());
    assert_eq!(called[0], called[1]);
    called[0] == 1
}

#[tokio::test]
async fn what_is_long_or_of_no_known_length_is_streamed() {
    let set = |layer: MigrationLayer<_>| layer.limits(Limits::default().body(8)).unwrap();
    for (above, limit) in [(None, 8), (Some(4), 4), (Some(0), 0)] {
        let mut streaming = Streaming::new();
        if let Some(above) = above {
            streaming = streaming.above(above);
        }
        let rig = Rig::with(Stage::WriteBoth, stores(), stores(), streaming, &set).await;
        assert!(is_streamed(&rig, upload("/a"), "body").await, "of no known length");
        for text in ["1234", "12345", "12345678", "123456789"] {
            let length = text.len() as u64;
            let streamed = is_streamed(&rig, sized("/a", length), text).await;
            assert_eq!(streamed, length > limit, "{above:?} {text}");
        }
        // It is known to have nothing.
        let (_feed, request) = sized("/a", 0);
        assert_eq!(rig.send(request).status().await, 200);
    }
}

#[tokio::test]
async fn a_full_body_is_in_memory_and_never_streamed() {
    assert!(Full::<Bytes>::from_branch().is_none());
    let handle = MigrationHandle::new("x");
    handle.advance().await.unwrap();
    let side = |text: &'static str| {
        tower::service_fn(move |request: Request<Full<Bytes>>| async move {
            assert_eq!(request.into_body().collect().await?.to_bytes(), "12345");
            Ok::<_, BoxError>(answer(200, text))
        })
    };
    let service = MigrationLayer::new(handle, side("new"))
        .noise(tower_migration::compare::Noise::off())
        .limits(Limits::default().body(4))
        .unwrap()
        .stream_bodies(Streaming::new())
        .unwrap()
        .layer(side("old"));
    let long = Request::put("/a").body(Full::from("12345")).unwrap();
    assert_eq!(service.oneshot(long).await.unwrap().status(), 413);
}

#[tokio::test]
async fn authority_first_collects() {
    let set = |layer: MigrationLayer<_>| {
        layer.write_order(WriteOrder::AuthorityFirst).limits(Limits::default().body(4)).unwrap()
    };
    let rig = Rig::with(Stage::WriteBoth, stores(), stores(), Streaming::new(), &set).await;
    assert!(!is_streamed(&rig, upload("/a"), "1234").await);
    let (feed, request) = upload("/a");
    feed.gives("12345");
    assert_eq!(rig.send(request).status().await, 413);
    assert_eq!(rig.old.seen().len() + rig.new.seen().len(), 0);
}

#[tokio::test]
async fn in_a_one_sided_stage_the_request_is_passed_as_it_is() {
    for stage in [Stage::OldOnly, Stage::NewOnly] {
        let rig = Rig::with(stage, stores(), stores(), Streaming::new(), &|layer| layer).await;
        let (mut feed, request) = sized("/a", 4);
        let sent = rig.send(request);
        settle_tasks().await;
        let (here, there) = match stage.authority() {
            Side::Old => (&rig.old, &rig.new),
            Side::New => (&rig.new, &rig.old),
        };
        assert_eq!((here.seen().len(), there.seen().len()), (1, 0));
        feed.gives("half");
        feed.ends();
        assert_eq!(sent.status().await, 200);
        assert_eq!(here.one().data, b"half");
        assert_eq!(there.seen().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_with_a_large_body_is_the_authoritys_and_not_compared() {
    let set = |layer: MigrationLayer<_>| {
        layer
            .classify(|_: &Head<'_>| Operation::Read)
            .limits(Limits::default().body(4).captured_body(4))
            .unwrap()
    };
    let rig = Rig::with(Stage::WriteBoth, stores(), stores(), Streaming::new(), &set).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let (mut feed, request) = upload("/search");
    let sent = rig.send(request);
    settle_tasks().await;
    assert_eq!(rig.old.seen().len(), 1, "it reads while the client sends");
    feed.gives("123");
    feed.gives("456");
    feed.ends();
    assert_eq!(sent.status().await, 200);
    rig.shuts_down().await;
    assert_eq!((rig.old.data().as_str(), rig.new.seen().len()), ("123456", 0));
    assert!(rig.dirty().is_empty());
}

#[tokio::test]
async fn a_lag_of_nothing_is_refused() {
    let layer = MigrationLayer::new(MigrationHandle::new("x"), ());
    let Err(error) = layer.stream_bodies(Streaming::new().lag(0)) else {
        panic!("it could not work");
    };
    assert!(error.to_string().contains("lag"), "{error}");
}
