//! A dual write outlives its client, at whatever point the client leaves.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use tokio_test::{assert_pending, task};
use tower::Service;
use tower_migration::{FailurePolicy, Stage, WriteOrder};

use crate::support::*;

#[tokio::test]
async fn gone_while_the_body_comes_and_neither_side_has_seen_it() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, "")).at(Stage::WriteBoth).await;
    let never_ends = Body::new(StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, tower_migration::BoxError>,
    >()));
    let mut write =
        task::spawn(rig.service.clone().call(Request::put("/a").body(never_ends).unwrap()));
    assert_pending!(write.poll());
    assert_eq!(rig.handle.status().on_old.writes, 1);
    drop(write);
    rig.quiesce().await;
    assert_eq!((rig.old.count(), rig.new.count()), (0, 0));
    assert!(rig.handle.dirty_keys().is_empty());
    let status = rig.handle.status();
    assert_eq!((status.on_old.writes, status.on_new.writes), (0, 0));
}

#[tokio::test]
async fn gone_while_both_legs_run_and_both_run_on() {
    for policy in
        [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth]
    {
        for order in [WriteOrder::Concurrent, WriteOrder::AuthorityFirst] {
            let (old, let_old) = latched(200, "");
            let (new, let_new) = latched(200, "");
            let rig = Rig::with(old, new, |layer| layer.failure_policy(policy).write_order(order))
                .at(Stage::WriteBoth)
                .await;
            let mut write = task::spawn(rig.service.clone().call(put("/a", "v")));
            assert_pending!(write.poll());
            rig.quiesce().await;
            drop(write);
            rig.quiesce().await;
            assert_eq!(rig.old.alive(), 1, "{policy:?} {order:?}");
            let_old.open();
            rig.quiesce().await;
            let_new.open();
            rig.quiesce().await;
            assert_eq!((rig.old.count(), rig.new.count()), (1, 1), "{policy:?} {order:?}");
            assert_eq!((rig.old.alive(), rig.new.alive()), (0, 0));
            assert!(rig.handle.dirty_keys().is_empty());
            assert_eq!(rig.handle.status().on_old.writes, 0);
        }
    }
}

#[tokio::test]
async fn gone_between_the_legs_and_the_failed_one_is_still_noticed() {
    let (old, let_old) = latched(200, "");
    let rig =
        Rig::with(old, Fake::says(500, ""), |layer| layer.write_order(WriteOrder::AuthorityFirst))
            .at(Stage::WriteBoth)
            .await;
    let mut write = task::spawn(rig.service.clone().call(put("/a", "v")));
    assert_pending!(write.poll());
    drop(write);
    let_old.open();
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 1);
    assert_eq!(rig.dirty(), ["/a"]);
}

/// An answer that has sent its head and one chunk, and sends no more until the
/// latch is open.
fn streams() -> (Fake, Latch, Latch) {
    let (more, ended) = (Latch::default(), Latch::default());
    let (at, end) = (more.clone(), ended.clone());
    let fake = Fake::new(move |_| {
        let (at, end) = (at.clone(), end.clone());
        async move {
            let chunks = async_stream(at, end);
            Ok(http::Response::new(Body::new(StreamBody::new(chunks))))
        }
    });
    (fake, more, ended)
}

fn async_stream(
    at: Latch,
    end: Latch,
) -> impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, tower_migration::BoxError>> + Send
{
    futures_util::stream::unfold(0, move |step| {
        let (at, end) = (at.clone(), end.clone());
        async move {
            match step {
                0 => Some((Ok(http_body::Frame::data(Bytes::from("first "))), 1)),
                1 => {
                    at.passed().await;
                    end.open();
                    Some((Ok(http_body::Frame::data(Bytes::from("second"))), 2))
                }
                _ => None,
            }
        }
    })
}

