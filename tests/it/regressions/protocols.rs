//! Protocols of one's own, and answers that go wrong half-way.

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{sync::mpsc, time::timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_migration::{
    Dispatch, MigrationHandle, MigrationLayer, Outcome, Side, Stage, WriteOrder,
    body::{CaptureError, Ending, Room},
    compare::{Context, Diff, SkipReason},
    protocol::{Class, Closing, Drained, HasKeys, Mark, Protocol, Said},
    reconcile::Keys,
    telemetry::{Refused, SkippedLeg},
};

use crate::support::*;

// === shadow reads over HTTP ===

fn data(text: &'static str) -> Result<Frame<Bytes>, tower_migration::BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

// === dual writes over HTTP ===

/// The handler of old writes while its answer streams, and panics before it has
/// written. New has the row.
#[tokio::test(start_paused = true)]
async fn an_answer_that_panics_half_way_makes_the_key_dirty() {
    use futures_util::StreamExt;
    let old = Fake::new(|_| async {
        let frames = futures_util::stream::iter([data("first")]);
        let panics = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        Ok(http::Response::new(Body::new(StreamBody::new(Box::pin(frames.chain(panics))))))
    });
    let rig = Rig::new(old, Fake::says(200, "written")).at(Stage::WriteBoth).await;
    let response = rig.send(put("/a", "x")).await.unwrap();
    let read = tokio::spawn(async move { response.into_body().collect().await.is_ok() }).await;
    assert!(read.is_err(), "as without the layer");
    rig.handle.shutdown().await;
    assert_eq!(rig.dirty(), ["/a"]);
}

// === gRPC ===

/// `INVALID_ARGUMENT` to a client-streaming call comes after the messages before
/// the bad one have been written: here two on old, and one on new. The code
/// does not say that nothing was written.
#[tokio::test(start_paused = true)]
async fn a_stream_that_both_sides_refuse_half_way_makes_the_key_dirty() {
    assert_eq!(refused_half_way(WriteOrder::Concurrent).await, (*b"ab", b"a".to_vec(), 1));
}

/// The same, and new is not even asked.
#[tokio::test(start_paused = true)]
async fn a_stream_that_the_authority_refuses_half_way_makes_the_key_dirty() {
    assert_eq!(refused_half_way(WriteOrder::AuthorityFirst).await, (*b"ab", Vec::new(), 1));
}

/// What is on old and on new, and how many keys are dirty.
async fn refused_half_way(order: WriteOrder) -> ([u8; 2], Vec<u8>, usize) {
    use tower_migration::protocol::grpc::Grpc;
    const SET: &[u8] = include_bytes!("../../../examples/tonic/airports.bin");
    let side = |takes: usize| {
        let rows = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&rows);
        let fake = Fake::new(move |call| {
            for message in call.body.chunks(6).take(takes) {
                written.lock().unwrap().push(message[5]);
            }
            async {
                let mut refused = answer(200, "");
                refused.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                refused.headers_mut().insert("grpc-status", 3.into());
                Ok(refused)
            }
        });
        (fake, rows)
    };
    let ((old, old_rows), (new, new_rows)) = (side(2), side(1));
    let handle = MigrationHandle::new("grpc");
    let grpc = Grpc::new()
        .descriptors(SET)
        .and_then(|grpc| grpc.key("/airports.v1.Airports/Import", |_| "k"))
        .unwrap();
    let service =
        MigrationLayer::with_protocol(handle.clone(), new, grpc).write_order(order).layer(old);
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    let messages = b"\0\0\0\0\x01a\0\0\0\0\x01b\0\0\0\0\x01c";
    let request = http::Request::post("/airports.v1.Airports/Import")
        .header("content-type", "application/grpc")
        .body(body(&messages[..]))
        .unwrap();
    service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    handle.shutdown().await;
    let old = old_rows.lock().unwrap().clone();
    let new = new_rows.lock().unwrap().clone();
    (old.try_into().unwrap(), new, handle.dirty_keys().len())
}

// === a protocol of one's own ===

#[derive(Clone, Debug)]
enum Ask {
    Write,
}

/// Items, and how the stream came to its end.
type Items = mpsc::Receiver<Outcome>;

/// What a protocol of one's own does, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    /// `judge` says `AtEnd`; an answer that is dropped half-way drops its ending.
    ForgetsAwaited,
    /// `judge` says `Now(Applied)`, the end says otherwise.
    EndSaysOtherwise,
    /// `judge` says `Now(Applied)`, the end tells the key.
    EndTellsKeys,
    /// A `copy_after` that does its work when it is called, as `Plain`'s does,
    /// and panics.
    CopyAfterPanics,
    /// Its writes may be broken off.
    Closes,
}

