//! What is shown while it happens.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{stats::millis, world::World};

/// Lines go to stdout, a progress bar to stderr, and that only if it is a
/// terminal: what is piped is plain text.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    began: Instant,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Console {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), bar: Arc::default() }
    }

    fn present(&self) -> Option<ProgressBar> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn line(&self, line: &str) {
        match self.present() {
            // Takes the bar away, prints, draws it again.
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Something happened.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let at = self.began.elapsed().as_secs_f64();
        self.line(&format!("{at:6.1} s  {}", text.as_ref()));
    }

    /// More about what was said last.
    pub(crate) fn more(&self, text: impl AsRef<str>) {
        self.line(&format!("{:10}{}", "", text.as_ref()));
    }

    /// Shows how far a run through the keys has come, until it is
    /// [`done`](Self::done).
    pub(crate) fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template(
            "          {bar:40} {human_pos} of {human_len} keys, {per_sec}, {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        bar
    }

    pub(crate) fn done(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says every now and then how the clients fare.
    pub(crate) fn tick(&self, world: &World, every: Duration) -> JoinHandle<()> {
        let (console, world) = (self.clone(), world.clone());
        tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let mut last = Instant::now();
            loop {
                ticks.tick().await;
                let recent = world.stats().take_recent();
                let rate = recent.len() as f64 / last.elapsed().as_secs_f64();
                last = Instant::now();
                let mut line = format!(
                    "  {:10} {:>6} requests/s  p50 {} ms  p99 {} ms",
                    world.migration.stage().to_string(),
                    HumanCount(rate as u64).to_string(),
                    millis(&recent, 0.5),
                    millis(&recent, 0.99)
                );
                let status = world.migration.status();
                let dirty =
                    status.dirty_right_on_old + status.dirty_right_on_new + status.conflicts;
                if dirty > 0 {
                    line += &format!("  dirty keys: {dirty}");
                }
                if status.shadow_rate > 0.0 {
                    line += &format!("  {}", world.tally.verdicts());
                }
                if let Some(bar) = console.present()
                    && bar.is_hidden()
                {
                    let (done, all) = (bar.position(), bar.length().unwrap_or_default());
                    line += &format!("  {} of {} keys done", HumanCount(done), HumanCount(all));
                }
                console.say(line);
            }
        })
    }
}
