//! A gibibyte through little memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower_migration::Limits;

use super::*;

const MIB: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// How many bytes of chunks are alive, and the most there ever were.
#[derive(Clone, Debug, Default)]
struct Alive(Arc<(AtomicUsize, AtomicUsize)>);

struct Chunk(Alive, Arc<[u8]>);

impl Alive {
    fn chunk(&self, bytes: &Arc<[u8]>) -> Bytes {
        let now = self.0.0.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Chunk(self.clone(), Arc::clone(bytes)))
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(self.1.len(), Ordering::SeqCst);
    }
}

/// A body of so many bytes that makes each chunk when it is asked for one.
fn made(length: usize, alive: &Alive) -> Body {
    let bytes: Arc<[u8]> = vec![7; CHUNK].into();
    let alive = alive.clone();
    let chunks = (0..length / CHUNK).map(move |_| Ok(Frame::data(alive.chunk(&bytes))));
    Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(chunks)))
}

/// A side that counts, and gives way to the other after each `every` chunks.
fn counts(
    every: usize,
    seen: &Arc<AtomicUsize>,
) -> impl Service<
    Req,
    Response = Res,
    Error = BoxError,
    Future = impl Future<Output = Result<Res, BoxError>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let seen = Arc::clone(seen);
    tower::service_fn(move |request: Req| {
        let seen = Arc::clone(&seen);
        async move {
            let mut body = request.into_body();
            let mut chunks = 0;
            while let Some(frame) = body.frame().await {
                let data = frame?.into_data().expect("data");
                assert_eq!((data[0], data[data.len() - 1]), (7, 7));
                seen.fetch_add(data.len(), Ordering::SeqCst);
                chunks += 1;
                if chunks % every == 0 {
                    drop(data);
                    tokio::task::yield_now().await;
                }
            }
            Ok(answer(200, ""))
        }
    })
}

fn buffered(snapshotter: &Snapshotter) -> usize {
    let all = snapshotter.snapshot().into_vec();
    let gauge = all.into_iter().find_map(|(key, _, _, value)| match value {
        DebugValue::Gauge(value) if key.key().name() == "tower_migration_buffered_bytes" => {
            Some(value.into_inner())
        }
        _ => None,
    });
    gauge.expect("published") as usize
}

#[tokio::test]
async fn a_gibibyte_in_as_much_memory_as_the_sides_may_be_apart() {
    const LENGTH: usize = 1 << 30;
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    // Either side is the faster one.
    for every in [[1, 1000], [1000, 1]] {
        let (alive, seen) = (Alive::default(), [Arc::default(), Arc::default()]);
        let handle = MigrationHandle::new("large");
        handle.advance().await.unwrap();
        let [old, new] = [0, 1].map(|side| counts(every[side], &seen[side]));
        let service = MigrationLayer::new(handle.clone(), new)
            .limits(Limits::default().buffered_bytes(4 * MIB))
            .unwrap()
            .failure_policy(FailurePolicy::AwaitBoth)
            .stream_bodies(Streaming::new().lag(MIB))
            .unwrap()
            .layer(old);
        let request = Request::put("/a").body(made(LENGTH, &alive)).unwrap();
        let sent = tokio::spawn(service.oneshot(request));
        let mut most_buffered = 0;
        while !sent.is_finished() {
            handle.publish_metrics();
            most_buffered = most_buffered.max(buffered(&snapshotter));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(sent.await.unwrap().unwrap().status(), 200);
        assert_eq!(seen.map(|seen| seen.load(Ordering::SeqCst)), [LENGTH; 2]);
        assert!(handle.dirty_keys().is_empty());
        // What is kept, and a chunk in each reader's hands.
        assert!((MIB..=MIB + 3 * CHUNK).contains(&alive.most()), "{}", alive.most());
        assert!((MIB / 2..=MIB + CHUNK).contains(&most_buffered), "{most_buffered}");
        assert_eq!(alive.now(), 0);
        handle.publish_metrics();
        assert_eq!(buffered(&snapshotter), 0);
    }
}
