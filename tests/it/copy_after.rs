//! A protocol of one's own whose `copy_after` does its work when it is called,
//! as `Plain`'s does.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tower::{Layer, ServiceExt, service_fn};
use tower_migration::{
    Dispatch, MigrationHandle, MigrationLayer, Outcome, Side, WriteOrder,
    body::{CaptureError, Ending, Room},
    compare::{Context, Diff, SkipReason},
    protocol::{Class, Drained, HasKeys, Mark, Protocol, Said},
    reconcile::Keys,
    telemetry::{Refused, SkippedLeg},
};

/// Without the panic hook: a report would say nothing.
fn boom<T>() -> T {
    std::panic::resume_unwind(Box::new("on purpose"))
}

#[derive(Clone, Copy)]
struct Panics;

impl HasKeys for Panics {}

impl Protocol<(), (), String> for Panics {
    type Answer = ();
    type Whole = ();
    type Watched = ();
    type Captured = ();
    type Pending = Room;
    type Ahead = ();
    type Glance = ();

    fn classify(&self, (): &()) -> Class {
        Class::Write
    }
    fn name(&self, (): &()) -> Arc<str> {
        "ask".into()
    }
    fn label(&self, (): &()) -> Arc<str> {
        "ask".into()
    }
    fn read_keys(&self, (): &()) -> Keys {
        Keys::none()
    }
    fn keys(&self, (): &()) -> Keys {
        "k".into()
    }
    async fn collect(&self, (): (), _: Room) -> Result<(), Refused> {
        Ok(())
    }
    fn copy(&self, (): &(), _: Dispatch) {}
    fn follows(&self) -> bool {
        true
    }
    fn copy_after(
        &self,
        (): &(),
        _: Dispatch,
        (): &mut (),
        _: usize,
    ) -> impl Future<Output = Result<(), SkippedLeg>> + Send {
        ready(boom())
    }
    async fn watch(&self, (): (), _: Dispatch, _: Room) -> ((), ()) {
        ((), ())
    }
    async fn watched(&self, (): ()) -> Result<(), CaptureError> {
        Ok(())
    }
    fn watched_now(&self, (): ()) -> Option<()> {
        Some(())
    }
    fn glancing(&self) {}
    fn glance((): &(), answer: Result<&(), &String>) -> Option<Outcome> {
        Some(if answer.is_ok() { Outcome::Applied } else { Outcome::Unknown })
    }
    fn judge(&self, (): &(), (): &()) -> Said {
        Said::Now(Outcome::Applied, 0)
    }
    fn comparable(&self, (): &()) -> Result<(), SkipReason> {
        Ok(())
    }
    fn pass((): (), mark: Option<Mark>) {
        drop(mark);
    }
    fn ahead((): ()) {}
    fn keep(&self, (): &(), (): (), ending: Ending) {
        ending.well();
    }
    fn tee(&self, (): &(), (): (), mark: Mark, room: Room) -> ((), Room) {
        drop(mark);
        ((), room)
    }
    async fn pending(room: Room) -> Result<((), Room), CaptureError> {
        Ok(((), room))
    }
    async fn capture(&self, (): &(), (): (), room: Room) -> Result<((), Room), CaptureError> {
        Ok(((), room))
    }
    async fn drain(&self, (): &(), (): ()) -> Result<Drained, CaptureError> {
        Ok(Drained::default())
    }
    fn compare(&self, (): &(), (): &(), (): &(), _: Context) -> Diff {
        Diff::none()
    }
    fn refuse(&self, reason: Refused) -> Result<(), String> {
        Err(reason.to_string())
    }
}

/// The panic costs what the method was for.
#[tokio::test(start_paused = true)]
async fn a_copy_after_that_panics_when_it_is_called_costs_the_other_leg_only() {
    let rows: [Arc<AtomicUsize>; 2] = [Arc::default(), Arc::default()];
    let [old, new] = rows.each_ref().map(|rows| {
        let rows = Arc::clone(rows);
        service_fn(move |()| -> Ready<Result<(), String>> {
            rows.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        })
    });
    let handle = MigrationHandle::new("own");
    let layer = MigrationLayer::with_protocol(handle.clone(), new, Panics);
    let service = layer.write_order(WriteOrder::AuthorityFirst).layer(old);
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    let asked = tokio::spawn(service.oneshot(())).await;
    assert_eq!(asked.ok(), Some(Ok(())), "the authority has served it");
    handle.shutdown().await;
    assert_eq!(rows.map(|rows| rows.load(Ordering::SeqCst)), [1, 0]);
    assert_eq!(handle.dirty_keys().len(), 1);
}
