//! What every handle, layer and task of one migration shares.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime,
    sync::{Notify, watch},
    time::sleep,
};

use super::{
    FlagStore, Forced, Record, Word,
    gate::Gate,
    ledger::{Kind, Ledger, Mark},
    options::Options,
};
use crate::{
    body::Budget,
    compare::Mismatch,
    reconcile::{DirtySet, Key, KeyOrder, Keys, Marked, RightSide},
    stage::{Operation, Side, Stage, SyncState, SyncTable},
    telemetry::{Counters, Published, Snapshot},
};

/// Read by every request and written by flips only; alone on its cache lines,
/// so that reading it costs no core anything.
#[repr(align(128))]
#[derive(Debug)]
struct Hot {
    gate: Gate,
    /// A read is sampled if 32 random bits are below this: 2³² is all.
    sample: AtomicU64,
    publishing: AtomicBool,
}

/// The state of one migration.
pub(crate) struct Core {
    hot: Hot,
    id: u64,
    name: Arc<str>,
    pub(super) options: Options,
    pub(super) ledger: &'static Ledger,
    pub(crate) order: Arc<KeyOrder>,
    pub(crate) counters: Counters,
    /// Request bytes buffered for dual writes.
    pub(crate) buffered: Arc<Budget>,
    /// Answer bytes kept for comparing.
    pub(crate) captured: Arc<Budget>,
    /// Open upgraded connections, by side.
    pub(crate) upgraded: Arc<[AtomicUsize; 2]>,
    sync: [AtomicU8; 2],
    dirty: Mutex<DirtySet>,
    recent: Mutex<VecDeque<Mismatch>>,
    pub(super) forced: Mutex<Vec<Forced>>,
    pub(super) store: Arc<dyn FlagStore>,
    pub(super) in_memory: bool,
    pub(super) warned_in_memory: AtomicBool,
    /// Held by the one step that is under way.
    pub(super) step: Arc<tokio::sync::Mutex<()>>,
    /// Somebody with more hurry waits for the step's end.
    pub(super) overtaking: AtomicUsize,
    pub(super) overtaken: Notify,
    /// Told when held writes may go on.
    pub(super) released: Notify,
    pub(super) changes: watch::Sender<Stage>,
    pub(super) shut_down: AtomicBool,
    published: Mutex<Published>,
}

/// How a request was admitted: what it goes by until its end.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) word: Word,
    /// The mark of the leg on the authority.
    pub(crate) authority: Mark,
    /// The mark of the leg on the other side, where there may be one.
    pub(crate) other: Option<Mark>,
    /// A shadow's marks: on the other side, and on the authority, since it may
    /// read both again.
    pub(crate) shadows: Option<[Mark; 2]>,
}

/// Which legs a request may have besides the authority's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// One on the other side: a write's, or a read's that covers for the
    /// authority.
    pub(crate) other: bool,
    /// A shadow.
    pub(crate) shadow: bool,
}

