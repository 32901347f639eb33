//! Bodies that are streamed to both sides.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel, combinators::UnsyncBoxBody};
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_migration::{
    BoxError, MigrationHandle, MigrationLayer, Side, Stage,
    body::{SlowLeg, Streaming},
};

use crate::support::{Answered, Body, Req, Res, answer, settle_tasks};

type Log = Arc<Mutex<Vec<String>>>;
type Sender = http_body_util::channel::Sender<Bytes, BoxError>;

fn read(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

fn channel() -> (Sender, Body) {
    let (sender, body) = Channel::<Bytes, BoxError>::new(1024);
    (sender, UnsyncBoxBody::new(body))
}

fn put(body: Body) -> Req {
    Request::put("/a").body(body).unwrap()
}

trait Side_:
    Service<Req, Response = Res, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}
impl<S> Side_ for S where
    S: Service<Req, Response = Res, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// Answers with its head at once, writes down each chunk as it comes, and ends
/// its answer when the request has ended, in whatever way.
fn streams(log: &Log) -> impl Side_ + use<> {
    let log = Arc::clone(log);
    service_fn(move |request: Req| {
        let log = Arc::clone(&log);
        async move {
            let (mut sender, answer) = channel();
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    match frame.map(Frame::into_data) {
                        Ok(Ok(data)) => {
                            let text = String::from_utf8(data.to_vec()).unwrap();
                            log.lock().unwrap().push(text);
                        }
                        Ok(Err(_)) => {}
                        Err(_) => {
                            log.lock().unwrap().push("broken".into());
                            break;
                        }
                    }
                }
                let _ = sender.send_data("bye".into()).await;
            });
            Ok::<_, BoxError>(Response::new(answer))
        }
    })
}

/// Answers all of it after the first chunk, and reads on in a task.
fn answers_and_reads_on(log: &Log, pause: Duration) -> impl Side_ + use<> {
    let log = Arc::clone(log);
    service_fn(move |request: Req| {
        let log = Arc::clone(&log);
        async move {
            let mut body = request.into_body();
            let _ = body.frame().await;
            tokio::spawn(async move {
                sleep(pause).await;
                let mut read = 0;
                while let Some(frame) = body.frame().await {
                    match frame {
                        Ok(frame) => read += frame.data_ref().map_or(0, Bytes::len),
                        Err(error) => {
                            log.lock().unwrap().push(error.to_string());
                            return;
                        }
                    }
                }
                log.lock().unwrap().push(format!("read {read}"));
            });
            Ok::<_, BoxError>(answer(200, "ok"))
        }
    })
}

async fn rig<O: Side_, N: Side_>(
    old: O,
    new: N,
    streaming: Streaming,
) -> (
    MigrationHandle,
    impl Service<Req, Response = Answered, Error = BoxError, Future: Send> + Clone + Send + 'static,
) {
    let handle = MigrationHandle::new("attack");
    let layer = MigrationLayer::new(handle.clone(), new).stream_bodies(streaming).unwrap();
    let service = layer.layer(old);
    handle.move_to(Stage::WriteBoth).await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    (handle, service)
}

fn dirty(handle: &MigrationHandle) -> Vec<String> {
    handle.dirty_keys().iter().map(|dirty| dirty.key.to_string()).collect()
}

