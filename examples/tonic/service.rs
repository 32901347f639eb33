//! The service, over a store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, Streaming};

#[allow(warnings, clippy::all, clippy::pedantic, reason = "generated")]
pub(crate) mod proto {
    include!("airports.rs");
}
use proto::{
    Airport, DeleteRequest, DeleteResponse, FollowRequest, GetRequest, ImportResponse, ListRequest,
    PutRequest, PutResponse, airports_server::Airports,
};

type Answer<T> = Result<Response<T>, Status>;
type Rows = Pin<Box<dyn Stream<Item = Result<Airport, Status>> + Send>>;

/// Airports, and whoever follows them.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    rows: Arc<Mutex<BTreeMap<String, Airport>>>,
    changes: broadcast::Sender<Airport>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { rows: Arc::default(), changes: broadcast::Sender::new(64) }
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Airport>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was there before.
    pub(crate) fn keep(&self, row: Airport) -> Option<Airport> {
        // Nobody may be following.
        let _ = self.changes.send(row.clone());
        self.rows().insert(row.code.clone(), row)
    }
}

#[tonic::async_trait]
impl Airports for Store {
    type ListStream = Rows;
    type FollowStream = Rows;

    async fn get(&self, request: Request<GetRequest>) -> Answer<Airport> {
        let row = self.rows().get(&request.get_ref().code).cloned();
        row.map(Response::new).ok_or_else(|| Status::not_found("no such airport"))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<Rows> {
        let ListRequest { prefix, limit } = request.into_inner();
        let most = if limit == 0 { usize::MAX } else { limit as usize };
        let rows = self.rows().clone().into_values();
        let rows = rows.filter(move |row| row.code.starts_with(&prefix)).take(most);
        Ok(Response::new(Box::pin(tokio_stream::iter(rows.map(Ok)))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let row = request.into_inner().airport.filter(|row| !row.code.is_empty());
        let row = row.ok_or_else(|| Status::invalid_argument("an airport needs a code"))?;
        Ok(Response::new(PutResponse { created: self.keep(row).is_none() }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let row = self.rows().remove(&request.get_ref().code);
        row.map(|_| Response::new(DeleteResponse {})).ok_or_else(|| Status::not_found("gone"))
    }

    async fn import(&self, request: Request<Streaming<Airport>>) -> Answer<ImportResponse> {
        let (mut rows, mut imported) = (request.into_inner(), 0);
        while let Some(row) = rows.next().await {
            self.keep(row?);
            imported += 1;
        }
        Ok(Response::new(ImportResponse { imported }))
    }

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Answer<Rows> {
        let asked = request.into_inner().filter_map(Result::ok).map(Err);
        let changed = BroadcastStream::new(self.changes.subscribe()).filter_map(Result::ok).map(Ok);
        let mut followed = BTreeSet::new();
        let answers = asked.merge(changed).filter_map(move |event| {
            match event {
                Ok(row) => return followed.contains(&row.code).then_some(Ok(row)),
                Err(FollowRequest { code, stop: false }) => followed.insert(code),
                Err(FollowRequest { code, stop: true }) => followed.remove(&code),
            };
            None
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
