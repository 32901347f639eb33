//! A client of the HTTP interface that remembers what it was told.

use std::collections::BTreeMap;

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_migration::BoxError;

use crate::airports::{Airport, Airports, StoreError};

pub(crate) struct Client {
    app: Router,
    /// What the acknowledged writes have left of each airport.
    told: BTreeMap<String, Option<Airport>>,
    asked: usize,
}

impl Client {
    pub(crate) fn new(app: Router) -> Self {
        Self { app, told: BTreeMap::new(), asked: 0 }
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        airport: Option<&Airport>,
        expected: StatusCode,
    ) -> Result<Vec<u8>, BoxError> {
        self.asked += 1;
        let what = format!("{method} {path}");
        let body = airport.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body))?;
        let (head, body) = self.app.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        if head.status != expected {
            let said = String::from_utf8_lossy(&body);
            return Err(format!("{what}: {} and not {expected}: {said}", head.status).into());
        }
        Ok(body.into())
    }

    /// Renames an airport and reads it, deletes another and finds it gone, and
    /// asks for what must be refused.
    pub(crate) async fn requests(&mut self, icao: &str) -> Result<(), BoxError> {
        let gone = format!("{icao}-OLD");
        let path = |icao: &str| format!("/airports/{icao}");
        for round in 0..3 {
            let name = format!("renamed by request {}", self.asked);
            let renamed = Airport { icao: icao.into(), name, city: format!("round {round}") };
            self.put(&renamed, StatusCode::NO_CONTENT).await?;
            self.put(&Airport { icao: gone.clone(), ..renamed.clone() }, StatusCode::NO_CONTENT)
                .await?;
            let read = self.ask(Method::GET, &path(icao), None, StatusCode::OK).await?;
            if serde_json::from_slice::<Airport>(&read)? != renamed {
                return Err(format!("{icao} is not what was written").into());
            }
            self.ask(Method::DELETE, &path(&gone), None, StatusCode::NO_CONTENT).await?;
            self.told.insert(gone.clone(), None);
            self.ask(Method::GET, &path(&gone), None, StatusCode::NOT_FOUND).await?;
            self.ask(Method::DELETE, &path(&gone), None, StatusCode::NOT_FOUND).await?;
            let nameless = Airport { name: String::new(), ..renamed };
            self.put(&nameless, StatusCode::UNPROCESSABLE_ENTITY).await?;
            self.ask(Method::GET, "/airports", None, StatusCode::OK).await?;
        }
        Ok(())
    }

    async fn put(&mut self, airport: &Airport, expected: StatusCode) -> Result<(), BoxError> {
        self.ask(Method::PUT, "/airports", Some(airport), expected).await?;
        if expected.is_success() {
            self.told.insert(airport.icao.clone(), Some(airport.clone()));
        }
        Ok(())
    }

    /// Acknowledged writes that a store does not have.
    pub(crate) fn missing(&self, store: &impl Airports) -> Vec<String> {
        println!("  {} requests were answered as they should", self.asked);
        let missing = |(icao, told): (&String, &Option<Airport>)| {
            let found = match store.get(icao) {
                Err(StoreError::NotFound) => Ok(None),
                found => found.map(Some),
            };
            (found.as_ref() != Ok(told)).then(|| format!("{told:?} was told, {found:?} is there"))
        };
        self.told.iter().filter_map(missing).collect()
    }
}