#[tokio::test]
async fn gone_in_the_middle_of_the_answer_and_the_authority_streams_on() {
    let (old, more, ended) = streams();
    let rig = Rig::new(old, Fake::says(200, "")).at(Stage::WriteBoth).await;
    let mut response = rig.send(put("/a", "v")).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first ");
    drop(response);
    rig.quiesce().await;
    assert_eq!(rig.handle.status().on_old.writes, 1, "it may still be writing");
    more.open();
    tokio::time::timeout(SECOND, ended.passed()).await.expect("read to its end");
    rig.quiesce().await;
    assert_eq!(rig.handle.status().on_old.writes, 0);
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn a_streaming_answer_holds_its_mark_to_its_end_on_every_stage() {
    for stage in Stage::ALL {
        let (old, more_old, _) = streams();
        let (new, more_new, _) = streams();
        let rig = Rig::new(old, new).at(stage).await;
        let response = rig.send(put("/a", "v")).await.unwrap();
        let running = |rig: &Rig| match stage.authority() {
            tower_migration::Side::Old => rig.handle.status().on_old.writes,
            tower_migration::Side::New => rig.handle.status().on_new.writes,
        };
        assert_eq!(running(&rig), 1, "{stage}");
        more_old.open();
        more_new.open();
        assert_eq!(text(response).await, "first second");
        rig.quiesce().await;
        assert_eq!(running(&rig), 0, "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_one_sided_write_whose_client_hung_up_lingers() {
    let rig = Rig::new(Fake::hangs(), Fake::says(200, ""));
    let mut write = task::spawn(rig.service.clone().call(put("/a", "v")));
    assert_pending!(write.poll());
    let step = rig.handle.advance().await;
    assert!(step.is_ok(), "0 to 1 flips under running writes of the same stage");
    drop(write);
    let began = tokio::time::Instant::now();
    assert!(!rig.handle.status().settled, "it may still land on old alone");
    rig.handle.settled().await;
    assert_eq!(began.elapsed(), SECOND);
    assert!(rig.handle.status().settled);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_dropped_leaves_nothing_behind() {
    let rig = Rig::new(Fake::hangs(), Fake::says(200, ""));
    let mut read = task::spawn(rig.service.clone().call(get("/a")));
    assert_pending!(read.poll());
    assert_eq!(rig.handle.status().on_old.reads, 1);
    drop(read);
    assert_eq!(rig.handle.status().on_old.reads, 0);
    assert!(rig.handle.status().settled);
}

#[tokio::test]
async fn shutdown_waits_for_legs_without_a_client() {
    let (new, latch) = latched(200, "");
    let rig = Rig::new(Fake::says(200, ""), new).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "v")).await;
    let handle = rig.handle.clone();
    let mut shutdown = task::spawn(handle.shutdown());
    assert_pending!(shutdown.poll());
    latch.open();
    rig.quiesce().await;
    assert!(shutdown.is_woken());
    shutdown.await;
    assert!(rig.handle.status().shut_down);
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(blocked.to_string().contains("shut down"), "{blocked}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_the_key_dirty() {
    let breaks = Fake::new(|_| async {
        let frames = futures_util::stream::iter([
            Ok(http_body::Frame::data(Bytes::from("some"))),
            Err("cut".into()),
        ]);
        Ok(http::Response::new(Body::new(StreamBody::new(frames))))
    });
    for (old, new) in [(breaks.clone(), Fake::says(200, "")), (Fake::says(200, ""), breaks.clone())]
    {
        let rig = Rig::new(old, new).at(Stage::WriteBoth).await;
        let response = rig.send(put("/a", "v")).await.unwrap();
        let _ = response.into_body().collect().await;
        rig.quiesce().await;
        assert_eq!(rig.dirty(), ["/a"]);
    }
}

#[test]
fn a_runtime_that_shuts_down_leaves_the_key_dirty() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.block_on(async {
        let rig = Rig::new(Fake::says(200, ""), Fake::hangs()).at(Stage::WriteBoth).await;
        rig.ask(put("/a", "v")).await;
        rig.quiesce().await;
        rig.handle
    });
    drop(runtime);
    assert_eq!(handle.dirty_keys().len(), 1);
    assert_eq!(handle.status().on_new.writes, 0);
}
