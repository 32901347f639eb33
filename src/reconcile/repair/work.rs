//! The workers of a repair.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    Closing, Conflicts, Options, RepairCounts,
    schedule::{Next, Schedule},
};
use crate::{
    flag::{Core, MigrationHandle},
    guard::CatchPanic,
    reconcile::{
        CopyError, Key, Rows,
        breaker::Breaker,
        copy::{How, Terms},
        stopping::{either, unless},
    },
    stage::RightSide,
    telemetry::RepairEnd,
};

/// How long a key waits for which it was not the moment.
const NOT_NOW: Duration = Duration::from_millis(250);
/// How long workers sleep at the most: another one may have missed a word.
const NAP: Duration = Duration::from_secs(5);

/// What the workers of one repair share.
pub(super) struct Shared {
    options: Options,
    core: Weak<Core>,
    /// Told of dirty keys, and of whatever else changes what is next.
    news: Arc<Notify>,
    state: Mutex<State>,
    stopped: watch::Sender<bool>,
    closing: Closing,
    decided: AtomicU64,
}

struct State {
    schedule: Schedule,
    breaker: Breaker,
    /// When the next copy may begin, at the given rate.
    next: Instant,
}

impl Shared {
    pub(super) fn new(core: &Arc<Core>, options: Options) -> Self {
        let state = State {
            schedule: Schedule::default(),
            breaker: Breaker::new(options.concurrency),
            next: Instant::now(),
        };
        Self {
            options,
            core: Arc::downgrade(core),
            news: Arc::clone(&core.dirtied),
            state: Mutex::new(state),
            stopped: watch::Sender::new(false),
            closing: core.closing(),
            decided: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
        self.news.notify_waiters();
    }

    fn has_stopped(&self) -> bool {
        *self.stopped.borrow() || *self.closing.borrow()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.lock().breaker.is_open()
    }

    pub(super) fn retry_parked(&self) -> usize {
        let unparked = self.core.upgrade().map_or(0, |core| core.dirty().unpark());
        let mut state = self.lock();
        state.schedule.hurry();
        state.breaker.hurry();
        drop(state);
        self.news.notify_waiters();
        unparked
    }

    pub(super) fn counts(&self) -> RepairCounts {
        let Some(core) = self.core.upgrade() else {
            return RepairCounts::default();
        };
        let count = |end| core.counters.repairs(end);
        RepairCounts {
            healed: count(RepairEnd::Healed),
            again: count(RepairEnd::Again),
            failed: count(RepairEnd::Failed) + count(RepairEnd::Parked),
            parked: count(RepairEnd::Parked),
            decided: self.decided.load(Ordering::Relaxed),
        }
    }

    /// The next key, and when it may be begun; else until when there is none.
    fn next(&self, core: &Core) -> Result<(Key, Instant), Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(until) = state.breaker.until() {
            return Err(until.min(now + NAP));
        }
        let conflicts = self.options.conflicts == Conflicts::TrustAuthority;
        let probe = state.breaker.is_open();
        let key = match state.schedule.next(&core.dirty(), conflicts, probe) {
            Next::Try(key) => key,
            Next::Until(due) => return Err(due.min(now + NAP)),
            Next::Idle => return Err(now + NAP),
        };
        state.breaker.tries();
        let begin = state.next.max(now);
        state.next = begin + Duration::from_secs_f64(1.0 / self.options.rate);
        Ok((key, begin))
    }

    /// The pause before the next try: doubled each time, give or take a half.
    fn pause(&self, attempts: u32) -> Duration {
        let Options { first_pause, longest_pause, park_after, parked_pause, .. } = self.options;
        let pause = if attempts >= park_after {
            parked_pause
        } else {
            let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
            first_pause.saturating_mul(doubled).min(longest_pause)
        };
        pause.mul_f64(0.5 + fastrand::f64())
    }

    /// Nothing is to be done about a key, unless it is dirty anew by now.
    fn leave(&self, core: &Core, schedule: &mut Schedule, key: Key) {
        let leaves = self.options.conflicts == Conflicts::Leave;
        match core.dirty().get(&key) {
            None => schedule.done(&key),
            Some((RightSide::Conflict, _)) if leaves => schedule.done(&key),
            Some(_) => schedule.again(key, Duration::ZERO),
        }
    }

