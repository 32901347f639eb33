//! What the handlers ask of a store, and any such store as a tower service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tower::Service;
use tower_migration::{Operation, Outcome, protocol::Plain, reconcile::Key, telemetry::Refused};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Airport {
    pub(crate) icao: String,
    pub(crate) name: String,
    pub(crate) city: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoreError {
    NotFound,
    /// The airport has no name.
    Nameless,
    Failed(String),
    /// The layer's own: for example, only one of the stores has the write.
    Layer(Refused),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such airport"),
            Self::Nameless => f.write_str("an airport needs a name"),
            Self::Failed(why) => write!(f, "the store failed: {why}"),
            Self::Layer(reason) => write!(f, "the migration answers {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// The storage trait that the team has: nothing here knows of a migration.
pub(crate) trait Airports: Clone + Send + Sync + 'static {
    fn get(&self, icao: &str) -> Result<Airport, StoreError>;
    /// Up to `limit` airports whose code sorts after `after`.
    fn list(&self, after: &str, limit: usize) -> Result<Vec<Airport>, StoreError>;
    fn put(&self, airport: &Airport) -> Result<(), StoreError>;
    fn delete(&self, icao: &str) -> Result<(), StoreError>;
}

/// The trait's methods as a request.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Get(String),
    List(String, usize),
    Put(Airport),
    Delete(String),
}

/// And what they return.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    One(Airport),
    Page(Vec<Airport>),
    Done,
}

/// A store as a service. Its calls block, so they run where that is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Served<A>(pub(crate) A);

impl<A: Airports> Service<Op> for Served<A> {
    type Response = Answer;
    type Error = StoreError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, op: Op) -> Self::Future {
        let store = self.0.clone();
        let work = move || match op {
            Op::Get(icao) => store.get(&icao).map(Answer::One),
            Op::List(after, limit) => store.list(&after, limit).map(Answer::Page),
            Op::Put(airport) => store.put(&airport).map(|()| Answer::Done),
            Op::Delete(icao) => store.delete(&icao).map(|()| Answer::Done),
        };
        Box::pin(async move {
            let done = spawn_blocking(work).await;
            done.unwrap_or_else(|gone| Err(StoreError::Failed(gone.to_string())))
        })
    }
}

/// The key of one airport. Those of the rows lie below that of a list, so that
/// a list counts as raced while one of its rows is written.
pub(crate) fn key(icao: &str) -> Key {
    format!("/airports/{icao}").into()
}

/// All that the layer needs to know of these services.
pub(crate) fn protocol() -> Plain<Op, Answer, StoreError> {
    let classify = |op: &Op| match op {
        Op::Get(_) | Op::List(..) => Operation::Read,
        Op::Put(_) | Op::Delete(_) => Operation::Write,
    };
    Plain::new(classify, StoreError::Layer)
        .keys(|op: &Op| match op {
            Op::Get(icao) | Op::Delete(icao) => key(icao),
            Op::Put(airport) => key(&airport.icao),
            Op::List(..) => "/airports".into(),
        })
        .judge(|answer: Result<&Answer, &StoreError>| match answer {
            Ok(_) => Outcome::Applied,
            // For certain, nothing was written.
            Err(StoreError::NotFound | StoreError::Nameless) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        })
        // Gone is gone, whichever side still had it.
        .done_when(|op: &Op, answer| {
            matches!((op, answer), (Op::Delete(_), Err(StoreError::NotFound)))
        })
        .name(|op: &Op| match op {
            Op::Put(airport) => format!("put {}", airport.icao),
            other => format!("{other:?}"),
        })
}
