//! The workers, and whoever looks after them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Deed, Failed, Item, Listed, Pace, Phase, Progress, Sweep, SweepError, Tally, Trouble, Wait,
    error::STORE,
    feed::{Feed, Merged},
    pace::Going,
    progress::Meter,
    window::Window,
};
use crate::{
    flag::{BoxFuture, MigrationHandle},
    guard::{CatchPanic, Panicked},
    reconcile::{
        Checkpoint, JobKind, Key,
        breaker::Breaker,
        listing::Source,
        stopping::{either, unless},
    },
};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// How many keys may be under way, or done behind one that is.
const WINDOW: usize = 20_000;
/// A run does not call a side down for fewer than twice as many failures in a row.
const AT_LEAST: usize = 16;
/// How many workers share a task.
const TOGETHER: usize = 8;
/// How long a run waits before it looks again whether it is alone.
pub(in crate::reconcile) const LOOK: Duration = Duration::from_millis(250);

/// What is done to each key.
pub(in crate::reconcile) trait Job: Send + Sync + 'static {
    /// For the checkpoint and the counters.
    fn kind(&self) -> JobKind;

    fn one(&self, item: &Item, pace: &Pace) -> impl Future<Output = Result<Deed, Trouble>> + Send;
}

/// Where a run begins.
#[derive(Clone, Debug)]
pub(in crate::reconcile) struct Start {
    pub(in crate::reconcile) checkpoint: Checkpoint,
    /// Whether the target's keys are visited too.
    pub(in crate::reconcile) both: bool,
    /// Whether its checkpoints are kept.
    pub(in crate::reconcile) kept: bool,
}

/// One run, from its first key to its last.
pub(in crate::reconcile) struct Run<J> {
    pub(super) handle: MigrationHandle,
    pub(super) options: Sweep,
    pub(super) job: J,
    pub(super) start: Start,
    pub(super) pace: Pace,
    feed: tokio::sync::Mutex<Feed>,
    state: Mutex<State>,
    /// Told when the window has room again.
    room: Notify,
    /// Set when the run is to end: whatever its workers wait for.
    halt: watch::Sender<bool>,
    pub(super) progress: watch::Sender<Progress>,
}

/// What the workers of a run share.
pub(super) struct State {
    pub(super) window: Window,
    pub(super) tally: Tally,
    pub(super) failed: Failed,
    pub(super) retrying: Vec<Key>,
    waiting: usize,
    breaker: Breaker,
    /// What the last failure said.
    says: String,
    stop: Option<SweepError>,
    pub(super) meter: Meter,
}

