//! What was sent and what was acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::stores::{Airport, Rows};

pub const ICAOS: [&str; 16] = [
    "EDDF", "EGLL", "LFPG", "EHAM", "LEMD", "LIRF", "LOWW", "LSZH", "KJFK", "KLAX", "RJTT", "ZBAA",
    "YSSY", "FAOR", "SBGR", "CYYZ",
];

#[derive(Clone, Debug, Default)]
struct Log {
    /// For each version from 1 on, whether it was a deletion.
    sent: Vec<bool>,
    /// The newest version that was acknowledged. Each key is written by one
    /// client, one write after the other.
    acked: u32,
}

/// Of every key, from the first process on.
#[derive(Debug, Default)]
pub struct History {
    logs: Mutex<BTreeMap<&'static str, Log>>,
    acked: AtomicU64,
    reads: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl History {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<&'static str, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn send(&self, icao: &'static str, delete: bool) -> u32 {
        let mut logs = self.logs();
        let log = logs.entry(icao).or_default();
        log.sent.push(delete);
        u32::try_from(log.sent.len()).unwrap()
    }

    pub fn ack(&self, icao: &'static str, version: u32) {
        self.logs().entry(icao).or_default().acked = version;
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// A read that begins now must find this version or a later one.
    pub fn acked(&self, icao: &str) -> u32 {
        self.logs().get(icao).map_or(0, |log| log.acked)
    }

    /// Whether a read may find this.
    pub fn judge(&self, icao: &str, found: Option<&Airport>, acked: u32) -> Result<(), String> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let log = self.logs().get(icao).cloned().unwrap_or_default();
        let deleted = |version: u32| log.sent[version as usize - 1];
        let last = u32::try_from(log.sent.len()).unwrap();
        let why = match found {
            None if acked == 0 || (acked..=last).any(deleted) => return Ok(()),
            None => "is missing",
            Some(row) if *row != Airport::new(icao, row.version) => "is mixed",
            Some(row) if row.version == 0 || row.version > last => "was never sent",
            Some(row) if deleted(row.version) => "was never sent, but a deletion was",
            Some(row) if row.version < acked => "is LOST: an older one is there",
            Some(_) => return Ok(()),
        };
        Err(format!("{icao}: acknowledged {acked}, sent {last}, found {found:?}: it {why}"))
    }

    /// Whether all that a side holds was sent by somebody.
    pub fn judge_side(&self, rows: &Rows) -> Result<(), String> {
        rows.iter().try_for_each(|(icao, row)| self.judge(icao, Some(row), 0))
    }

    /// Whether a side holds all that was acknowledged.
    pub fn judge_whole_side(&self, rows: &Rows) -> Result<(), String> {
        ICAOS.iter().try_for_each(|icao| self.judge(icao, rows.get(*icao), self.acked(icao)))
    }

    /// Notes the first thing that went wrong for a client.
    pub fn complain(&self, why: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub fn complaint(&self) -> Option<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn summary(&self) -> String {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        format!("{} writes acknowledged, {} rows judged", count(&self.acked), count(&self.reads))
    }
}
