//! What every handle, layer and task of one migration shares.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{
    FlagStore, Forced, Record, Standing, Word,
    claims::Claims,
    gate::{Gate, Position},
    gates::Entered,
    guard::Guard,
    ledger::Ledger,
    options::Options,
    steps::Stored,
};
use crate::{
    body::Budget,
    compare::Mismatch,
    observe::Observer,
    reconcile::{DirtyLog, DirtySet, JobKind, KeyOrder, Progress},
    report::Table,
    stage::{Side, Stage},
    telemetry::{Counters, Published},
};

/// Read by every request and written by flips only; alone on its cache lines,
/// so that reading it costs no core anything.
#[repr(align(128))]
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) gate: Gate,
    /// A read is sampled if 32 random bits are below this: 2³² is all.
    sample: AtomicU64,
    pub(super) publishing: AtomicBool,
}

/// The state of one migration.
pub(crate) struct Core {
    pub(super) hot: Hot,
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
    pub(super) sync: [AtomicU8; 2],
    /// See [`Spans`](super::store::Spans).
    pub(super) spans: [AtomicU64; 2],
    pub(super) dirty: Mutex<DirtySet>,
    /// Where the dirty keys are kept, if they are.
    pub(crate) log: Option<Arc<dyn DirtyLog>>,
    /// Told of each dirty key, for a repair.
    pub(crate) dirtied: Arc<Notify>,
    /// Told when the last dirty key is clean.
    pub(super) cleaned: Notify,
    /// Writes that failed on a side without leaving a dirty key, since that
    /// side was last confirmed.
    pub(super) untracked: [AtomicU64; 2],
    pub(super) recent: Mutex<VecDeque<Mismatch>>,
    /// What shadow reads have shown at this stage.
    pub(crate) report: Table,
    /// Observers that may have lost something.
    pub(crate) observers: Mutex<Vec<Weak<dyn Observer>>>,
    pub(super) forced: Mutex<Vec<Forced>>,
    /// When the present stage was entered, and what had been counted by then.
    pub(super) entered: Mutex<Arc<Entered>>,
    /// The automatic rollback, if it is on.
    pub(super) guard: Option<Guard>,
    pub(super) store: Arc<dyn FlagStore>,
    /// Held while the record is written, until what it says has happened.
    pub(super) saving: tokio::sync::Mutex<Stored>,
    /// Whether the newest record names the journal.
    pub(super) journal_on_record: AtomicBool,
    /// It hangs: it is not written any more, as if it had failed.
    pub(super) journal_given_up: AtomicBool,
    /// That it has failed was said.
    pub(super) journal_lamented: AtomicBool,
    /// Told of each record.
    pub(super) saved: Notify,
    pub(super) claims: Claims,
    /// Whether somebody else moves the flag.
    follows: AtomicBool,
    /// This start of this process, as the store knows it.
    pub(super) instance: Arc<str>,
    /// Under which a ramp tells its keys from the others.
    seed: u64,
    /// What the record says may be another stage than the flag's.
    pub(super) unrecorded: AtomicBool,
    /// A task is at it.
    pub(super) recording: AtomicBool,
    /// Writes that began before an emergency exit may still fail on the side
    /// that it made the authority.
    pub(super) exited: AtomicBool,
    /// A task is about to put the sides' present state on record.
    pub(super) noting: AtomicBool,
    /// For tasks that outlive the call that starts them.
    pub(super) me: Weak<Self>,
    pub(super) in_memory: bool,
    pub(super) warned_in_memory: AtomicBool,
    /// Read by every copy to the authority, to its end; written by a step to a
    /// one-sided stage, where nothing would keep the two in order.
    pub(crate) copies: Arc<tokio::sync::RwLock<()>>,
    /// Held by the one step that is under way.
    pub(super) step: Arc<tokio::sync::Mutex<()>>,
    /// Somebody with more hurry waits for the step's end.
    pub(super) overtaking: AtomicUsize,
    pub(super) overtaken: Notify,
    /// Told when held writes may go on.
    pub(super) released: Notify,
    /// Told of each new epoch.
    pub(super) turned: Notify,
    pub(super) changes: watch::Sender<Stage>,
    /// The shadow rate as it was set, an `f64`.
    rate: AtomicU64,
    /// The epoch of the newest record, or of one that was tried.
    pub(super) recorded: AtomicU64,
    /// `shutdown` was called: what runs in the background ends.
    closing: watch::Sender<bool>,
    pub(super) shut_down: AtomicBool,
    /// `shutdown` has said all that it has to say.
    pub(super) left: AtomicBool,
    pub(super) published: Mutex<Published>,
    /// Of each kind of run, the one that goes on or the last one.
    sweeps: Mutex<[Option<Progress>; JobKind::ALL.len()]>,
    repairing: AtomicBool,
    /// See [`found_empty`](Self::found_empty).
    empty: Mutex<[Option<u64>; 2]>,
}