/// Writes are held for a flip: wait with [`Core::wait_released`], ask again.
#[derive(Debug)]
pub(crate) struct Held;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain data lies under these locks; it is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SYNC: [SyncState; 3] = [SyncState::Unsynced, SyncState::Suspect, SyncState::Synced];

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        options: Options,
        store: Arc<dyn FlagStore>,
        in_memory: bool,
        record: &Record,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            hot: Hot {
                gate: Gate::new(Word::new(record.stage, record.epoch, 0)),
                sample: AtomicU64::new(0),
                publishing: AtomicBool::new(false),
            },
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            ledger: Ledger::acquire(options.linger),
            order: Arc::default(),
            counters: Counters::default(),
            buffered: Arc::default(),
            captured: Arc::default(),
            upgraded: Arc::default(),
            sync: [record.sync.old, record.sync.new].map(|state| AtomicU8::new(state as u8)),
            dirty: Mutex::new(DirtySet::new(options.dirty_keys)),
            recent: Mutex::default(),
            forced: Mutex::default(),
            store,
            in_memory,
            warned_in_memory: AtomicBool::new(false),
            step: Arc::default(),
            overtaking: AtomicUsize::new(0),
            overtaken: Notify::new(),
            released: Notify::new(),
            changes: watch::Sender::new(record.stage),
            shut_down: AtomicBool::new(false),
            published: Mutex::default(),
            options,
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn linger(&self) -> Duration {
        self.options.linger
    }

    pub(crate) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    #[inline]
    pub(crate) fn word(&self) -> Word {
        self.hot.gate.load()
    }

    pub(super) const fn gate(&self) -> &Gate {
        &self.hot.gate
    }

    // === admission ===

    /// Admits a request, whatever the stage is by now: retries until the gate
    /// has stood still for the length of an admission.
    #[inline]
    pub(crate) fn admit(
        &self,
        operation: Operation,
        plan: impl Fn(Word) -> Plan,
    ) -> Result<Admission, Held> {
        let mut word = self.word();
        loop {
            if operation == Operation::Write && word.holds() {
                return Err(Held);
            }
            let stage = word.stage();
            let side = stage.authority();
            let plan = if stage.is_two_sided() { plan(word) } else { Plan::default() };
            // Further marks first: the last one's check vouches for all.
            let other = plan.other.then(|| {
                let kind = match operation {
                    Operation::Write => Kind::other_write(side.other()),
                    Operation::Read => Kind::read(side.other()),
                };
                self.ledger.begin(word, kind)
            });
            let shadows = plan.shadow.then(|| {
                [side.other(), side].map(|side| self.ledger.begin(word, Kind::shadow(side)))
            });
            match self.ledger.admit(&self.hot.gate, word, Kind::authority(operation, side)) {
                Ok(authority) => {
                    return Ok(Admission { word, authority, other, shadows });
                }
                Err(now) => {
                    other.into_iter().chain(shadows.into_iter().flatten()).for_each(Mark::unused);
                    word = now;
                }
            }
        }
    }

    /// Admits one leg, if the gate still says `word`.
    pub(crate) fn admit_leg(&self, word: Word, kind: Kind) -> Result<Mark, Word> {
        self.ledger.admit(&self.hot.gate, word, kind)
    }

    /// Waits until writes are not held any more.
    pub(crate) async fn wait_released(&self) {
        self.counters.held();
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if !self.word().holds() {
                return;
            }
            released.await;
        }
    }

    // === sampling ===

    /// Whether to shadow this read.
    #[inline]
    pub(crate) fn samples(&self) -> bool {
        let below = self.hot.sample.load(Ordering::Relaxed);
        below != 0 && u64::from(fastrand::u32(..)) < below
    }

    pub(super) fn shadow_rate(&self) -> f64 {
        self.hot.sample.load(Ordering::Relaxed) as f64 / f64::from(2.0_f32.powi(32))
    }

    /// `rate` has been checked.
    pub(super) fn set_shadow_rate(&self, rate: f64) {
        let all = f64::from(2.0_f32.powi(32));
        // A rate that is not zero samples something, however small it is.
        let below = (rate * all).ceil() as u64;
        self.hot.sample.store(below, Ordering::Relaxed);
    }

    // === what is known of the sides ===

    pub(crate) fn sync(&self) -> SyncTable {
        let state = |side: Side| SYNC[usize::from(self.sync[side.index()].load(Ordering::SeqCst))];
        SyncTable::start().with(Side::Old, state(Side::Old)).with(Side::New, state(Side::New))
    }

    pub(crate) fn is_synced(&self, side: Side) -> bool {
        self.sync().get(side).is_synced()
    }

    pub(super) fn set_sync(&self, side: Side, state: SyncState) {
        self.sync[side.index()].store(state as u8, Ordering::SeqCst);
    }

    pub(super) fn set_sync_table(&self, table: SyncTable) {
        for side in Side::ALL {
            self.set_sync(side, table.get(side));
        }
    }

    pub(crate) fn dirty(&self) -> MutexGuard<'_, DirtySet> {
        locked(&self.dirty)
    }

    /// Marks the keys of a write whose sides may differ; `right` was its
    /// authority. No key makes the wrong side suspect.
    pub(crate) fn mark_dirty(&self, keys: &Keys, right: Side) {
        let wrong = right.other();
        if keys.is_empty() {
            let was = self.sync[wrong.index()].compare_exchange(
                SyncState::Synced as u8,
                SyncState::Suspect as u8,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if was.is_ok() {
                tracing::warn!(
                    target: "tower_migration",
                    migration = %self.name,
                    side = %wrong,
                    "a write without a key failed: the side is suspect until it is verified"
                );
            }
            return;
        }
        for key in keys {
            let marked = self.dirty().mark(key, right);
            self.counters.marked(marked);
            match marked {
                Marked::New | Marked::Again => {}
                Marked::Conflict => tracing::warn!(
                    target: "tower_migration",
                    migration = %self.name,
                    %key,
                    "key is dirty with both sides claimed to be right: resolve_conflict decides"
                ),
                Marked::Full => {
                    let was =
                        self.sync[wrong.index()].swap(SyncState::Unsynced as u8, Ordering::SeqCst);
                    if was != SyncState::Unsynced as u8 {
                        tracing::error!(
                            target: "tower_migration",
                            migration = %self.name,
                            side = %wrong,
                            limit = self.options.dirty_keys,
                            "too many dirty keys: the side is unsynced and must be copied again"
                        );
                    }
                }
            }
        }
    }

    pub(crate) fn touches_dirty(&self, keys: &Keys) -> bool {
        let dirty = self.dirty();
        if keys.is_empty() {
            return !dirty.is_empty();
        }
        keys.iter().any(|key| dirty.touches(key))
    }

    pub(super) fn list_dirty(&self) -> Vec<crate::reconcile::DirtyKey> {
        self.dirty().list()
    }

    // === mismatches ===

    pub(crate) fn remember(&self, mismatch: Mismatch) {
        let mut recent = locked(&self.recent);
        if recent.len() >= self.options.recent_mismatches {
            recent.pop_front();
        }
        recent.push_back(mismatch);
    }

    pub(super) fn recent(&self) -> Vec<Mismatch> {
        locked(&self.recent).iter().cloned().collect()
    }

    // === publishing ===

    #[inline]
    pub(crate) fn ensure_published(self: &Arc<Self>) {
        if !self.hot.publishing.load(Ordering::Relaxed) {
            self.start_publisher();
        }
    }

    #[cold]
    fn start_publisher(self: &Arc<Self>) {
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
                sleep(crate::telemetry::INTERVAL).await;
                match core.upgrade() {
                    Some(core) => core.publish(),
                    None => return,
                }
            }
        });
    }

    pub(crate) fn publish(&self) {
        let word = self.word();
        let (dirty, keys_in_use) = {
            let dirty = self.dirty();
            let count = |right| dirty.count(right).0;
            let counts = [
                count(RightSide::Is(Side::Old)),
                count(RightSide::Is(Side::New)),
                count(RightSide::Conflict),
            ];
            (counts, self.order.keys_in_use())
        };
        let snapshot = Snapshot {
            name: Arc::clone(&self.name),
            stage: word.stage(),
            epoch: word.epoch(),
            sync: self.sync(),
            shadow_rate: self.shadow_rate(),
            ledger: self.ledger,
            counters: &self.counters,
            keys_in_use,
            dirty,
            captured_bytes: self.captured.used(),
            buffered_bytes: self.buffered.used(),
            upgraded: [0, 1].map(|side| self.upgraded[side].load(Ordering::Relaxed)),
        };
        locked(&self.published).publish(&snapshot);
    }

    /// Taints what is in flight on `side` when it becomes the authority at
    /// once: its leg may come after the first reads there.
    pub(super) fn taint(&self, side: Side) -> Vec<Key> {
        let (keys, keyless) = self.order.running_on(side);
        self.mark_dirty_all(&keys, side.other());
        if keyless {
            self.mark_dirty(&Keys::none(), side.other());
        }
        keys
    }

    fn mark_dirty_all(&self, keys: &[Key], right: Side) {
        if !keys.is_empty() {
            self.mark_dirty(&keys.iter().cloned().collect::<Keys>(), right);
        }
    }
}

struct Publishing(std::sync::Weak<Core>);

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.hot.publishing.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.ledger.release();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .field("stage", &self.word().stage())
            .field("epoch", &self.word().epoch())
            .finish_non_exhaustive()
    }
}