struct Out {
    items: Items,
    mark: Option<Mark>,
    ending: Option<Ending>,
    odd: Option<Odd>,
    closing: Option<Closing>,
}

impl Out {
    async fn next(&mut self) -> Option<Outcome> {
        let item = match &mut self.closing {
            None => self.items.recv().await,
            Some(closing) => tokio::select! {
                item = self.items.recv() => item,
                () = closing.wait() => {
                    self.closing.take().unwrap().closed();
                    None
                }
            },
        };
        if item.is_none() {
            drop(self.mark.take());
            if let Some(ending) = self.ending.take() {
                match self.odd {
                    Some(Odd::EndSaysOtherwise) => {
                        ending.said(Drained::said(Outcome::Unknown, 7)).await;
                    }
                    Some(Odd::EndTellsKeys) => {
                        ending.said(told("old")).await;
                    }
                    _ => ending.well(),
                }
            }
        }
        item
    }
}

/// "`None`: the head's word counts", and "Keys that only the rest told, as of a
/// create".
fn told(key: &'static str) -> Drained {
    let mut drained = Drained::default();
    drained.keys = key.into();
    drained
}

impl HasKeys for Odd {}

impl Protocol<Ask, Items, String> for Odd {
    type Answer = Out;
    type Whole = Ask;
    type Watched = Ask;
    type Captured = ();
    type Pending = Room;
    type Ahead = Items;
    type Glance = ();

    fn classify(&self, _: &Ask) -> Class {
        Class::Write
    }
    fn name(&self, _: &Ask) -> Arc<str> {
        "ask".into()
    }
    fn label(&self, _: &Ask) -> Arc<str> {
        "ask".into()
    }
    fn read_keys(&self, _: &Ask) -> Keys {
        Keys::none()
    }
    fn keys(&self, _: &Ask) -> Keys {
        if *self == Self::EndTellsKeys { Keys::none() } else { "k".into() }
    }
    async fn collect(&self, ask: Ask, _: Room) -> Result<Ask, Refused> {
        Ok(ask)
    }
    fn copy(&self, ask: &Ask, _: Dispatch) -> Ask {
        ask.clone()
    }
    fn follows(&self) -> bool {
        *self == Self::CopyAfterPanics
    }
    fn copy_after(
        &self,
        _: &Ask,
        _: Dispatch,
        _: &mut Items,
        _: usize,
    ) -> impl Future<Output = Result<Ask, SkippedLeg>> + Send {
        if *self == Self::CopyAfterPanics {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        ready(Ok(Ask::Write))
    }
    async fn watch(&self, ask: Ask, _: Dispatch, _: Room) -> (Ask, Ask) {
        (ask.clone(), ask)
    }
    async fn watched(&self, ask: Ask) -> Result<Ask, CaptureError> {
        Ok(ask)
    }
    fn watched_now(&self, ask: Ask) -> Option<Ask> {
        Some(ask)
    }
    fn glancing(&self) {}
    fn glance((): &(), answer: Result<&Items, &String>) -> Option<Outcome> {
        Some(if answer.is_ok() { Outcome::Applied } else { Outcome::Unknown })
    }
    fn judge(&self, _: &Ask, _: &Items) -> Said {
        if *self == Self::ForgetsAwaited { Said::AtEnd } else { Said::Now(Outcome::Applied, 0) }
    }
    fn comparable(&self, _: &Items) -> Result<(), SkipReason> {
        Ok(())
    }
    fn pass(items: Items, mark: Option<Mark>) -> Out {
        Out { items, mark, ending: None, odd: None, closing: None }
    }
    fn closes(&self, _: &Ask) -> Option<Duration> {
        (*self == Self::Closes).then_some(SECOND)
    }
    fn close_when(&self, answer: Out, closing: Closing) -> Out {
        Out { closing: Some(closing), ..answer }
    }
    fn ahead(items: Items) -> Items {
        items
    }
    fn keep(&self, _: &Ask, items: Items, ending: Ending) -> Out {
        Out { items, mark: None, ending: Some(ending), odd: Some(*self), closing: None }
    }
    fn tee(&self, _: &Ask, items: Items, mark: Mark, room: Room) -> (Out, Room) {
        (Self::pass(items, Some(mark)), room)
    }
    async fn pending(room: Room) -> Result<((), Room), CaptureError> {
        Ok(((), room))
    }
    async fn capture(&self, _: &Ask, _: Items, room: Room) -> Result<((), Room), CaptureError> {
        Ok(((), room))
    }
    async fn drain(&self, _: &Ask, mut items: Items) -> Result<Drained, CaptureError> {
        let mut last = Drained::default();
        while let Some(outcome) = items.recv().await {
            last = Drained::said(outcome, 0);
        }
        Ok(if *self == Self::EndTellsKeys { told("new") } else { last })
    }
    fn compare(&self, _: &Ask, (): &(), (): &(), _: Context) -> Diff {
        Diff::none()
    }
    fn refuse(&self, reason: Refused) -> Result<Out, String> {
        Err(reason.to_string())
    }
}

/// A side whose writes are made while their answer streams: two items, and the
/// row is there after the second.
fn streams(
    rows: Arc<AtomicUsize>,
    stays: bool,
) -> impl Service<Ask, Response = Items, Error = String, Future = Ready<Result<Items, String>>>
+ Clone
+ Send
+ 'static {
    service_fn(move |_: Ask| {
        let rows = Arc::clone(&rows);
        let (send, items) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..3 {
                if send.send(Outcome::Applied).await.is_err() {
                    return;
                }
            }
            rows.fetch_add(1, Ordering::SeqCst);
            if stays {
                send.closed().await;
            }
        });
        ready(Ok(items))
    })
}

