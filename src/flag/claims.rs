//! The one claim of this process: steps and copies share it.
//!
//! A step is taken, and a key copied, under a claim: no other instance is there,
//! and none joins meanwhile. An instance that writes beside a copy knows nothing
//! of its place in the order of keys, so it could be overwritten by it.
//!
//! Copies follow each other for hours. So that another instance can join all the
//! same (a deployment), they share a claim for a moment only, then leave a gap.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use super::{Claim, Core, StoreError, StoreErrorKind, asking::late, later};

/// For how long copies share a claim.
const SHARED: Duration = Duration::from_millis(200);
/// For how long they leave it then, so that others can join.
const GAP: Duration = Duration::from_millis(20);
/// How often a copy looks whether the claim of those before it has ended.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    claim: Weak<Claim>,
    /// When the present run of copies began to share it.
    copying: Option<Instant>,
}

impl Core {
    /// For a step, within `limit`. Does not wait where the store does not: it is
    /// asked in place, so that an emergency exit flips when it is first polled.
    pub(super) async fn ask_claim(&self, limit: Duration) -> Result<Arc<Claim>, StoreError> {
        let asking = async {
            let mut live = self.claims.0.lock().await;
            match live.claim.upgrade() {
                Some(claim) => Ok(claim),
                None => self.new_claim(&mut live).await,
            }
        };
        timeout_at(later(limit), asking).await.unwrap_or_else(|_| Err(late()))
    }

    async fn new_claim(&self, live: &mut Live) -> Result<Arc<Claim>, StoreError> {
        let mut asking = pin!(async { self.store.claim().await });
        // In place rather than in a task; so a store that panics is caught here.
        let claim = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(cx)));
            polled.unwrap_or_else(|_| {
                let what = "the flag's store panicked";
                Poll::Ready(Err(StoreError::of(StoreErrorKind::Other, what)))
            })
        });
        let claim = timeout_at(later(self.options.hold), claim).await;
        let claim = Arc::new(claim.unwrap_or_else(|_| Err(late()))?);
        if claim.lost_instance() {
            self.distrust();
        }
        live.claim = Arc::downgrade(&claim);
        Ok(claim)
    }

    /// For a copy. Makes way for instances that want to join.
    pub(crate) async fn claim_copy(&self) -> Result<Arc<Claim>, StoreError> {
        if self.follows() {
            let what = "another process owns the flag, and copies";
            return Err(StoreError::of(StoreErrorKind::NotOwner, what));
        }
        loop {
            let mut live = self.claims.0.lock().await;
            let long = live.copying.is_some_and(|since| since.elapsed() >= SHARED);
            match live.claim.upgrade() {
                Some(claim) if !claim.keeps_others_out() => return Ok(claim),
                Some(claim) if !long => {
                    live.copying.get_or_insert_with(Instant::now);
                    return Ok(claim);
                }
                Some(claim) => {
                    // Else those who wait for its end would keep it alive.
                    drop((claim, live));
                    sleep(LOOK).await;
                }
                None => {
                    if long {
                        sleep(GAP).await;
                    }
                    let claim = self.new_claim(&mut live).await?;
                    live.copying = claim.keeps_others_out().then(Instant::now);
                    return Ok(claim);
                }
            }
        }
    }
}