impl<J: Job> Run<J> {
    pub(in crate::reconcile) fn new(
        handle: &MigrationHandle,
        options: &Sweep,
        job: J,
        start: Start,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let done = start.checkpoint.tally.sum();
        let state = State {
            window: Window::resumed(start.checkpoint.up_to.clone()),
            tally: start.checkpoint.tally,
            failed: Failed { keys: Vec::new(), lost: start.checkpoint.again_lost },
            retrying: Vec::new(),
            waiting: 0,
            breaker: Breaker::new(options.concurrency.max(AT_LEAST)),
            says: String::new(),
            stop: None,
            meter: Meter::new(done),
        };
        Self {
            handle: handle.clone(),
            pace: Pace::new(options.concurrency, options.rate, options.slow_down),
            options: options.clone(),
            job,
            start,
            feed: tokio::sync::Mutex::new(Feed::Given(VecDeque::new())),
            state: Mutex::new(state),
            room: Notify::new(),
            halt: watch::Sender::new(false),
            progress,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Visits every key, and again those that fail. What is left of them is part of
    /// the answer.
    pub(in crate::reconcile) async fn go(
        self: &Arc<Self>,
        source: &Source,
    ) -> Result<(Tally, Failed), SweepError> {
        let Start { checkpoint, both, .. } = &self.start;
        let from = checkpoint.from;
        let ended = async {
            if !checkpoint.finished {
                let feed = match source {
                    Source::Pages(pages) => {
                        let count = timeout(self.options.key_timeout, pages.count(from));
                        let total = self.unless_stopped(count).await?.unwrap_or_default();
                        self.progress.send_modify(|progress| progress.total = total);
                        let after = checkpoint.up_to.as_ref();
                        let limit = self.options.key_timeout;
                        Feed::Merged(Box::new(Merged::new(pages, from, *both, after, limit)))
                    }
                    Source::Streams(streams) => {
                        Feed::streams(streams(from), both.then(|| streams(from.other())))
                    }
                    Source::Changed(changed) => Feed::streams(changed(checkpoint.began), None),
                };
                self.visit(feed, Phase::Running).await?;
            }
            self.retry(&checkpoint.again).await
        };
        // The user's closures, and what they give, may panic.
        let ended = CatchPanic::new(ended).await.unwrap_or(Err(SweepError::Panicked));
        self.save(ended.is_ok()).await;
        self.tell(Phase::Ended);
        ended?;
        let state = self.lock();
        Ok((state.tally, state.failed.clone()))
    }

    /// First what the run before has left, then what has failed in this one, until
    /// it has been tried often enough.
    async fn retry(self: &Arc<Self>, again: &[Key]) -> Result<(), SweepError> {
        self.visit_again(again.iter().cloned()).await?;
        let mut pause = self.options.retry_pause;
        for _ in 1..self.options.attempts {
            let failed = std::mem::take(&mut self.lock().failed.keys);
            if failed.is_empty() {
                break;
            }
            // Kept where a checkpoint finds them, until they have been visited.
            self.lock().retrying = failed.iter().map(|failed| failed.key.clone()).collect();
            self.tell(Phase::Retrying);
            self.unless_stopped(sleep(pause)).await?;
            pause = pause.saturating_mul(2);
            self.visit_again(failed.into_iter().map(|failed| failed.key)).await?;
            self.lock().retrying.clear();
        }
        Ok(())
    }

    async fn visit_again(
        self: &Arc<Self>,
        keys: impl Iterator<Item = Key>,
    ) -> Result<(), SweepError> {
        let items: VecDeque<_> = keys.map(|key| Item { key, listed: Listed::Somewhere }).collect();
        if items.is_empty() {
            return Ok(());
        }
        self.visit(Feed::Given(items), Phase::Retrying).await
    }

    /// Hands a feed's keys out to workers, until there are no more.
    async fn visit(self: &Arc<Self>, feed: Feed, phase: Phase) -> Result<(), SweepError> {
        *self.feed.lock().await = feed;
        let mut workers = JoinSet::new();
        let mut left = self.options.concurrency;
        while left > 0 {
            let together = left.min(TOGETHER);
            let work = || Box::pin(Arc::clone(self).work(phase == Phase::Running)) as _;
            workers.spawn(all((0..together).map(|_| work()).collect()));
            left -= together;
        }
        let mut saved = Instant::now();
        loop {
            match timeout(TICK, workers.join_next()).await {
                Ok(None) => break,
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(_))) => self.stop(SweepError::Panicked),
                Err(_) => {}
            }
            let waiting = self.lock().waiting > 0;
            self.tell(if waiting { Phase::Waiting } else { phase });
            if saved.elapsed() >= self.options.checkpoint_every {
                self.save(false).await;
                saved = Instant::now();
            }
        }
        self.lock().stop.take().map_or(Ok(()), Err)
    }

    fn stop(&self, why: SweepError) {
        self.lock().stop.get_or_insert(why);
        self.halt.send_replace(true);
        self.room.notify_waiters();
    }

    /// What `work` comes to, unless the run is to end or the handle is shut down.
    async fn unless_stopped<F: Future>(&self, work: F) -> Result<F::Output, SweepError> {
        let stopped = either(self.halt.subscribe(), self.handle.core.closing());
        unless(stopped, work).await.ok_or(SweepError::ShutDown)
    }

    async fn work(self: Arc<Self>, in_order: bool) {
        loop {
            let next = self.unless_stopped(self.next(in_order)).await;
            let (item, number) = match next.and_then(|next| next) {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(why) => return self.stop(why),
            };
            let ended = self.one(&item).await;
            let mut state = self.lock();
            match ended {
                Ok(deed) => {
                    state.tally.add(deed);
                    self.handle.core.counters.swept(self.job.kind(), Some(deed));
                }
                Err(Trouble::Stop(why)) => {
                    drop(state);
                    return self.stop(why);
                }
                Err(Trouble::Failed(error)) => {
                    self.handle.core.counters.swept(self.job.kind(), None);
                    state.failed.add(item.key, error.into(), self.options.failures);
                }
                Err(Trouble::Left | Trouble::NotNow(_)) => state.tally.add(Deed::Left),
            }
            if let Some(number) = number {
                state.window.done(number);
                drop(state);
                self.room.notify_waiters();
            }
        }
    }

