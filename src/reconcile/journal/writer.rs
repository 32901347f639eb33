//! What waits to be written, and the thread that writes it.
//!
//! One commit takes all that waits. What comes while it runs waits for the next
//! one: however many writes begin at once, they share its fsync.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{
    Instant,
    begun::{Notes, Subject},
    left::Left,
    row,
    store::{Changes, Store},
};
use crate::{
    reconcile::dirty_log::{Found, LogFailed, LogStats, Progress, StoredMark, Wait, closed},
    stage::Side,
};

/// How long a change may wait for company that nobody waits for.
const LINGER: Duration = Duration::from_millis(5);

/// What waits to be written, and what is known of the file.
#[derive(Debug)]
pub(super) struct State {
    rows: Changes,
    /// Since when the first of them waits.
    queued: Option<Instant>,
    /// Somebody waits for them.
    urgent: bool,
    /// Notes of writes that have ended go with the next commit.
    clear: bool,
    /// The number of the next commit.
    next: u64,
    durable: u64,
    notes: Notes,
    /// What was taken over, in the file too. The ids stay when the flag has
    /// taken over the rest.
    left: Left,
    round: u64,
    failed: Option<LogFailed>,
    closing: bool,
    ended: bool,
    /// Who waits for the next commit, and for the one that runs.
    waiting: [u64; 2],
    stats: LogStats,
}

impl State {
    /// Queues a change. The last one of a row counts.
    pub(super) fn queue(&mut self, row: Vec<u8>, value: Option<Vec<u8>>) {
        // Nobody would take it any more.
        if self.failed.is_none() {
            self.rows.insert(row, value);
            self.queued.get_or_insert_with(Instant::now);
        }
    }

    /// When the next commit is due; `None`: not before something happens.
    fn due(&self, now: Instant, keep: Duration) -> Option<Instant> {
        let idle = self.notes.oldest();
        let now_or_never = self.urgent || self.clear || self.closing;
        if now_or_never && (idle.is_some() || !self.rows.is_empty()) {
            return Some(now);
        }
        let lingered = self.queued.map(|since| since + LINGER);
        // Notes go with a commit that there is anyway, and only on their own where
        // there is none for as long again: a commit of their own is one that the
        // next write waits for. A time that no clock can hold never comes.
        let long = keep.saturating_mul(2).saturating_add(LINGER);
        let idle = idle.and_then(|since| since.checked_add(long));
        lingered.into_iter().chain(idle).min()
    }

    fn take(&mut self, now: Instant, keep: Duration) -> Option<(u64, Changes)> {
        let all = mem::take(&mut self.clear) || self.closing;
        for subject in self.notes.expired(now, keep, all) {
            self.queue(subject.place(), None);
        }
        self.urgent = false;
        self.queued = None;
        if self.rows.is_empty() {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.waiting = [0, self.waiting[0]];
        Some((number, mem::take(&mut self.rows)))
    }
}

/// Shared by the handle, its writes and the thread.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// A commit is done, for those who block.
    came: Condvar,
    /// The same for those who do not.
    progress: watch::Sender<Progress>,
    keep: Duration,
}

