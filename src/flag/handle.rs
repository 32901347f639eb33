//! The handle that moves the flag.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::watch;

use super::{
    Alarm, Blocked, Core, FlagStore, HandleBuilder, InFlight, JournalStatus, Moved, OpenError,
    Reason, Standing, Status,
    gates::Evidence,
    ledger::Kind,
    options::{ConfigError, Options, check_rate},
    steps::Target,
};
use crate::{
    compare::Mismatch,
    reconcile::{DirtyKey, Key, Keys, RightSide},
    report::{Report, Standing as ReportStanding, advise},
    stage::{Share, Side, Stage, Urgency},
};

/// Moves the flag of one migration, and shows where it stands.
///
/// Clones are handles to the same flag; layers made from any of them obey it.
/// A layer goes on at the present stage when all its handles are gone.
///
/// # Example: the whole way
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use tower_migration::{MigrationHandle, Side, Stage};
///
/// let migration = MigrationHandle::new("airports");
/// migration.advance().await?; // write-both: writes go to both sides
/// migration.settled().await; // none that knew only old is left
/// // … copy the existing data here …
/// migration.confirm_synced(Side::New).await?;
/// migration.advance().await?; // read-new: the same, but new answers
/// migration.advance().await?; // new-only
/// assert_eq!(migration.stage(), Stage::NewOnly);
/// # Ok::<(), tower_migration::Blocked>(())
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a handle moves the flag of the layers that are made from it"]
pub struct MigrationHandle {
    pub(crate) core: Arc<Core>,
}

impl MigrationHandle {
    /// A flag at `OldOnly` that is kept in memory only: a restart forgets it,
    /// which the log says at its first step. For tests; use
    /// [`open`](Self::open) in production.
    pub fn new(name: &str) -> Self {
        Self { core: Core::in_memory(name.into(), Options::default()) }
    }

    /// Sets limits before the handle is made.
    pub fn builder(name: &str) -> HandleBuilder {
        HandleBuilder::new(name)
    }

    /// A flag that stands where `store` says it stood.
    ///
    /// After a stop without [`shutdown`](Self::shutdown) in a two-sided stage,
    /// the side that is not the authority counts as unsynced: a write may have
    /// landed on one side alone, unless a [`journal`](HandleBuilder::journal) that notes
    /// writes before their legs (`BeforeLegs`) vouches for it. What the dead process had sent may still land,
    /// so it takes the [`linger`](HandleBuilder::linger) to settle.
    ///
    /// If another process owns the flag, this handle *follows*: see
    /// [`FileStore`](crate::FileStore).
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the record cannot be read or is not there. Never a
    /// default stage.
    pub async fn open(name: &str, store: impl FlagStore) -> Result<Self, OpenError> {
        let core = Core::open(name.into(), Options::default(), Arc::new(store)).await?;
        Ok(Self { core })
    }

