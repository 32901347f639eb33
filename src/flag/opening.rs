//! How a flag is taken up again.

use std::{sync::Arc, time::Duration, time::SystemTime};

use tokio::time::sleep;

use super::{
    Core, FlagStore, JournalNote, MemoryStore, OpenError, Presence, Record, Standing, StoreError,
    StoreErrorKind,
    asking::asked,
    core::Start,
    journal::{adopt, inherit},
    options::Options,
};
use crate::reconcile::{DirtyLog, Found};

/// How long a follower waits for the record of an owner that is just making it.
const FIRST_RECORD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

impl Core {
    pub(super) fn in_memory(name: Arc<str>, options: Options) -> Arc<Self> {
        let store = MemoryStore::new();
        let (record, standing) = (store.record(), Standing::Owner);
        let start = Start { record, standing, instance: instance(), log: None };
        Self::new(name, options, Arc::new(store), true, start)
    }

    pub(super) async fn open(
        name: Arc<str>,
        mut options: Options,
        store: Arc<dyn FlagStore>,
    ) -> Result<Arc<Self>, OpenError> {
        let instance = instance();
        let (log, given_up) = options.start_log(&name).await?;
        // Before the record is read: from here on no step is taken that this
        // instance does not see.
        // An instance that joins waits for a step that is being taken.
        let limit = options.step_deadline.saturating_add(options.hold).saturating_mul(2);
        let attending = {
            let (store, presence) = (Arc::clone(&store), Presence::new(Arc::clone(&instance), 0));
            async move { store.attend(presence).await }
        };
        let standing = asked(limit, attending).await?;
        let record = load(&store, standing, limit).await?;
        let died = !record.clean && standing == Standing::Owner;
        let mut found = Found::default();
        let record = match standing {
            Standing::Owner => {
                let left = adopt(log.as_ref(), &record).await?;
                let inherited = inherit(record, log.as_deref(), left, given_up)?;
                found = inherited.found;
                own(&store, inherited.record, log.as_deref(), limit).await?
            }
            Standing::Follower => {
                // What it has to say is said when this instance takes over; that it
                // cannot be right is found now.
                if record.journal.is_some() && log.is_none() && !given_up {
                    inherit(record.clone(), None, Found::default(), false)?;
                }
                record
            }
        };
        tracing::info!(
            target: "tower_migration",
            migration = %name, stage = %record.stage, epoch = record.epoch, ?standing,
            "flag opened"
        );
        let start = Start { record, standing, instance, log };
        let core = Self::new(name, options, store, false, start);
        core.restore(&found);
        if died {
            core.ledger.linger_of_the_dead(core.word().slot());
        }
        if let Some(lease) = core.store.lease() {
            core.keep_attending(lease);
        }
        if standing == Standing::Owner {
            core.look_for_lost_instances().await?;
        }
        Ok(core)
    }

    /// An instance that died while this one was not there yet, or while it did
    /// not own the flag.
    async fn look_for_lost_instances(&self) -> Result<(), OpenError> {
        match self.ask_claim(self.options.hold).await {
            Ok(_) => Ok(()),
            // It is asked again before every step.
            Err(error) if error.kind() == StoreErrorKind::Shared => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

async fn load(
    store: &Arc<dyn FlagStore>,
    standing: Standing,
    limit: Duration,
) -> Result<Record, OpenError> {
    let mut patience = FIRST_RECORD;
    loop {
        let asking = Arc::clone(store);
        if let Some(record) = asked(limit, async move { asking.load().await }).await? {
            record.check().map_err(|what| {
                let what = format!("the flag's record cannot be: {what}");
                StoreError::of(StoreErrorKind::Corrupt, what)
            })?;
            return Ok(record);
        }
        if standing == Standing::Owner || patience.is_zero() {
            return Err(OpenError::Missing);
        }
        sleep(LOOK).await;
        patience = patience.saturating_sub(LOOK);
    }
}

/// Puts on record that the flag is in use, so that a stop which is not a clean
/// one shows.
async fn own(
    store: &Arc<dyn FlagStore>,
    record: Record,
    log: Option<&dyn DirtyLog>,
    limit: Duration,
) -> Result<Record, OpenError> {
    let replaces = record.epoch;
    let mut record = record;
    record.clean = false;
    record.epoch += 1;
    record.written = SystemTime::now();
    record.journal = log.map(|log| JournalNote {
        id: log.id(),
        before_legs: log.marks_before(),
        sync: record.sync,
        spans: record.spans,
    });
    let (asking, saved) = (Arc::clone(store), record.clone());
    asked(limit, async move { asking.save(replaces, saved).await }).await?;
    Ok(record)
}

/// A name that no other start of any process has.
fn instance() -> Arc<str> {
    format!("{}-{:016x}", std::process::id(), fastrand::u64(..)).into()
}