impl Shared {
    pub(super) fn new(keep: Duration) -> Self {
        let state = State {
            rows: Changes::new(),
            queued: None,
            urgent: false,
            clear: false,
            next: 1,
            durable: 0,
            notes: Notes::default(),
            left: Left::default(),
            round: 0,
            failed: None,
            closing: false,
            ended: false,
            waiting: [0, 0],
            stats: LogStats::default(),
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            came: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            keep,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Only plain data lies under this lock; it is whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues changes.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.work.notify_one();
    }

    /// Notes writes. `None`: they are durable.
    pub(super) fn begin(
        &self,
        subjects: &[Subject],
        right: Side,
    ) -> Result<Option<Wait>, LogFailed> {
        let mut state = self.state();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        let (next, mut commit) = (state.next, 0);
        for subject in subjects {
            let (noted, write) = state.notes.begin(subject, right, next);
            commit = commit.max(noted);
            if let Some(right) = write {
                let mark = StoredMark { right, marks: 1, since: SystemTime::now() };
                state.queue(subject.place(), Some(row::mark(mark)));
            }
        }
        Ok(self.wait_for(&mut state, commit))
    }

    /// What resolves with this commit, which is on its way at once.
    fn wait_for(&self, state: &mut State, commit: u64) -> Option<Wait> {
        if commit <= state.durable {
            return None;
        }
        let runs = commit < state.next;
        state.waiting[usize::from(runs)] += 1;
        if !runs {
            state.urgent = true;
            self.work.notify_one();
        }
        Some(Wait { commit, progress: self.progress.subscribe() })
    }

    /// The writes have ended.
    pub(super) fn end(&self, subjects: &[Subject], right: Side) {
        let mut state = self.state();
        let now = Instant::now();
        for subject in subjects {
            state.notes.end(subject, right, now);
        }
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn flush(&self) -> Result<Option<Wait>, LogFailed> {
        let mut state = self.state();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        let idle = state.notes.oldest().is_some();
        state.clear |= idle;
        let pending = idle || !state.rows.is_empty();
        let commit = if pending { state.next } else { state.next - 1 };
        Ok(self.wait_for(&mut state, commit))
    }

    /// Which files were taken over.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.state().left.ids.clone()
    }

    /// Takes over what was left. Blocks until it is durable.
    pub(super) fn take_over(&self, left: &Left) -> Result<Found, LogFailed> {
        let mut state = self.state();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if *left != Left::default() {
            state.left.merge(left);
            state.round += 1;
            for (row, value) in state.left.to_rows() {
                state.queue(row, Some(value));
            }
            let commit = state.next;
            state.urgent = true;
            self.work.notify_one();
            while state.durable < commit {
                if let Some(failed) = &state.failed {
                    return Err(failed.clone());
                }
                state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(state.left.to_found(state.round))
    }

    /// The flag has what was found up to this round.
    pub(super) fn took_over(&self, round: u64) {
        let mut state = self.state();
        // More has been found since: the flag will take that over too.
        if round != state.round {
            return;
        }
        let ids = mem::take(&mut state.left.ids);
        let left = mem::replace(&mut state.left, Left { ids, ..Left::default() });
        for (row, _) in (Left { ids: Vec::new(), ..left }).to_rows() {
            state.queue(row, None);
        }
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn failure(&self) -> Option<LogFailed> {
        self.state().failed.clone()
    }

    pub(super) fn stats(&self) -> LogStats {
        let state = self.state();
        let waiting = state.waiting.iter().sum();
        LogStats { waiting, begun: state.notes.len() as u64, ..state.stats }
    }

    /// Has the thread write what waits, and end. Answers whether it has.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.closing = true;
        self.work.notify_one();
        let waited = self.came.wait_timeout_while(state, patience, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// The thread.
    pub(super) fn write(&self, mut store: Store) {
        // However it ends: nobody may wait for it in vain.
        let _end = Ending(self);
        while let Some((number, rows)) = self.next_batch() {
            if let Err(error) = store.commit(&rows) {
                self.publish(|state| state.failed = Some(error.into()));
                break;
            }
            self.publish(|state| {
                state.durable = number;
                state.waiting[1] = 0;
                state.stats.commits += 1;
                state.stats.rows += rows.len() as u64;
            });
        }
        // redb writes once more when it closes a file, and that may fail too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }

    fn next_batch(&self) -> Option<(u64, Changes)> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let due = state.due(now, self.keep);
            match due.map(|due| due.saturating_duration_since(now)) {
                Some(Duration::ZERO) => {
                    let batch = state.take(now, self.keep);
                    if batch.is_some() {
                        return batch;
                    }
                }
                _ if state.closing => return None,
                Some(wait) => {
                    let waited = self.work.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn publish(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if state.failed.is_some() {
            state.rows = Changes::new();
            state.waiting = [0, 0];
        }
        let progress = Progress { durable: state.durable, failed: state.failed.clone() };
        drop(state);
        self.progress.send_replace(progress);
        self.came.notify_all();
    }
}

struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.publish(|state| {
            state.ended = true;
            state.failed.get_or_insert_with(closed);
        });
    }
}
