//! What was counted for one route.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    PlaceReport,
    place::{Among, Place},
};
use crate::{
    compare::{FailReason, InconclusiveReason, SkipReason, Verdict},
    flag::gates::{Durations, ShadowCounts},
    stage::Side,
};

/// What shadow reads of one route or method have shown.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RouteReport {
    /// Such as `GET /airports/*`. `(others)`: those for which there was no room.
    pub route: Arc<str>,
    /// Reads that were compared with a result: those that matched, that did not, that
    /// healed, and that differed in noise only.
    pub compared: u64,
    /// Both sides gave the same answer.
    pub matched: u64,
    /// They differed, and still did when read again.
    pub mismatched: u64,
    /// They differed, and were equal when read again.
    pub transient: u64,
    /// They differed where the authority differs from itself.
    pub noisy: u64,
    /// Differences that say nothing, by reason, those two aside.
    pub inconclusive: Vec<ReasonCount>,
    /// Reads that were not compared, by reason.
    pub skipped: Vec<ReasonCount>,
    /// Reads that the other side did not answer, by reason.
    pub failed: Vec<ReasonCount>,
    /// Of all these, reads in which the sides' first answers differed, or could not be
    /// looked into, and of which nobody knows what to think, by what became of them:
    /// raced, out of time, not read again, not decoded. They stand against
    /// [`Advice::Safe`](super::Advice::Safe), unless they are few.
    pub unresolved: Vec<ReasonCount>,
    /// Reads that the authority answered twice.
    pub answered_twice: u64,
    /// To the head of old's answer.
    pub old: Option<SideLatency>,
    /// To the head of new's answer.
    pub new: Option<SideLatency>,
    /// Where answers differ, the worst first.
    pub places: Vec<PlaceReport>,
    /// Differences at places for which there was no room.
    pub more_places: u64,
}

/// A reason, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReasonCount {
    /// Its label.
    pub reason: &'static str,
    /// How many reads.
    pub count: u64,
}

/// How long one side took to the heads of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SideLatency {
    /// How many answers.
    pub count: u64,
    /// Half took no longer, up to an eighth.
    pub p50: Duration,
    /// 99 of a hundred took no longer, up to an eighth.
    pub p99: Duration,
}

/// What is counted for one route.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(super) matched: u64,
    pub(super) mismatched: u64,
    inconclusive: [u64; InconclusiveReason::ALL.len()],
    skipped: [u64; SkipReason::ALL.len()],
    failed: [u64; FailReason::ALL.len()],
    unresolved: BTreeMap<&'static str, u64>,
    pub(super) answered_twice: u64,
    pub(super) is_measured: bool,
    latency: [Durations; 2],
    pub(super) places: HashMap<Arc<str>, Place>,
    pub(super) more_places: u64,
}

