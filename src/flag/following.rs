//! An instance that does not own its flag: it obeys, and takes over when the
//! owner has ended.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, sleep_until};

use super::{
    Core, FlagStore, Presence, Record, Standing, StoreError, StoreErrorKind,
    asking::asked,
    core::locked,
    gate::Position,
    journal::{Inherited, adopt, inherit},
    later,
};
use crate::{
    reconcile::Found,
    stage::{Side, SyncState},
};

impl Core {
    /// Tells the store again and again that this instance is there, until it
    /// need not be told any more.
    pub(super) fn keep_attending(self: &Arc<Self>, lease: Duration) {
        let core = Arc::downgrade(self);
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let mut failing = false;
            while let Some(epoch) = attending(&core, &*store) {
                // Neither a handle nor what is known of the flag is kept alive
                // while nothing happens.
                let watched = Arc::clone(&store);
                let news = asked(lease / 4, async move { watched.watch(epoch).await.map(Some) });
                // No news in time is the rule.
                let next = later(lease / 4);
                let news = match news.await {
                    Err(error) if error.kind() == StoreErrorKind::Unknown => {
                        sleep_until(next).await;
                        Ok(None)
                    }
                    news => news,
                };
                let Some(core) = core.upgrade() else {
                    return;
                };
                let heard = match news {
                    Ok(Some(record)) => {
                        core.follow(record).await;
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                let attended = match heard {
                    Ok(()) => core.attend().await,
                    failed => failed,
                };
                if let Err(error) = &attended
                    && !failing
                {
                    tracing::error!(
                        target: "tower_migration",
                        migration = %core.name(), %error, hint = error.lifted_by(),
                        "the flag's store fails: this process goes on at its stage"
                    );
                }
                failing = attended.is_err();
                if failing {
                    drop(core);
                    sleep(lease).await;
                }
            }
        });
    }

    async fn attend(self: &Arc<Self>) -> Result<(), StoreError> {
        let epoch = self.recorded.load(Ordering::SeqCst);
        let presence = Presence::new(Arc::clone(&self.instance), epoch);
        let store = Arc::clone(&self.store);
        let attending = async move { store.attend(presence).await };
        match asked(self.options.step_deadline, attending).await? {
            Standing::Owner if self.follows() => self.take_over().await,
            _ => Ok(()),
        }
    }

    /// Goes where the owner has put the flag. It does not move it while there
    /// are two, unless by force: so there is nothing to wait for.
    async fn follow(self: &Arc<Self>, record: Record) {
        let _turn = Arc::clone(&self.step).lock_owned().await;
        if self.follows() {
            self.obey(record);
        }
    }

    fn obey(&self, record: Record) {
        self.recorded.fetch_max(record.epoch, Ordering::SeqCst);
        for side in Side::ALL {
            self.believe(side, record.sync.get(side));
            let span = record.spans.get(side);
            self.spans[side.index()].store(span, Ordering::SeqCst);
            self.note_side(side);
        }
        *locked(&self.forced) = record.forced;
        let now = self.word();
        let to = Position { stage: record.stage, share: record.ramp };
        if now.position() != to {
            self.flip(to, record.epoch.max(now.epoch() + 1), |word| word);
            if now.stage().authority() != to.stage.authority() {
                self.taint(to.stage.authority());
            }
        }
    }

    /// Takes over what the owner knows of a side. A record may say better things
    /// than the one before it: an authority is unsynced on record for as long as
    /// an emergency exit has not settled. But what this instance has seen go
    /// wrong, the record does not know.
    fn believe(&self, side: Side, recorded: SyncState) {
        let clear = || self.untracked[side.index()].load(Ordering::SeqCst) == 0;
        let was = self.sync().get(side);
        let worse = was.min(recorded);
        let now = if clear() { recorded } else { worse };
        self.change_sync(side, was, now);
        if !clear() {
            // It may have gone wrong just now.
            self.change_sync(side, now, worse);
        }
    }

    /// The owner has ended, and the store has given the flag to this instance.
    async fn take_over(self: &Arc<Self>) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let loading = async move { store.load().await };
        let record = asked(self.options.step_deadline, loading)
            .await?
            .ok_or_else(|| StoreError::of(StoreErrorKind::Missing, "the flag's record is gone"))?;
        let _turn = Arc::clone(&self.step).lock_owned().await;
        if self.shut_down.load(Ordering::SeqCst) {
            return Ok(());
        }
        let replaces = record.epoch;
        let clean = record.clean;
        let inherited = self.inherit_from_owner(record).await;
        self.obey(inherited.record);
        self.restore(&inherited.found);
        if !clean {
            self.ledger.linger_of_the_dead(self.word().slot());
        }
        self.record_takeover(replaces).await?;
        self.takes_over();
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(), stage = %self.word().stage(),
            "the flag's owner has ended: this process owns it now"
        );
        Ok(())
    }

    /// With all that the owner has left in the journal. Where that cannot be had, without:
    /// a flag that nobody can move would be worse.
    async fn inherit_from_owner(&self, record: Record) -> Inherited {
        let without = record.clone();
        let mut round = 0;
        let inherited = match adopt(self.log.as_ref(), &record).await {
            Ok(found) => {
                round = found.round;
                inherit(record, self.log.as_deref(), found, false)
            }
            Err(error) => Err(error),
        };
        inherited.unwrap_or_else(|error| {
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(), %error,
                "what the flag's owner knew of dirty keys is lost: a side is unsynced"
            );
            let mut record = without.after_restart();
            record.spans.void_all();
            // What is not taken over must not be found again.
            Inherited { record, found: Found { round, ..Found::default() } }
        })
    }

    /// What is not known of the side that is not the authority, since an
    /// instance has ended without a farewell: a write of its may have landed on
    /// one side alone.
    pub(super) fn distrust(&self) {
        self.ledger.linger_of_the_dead(self.word().slot());
        let stage = self.word().stage();
        if !stage.is_two_sided() {
            return;
        }
        let side = stage.authority().other();
        self.unsync(side);
        tracing::error!(
            target: "tower_migration",
            migration = %self.name(), %side,
            "another process ended without shutdown: the side is unsynced"
        );
    }
}

/// The epoch to watch from, or `None` when there is nothing to attend to.
fn attending(core: &Weak<Core>, store: &dyn FlagStore) -> Option<u64> {
    let core = core.upgrade()?;
    let done =
        core.shut_down.load(Ordering::SeqCst) || (!core.follows() && store.lease().is_none());
    (!done).then(|| core.recorded.load(Ordering::SeqCst))
}
