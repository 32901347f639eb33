//! Steps under hostile conditions: runtimes that end, stores that hang or panic,
//! flips at the worst moment. Each test was a loss, a hang or a wrong answer.

mod races;
mod ramps;
mod records;
mod runtimes;
mod stores;
mod waits;

use std::{
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tower_migration::{
    BoxFuture, Claim, FailurePolicy, FileStore, FlagStore, MemoryStore, MigrationHandle, Moved,
    Presence, Reason, Record, Side, Stage, Standing, StoreError, StoreErrorKind, reconcile::Key,
};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

/// Fakes are ready at once.
fn go(
    rig: &Rig,
    request: Req,
) -> impl Future<Output = Result<Answered, tower_migration::BoxError>> + Send + use<> {
    let mut service = rig.service.clone();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready());
    tower::Service::call(&mut service, request)
}

async fn at(handle: &MigrationHandle, stage: Stage) {
    while handle.stage() < stage {
        handle.advance().await.unwrap();
        if handle.stage() == Stage::WriteBoth {
            handle.confirm_synced(Side::New).await.unwrap();
        }
    }
}

fn busy_service(rig: &Rig, until: Arc<AtomicBool>) -> Vec<JoinHandle<u64>> {
    (0..4)
        .map(|n| {
            let (mut service, until) = (rig.service.clone(), Arc::clone(&until));
            tokio::spawn(async move {
                let mut done = 0;
                while !until.load(Ordering::SeqCst) {
                    let request = put(&format!("/{n}"), "x");
                    let answer = {
                        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                        assert!(
                            tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready()
                        );
                        tower::Service::call(&mut service, request)
                    };
                    drop(answer.await.unwrap());
                    done += 1;
                }
                done
            })
        })
        .collect()
}