struct Own {
    handle: MigrationHandle,
}

async fn own(
    odd: Odd,
    order: WriteOrder,
) -> (Own, impl Service<Ask, Response = Out, Error = String, Future: Send> + Clone) {
    let handle = MigrationHandle::new("own");
    let rows = [Arc::default(), Arc::default()];
    let stays = odd == Odd::Closes;
    let layer =
        MigrationLayer::with_protocol(handle.clone(), streams(Arc::clone(&rows[1]), false), odd)
            .write_order(order);
    let service = layer.layer(streams(Arc::clone(&rows[0]), stays));
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    (Own { handle }, service)
}

impl Own {}

/// The same, found as late as it may be: the write may still land on old.
#[tokio::test(start_paused = true)]
async fn a_leg_whose_ending_is_forgotten_lingers() {
    let (own, service) = own(Odd::ForgetsAwaited, WriteOrder::Concurrent).await;
    let mut out = service.oneshot(Ask::Write).await.unwrap();
    out.next().await;
    settle_tasks().await;
    let began = tokio::time::Instant::now();
    drop(out);
    own.handle.shutdown().await;
    assert!(began.elapsed() >= SECOND / 2, "a leg that was dropped lingers");
}

/// Of the other leg, what its end says counts for more than its head; of the
/// authority's it is thrown away.
#[tokio::test(start_paused = true)]
async fn what_the_end_of_the_authoritys_answer_says_counts() {
    let (own, service) = own(Odd::EndSaysOtherwise, WriteOrder::Concurrent).await;
    let mut out = service.oneshot(Ask::Write).await.unwrap();
    while out.next().await.is_some() {}
    own.handle.drained(Side::Old).await;
    own.handle.drained(Side::New).await;
    assert_eq!(own.handle.dirty_keys().len(), 1, "old has said that nobody knows");
}

/// "After which grace period this write is broken off if it keeps a step
/// waiting".
#[tokio::test(start_paused = true)]
async fn a_write_that_may_be_broken_off_is_so_on_every_stage() {
    let handle = MigrationHandle::new("own");
    // Only old's answer stays open.
    let side = |stays| streams(Arc::default(), stays);
    let layer = MigrationLayer::with_protocol(handle.clone(), side(false), Odd::Closes);
    let service = layer.layer(side(true));
    let ask = async || {
        let mut out = service.clone().oneshot(Ask::Write).await.unwrap();
        tokio::spawn(async move { while out.next().await.is_some() {} });
        settle_tasks().await;
    };
    ask().await;
    handle.advance().await.unwrap();
    timeout(SECOND * 10, handle.settled()).await.expect("broken off, of one side");
    handle.confirm_synced(Side::New).await.unwrap();
    ask().await;
    handle.move_to(Stage::OldOnly).await.unwrap();
    timeout(SECOND * 10, handle.settled()).await.expect("broken off, of two sides");
}
