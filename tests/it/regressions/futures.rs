//! What the futures of a side hold until they are dropped.

use std::{
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll},
};

use tower::Layer;

use super::*;

type Then = Arc<dyn Fn() + Send + Sync>;

/// A side whose futures do something when they are dropped, once they have answered.
#[derive(Clone)]
struct AtDrop(Fake, Then);

struct Held<F> {
    future: F,
    answered: bool,
    then: Then,
}

impl<F: Future + Unpin> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = Pin::new(&mut self.future).poll(cx);
        self.answered |= polled.is_ready();
        polled
    }
}

impl<F> Drop for Held<F> {
    fn drop(&mut self) {
        if self.answered {
            (self.then)();
        }
    }
}

impl Service<Req> for AtDrop {
    type Response = <Fake as Service<Req>>::Response;
    type Error = <Fake as Service<Req>>::Error;
    type Future = Held<<Fake as Service<Req>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        Held { future: self.0.call(request), answered: false, then: Arc::clone(&self.1) }
    }
}

async fn at_write_both(handle: &MigrationHandle) {
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.set_shadow_rate(0.0).unwrap();
}

/// It may hold a permit or a transaction: whoever waits for the leg waits for that.
#[tokio::test(start_paused = true)]
async fn a_leg_is_in_flight_and_in_its_place_until_its_future_is_gone() {
    let handle = MigrationHandle::new("held");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let side = |side: Side| {
        let (handle, seen) = (handle.clone(), Arc::clone(&seen));
        let then = move || {
            let status = handle.status();
            let on = if side == Side::Old { status.on_old } else { status.on_new };
            seen.lock().unwrap().push((side, on.writes));
        };
        // An error: the mark of an answer stays with its body.
        AtDrop(Fake::errs(), Arc::new(then))
    };
    let service = MigrationLayer::new(handle.clone(), side(Side::New)).layer(side(Side::Old));
    at_write_both(&handle).await;
    assert!(service.clone().oneshot(put("/a", "v")).await.is_err());
    handle.shutdown().await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, [(Side::Old, 1), (Side::New, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_panics_when_it_is_dropped_is_a_leg_that_panicked() {
    let handle = MigrationHandle::new("held");
    let side = || {
        let then = || match std::thread::panicking() {
            true => {}
            false => resume_unwind(Box::new("dropped")),
        };
        AtDrop(Fake::says(200, ""), Arc::new(then))
    };
    let layer = MigrationLayer::new(handle.clone(), side()).read_fallback(SECOND).unwrap();
    let service = layer.layer(side());
    at_write_both(&handle).await;
    let answer = service.clone().oneshot(put("/a", "v")).await.unwrap();
    assert_eq!(answer.status(), 500);
    drop(answer);
    let answer = service.clone().oneshot(get("/b")).await.unwrap();
    assert_eq!(answer.status(), 500, "both sides are asked, and neither panics through");
    drop(answer);
    handle.shutdown().await;
    let status = handle.status();
    assert_eq!((status.on_old.writes, status.on_new.writes), (0, 0));
    assert_eq!(handle.dirty_count(), 1);
}
