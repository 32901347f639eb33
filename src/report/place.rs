//! One place at which answers differ.

use std::{sync::Arc, time::SystemTime};

use crate::flag::gates::{Confidence, lower, upper};

/// How sure one is that a difference is real. More than for what is looked at once: a
/// report is looked at again and again.
const SURE: Confidence = Confidence::P99;

/// How sure one is that noise is as frequent as it seems.
const NOISY: Confidence = Confidence::P95;

/// What part of the differences there noise must explain, to be all that there is.
const EXPLAINED: f64 = 0.5;

/// How many reads there must be on either side.
pub(super) const FEWEST: u64 = 20;

/// What a place that differs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum PlaceKind {
    /// The sides differ there.
    Real,
    /// They seem to. It takes more reads to tell it from noise.
    Undecided,
    /// The authority differs from itself there, about as often.
    Noise,
}

impl PlaceKind {
    /// Every kind, the worst first.
    pub const ALL: &[Self] = &[Self::Real, Self::Undecided, Self::Noise];

    /// `real`, `undecided` or `noise`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Undecided => "undecided",
            Self::Noise => "noise",
        }
    }
}

impl std::fmt::Display for PlaceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One place at which the answers of one route differ.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PlaceReport {
    /// The route, such as `GET /airports/*`.
    pub route: Arc<str>,
    /// The place, such as `status` or `/runways/*/length_ft`.
    pub place: Arc<str>,
    /// What to think of it.
    pub kind: PlaceKind,
    /// Reads in which the two sides differed there, and went on to.
    pub differ: u64,
    /// Of so many that were compared.
    pub compared: u64,
    /// Reads in which the authority's two answers differed there.
    pub noise: u64,
    /// Of so many that it answered twice.
    pub answered_twice: u64,
    /// Reads that differed there and do not count: the authority contradicted itself
    /// when they were made again.
    pub contradicted: u64,
    /// The first such read that counts.
    pub example: Option<Example>,
}

/// A read that differed, as an example.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Example {
    /// The request, such as `GET /airports/EDDF`.
    pub request: Arc<str>,
    /// Where exactly, such as `/runways/2/length_ft`.
    pub what: String,
    /// What the authority said.
    pub authority: String,
    /// What the other side said.
    pub other: String,
    /// When, by the machine's clock.
    pub at: SystemTime,
}

/// What was counted at one place.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) differ: u64,
    pub(super) noise: u64,
    pub(super) contradicted: u64,
    pub(super) example: Option<Example>,
}

/// How many reads a route's places are counted among.
#[derive(Clone, Copy, Debug)]
pub(super) struct Among {
    pub(super) compared: u64,
    pub(super) answered_twice: u64,
    /// Whether the authority may be asked twice at all.
    pub(super) is_measured: bool,
}

impl Place {
    pub(super) fn kind(&self, among: Among) -> PlaceKind {
        let Among { compared, answered_twice, is_measured } = among;
        // Reads in which the authority contradicted itself are noise, as those are that
        // it answers differently when asked twice: without them the two rates would not
        // be of one kind.
        let differ = self.differ + self.contradicted;
        let enough = compared >= FEWEST && (!is_measured || answered_twice >= FEWEST);
        if self.differ == 0 {
            return if self.noise + self.contradicted > 0 {
                PlaceKind::Noise
            } else {
                PlaceKind::Undecided
            };
        }
        if !enough {
            return PlaceKind::Undecided;
        }
        let noise = match is_measured {
            true => upper(self.noise, answered_twice, SURE.z()),
            // Its rate there is nothing that anybody has measured: taken for none.
            false => 0.0,
        };
        if lower(differ, compared, SURE.z()) > noise {
            return PlaceKind::Real;
        }
        let explained = lower(self.noise, answered_twice, NOISY.z());
        match self.noise > 0 && explained >= EXPLAINED * differ as f64 / compared as f64 {
            true => PlaceKind::Noise,
            false => PlaceKind::Undecided,
        }
    }

    /// Whether nothing would be lost with it: it was noise, once.
    pub(super) const fn is_fleeting(&self) -> bool {
        self.differ == 0 && self.noise + self.contradicted <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(differ: u64, compared: u64, noise: u64, twice: u64) -> PlaceKind {
        let place = Place { differ, noise, ..Place::default() };
        place.kind(Among { compared, answered_twice: twice, is_measured: true })
    }

    #[test]
    fn what_differs_as_often_as_the_authority_from_itself_is_noise() {
        use PlaceKind::{Noise, Real, Undecided};
        assert_eq!(kind(1_000, 1_000, 50, 50), Noise);
        assert_eq!(kind(100, 1_000, 12, 120), Noise);
        assert_eq!(kind(100, 1_000, 5, 50), Undecided, "noise may be half as frequent, or less");
        assert_eq!(kind(1_000, 1_000, 0, 50), Real);
        assert_eq!(kind(900, 1_000, 5, 50), Real, "far more often than it");
        assert_eq!(kind(19, 19, 0, 50), Undecided, "too few were compared");
        assert_eq!(kind(100, 100, 0, 19), Undecided, "too few were answered twice");
        assert_eq!(kind(0, 1_000, 1, 50), Noise);
        assert_eq!(kind(1, 10_000, 0, 500), Undecided, "rare, and little is known of noise");
    }

    #[test]
    fn a_little_noise_excuses_no_defect() {
        let place =
            |differ, noise, contradicted| Place { differ, noise, contradicted, ..Place::default() };
        let among = Among { compared: 8_000, answered_twice: 400, is_measured: true };
        // Rarer than noise could be after 400 reads, and far more frequent than it was.
        assert_eq!(place(20, 0, 1).kind(among), PlaceKind::Undecided);
        assert_eq!(place(20, 1, 0).kind(among), PlaceKind::Undecided);
        // The authority changes its mind in some reads, and new is wrong in others.
        let among = Among { compared: 10_000, answered_twice: 5_000, is_measured: true };
        assert_eq!(place(70, 10, 20).kind(among), PlaceKind::Real);
        assert_eq!(place(20, 20, 20).kind(among), PlaceKind::Noise);
    }

    #[test]
    fn the_documented_numbers_of_reads_are_enough() {
        let real = |compared: u64, twice| kind(compared / 10_000, compared, 0, twice);
        assert_eq!(real(190_000, 95_000), PlaceKind::Real);
        assert_eq!(real(180_000, 90_000), PlaceKind::Undecided);
        assert_eq!(real(1_330_000, 66_500), PlaceKind::Real);
        assert_eq!(real(1_300_000, 65_000), PlaceKind::Undecided);
    }

    #[test]
    fn where_noise_is_not_measured_twenty_reads_are_enough() {
        let kind = |differ, compared| {
            let among = Among { compared, answered_twice: 0, is_measured: false };
            Place { differ, ..Place::default() }.kind(among)
        };
        assert_eq!(kind(1, 20), PlaceKind::Real);
        assert_eq!(kind(1, 19), PlaceKind::Undecided);
    }
}