async fn idle(handle: &MigrationHandle) {
    for _ in 0..1000 {
        let status = handle.status();
        if status.on_old.writes + status.on_new.writes == 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("something is left: {}", handle.status());
}

/// design, section 3: "Every started dual write ends equal or dirty", "Same key,
/// same order".
#[tokio::test(start_paused = true)]
async fn a_write_that_overtakes_an_upload_whose_head_is_out_leaves_the_key_dirty() {
    let (old, new) = (Log::default(), Log::default());
    let (handle, service) = rig(streams(&old), streams(&new), Streaming::new()).await;
    let (mut sender, body) = channel();
    sender.send_data("a1".into()).await.unwrap();
    let first = service.clone().oneshot(put(body)).await.unwrap();
    settle_tasks().await;
    let second = service.clone().oneshot(put(crate::support::body("b"))).await.unwrap();
    let second = second.into_body().collect().await.unwrap();
    assert_eq!(second.to_bytes(), "bye");
    sender.send_data("a2".into()).await.unwrap();
    drop(sender);
    let _ = first.into_body().collect().await.unwrap();
    idle(&handle).await;
    assert!(
        read(&old) == read(&new) || dirty(&handle) == ["/a"],
        "old {:?}, new {:?}, dirty {:?}",
        read(&old),
        read(&new),
        dirty(&handle)
    );
}

/// "a body that fails half-way after streaming began (both legs see an error, the
/// key is dirty or the side un-synced)", with an authority whose head is out.
#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_after_the_head_leaves_the_key_dirty() {
    let (old, new) = (Log::default(), Log::default());
    let early = service_fn({
        let new = Arc::clone(&new);
        move |request: Req| {
            let new = Arc::clone(&new);
            async move {
                let mut body = request.into_body();
                let _ = body.frame().await;
                new.lock().unwrap().push("a1".into());
                Ok::<_, BoxError>(answer(200, "ok"))
            }
        }
    });
    let (handle, service) = rig(streams(&old), early, Streaming::new()).await;
    let (mut sender, body) = channel();
    sender.send_data("a1".into()).await.unwrap();
    let first = service.clone().oneshot(put(body)).await.unwrap();
    settle_tasks().await;
    sender.abort("the line is dead".into());
    let _ = first.into_body().collect().await;
    idle(&handle).await;
    assert_eq!(read(&old), ["a1", "broken"]);
    assert_eq!(dirty(&handle), ["/a"], "old {:?}, new {:?}", read(&old), read(&new));
}

/// "is cut off and counted (dirty or un-synced)", of a side that has answered.
#[tokio::test(start_paused = true)]
async fn a_side_that_has_answered_and_is_cut_off_leaves_the_key_dirty() {
    let (old, new) = (Log::default(), Log::default());
    let streaming = Streaming::new().lag(4_000).slow_leg(SlowLeg::CutOff);
    let fast = answers_and_reads_on(&old, Duration::ZERO);
    let slow = answers_and_reads_on(&new, Duration::from_secs(5));
    let (handle, service) = rig(fast, slow, streaming).await;
    let (mut sender, body) = channel();
    sender.send_data("first".into()).await.unwrap();
    let found = service.clone().oneshot(put(body)).await.unwrap();
    assert_eq!(found.status(), 200);
    let _ = found.into_body().collect().await;
    for _ in 0..200 {
        sender.send_data(vec![0; 1_000].into()).await.unwrap();
    }
    drop(sender);
    sleep(Duration::from_secs(20)).await;
    idle(&handle).await;
    assert_ne!(read(&old), read(&new));
    assert_eq!(dirty(&handle), ["/a"], "old {:?}, new {:?}", read(&old), read(&new));
}

/// docs/streams.md, "Steps": "a write's request that still arrives: … `settled()`
/// waits for it".
#[tokio::test(start_paused = true)]
async fn a_request_that_still_arrives_holds_up_settling() {
    let (old, new) = (Log::default(), Log::default());
    let side = |log| answers_and_reads_on(log, Duration::ZERO);
    let (handle, service) = rig(side(&old), side(&new), Streaming::new()).await;
    let (mut sender, body) = channel();
    sender.send_data("first".into()).await.unwrap();
    let found = service.clone().oneshot(put(body)).await.unwrap();
    let _ = found.into_body().collect().await;
    handle.move_to(Stage::OldOnly).await.unwrap();
    let settled = timeout(Duration::from_secs(3), handle.settled()).await.is_ok();
    sender.send_data("second".into()).await.unwrap();
    drop(sender);
    settle_tasks().await;
    assert!(!settled, "settled, and then: old {:?}, new {:?}", read(&old), read(&new));
}
