//! What a waiting step has in hand, so that it can be taken from it.
//!
//! A step waits in its caller's future, which puts everything back at once when
//! it is dropped. But a future may also be kept and not polled any more; then it
//! must neither hold writes for longer than it may, nor keep a step in a hurry
//! from its turn. So a task watches over it.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle, time::timeout_at};

use super::{claim::Turn, held::Restore};
use crate::flag::{Core, Reason, later};

/// What is in hand. In this order: the flag is put back before anybody else can
/// have the turn.
struct InHand {
    restore: Option<Restore>,
    turn: Turn,
}

type Parts = Arc<Mutex<Option<InHand>>>;

fn lock(parts: &Parts) -> MutexGuard<'_, Option<InHand>> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Lost {
    told: Notify,
    expired: AtomicBool,
}

/// The turn, and the way back.
pub(super) struct Lent {
    parts: Parts,
    lost: Arc<Lost>,
    core: Arc<Core>,
    watch: JoinHandle<()>,
}

impl Lent {
    pub(super) fn new(core: Arc<Core>, turn: Turn) -> Self {
        let parts = Arc::new(Mutex::new(Some(InHand { restore: None, turn })));
        let lost: Arc<Lost> = Arc::default();
        let watch = Self::watch(&core, &parts, &lost, None);
        Self { parts, lost, core, watch }
    }

    fn watch(
        core: &Arc<Core>,
        parts: &Parts,
        lost: &Arc<Lost>,
        hold: Option<Duration>,
    ) -> JoinHandle<()> {
        let (core, parts, lost) = (Arc::clone(core), Arc::clone(parts), Arc::clone(lost));
        tokio::spawn(async move {
            match hold {
                None => core.is_overtaken().await,
                Some(hold) => {
                    // Whichever comes first ends it.
                    let overtaken = timeout_at(later(hold), core.is_overtaken()).await;
                    lost.expired.store(overtaken.is_err(), Ordering::SeqCst);
                }
            }
            let taken = lock(&parts).take();
            drop(taken);
            lost.told.notify_waiters();
        })
    }

    /// Resolves when everything has been taken away.
    pub(super) async fn lost(&self) {
        loop {
            let mut lost = pin!(self.lost.told.notified());
            lost.as_mut().enable();
            if lock(&self.parts).is_none() {
                return;
            }
            lost.await;
        }
    }

    /// Whether it was taken away because writes had been held for too long.
    pub(super) fn expired(&self) -> bool {
        self.lost.expired.load(Ordering::SeqCst)
    }

    /// Changes the flag, which `restore` will put back.
    pub(super) fn change(
        &self,
        restore: Restore,
        change: impl FnOnce(&Core),
    ) -> Result<(), Reason> {
        let mut parts = lock(&self.parts);
        let in_hand = parts.as_mut().ok_or(Reason::Overtaken)?;
        in_hand.restore.get_or_insert(restore);
        change(&self.core);
        Ok(())
    }

    /// From here on writes are held, for that long at most.
    pub(super) fn hold(
        &mut self,
        length: Duration,
        change: impl FnOnce(&Core),
    ) -> Result<(), Reason> {
        let mut parts = lock(&self.parts);
        let in_hand = parts.as_mut().ok_or(Reason::Overtaken)?;
        if let Some(restore) = &mut in_hand.restore {
            restore.holds();
        }
        change(&self.core);
        drop(parts);
        self.watch.abort();
        self.watch = Self::watch(&self.core, &self.parts, &self.lost, Some(length));
        Ok(())
    }

    /// Takes everything back, for the end of the step.
    pub(super) fn take(self) -> Result<(Turn, Option<Restore>), Reason> {
        let in_hand = lock(&self.parts).take().ok_or(Reason::Overtaken)?;
        Ok((in_hand.turn, in_hand.restore))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.watch.abort();
        let taken = lock(&self.parts).take();
        drop(taken);
    }
}
