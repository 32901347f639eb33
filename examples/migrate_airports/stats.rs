//! What the clients experience, phase by phase.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tower_migration::Stage;

/// How one request ended, for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As hoped.
    Well,
    /// 404 or 409: somebody else was faster.
    Refused,
    /// A 5xx, no answer, or one that makes no sense.
    Badly {
        /// A fault was injected on the side that answers.
        injected: bool,
    },
}

/// One part of the walk.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) stage: Stage,
    pub(crate) what: &'static str,
    pub(crate) took: Duration,
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
    pub(crate) refused: u64,
    pub(crate) injected: u64,
    pub(crate) errors: u64,
    began: Instant,
}

/// Errors that are kept as text, to be shown.
const SAMPLES: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) phases: Vec<Phase>,
    pub(crate) samples: Vec<String>,
    /// Since the last look.
    recent: Option<Histogram<u64>>,
}

/// A histogram that keeps three digits of any number of microseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

impl Stats {
    pub(crate) fn enter(&mut self, stage: Stage, what: &'static str) {
        self.leave();
        self.phases.push(Phase {
            stage,
            what,
            took: Duration::ZERO,
            reads: histogram(),
            writes: histogram(),
            refused: 0,
            injected: 0,
            errors: 0,
            began: Instant::now(),
        });
    }

    /// The present phase ends here.
    pub(crate) fn leave(&mut self) {
        if let Some(last) = self.phases.last_mut()
            && last.took.is_zero()
        {
            last.took = last.began.elapsed();
        }
    }

    /// A request that began in phase number `phase`.
    pub(crate) fn record(&mut self, phase: usize, write: bool, took: Duration, ended: Ended) {
        let Some(phase) = self.phases.get_mut(phase) else {
            return;
        };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = match write {
            true => &mut phase.writes,
            false => &mut phase.reads,
        };
        let recent = self.recent.get_or_insert_with(self::histogram);
        for histogram in [histogram, recent] {
            // Grows as needed; only a value that no machine can hold is refused.
            histogram.record(micros).unwrap_or_else(|_| histogram.saturating_record(micros));
        }
        match ended {
            Ended::Well => {}
            Ended::Refused => phase.refused += 1,
            Ended::Badly { injected: true } => phase.injected += 1,
            Ended::Badly { injected: false } => phase.errors += 1,
        }
    }

    pub(crate) fn sample(&mut self, text: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES {
            self.samples.push(text());
        }
    }

    /// The number of the present phase.
    pub(crate) fn phase(&self) -> usize {
        self.phases.len().saturating_sub(1)
    }

    /// What came since the last call.
    pub(crate) fn take_recent(&mut self) -> Histogram<u64> {
        self.recent.take().unwrap_or_else(histogram)
    }

    pub(crate) fn sum(&self, of: impl Fn(&Phase) -> u64) -> u64 {
        self.phases.iter().map(of).sum()
    }
}

impl Phase {
    pub(crate) fn requests(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }
}

/// A latency in milliseconds, `-` where nothing was measured.
pub(crate) fn millis(histogram: &Histogram<u64>, quantile: f64) -> String {
    if histogram.is_empty() {
        return "-".to_owned();
    }
    format!("{:.1}", histogram.value_at_quantile(quantile) as f64 / 1e3)
}
