//! Faults on demand, around one side's router.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use fastrand::Rng;
use tokio::time::sleep;

/// What one request meets.
enum Fault {
    /// Fails before the store has seen it.
    ErrorBefore,
    /// The store has done it, but the answer says that it failed.
    ErrorAfter,
    PanicBefore,
    PanicAfter,
    Slow(Duration),
}

/// The share of requests that meet a fault, from 0 (none) to 100 (each one).
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    percent: AtomicU8,
    injected: AtomicU64,
    rng: Mutex<Rng>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let shared = Shared {
            percent: AtomicU8::new(0),
            injected: AtomicU64::new(0),
            rng: Mutex::new(Rng::with_seed(seed)),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn set(&self, percent: u8) {
        self.shared.percent.store(percent, Ordering::SeqCst);
    }

    pub(crate) fn injected(&self) -> u64 {
        self.shared.injected.load(Ordering::SeqCst)
    }

    /// The router with the faults in front of it.
    pub(crate) fn around(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), inject))
    }

    fn next(&self) -> Option<Fault> {
        let percent = self.shared.percent.load(Ordering::SeqCst);
        if percent == 0 {
            return None;
        }
        let mut rng = self.shared.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if rng.u8(0..100) >= percent {
            return None;
        }
        self.shared.injected.fetch_add(1, Ordering::SeqCst);
        Some(match rng.u8(0..10) {
            0..3 => Fault::ErrorBefore,
            3..6 => Fault::ErrorAfter,
            6 => Fault::PanicBefore,
            7 => Fault::PanicAfter,
            _ => Fault::Slow(Duration::from_millis(rng.u64(20..=120))),
        })
    }
}

fn failed() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "injected").into_response()
}

/// A panic that the panic hook does not print: there would be hundreds.
fn blow_up() -> ! {
    resume_unwind(Box::new("injected"))
}

async fn inject(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    match faults.next() {
        None => next.run(request).await,
        Some(Fault::ErrorBefore) => failed(),
        Some(Fault::PanicBefore) => blow_up(),
        Some(Fault::ErrorAfter) => {
            next.run(request).await;
            failed()
        }
        Some(Fault::PanicAfter) => {
            next.run(request).await;
            blow_up()
        }
        Some(Fault::Slow(pause)) => {
            sleep(pause).await;
            next.run(request).await
        }
    }
}