impl Route {
    pub(super) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Match => self.matched += 1,
            Verdict::Mismatch(_) => self.mismatched += 1,
            Verdict::Inconclusive(reason) => self.inconclusive[*reason as usize] += 1,
            Verdict::Skipped(reason) => self.skipped[*reason as usize] += 1,
            Verdict::Failed(reason) => self.failed[*reason as usize] += 1,
        }
    }

    pub(super) fn unresolved(&mut self, verdict: &Verdict) {
        *self.unresolved.entry(verdict.reason().unwrap_or_default()).or_default() += 1;
    }

    /// These verdicts too.
    pub(super) fn verdicts(&self, mut all: ShadowCounts) -> ShadowCounts {
        all.matches += self.matched;
        all.mismatches += self.mismatched;
        all.inconclusive += sum(&self.inconclusive);
        all.skipped += sum(&self.skipped);
        all.failed += sum(&self.failed);
        all
    }

    pub(super) fn took(&mut self, side: Side, took: Option<Duration>) {
        if let Some(took) = took {
            self.latency[side.index()].add(took, 1);
        }
    }

    fn of(&self, reason: InconclusiveReason) -> u64 {
        self.inconclusive[reason as usize]
    }

    fn compared(&self) -> u64 {
        let noisy = self.of(InconclusiveReason::Noise);
        self.matched + self.mismatched + noisy + self.of(InconclusiveReason::Transient)
    }

    /// Reads that the other side did not answer, of so many that it was asked.
    pub(super) fn other_failed(&self) -> (u64, u64) {
        // A comparer that panics is nobody's failure.
        let panicked = self.failed[FailReason::ComparerPanicked as usize];
        let failed = sum(&self.failed) - panicked;
        let answered = self.matched + self.mismatched + sum(&self.inconclusive) + panicked;
        (failed, failed + answered)
    }

    /// Reads that the authority did not answer, of so many that it was asked.
    pub(super) fn authority_failed(&self) -> (u64, u64) {
        (self.skipped[SkipReason::AuthorityFailed as usize], self.all())
    }

    pub(super) fn all(&self) -> u64 {
        let unclear = sum(&self.inconclusive) + sum(&self.skipped) + sum(&self.failed);
        self.matched + self.mismatched + unclear
    }

    pub(super) fn among(&self) -> Among {
        Among {
            compared: self.compared(),
            answered_twice: self.answered_twice,
            is_measured: self.is_measured,
        }
    }

    /// The places, the worst first.
    pub(super) fn places(&self, route: &Arc<str>) -> Vec<PlaceReport> {
        let among = self.among();
        let report = |(name, place): (&Arc<str>, &Place)| PlaceReport {
            route: Arc::clone(route),
            place: Arc::clone(name),
            kind: place.kind(among),
            differ: place.differ,
            compared: among.compared,
            noise: place.noise,
            answered_twice: among.answered_twice,
            contradicted: place.contradicted,
            example: place.example.clone(),
        };
        let mut places: Vec<_> = self.places.iter().map(report).collect();
        places.sort_by(|a, b| {
            let by = |place: &PlaceReport| (place.kind, std::cmp::Reverse(place.differ));
            by(a).cmp(&by(b)).then_with(|| a.place.cmp(&b.place))
        });
        places
    }

    pub(super) fn report(&self, route: &Arc<str>) -> RouteReport {
        let latency = |side: Side| {
            let durations = &self.latency[side.index()];
            let (p50, p99) = (durations.quantile(0.5)?, durations.quantile(0.99)?);
            Some(SideLatency { count: durations.count(), p50, p99 })
        };
        let mut inconclusive = self.inconclusive;
        inconclusive[InconclusiveReason::Transient as usize] = 0;
        inconclusive[InconclusiveReason::Noise as usize] = 0;
        RouteReport {
            route: Arc::clone(route),
            compared: self.compared(),
            matched: self.matched,
            mismatched: self.mismatched,
            transient: self.of(InconclusiveReason::Transient),
            noisy: self.of(InconclusiveReason::Noise),
            inconclusive: counted(
                InconclusiveReason::ALL.iter().map(|reason| reason.as_str()),
                &inconclusive,
            ),
            skipped: counted(SkipReason::ALL.iter().map(|reason| reason.as_str()), &self.skipped),
            failed: counted(FailReason::ALL.iter().map(|reason| reason.as_str()), &self.failed),
            unresolved: self
                .unresolved
                .iter()
                .map(|(reason, count)| ReasonCount { reason, count: *count })
                .collect(),
            answered_twice: self.answered_twice,
            old: latency(Side::Old),
            new: latency(Side::New),
            places: self.places(route),
            more_places: self.more_places,
        }
    }
}

fn counted(labels: impl Iterator<Item = &'static str>, counts: &[u64]) -> Vec<ReasonCount> {
    let all = labels.zip(counts).map(|(reason, count)| ReasonCount { reason, count: *count });
    all.filter(|reason| reason.count > 0).collect()
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

impl RouteReport {
    /// How many reads are [`unresolved`](Self::unresolved).
    pub(super) fn left_open(&self) -> u64 {
        self.unresolved.iter().map(|reason| reason.count).sum()
    }
}