    /// The name given at the start, which every metric and log line carries.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// The stage, right now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.core.word().stage()
    }

    /// Everything there is to know, as data and as a page for a person.
    #[must_use]
    pub fn status(&self) -> Status {
        let core = &self.core;
        let word = core.word();
        let ledger = core.ledger;
        let on = |side| InFlight {
            reads: ledger.in_flight(Kind::read(side)),
            writes: ledger.in_flight(Kind::write(side)) + ledger.in_flight(Kind::other_write(side)),
            shadows: ledger.in_flight(Kind::shadow(side)),
        };
        let (right_on_old, right_on_new, conflicts, parked) = {
            let dirty = core.dirty();
            let count = |right| dirty.count(right).0;
            (
                count(RightSide::Is(Side::Old)),
                count(RightSide::Is(Side::New)),
                count(RightSide::Conflict),
                dirty.parked(),
            )
        };
        let [backfill, verify] = core.sweeps();
        let (earlier_writes, oldest_write) = core.earlier_writes();
        Status {
            name: Arc::clone(core.name()),
            stage: word.stage(),
            ramp: word.share().as_f64(),
            epoch: word.epoch(),
            standing: if core.follows() { Standing::Follower } else { Standing::Owner },
            authority: word.stage().authority(),
            sync: core.sync(),
            settled: core.is_settled(),
            earlier_writes,
            oldest_write,
            holding: word.holds(),
            stepping: core.is_stepping(),
            shadow_rate: core.shadow_rate(),
            on_old: on(Side::Old),
            on_new: on(Side::New),
            dirty_right_on_old: right_on_old,
            dirty_right_on_new: right_on_new,
            conflicts,
            parked,
            journal: core.log.as_ref().map(|log| JournalStatus {
                before_legs: log.marks_before(),
                failure: core.journal_failure(),
            }),
            backfill,
            verify,
            untracked_on_old: core.untracked[0].load(Ordering::Relaxed),
            untracked_on_new: core.untracked[1].load(Ordering::Relaxed),
            upgraded_on_old: core.upgraded[0].load(Ordering::Relaxed),
            upgraded_on_new: core.upgraded[1].load(Ordering::Relaxed),
            held_writes: core.counters.held_writes(),
            forced: core.forced.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
            auto_rollback: core.auto_rollback(),
            alarm: core.alarm(),
            gates: core.gate_verdicts(),
            shut_down: core.shut_down.load(Ordering::SeqCst),
        }
    }

    /// Moves the flag to a neighbouring stage, in order. Asking for the present
    /// stage succeeds and changes nothing.
    ///
    /// Waits until writes of earlier epochs have ended (at most
    /// [`step_deadline`](HandleBuilder::step_deadline)). Where the authority
    /// changes (1→2, 2→1), writes are then held for a moment (at most
    /// [`hold`](HandleBuilder::hold)) so that no read after the flip misses a
    /// write acknowledged before it; no client sees an error. Afterwards call
    /// [`settled`](Self::settled) before you copy data.
    ///
    /// A step to a *later* stage also asks the [`gates`](crate::gates), once,
    /// before any write is held; a step back does not.
    ///
    /// # Errors
    ///
    /// [`Blocked`], with every reason at once, those of the gates included.
    /// Nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the record is written puts everything back
    /// as it was; afterwards the step finishes by itself.
    pub async fn move_to(&self, stage: Stage) -> Result<Moved, Blocked> {
        self.core.step(Target::Stage(stage), Urgency::Orderly).await
    }

    /// One step towards new, in order, if the [`gates`](crate::gates) let it
    /// pass; see [`move_to`](Self::move_to).
    ///
    /// # Errors
    ///
    /// [`Blocked`], also at `NewOnly`.
    ///
    /// # Cancel safety
    ///
    /// As [`move_to`](Self::move_to).
    pub async fn advance(&self) -> Result<Moved, Blocked> {
        self.core.step(Target::Next, Urgency::Orderly).await
    }

    /// One step back. From `ReadNew` this is the *emergency exit*: it flips at
    /// once, writes in flight or not, and makes a step that is waiting give
    /// way. The keys whose writes were still running on old become dirty, with
    /// new as their right side; they are named in [`Moved::tainted`], with those that
    /// were dirty in that way already. A write without a key that was still running makes
    /// old suspect: see [`Moved::sync`].
    ///
    /// A write that it overtakes is acknowledged only if old has it too; else its
    /// client gets 503 (`partial-write`), whatever the failure policy.
    ///
    /// If the record cannot be written the flag flips all the same; until it is
    /// durable, writes wait for both sides.
    ///
    /// While a [`ramp`](Self::ramp) lasts, this ends the ramp instead, at once:
    /// all keys read old again.
    ///
    /// # Errors
    ///
    /// [`Blocked`]: at `OldOnly`; on a follower, and while there is one; from `ReadNew`
    /// only while old is unsynced (it would serve data with holes;
    /// [`force`](Self::force) does it anyway). A *suspect* old is let through, and shows
    /// in [`Moved::sync`].
    ///
    /// # Cancel safety
    ///
    /// From `ReadNew` the flip has happened once the future was polled, unless
    /// another step had to give way first, or the store was waited for to say
    /// that no other process is there (50 ms at most); else as [`move_to`](Self::move_to).
    pub async fn rollback(&self) -> Result<Moved, Blocked> {
        self.core.step(Target::Previous, Urgency::Emergency).await
    }

    /// Lets a share of the *keys* read new already, at `WriteBoth`: 0 (none) to
    /// 1 (all), up or down, by the same held flip as from `WriteBoth` to
    /// `ReadNew`.
    ///
    /// A request whose keys are all covered is served as at `ReadNew`; one with
    /// no key, or with one that is not covered, as at `WriteBoth`. A key always
    /// goes the same way (a hash under a seed that is kept with the flag), and
    /// what a share covers, every greater one covers too. Give the layer
    /// [`ramp_by`](crate::MigrationLayer::ramp_by) to go by tenant or user
    /// instead. For as long as the ramp lasts, every write is acknowledged under
    /// [`RequireBoth`](crate::FailurePolicy::RequireBoth), so both sides have
    /// all that was acknowledged, and a ramp can be ended at any moment.
    ///
    /// [`advance`](Self::advance) completes a ramp, [`rollback`](Self::rollback)
    /// ends it at once. The share is in steps of 1/65535.
    ///
    /// While it lasts, a read pays for its key and a hash of it (one allocation
    /// with the HTTP default), and one that goes to new for another, as new was
    /// not polled ready.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// use tower_migration::{MigrationHandle, Side, Stage};
    ///
    /// let migration = MigrationHandle::new("airports");
    /// migration.advance().await?;
    /// migration.confirm_synced(Side::New).await?;
    /// migration.ramp(0.05).await?; // a twentieth of the keys reads new
    /// migration.ramp(0.5).await?;
    /// assert_eq!(migration.stage(), Stage::WriteBoth);
    /// migration.advance().await?; // all of them
    /// assert_eq!(migration.stage(), Stage::ReadNew);
    /// # Ok::<(), tower_migration::Blocked>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Blocked`]: at another stage than `WriteBoth`, for a share that is no
    /// number from 0 to 1, and for whatever stands against the step to
    /// `ReadNew` (going up) or away from new (going down: keys that are dirty
    /// with new as their right side).
    ///
    /// # Cancel safety
    ///
    /// As [`move_to`](Self::move_to).
    pub async fn ramp(&self, share: f64) -> Result<Moved, Blocked> {
        match Share::new(share) {
            Ok(share) => self.core.step(Target::Ramp(share), Urgency::Orderly).await,
            Err(error) => {
                let stage = self.stage();
                Err(Blocked::new(stage, Some(stage), vec![Reason::Config(error)]))
            }
        }
    }

    /// Moves the flag to any stage, at once, without any check.
    ///
    /// It is logged loudly, stays in the status with its `reason`, and un-syncs
    /// what its path skipped. Writes can be lost: this is for the moment when
    /// every other way is worse.
    ///
    /// # Errors
    ///
    /// [`Blocked`] only if the record cannot be written, on a follower (ask the owner), or
    /// after [`shutdown`](Self::shutdown). From `ReadNew` to `WriteBoth` not even a record
    /// that cannot be written is in the way: that is the exit of
    /// [`rollback`](Self::rollback), which flips first.
    ///
    /// # Cancel safety
    ///
    /// As [`move_to`](Self::move_to).
    pub async fn force(
        &self,
        stage: Stage,
        reason: impl Into<String> + Send,
    ) -> Result<Moved, Blocked> {
        self.core.force_to(stage, reason.into()).await
    }

    /// Says that `side` holds all data, dirty keys aside: the operator's word,
    /// in place of a backfill or a verify.
    ///
    /// # Errors
    ///
    /// [`Blocked`] in a one-sided stage (the other side is not written, so it
    /// cannot stay synced), before the stage has [`settled`](Self::settled)
    /// (a write that knew one side only could still land), while a step is
    /// under way, or if the record cannot be written.
    pub async fn confirm_synced(&self, side: Side) -> Result<(), Blocked> {
        self.core.confirm(side).await
    }

    /// Resolves when no *write* admitted before the last flip is left: detached
    /// and timed-out legs, streaming answers and the linger of cut-off writes
    /// included.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn settled(&self) {
        self.core.ledger.settled(|| self.core.word().settling_slot()).await;
    }

    /// Resolves when nothing at all runs on `side`: no read, no write, no
    /// shadow read, no answer that is still streaming. Meant for a side that
    /// the flag no longer needs and that is to be switched off. Upgraded
    /// connections are not waited for: see [`Status`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn drained(&self, side: Side) {
        self.core.ledger.drained(side).await;
    }

    /// A receiver that sees every change of the stage (the last one, if several
    /// came at once).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Stage> {
        self.core.changes.subscribe()
    }

    /// Which share of reads is shadowed in the two-sided stages, 0 (the
    /// default) to 1. Takes effect with the next read.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Rate`] if it is not a number from 0 to 1; the rate stays
    /// as it was.
    pub fn set_shadow_rate(&self, rate: f64) -> Result<(), ConfigError> {
        self.core.set_shadow_rate(check_rate(rate)?);
        Ok(())
    }

    /// What the [`gates`](crate::gates) see at this moment, of the step that
    /// comes next: everything counted since the present stage was entered.
    ///
    /// ```
    /// use tower_migration::{MigrationHandle, Side, Stage};
    ///
    /// let evidence = MigrationHandle::new("airports").evidence();
    /// assert_eq!((evidence.from, evidence.to), (Stage::OldOnly, Stage::WriteBoth));
    /// assert_eq!(evidence.shadows.compared(), 0);
    /// assert_eq!(evidence.quantile(Side::Old, 0.99), None);
    /// println!("{evidence}");
    /// ```
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.core.evidence()
    }

    /// The operator's word that new may be trusted with clients again: lifts
    /// what an [automatic rollback](crate::AutoRollback) has left, and any alarm,
    /// and is logged. Answers what it lifted; `None` if there was nothing.
    ///
    /// From then on the flag may be moved to `ReadNew` again, and may go back by
    /// itself again, for what new does from now on.
    ///
    /// ```
    /// assert_eq!(tower_migration::MigrationHandle::new("airports").rearm(), None);
    /// ```
    pub fn rearm(&self) -> Option<Alarm> {
        self.core.rearm()
    }

    /// The keys whose two sides may differ.
    #[must_use]
    pub fn dirty_keys(&self) -> Vec<DirtyKey> {
        self.core.list_dirty()
    }

    /// How many keys there are whose two sides may differ. Costs nothing, however many
    /// that are.
    #[must_use]
    pub fn dirty_count(&self) -> usize {
        self.core.dirty().len()
    }

    /// Resolves when no key is dirty: once a [`Repair`](crate::reconcile::Repair) has
    /// mended all of them, at this moment.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn clean(&self) {
        loop {
            let cleaned = self.core.cleaned.notified();
            tokio::pin!(cleaned);
            cleaned.as_mut().enable();
            if self.dirty_count() == 0 {
                return;
            }
            cleaned.await;
        }
    }

    /// Says that the two sides of a key may differ, and which one is right: the
    /// word of whoever has looked at both rows. It can be copied from there then,
    /// also if that side as a whole is not synced. A key that is marked for the
    /// other side becomes a conflict.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    /// # runtime.block_on(async {
    /// use tower_migration::{MigrationHandle, Side, reconcile::{Key, RightSide}};
    ///
    /// let migration = MigrationHandle::new("airports");
    /// migration.advance().await.unwrap();
    /// migration.mark_dirty(&Key::from("/airports/EDDF"), Side::Old);
    /// assert_eq!(migration.dirty_keys()[0].right, RightSide::Is(Side::Old));
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn mark_dirty(&self, key: &Key, right: Side) {
        self.core.mark_dirty(&Keys::from(key.clone()), right);
    }

    /// Decides which side of a key in conflict is right, so that it can be
    /// copied. Answers whether the key was in conflict.
    pub fn resolve_conflict(&self, key: &Key, right: Side) -> bool {
        self.core.resolve(key, right)
    }

    /// What shadow reads have shown at this stage: whether new is right, where it is
    /// not, and whether it is safe to go on.
    ///
    /// ```
    /// use tower_migration::{Advice, MigrationHandle};
    ///
    /// let report = MigrationHandle::new("airports").report();
    /// assert_eq!(report.advice, Advice::Safe);
    /// println!("{}", report.headline()); // one line
    /// println!("{report}"); // a page
    /// ```
    #[must_use]
    pub fn report(&self) -> Report {
        let core = &self.core;
        let standing = ReportStanding {
            name: Arc::clone(core.name()),
            stage: core.word().stage(),
            shadow_rate: core.shadow_rate(),
            against: core.against_next(),
        };
        advise(&core.report, standing)
    }

    /// Forgets what shadow reads have shown, in the [`report`](Self::report) and in
    /// the [`evidence`](Self::evidence) of gates, and counts from now on. For when new
    /// was mended in the middle of a stage. A step does the same.
    ///
    /// ```
    /// tower_migration::MigrationHandle::new("airports").restart_report();
    /// ```
    pub fn restart_report(&self) {
        self.core.count_reads_anew();
    }

    /// The latest mismatches, oldest first, at most
    /// [`recent_mismatches`](HandleBuilder::recent_mismatches) of them.
    #[must_use]
    pub fn recent_mismatches(&self) -> Vec<Mismatch> {
        self.core.recent()
    }

    /// Publishes the counters to the `metrics` recorder now; otherwise that
    /// happens once a second while a layer is in use.
    pub fn publish_metrics(&self) {
        self.core.publish();
    }

    /// Waits until every leg of a write and every shadow read has ended, those
    /// without a client included, and until what was cut off has lingered; then
    /// notes a clean stop.
    ///
    /// Call it when the server has stopped taking requests. It does not refuse
    /// any itself, but nothing moves the flag afterwards. Without a
    /// [`journal`](HandleBuilder::journal) dirty keys are not kept: the record calls the
    /// sides that they are wrong on unsynced.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again; a stop is clean only once it has
    /// resolved.
    pub async fn shutdown(&self) {
        self.core.close().await;
    }
}

impl fmt::Debug for MigrationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MigrationHandle").field(&self.core).finish()
    }
}