/// What a core starts from.
pub(super) struct Start {
    pub(super) record: Record,
    pub(super) standing: Standing,
    pub(super) instance: Arc<str>,
    pub(super) log: Option<Arc<dyn DirtyLog>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain data lies under these locks; it is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        options: Options,
        store: Arc<dyn FlagStore>,
        in_memory: bool,
        start: Start,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Start { record, standing, instance, log } = start;
        let at = Position { stage: record.stage, share: record.ramp };
        Arc::new_cyclic(|me| Self {
            hot: Hot {
                gate: Gate::new(Word::new(at, record.epoch, 0)),
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
            spans: [record.spans.old, record.spans.new].map(AtomicU64::new),
            untracked: Default::default(),
            log,
            dirtied: Arc::default(),
            cleaned: Notify::new(),
            dirty: Mutex::new(DirtySet::new(options.dirty_keys)),
            recent: Mutex::default(),
            report: Table::new(options.report_routes, options.report_places),
            observers: Mutex::default(),
            forced: Mutex::new(record.forced),
            entered: Mutex::new(Arc::new(Entered::first(record.stage, record.epoch))),
            guard: options.auto_rollback.clone().map(Guard::new),
            store,
            saving: tokio::sync::Mutex::new(Stored::new(record.epoch, record.sync, record.journal)),
            journal_on_record: AtomicBool::new(record.journal.is_some()),
            journal_given_up: AtomicBool::new(false),
            journal_lamented: AtomicBool::new(false),
            saved: Notify::new(),
            claims: Claims::default(),
            follows: AtomicBool::new(standing == Standing::Follower),
            instance,
            seed: record.seed,
            unrecorded: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            noting: AtomicBool::new(false),
            me: Weak::clone(me),
            in_memory,
            warned_in_memory: AtomicBool::new(false),
            copies: Arc::default(),
            step: Arc::default(),
            overtaking: AtomicUsize::new(0),
            overtaken: Notify::new(),
            released: Notify::new(),
            turned: Notify::new(),
            changes: watch::Sender::new(record.stage),
            rate: AtomicU64::new(0.0_f64.to_bits()),
            recorded: AtomicU64::new(record.epoch),
            closing: watch::Sender::new(false),
            shut_down: AtomicBool::new(false),
            left: AtomicBool::new(false),
            published: Mutex::default(),
            sweeps: Mutex::default(),
            repairing: AtomicBool::new(false),
            empty: Mutex::default(),
            options,
        })
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether somebody else moves the flag.
    pub(super) fn follows(&self) -> bool {
        self.follows.load(Ordering::SeqCst)
    }

    pub(super) fn takes_over(&self) {
        self.follows.store(false, Ordering::SeqCst);
    }

    pub(crate) fn note_sweep(&self, job: JobKind, progress: Progress) {
        locked(&self.sweeps)[job as usize] = Some(progress);
    }

    pub(super) fn sweeps(&self) -> [Option<Progress>; JobKind::ALL.len()] {
        *locked(&self.sweeps)
    }

    /// `side` was found empty at a one-sided stage, and nobody has written it since but
    /// dual writes, for as long as this is its span.
    pub(crate) fn found_empty(&self, side: Side, span: u64) {
        locked(&self.empty)[side.index()] = Some(span);
    }

    pub(crate) fn forget_empty(&self, side: Side) {
        locked(&self.empty)[side.index()] = None;
    }

    pub(crate) fn was_found_empty(&self, side: Side, span: u64) -> bool {
        locked(&self.empty)[side.index()] == Some(span)
    }

    /// Whether no other repair is at work.
    pub(crate) fn begin_repair(&self) -> bool {
        !self.repairing.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn end_repair(&self) {
        self.repairing.store(false, Ordering::SeqCst);
    }

    pub(super) fn begin_closing(&self) {
        self.closing.send_replace(true);
        self.dirtied.notify_waiters();
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
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

    /// Whether to shadow this read.
    #[inline]
    pub(crate) fn samples(&self) -> bool {
        let below = self.hot.sample.load(Ordering::Relaxed);
        below != 0 && u64::from(fastrand::u32(..)) < below
    }

    pub(super) fn shadow_rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// `rate` has been checked.
    pub(super) fn set_shadow_rate(&self, rate: f64) {
        let all = f64::from(2.0_f32.powi(32));
        // A rate that is not zero samples something, however small it is.
        let below = (rate * all).ceil() as u64;
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
        self.hot.sample.store(below, Ordering::Relaxed);
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
