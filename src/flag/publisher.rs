//! The task that publishes the counters and watches new.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering},
};

use tokio::{runtime, time::sleep};

use super::{Core, core::locked};
use crate::{
    observe::Observer,
    reconcile::RightSide,
    stage::Side,
    telemetry::{INTERVAL, Snapshot},
};

impl Core {
    /// Whether there is a task that publishes the counters.
    #[inline]
    pub(crate) fn is_published(&self) -> bool {
        self.hot.publishing.load(Ordering::Relaxed)
    }

    /// Starts it, where there is a runtime.
    pub(crate) fn ensure_published(self: &Arc<Self>) {
        if self.is_published() {
            return;
        }
        let Ok(runtime) = runtime::Handle::try_current() else {
            return;
        };
        if self.hot.publishing.swap(true, Ordering::Relaxed) {
            return;
        }
        let core = Arc::downgrade(self);
        // Dropped with the task, also when its runtime is shut down: the next
        // request in another runtime starts it again.
        let running = Publishing(core.clone());
        runtime.spawn(async move {
            let _running = running;
            loop {
                sleep(INTERVAL).await;
                match core.upgrade() {
                    Some(core) => {
                        core.unshare();
                        core.take_up_record();
                        core.look_at_journal();
                        core.keep_watch();
                        core.publish();
                    }
                    None => return,
                }
            }
        });
    }

    /// Asks this observer for what it has lost, from now on.
    pub(crate) fn heed(&self, observer: &Arc<dyn Observer>) {
        let mut observers = locked(&self.observers);
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }

    fn unobserved(&self) -> u64 {
        let observers = locked(&self.observers).clone();
        let lost = |observer: &Arc<dyn Observer>| {
            catch_unwind(AssertUnwindSafe(|| observer.dropped())).unwrap_or(0)
        };
        observers.iter().filter_map(Weak::upgrade).map(|observer| lost(&observer)).sum()
    }

    pub(crate) fn publish(&self) {
        let word = self.word();
        let (dirty, parked) = {
            let dirty = self.dirty();
            let rights = [RightSide::Is(Side::Old), RightSide::Is(Side::New), RightSide::Conflict];
            (rights.map(|right| dirty.count(right)), dirty.parked())
        };
        let snapshot = Snapshot {
            name: Arc::clone(self.name()),
            stage: word.stage(),
            ramp: word.share().as_f64(),
            follows: self.follows(),
            epoch: word.epoch(),
            sync: self.sync(),
            alarm: self.alarm().or_else(|| self.auto_rollback()).is_some(),
            shadow_rate: self.shadow_rate(),
            ledger: self.ledger,
            counters: &self.counters,
            keys_in_use: self.order.keys_in_use(),
            places: self.order.places(),
            dirty,
            parked,
            sweeps: self.sweeps(),
            journal: self.log.as_ref().map(|log| (log.stats(), self.journal_failure().is_some())),
            places_differing: self.report.kinds(),
            overflown: &self.report.overflown,
            unobserved: self.unobserved(),
            captured_bytes: self.captured.used(),
            buffered_bytes: self.buffered.used(),
            upgraded: [0, 1].map(|side| self.upgraded[side].load(Ordering::Relaxed)),
        };
        locked(&self.published).publish(&snapshot);
    }
}

struct Publishing(Weak<Core>);

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.hot.publishing.store(false, Ordering::Relaxed);
        }
    }
}
