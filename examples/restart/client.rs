//! A client that writes all the time, and remembers what it was told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{task::JoinHandle, time::sleep};
use tower_migration::BoxError;

use crate::{
    stores::Airport,
    wire::{Wire, json, unexpected},
};

/// What is known of one airport.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The name that was acknowledged last. (The city never changes.)
    acked: String,
    /// Names that were sent later. The connection broke before their answer, so
    /// they may have arrived or not.
    open: Vec<String>,
    city: String,
}

impl Known {
    fn allows(&self, found: Option<&Airport>) -> bool {
        found.is_some_and(|found| {
            found.city == self.city && (found.name == self.acked || self.open.contains(&found.name))
        })
    }
}

/// The airports as the client knows them.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    airports: Arc<Mutex<BTreeMap<String, Known>>>,
    acked: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn of(airports: &[Airport]) -> Self {
        let known = airports.iter().cloned().map(|Airport { icao, name, city }| {
            (icao, Known { acked: name, open: Vec::new(), city })
        });
        Self { airports: Arc::new(Mutex::new(known.collect())), ..Self::default() }
    }

    fn airports(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.airports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn acked(&self) -> usize {
        self.acked.load(Ordering::SeqCst)
    }

    fn next(&self) -> Airport {
        let mut airports = self.airports();
        let nth = fastrand::usize(..airports.len());
        let (icao, known) = airports.iter_mut().nth(nth).expect("there are airports");
        let name = format!("Name {}", fastrand::u64(..));
        known.open.push(name.clone());
        Airport { icao: icao.clone(), name, city: known.city.clone() }
    }

    fn ack(&self, airport: Airport) {
        let Airport { icao, name, city } = airport;
        // One write of an airport at a time: those before it are decided now.
        self.airports().insert(icao, Known { acked: name, open: Vec::new(), city });
        self.acked.fetch_add(1, Ordering::SeqCst);
    }

    /// Reads every airport through the service, and says what is not as it was
    /// acknowledged. Nobody may be writing.
    pub(crate) async fn check(&self, wire: &Wire) -> Result<(), BoxError> {
        let airports = self.airports().clone();
        let mut lost = Vec::new();
        for (icao, known) in &airports {
            let answer = wire.send(Method::GET, &format!("/airports/{icao}"), Bytes::new()).await?;
            let found: Option<Airport> = match answer {
                (StatusCode::OK, body) => Some(serde_json::from_slice(&body)?),
                (StatusCode::NOT_FOUND, _) => None,
                (other, _) => return Err(format!("{icao} was answered {other}").into()),
            };
            if !known.allows(found.as_ref()) {
                lost.push(format!("{icao}: {known:?}, but there is {found:?}"));
            }
        }
        println!(
            "   checked: {} airports read, {} writes acknowledged so far, {} lost",
            airports.len(),
            self.acked(),
            lost.len()
        );
        if lost.is_empty() { Ok(()) } else { Err(lost.join("\n").into()) }
    }
}

/// Writes until it is told to stop, to any of the servers it knows.
pub(crate) struct Writer {
    memory: Memory,
    wires: Arc<Mutex<Vec<Wire>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), String>>,
}

impl Writer {
    pub(crate) fn start(memory: &Memory, wire: &Wire) -> Self {
        let (memory, stop) = (memory.clone(), Arc::new(AtomicBool::new(false)));
        let wires = Arc::new(Mutex::new(vec![wire.clone()]));
        let task = write(memory.clone(), Arc::clone(&wires), Arc::clone(&stop));
        Self { memory, wires, stop, task: tokio::spawn(task) }
    }

    /// As a load balancer does.
    pub(crate) fn send_to(&self, wires: &[&Wire]) {
        *self.wires.lock().unwrap_or_else(PoisonError::into_inner) =
            wires.iter().map(|&wire| wire.clone()).collect();
    }

    /// Waits until so many more writes are acknowledged.
    pub(crate) async fn writes(&self, more: usize) -> Result<(), BoxError> {
        let until = self.memory.acked() + more;
        while self.memory.acked() < until {
            if self.task.is_finished() {
                return Err("the client has stopped".into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) -> Result<(), BoxError> {
        self.stop.store(true, Ordering::SeqCst);
        Ok(self.task.await??)
    }
}

async fn write(
    memory: Memory,
    wires: Arc<Mutex<Vec<Wire>>>,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    while !stop.load(Ordering::SeqCst) {
        let wire = {
            let wires = wires.lock().unwrap_or_else(PoisonError::into_inner);
            wires[fastrand::usize(..wires.len())].clone()
        };
        let airport = memory.next();
        let path = format!("/airports/{}", airport.icao);
        match wire.send(Method::PUT, &path, json(&airport)?).await {
            Ok((StatusCode::OK, _)) => memory.ack(airport),
            Ok((other, _)) => return Err(unexpected(other)),
            // The server has been killed, or is about to end.
            Err(_) => sleep(Duration::from_millis(2)).await,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_is_open_may() {
        let airport = |name: &str| Airport {
            icao: "EDDF".into(),
            name: name.into(),
            city: "Frankfurt".into(),
        };
        let memory = Memory::of(&[airport("Rhein-Main")]);
        let (first, second) = (memory.next(), memory.next());
        memory.ack(first.clone());
        let third = memory.next();
        let known = memory.airports()["EDDF"].clone();
        assert!(known.allows(Some(&first)) && known.allows(Some(&third)));
        for lost in [None, Some(airport("Rhein-Main")), Some(second), Some(airport("else"))] {
            assert!(!known.allows(lost.as_ref()), "{lost:?}");
        }
        assert_eq!(memory.acked(), 1);
    }
}
