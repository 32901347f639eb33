//! The workers, and whoever looks after them.

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
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
    progress::Meter,
    window::Window,
};
use crate::{
    flag::{BoxFuture, MigrationHandle},
    guard::{CatchPanic, Panicked},
    reconcile::{Checkpoint, JobKind, Key, listing::Source},
    stage::Side,
};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// How many keys may be under way, or done behind one that is.
const WINDOW: usize = 20_000;
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
    handle: MigrationHandle,
    options: Sweep,
    job: J,
    start: Start,
    pace: Pace,
    feed: tokio::sync::Mutex<Feed>,
    state: Mutex<State>,
    /// Told when the window has room again.
    room: Notify,
    progress: watch::Sender<Progress>,
}

struct State {
    window: Window,
    tally: Tally,
    failed: Failed,
    retrying: Vec<Key>,
    waiting: usize,
    stop: Option<SweepError>,
    meter: Meter,
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
            progress,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
                        let total = pages.count(from).await;
                        self.progress.send_modify(|progress| progress.total = total);
                        let after = checkpoint.up_to.as_ref();
                        Feed::Merged(Box::new(Merged::new(pages, from, *both, after)))
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
        let ended = ended.await;
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
            sleep(pause).await;
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
        self.room.notify_waiters();
    }

    async fn work(self: Arc<Self>, in_order: bool) {
        loop {
            let (item, number) = match self.next(in_order).await {
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

    async fn one(&self, item: &Item) -> Result<Deed, Trouble> {
        let began = Instant::now();
        loop {
            if self.lock().stop.is_some() {
                // The run's checkpoint must not pass it.
                return Err(Trouble::Failed("the run has ended before its turn".to_owned()));
            }
            let going = self.pace.enter().await;
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
            let Err(Trouble::NotNow(wait)) = ended else {
                return ended;
            };
            self.lock().waiting += 1;
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
            self.lock().waiting -= 1;
            waited?;
        }
    }

    fn tell(&self, phase: Phase) {
        let at_once = self.pace.allowed();
        let mut state = self.lock();
        let done = state.tally.sum();
        let failed = state.failed.count();
        let rate = state.meter.rate(done);
        drop(state);
        self.progress.send_modify(|progress| {
            let total = progress.total;
            let rest = total.map(|total| total.saturating_sub(done + failed));
            let left = rest.filter(|_| rate > 0.0).map(|rest| rest as f64 / rate);
            let left = left.and_then(|left| Duration::try_from_secs_f64(left).ok());
            *progress = Progress { phase, done, failed, total, rate, left, at_once };
        });
        self.handle.core.note_sweep(self.job.kind(), *self.progress.borrow());
    }

    /// What the next run goes on from. One that cannot be written costs that run
    /// time, and this one nothing.
    async fn save(&self, finished: bool) {
        let Some(store) = self.options.checkpoints.as_ref().filter(|_| self.start.kept) else {
            return;
        };
        let checkpoint = {
            let state = self.lock();
            let again = state.failed.keys.iter().map(|failed| &failed.key);
            // Until they have been tried, those of the run before are still to do.
            let before = self.start.checkpoint.again.iter().filter(|_| !finished);
            let again: BTreeSet<_> = again.chain(&state.retrying).chain(before).cloned().collect();
            Checkpoint {
                finished,
                up_to: state.window.up_to().cloned(),
                again: again.into_iter().collect(),
                again_lost: state.failed.lost,
                tally: state.tally,
                ..self.start.checkpoint.clone()
            }
        };
        if let Err(error) = store.save(checkpoint).await {
            self.handle.core.counters.checkpoint_failed();
            tracing::error!(
                target: "tower_migration",
                migration = %self.handle.name(), %error, hint = error.lifted_by(),
                "a checkpoint could not be written: a run that goes on begins further back"
            );
        }
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

impl Checkpoint {
    /// Of a run that begins.
    pub(in crate::reconcile) fn begin(
        job: JobKind,
        handle: &MigrationHandle,
        from: Side,
        span: u64,
    ) -> Self {
        let word = handle.core.word();
        Self {
            job,
            migration: handle.name().to_owned(),
            from,
            stage: word.stage(),
            epoch: word.epoch(),
            span,
            began: SystemTime::now(),
            finished: false,
            target_empty: false,
            up_to: None,
            again: Vec::new(),
            again_lost: 0,
            tally: Tally::default(),
        }
    }
}
