//! How fast a run may go.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// When a run makes way for the clients: by how much slower the side that it reads
/// from has become.
///
/// The mean time of the run's own reads is taken over a tenth of a second at a time.
/// Where it is over [`factor`](Self::factor) times the least that was seen, and over
/// [`floor`](Self::floor), half as many keys are worked at from then on; else one
/// more, up to the run's concurrency. (The rule of TCP's congestion window, with
/// delay as the signal, as in TCP Vegas.) At one key at a time, pauses are put in.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::reconcile::SlowDown;
///
/// let slow_down = SlowDown::new().factor(3.0).floor(Duration::from_millis(20));
/// # let _ = slow_down;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct SlowDown {
    pub(crate) factor: f64,
    pub(crate) floor: Duration,
}

impl Default for SlowDown {
    fn default() -> Self {
        Self { factor: 4.0, floor: Duration::from_millis(5) }
    }
}

impl SlowDown {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many times slower than at its best the side may be (default 4).
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// A mean time up to which nothing is slow (default 5 ms).
    pub const fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }
}

/// Over how long the mean of the reads is taken.
const PERIOD: Duration = Duration::from_millis(100);
/// And over how many reads at the least.
const SAMPLES: u32 = 8;
/// How much of the best mean is forgotten with each period: load changes for good.
const FORGET: f64 = 1.001;
/// The longest pause between two keys, when one at a time is still too many.
const LONGEST: Duration = Duration::from_secs(1);

/// Places for workers, as many as the pace allows.
#[derive(Debug)]
pub(in crate::reconcile) struct Pace {
    state: Mutex<State>,
    left: Notify,
    most: usize,
    /// Between two keys, at the given rate.
    gap: Option<Duration>,
    slow_down: Option<SlowDown>,
}

#[derive(Debug)]
struct State {
    running: usize,
    allowed: usize,
    pause: Duration,
    next: Instant,
    period: Instant,
    sum: Duration,
    samples: u32,
    best: Option<f64>,
}

impl Pace {
    pub(super) fn new(most: usize, rate: Option<f64>, slow_down: Option<SlowDown>) -> Self {
        let now = Instant::now();
        let state = State {
            running: 0,
            allowed: most,
            pause: Duration::ZERO,
            next: now,
            period: now,
            sum: Duration::ZERO,
            samples: 0,
            best: None,
        };
        let gap = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        Self { state: Mutex::new(state), left: Notify::new(), most, gap, slow_down }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys are worked at now, at the most.
    pub(super) fn allowed(&self) -> usize {
        self.lock().allowed
    }

    /// Waits for its turn.
    pub(super) async fn enter(&self) -> Going<'_> {
        loop {
            let left = self.left.notified();
            let mut left = std::pin::pin!(left);
            left.as_mut().enable();
            let due = {
                let mut state = self.lock();
                if state.running < state.allowed {
                    state.running += 1;
                    Some(self.due(&mut state))
                } else {
                    None
                }
            };
            match due {
                Some(due) => {
                    // Counted from here on, also if it is dropped while it waits.
                    let going = Going(self);
                    if let Some(due) = due {
                        sleep_until(due).await;
                    }
                    return going;
                }
                None => left.await,
            }
        }
    }

    /// When the next key may be begun; `None`: now.
    fn due(&self, state: &mut State) -> Option<Instant> {
        let gap = self.gap.unwrap_or_default().max(state.pause);
        if gap.is_zero() {
            return None;
        }
        let now = Instant::now();
        // What was not used of the rate is not made up for later.
        let due = state.next.max(now);
        state.next = due + gap;
        (due > now).then_some(due)
    }

    /// A read of the source took this long.
    pub(in crate::reconcile) fn took(&self, took: Duration) {
        let Some(slow_down) = self.slow_down else {
            return;
        };
        let mut state = self.lock();
        state.sum += took;
        state.samples += 1;
        if state.samples < SAMPLES || state.period.elapsed() < PERIOD {
            return;
        }
        let mean = state.sum.as_secs_f64() / f64::from(state.samples);
        let best = state.best.map_or(mean, |best| (best * FORGET).min(mean));
        state.best = Some(best);
        if mean > slow_down.floor.as_secs_f64() && mean > best * slow_down.factor {
            if state.allowed == 1 {
                let pause = state.pause.max(Duration::from_millis(1)) * 2;
                state.pause = pause.min(LONGEST);
            }
            state.allowed = (state.allowed / 2).max(1);
        } else if !state.pause.is_zero() {
            state.pause = match state.pause / 2 {
                pause if pause < Duration::from_millis(1) => Duration::ZERO,
                pause => pause,
            };
        } else {
            state.allowed = (state.allowed + 1).min(self.most);
        }
        (state.sum, state.samples, state.period) = (Duration::ZERO, 0, Instant::now());
        drop(state);
        self.left.notify_waiters();
    }
}

/// A key that is being worked at.
pub(super) struct Going<'a>(&'a Pace);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight reads of this many milliseconds, one period later.
    async fn period(pace: &Pace, millis: u64) {
        tokio::time::advance(PERIOD).await;
        (0..SAMPLES).for_each(|_| pace.took(Duration::from_millis(millis)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_halves_when_the_side_slows_down_and_comes_back_one_by_one() {
        let pace = Pace::new(16, None, Some(SlowDown::default()));
        period(&pace, 2).await;
        assert_eq!(pace.allowed(), 16);
        period(&pace, 7).await;
        assert_eq!(pace.allowed(), 16, "less than four times as slow");
        period(&pace, 20).await;
        period(&pace, 20).await;
        assert_eq!(pace.allowed(), 4);
        period(&pace, 2).await;
        assert_eq!(pace.allowed(), 5);
        for _ in 0..5 {
            period(&pace, 90).await;
        }
        assert_eq!(pace.allowed(), 1);
        assert!(pace.lock().pause > Duration::ZERO);
        for _ in 0..40 {
            period(&pace, 2).await;
        }
        assert_eq!((pace.allowed(), pace.lock().pause), (16, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_the_floor_is_never_slow() {
        let pace = Pace::new(16, None, Some(SlowDown::default()));
        pace.took(Duration::from_micros(1));
        tokio::time::advance(PERIOD).await;
        (0..SAMPLES).for_each(|_| pace.took(Duration::from_micros(20)));
        period(&pace, 4).await;
        assert_eq!(pace.allowed(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_spaces_the_keys_and_saves_nothing_up() {
        let pace = Pace::new(16, Some(10.0), None);
        let began = Instant::now();
        for _ in 0..5 {
            drop(pace.enter().await);
        }
        assert_eq!(began.elapsed().as_millis(), 400);
        tokio::time::advance(Duration::from_secs(10)).await;
        let began = Instant::now();
        for _ in 0..3 {
            drop(pace.enter().await);
        }
        assert_eq!(began.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_allowed_are_under_way() {
        let pace = Pace::new(2, None, None);
        let (one, _two) = (pace.enter().await, pace.enter().await);
        let mut third = std::pin::pin!(pace.enter());
        assert!(tokio::time::timeout(Duration::from_secs(1), third.as_mut()).await.is_err());
        drop(one);
        drop(third.await);
    }
}