    /// What comes of a key after a try at it.
    fn ended(&self, core: &Core, key: Key, copied: Result<bool, Ended>) {
        let mut state = self.lock();
        let end = match copied {
            // One that was marked again meanwhile is met at once.
            Ok(healed) => {
                if state.breaker.is_open() {
                    // What failed since was not the keys' fault.
                    state.schedule.hurry();
                    self.news.notify_waiters();
                }
                state.breaker.healed();
                // Asked now and not before: one that was marked while its copy ended is
                // passed by all others, since this one has it.
                if core.dirty().get(&key).is_none() {
                    state.schedule.done(&key);
                    RepairEnd::Healed
                } else {
                    state.schedule.again(key, Duration::ZERO);
                    if healed { RepairEnd::Healed } else { RepairEnd::Again }
                }
            }
            Err(Ended::Postponed) => {
                state.breaker.postponed();
                state.schedule.again(key, NOT_NOW);
                RepairEnd::Postponed
            }
            Err(Ended::Gone) => {
                state.breaker.postponed();
                self.leave(core, &mut state.schedule, key);
                RepairEnd::Postponed
            }
            Err(Ended::Failed(error)) => {
                state.breaker.failed();
                let attempts = core.dirty().failed(&key, error.into(), self.options.park_after);
                if attempts == 0 {
                    // Mended by somebody else meanwhile.
                    self.leave(core, &mut state.schedule, key);
                } else {
                    state.schedule.again(key, self.pause(attempts));
                }
                if attempts == self.options.park_after {
                    RepairEnd::Parked
                } else {
                    RepairEnd::Failed
                }
            }
        };
        drop(state);
        core.counters.repaired(end);
        self.news.notify_one();
    }
}

/// Why a key was not copied.
enum Ended {
    Failed(String),
    /// It was not the moment.
    Postponed,
    /// There is nothing to be done about it here.
    Gone,
}

pub(super) async fn work<R: Rows>(rows: Arc<R>, shared: Arc<Shared>, running: Arc<Running>) {
    loop {
        let news = Arc::clone(&shared.news);
        let news = news.notified();
        let mut news = std::pin::pin!(news);
        news.as_mut().enable();
        if shared.has_stopped() {
            return;
        }
        let Some(strong) = running.0.upgrade() else {
            return;
        };
        let until = match shared.next(&strong) {
            Ok((key, begin)) => {
                let handle = MigrationHandle { core: strong };
                // Told to stop before it has begun, it does not begin.
                let stopped = either(shared.stopped.subscribe(), shared.closing.clone());
                let copied = match unless(stopped, sleep_until(begin)).await {
                    Some(()) => copy(&handle, &*rows, &key, &shared).await,
                    None => Err(Ended::Postponed),
                };
                shared.ended(&handle.core, key, copied);
                continue;
            }
            Err(until) => until,
        };
        // Nothing keeps the migration alive while there is nothing to do.
        drop(strong);
        let _ = timeout_at(until, news).await;
    }
}

async fn copy<R: Rows>(
    handle: &MigrationHandle,
    rows: &R,
    key: &Key,
    shared: &Shared,
) -> Result<bool, Ended> {
    let Options { rereads, beside_others, conflicts, key_timeout, .. } = shared.options;
    if shared.has_stopped() {
        return Err(Ended::Postponed);
    }
    let Some((right, _)) = handle.core.dirty().get(key) else {
        return Err(Ended::Gone);
    };
    let from = match right {
        RightSide::Is(side) => side,
        RightSide::Conflict => match conflicts {
            Conflicts::Leave => return Err(Ended::Gone),
            Conflicts::TrustAuthority => {
                let authority = handle.stage().authority();
                tracing::warn!(
                    target: "tower_migration",
                    migration = %handle.name(), %key, right = %authority,
                    "a conflict is decided for the authority"
                );
                handle.resolve_conflict(key, authority);
                shared.decided.fetch_add(1, Ordering::Relaxed);
                authority
            }
        },
    };
    let terms = Terms { ahead: false, beside_others, looks: false };
    let how = How { terms, looks_first: false, rereads };
    let copy = CatchPanic::new(handle.copy_row(rows, key, from, how, None));
    let error = match timeout(key_timeout, copy).await {
        Ok(Ok(Ok((copied, _)))) => return Ok(copied.cleaned),
        Ok(Ok(Err(error))) => error,
        Ok(Err(_)) => return Err(Ended::Failed("it panicked".to_owned())),
        Err(_) => return Err(Ended::Failed(format!("it took longer than {key_timeout:?}"))),
    };
    Err(match error {
        // Marked for another side just now: the next look knows.
        CopyError::WrongWay(_)
        | CopyError::Conflict
        | CopyError::NotSettled
        | CopyError::OneSided(_)
        | CopyError::Moved(_)
        | CopyError::Shared
        | CopyError::ShutDown
        | CopyError::Contended => Ended::Postponed,
        CopyError::Store(says) | CopyError::Failed(says) => Ended::Failed(says),
        CopyError::Unsynced(side) => Ended::Failed(format!("{side} is not synced")),
    })
}

/// A repair is at work, until its last worker has ended.
pub(super) struct Running(pub(super) Weak<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.end_repair();
        }
    }
}
