//! The service, over a store in memory.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, Streaming};

#[allow(warnings, clippy::all, clippy::pedantic, reason = "generated")]
pub(crate) mod proto {
    include!("airports.rs");
}
use proto::{airports_server::Airports, *};

type Rows = BTreeMap<String, Airport>;
type Answers = Pin<Box<dyn Stream<Item = Result<Airport, Status>> + Send>>;

/// Airports, and whoever follows them.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    rows: Arc<Mutex<Rows>>,
    changes: broadcast::Sender<Airport>,
}

impl Default for Store {
    fn default() -> Self {
        Self { rows: Arc::default(), changes: broadcast::channel(64).0 }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rows(&self) -> Rows {
        self.lock().clone()
    }

    pub(crate) fn codes(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn row(&self, code: &str) -> Option<Airport> {
        self.lock().get(code).cloned()
    }

    /// Makes one row what it should be.
    pub(crate) fn put_or_delete(&self, code: &str, row: Option<Airport>) -> Result<(), Infallible> {
        match row {
            Some(row) => drop(self.put_row(row)),
            None => drop(self.lock().remove(code)),
        }
        Ok(())
    }

    fn put_row(&self, row: Airport) -> Option<Airport> {
        // Nobody may be following.
        let _ = self.changes.send(row.clone());
        self.lock().insert(row.code.clone(), row)
    }
}

#[tonic::async_trait]
impl Airports for Store {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Airport>, Status> {
        let row = self.row(&request.get_ref().code);
        row.map(Response::new).ok_or_else(|| Status::not_found("no such airport"))
    }

    type ListStream = Answers;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Answers>, Status> {
        let ListRequest { prefix, limit } = request.into_inner();
        let most = if limit == 0 { usize::MAX } else { limit as usize };
        let rows = self.rows().into_values().filter(move |row| row.code.starts_with(&prefix));
        Ok(Response::new(Box::pin(tokio_stream::iter(rows.take(most).map(Ok)))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let row = request.into_inner().airport.filter(|row| !row.code.is_empty());
        let row = row.ok_or_else(|| Status::invalid_argument("an airport needs a code"))?;
        Ok(Response::new(PutResponse { created: self.put_row(row).is_none() }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let row = self.lock().remove(&request.get_ref().code);
        row.map(|_| Response::new(DeleteResponse {})).ok_or_else(|| Status::not_found("gone"))
    }

    async fn import(
        &self,
        request: Request<Streaming<Airport>>,
    ) -> Result<Response<ImportResponse>, Status> {
        let mut rows = request.into_inner();
        let mut imported = 0;
        while let Some(row) = rows.next().await {
            self.put_row(row?);
            imported += 1;
        }
        Ok(Response::new(ImportResponse { imported }))
    }

    type FollowStream = Answers;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let followed = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
        let changes = BroadcastStream::new(self.changes.subscribe());
        let follows = Arc::clone(&followed);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(FollowRequest { code, stop })) = requests.next().await {
                let mut follows = follows.lock().unwrap_or_else(PoisonError::into_inner);
                if stop {
                    follows.remove(&code)
                } else {
                    follows.insert(code)
                };
            }
        });
        let answers = changes.filter_map(move |row| {
            let followed = followed.lock().unwrap_or_else(PoisonError::into_inner);
            row.ok().filter(|row| followed.contains(&row.code)).map(Ok)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
