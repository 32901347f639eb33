//! What the clients ask for.

use std::sync::Arc;

use fastrand::Rng;

use crate::model::Airport;

/// Keys that all clients fight over. Half of them are not in the data set, so
/// that creates and deletions meet.
const HOT: [&str; 8] = ["EDDF", "KJFK", "EGLL", "RJTT", "HOT-1", "HOT-2", "HOT-3", "HOT-4"];

/// Keys that are not in the data set and come and go.
const MADE: u32 = 400;

const COUNTRIES: [&str; 6] = ["US", "BR", "DE", "CA", "AU", "FR"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Create,
    Replace,
    Patch,
    Delete,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read { icao: String },
    List { uri: String },
    Write { icao: String, change: Change },
}

/// The rows of the data set, by key: what clients pick from and send back.
#[derive(Clone, Debug)]
pub(crate) struct Rows(Arc<[Airport]>);

impl Rows {
    pub(crate) fn new(mut rows: Vec<Airport>) -> Self {
        rows.sort_by(|a, b| a.icao.cmp(&b.icao));
        Self(rows.into())
    }

    pub(crate) fn all(&self) -> &[Airport] {
        &self.0
    }

    fn pick(&self, rng: &mut Rng) -> &Airport {
        &self.0[rng.usize(..self.0.len())]
    }

    /// A document for this key, which may not be one of the data set's. The
    /// country goes with the key, the town does not.
    pub(crate) fn document(&self, icao: &str, name: &str, rng: &mut Rng) -> Airport {
        let found = self.0.binary_search_by(|row| (*row.icao).cmp(icao));
        let of_key = found.map_or_else(
            |_| {
                let sum: usize = icao.bytes().map(usize::from).sum();
                &self.0[sum % self.0.len()]
            },
            |at| &self.0[at],
        );
        let elsewhere = self.pick(rng);
        Airport {
            icao: icao.to_owned(),
            name: name.to_owned(),
            city: elsewhere.city.clone(),
            elevation: elsewhere.elevation,
            ..of_key.clone()
        }
    }

    /// The next thing to do. Mostly reads; writes go to few keys more often
    /// than chance would have it.
    pub(crate) fn next(&self, rng: &mut Rng) -> Op {
        if rng.u8(..100) < 2 {
            let country = COUNTRIES[rng.usize(..COUNTRIES.len())];
            return Op::List { uri: format!("/airports?country={country}&limit=20") };
        }
        let (icao, tail) = match rng.u8(..100) {
            0..40 => (HOT[rng.usize(..HOT.len())].to_owned(), false),
            40..60 => (format!("MADE-{:03}", rng.u32(..MADE)), false),
            _ => (self.pick(rng).icao.clone(), true),
        };
        let change = match rng.u8(..100) {
            0..52 => return Op::Read { icao },
            52..66 => Change::Replace,
            66..82 => Change::Patch,
            // A create of what is there, a deletion of what most want to keep:
            // rarer where they would only be refused, or empty the data set.
            82..92 if !tail || rng.bool() => Change::Create,
            92.. if !tail || rng.u8(..4) == 0 => Change::Delete,
            _ => Change::Replace,
        };
        Op::Write { icao, change }
    }
}