    /// The next key, with its number in the window if there is an order.
    async fn next(&self, in_order: bool) -> Result<Option<(Item, Option<u64>)>, SweepError> {
        let mut feed = self.feed.lock().await;
        if in_order {
            loop {
                let room = self.room.notified();
                let mut room = std::pin::pin!(room);
                room.as_mut().enable();
                {
                    let state = self.lock();
                    if state.stop.is_some() || state.window.len() < WINDOW {
                        break;
                    }
                }
                room.await;
            }
        }
        if self.lock().stop.is_some() {
            return Ok(None);
        }
        let item = feed.next().await?;
        Ok(item.map(|item| {
            let number = in_order.then(|| self.lock().window.hand_out(&item.key));
            (item, number)
        }))
    }

    /// Waits for the pace, and while a side is down.
    async fn turn(&self) -> Result<Going<'_>, Trouble> {
        loop {
            let going = self.pace.enter().await;
            let until = {
                let mut state = self.lock();
                let until = state.breaker.until();
                if until.is_none() {
                    state.breaker.tries();
                    return Ok(going);
                }
                if state.breaker.open_for() > self.options.patience {
                    let says = state.says.clone();
                    return Err(Trouble::Stop(SweepError::Down { says }));
                }
                state.waiting += 1;
                until
            };
            drop(going);
            let until = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
            let waited = Waited(self);
            sleep(until.min(LOOK)).await;
            drop(waited);
        }
    }

    async fn one(&self, item: &Item) -> Result<Deed, Trouble> {
        let began = Instant::now();
        loop {
            if self.lock().stop.is_some() {
                // The run's checkpoint must not pass it.
                return Err(Trouble::Failed("the run has ended before its turn".to_owned()));
            }
            let going = match self.unless_stopped(self.turn()).await {
                Ok(going) => going?,
                Err(why) => return Err(Trouble::Stop(why)),
            };
            let one = CatchPanic::new(self.job.one(item, &self.pace));
            let ended = match timeout(self.options.key_timeout, one).await {
                Ok(Ok(ended)) => ended,
                Ok(Err(Panicked)) => Err(Trouble::Failed("it panicked".to_owned())),
                Err(_) => {
                    let limit = self.options.key_timeout;
                    Err(Trouble::Failed(format!("it took longer than {limit:?}")))
                }
            };
            drop(going);
            let wait = match ended {
                Err(Trouble::NotNow(wait)) => wait,
                Err(Trouble::Failed(says)) => {
                    let mut state = self.lock();
                    state.breaker.failed();
                    state.says.clone_from(&says);
                    return Err(Trouble::Failed(says));
                }
                ended => {
                    self.lock().breaker.healed();
                    return ended;
                }
            };
            self.lock().breaker.postponed();
            self.lock().waiting += 1;
            let guard = Waited(self);
            let waited = async {
                match wait {
                    Wait::Settled => {
                        let _ = timeout(LOOK, self.handle.settled()).await;
                    }
                    Wait::Alone => sleep(LOOK).await,
                    Wait::Store(says) if began.elapsed() > STORE => {
                        return Err(Trouble::Stop(SweepError::Store(says)));
                    }
                    Wait::Store(_) => sleep(LOOK).await,
                }
                Ok(())
            }
            .await;
            drop(guard);
            waited?;
        }
    }
}

/// A worker that waits, until it is dropped.
struct Waited<'a, J: Job>(&'a Run<J>);

impl<J: Job> Drop for Waited<'_, J> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// Several workers in one task: a store that answers from another thread then wakes a
/// task that is under way more often than not, which costs a fraction of waking one that
/// sleeps.
async fn all(mut workers: Vec<BoxFuture<'static, ()>>) {
    poll_fn(|cx| {
        workers.retain_mut(|worker| worker.as_mut().poll(cx).is_pending());
        if workers.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
