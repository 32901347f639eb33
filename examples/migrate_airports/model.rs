//! The airport document, the contract both stores keep, and the REST interface
//! that is written once and served from either of them.

use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

/// One airport. The order of the fields is the order of the JSON members, so
/// that two stores holding equal values answer equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Airport {
    pub(crate) icao: String,
    pub(crate) iata: String,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) subd: String,
    pub(crate) country: String,
    /// In feet. Some surveys give tenths, so a whole number would lose them.
    pub(crate) elevation: f64,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    pub(crate) tz: String,
    pub(crate) lid: String,
}

impl Airport {
    /// Says what is wrong with the document, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        // Aerodromes without an official code have one that starts with '_'.
        let coded = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !(3..=8).contains(&self.icao.len()) || !self.icao.bytes().all(coded) {
            return Err("icao: 3 to 8 of A-Z, 0-9, '-' and '_' expected".into());
        }
        if self.country.len() != 2 || !self.country.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err("country: two letters A-Z expected".into());
        }
        if !self.elevation.is_finite() {
            return Err("elevation: a finite number expected".into());
        }
        // NaN and the infinities are in no range, so these need no test of their own.
        if !(-90.0..=90.0).contains(&self.lat) {
            return Err("lat: -90 to 90 expected".into());
        }
        if !(-180.0..=180.0).contains(&self.lon) {
            return Err("lon: -180 to 180 expected".into());
        }
        Ok(())
    }
}

/// The fields to change. An airport has all its fields at all times, so `null`
/// cannot mean "remove" and is read as "not given".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    pub(crate) iata: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) city: Option<String>,
    pub(crate) subd: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) elevation: Option<f64>,
    pub(crate) lat: Option<f64>,
    pub(crate) lon: Option<f64>,
    pub(crate) tz: Option<String>,
    pub(crate) lid: Option<String>,
}

impl Patch {
    /// Overwrites the given fields. The result has still to be checked.
    pub(crate) fn apply(&self, airport: &mut Airport) {
        fn set<T: Clone>(field: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut airport.iata, &self.iata);
        set(&mut airport.name, &self.name);
        set(&mut airport.city, &self.city);
        set(&mut airport.subd, &self.subd);
        set(&mut airport.country, &self.country);
        set(&mut airport.elevation, &self.elevation);
        set(&mut airport.lat, &self.lat);
        set(&mut airport.lon, &self.lon);
        set(&mut airport.tz, &self.tz);
        set(&mut airport.lid, &self.lid);
    }
}

/// A page of the collection: up to `limit` airports whose key sorts after `after`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    pub(crate) country: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl ListQuery {
    /// The page size: 100 unless told, never above 1000.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(100).min(1000)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ApiError {
    NotFound,
    Exists,
    Invalid(String),
    Store(String),
}

/// RFC 9457. A struct and not a map, for the order of its members. Without a
/// `type` the title has to be the phrase of the status.
#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, detail) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such airport"),
            Self::Exists => (StatusCode::CONFLICT, "there is such an airport already"),
            Self::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why.as_str()),
            Self::Store(why) => {
                // The text tells which engine is behind the interface: for the
                // operator to read, not for the client.
                eprintln!("store: {why}");
                (StatusCode::INTERNAL_SERVER_ERROR, "the store failed")
            }
        };
        let problem = Problem {
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail,
        };
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, Json(problem)).into_response()
    }
}

/// Whatever the client sent that cannot be read is its error to correct.
macro_rules! unreadable {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for ApiError {
            fn from(rejection: $rejection) -> Self {
                Self::Invalid(rejection.body_text())
            }
        }
    )*};
}
unreadable!(JsonRejection, PathRejection, QueryRejection);

/// What a store has to do. The methods block; [`router`] keeps them off the
/// threads that serve connections. Each write is all or nothing, and keys sort
/// by their bytes.
pub(crate) trait Store: Clone + Send + Sync + 'static {
    fn get(&self, icao: &str) -> Result<Airport, ApiError>;
    fn list(&self, query: &ListQuery) -> Result<Vec<Airport>, ApiError>;
    fn create(&self, airport: &Airport) -> Result<(), ApiError>;
    /// True when there was none before.
    fn replace(&self, airport: &Airport) -> Result<bool, ApiError>;
    /// Applies the patch and checks the result before storing it.
    fn patch(&self, icao: &str, patch: &Patch) -> Result<Airport, ApiError>;
    fn delete(&self, icao: &str) -> Result<(), ApiError>;
    /// Up to `limit` keys that sort after `after`.
    fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, ApiError>;
    fn len(&self) -> Result<u64, ApiError>;
}

/// The REST interface over any store.
pub(crate) fn router<S: Store>(store: S) -> Router {
    let many = get(list::<S>).post(create::<S>);
    let one = get(read::<S>).put(replace::<S>).patch(patch::<S>).delete(delete::<S>);
    Router::new().route("/airports", many).route("/airports/{icao}", one).with_state(store)
}

async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    // A store that panics costs its client an answer, not the service its life.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(ApiError::Store(panic.to_string())))
}

type Key = Result<Path<String>, PathRejection>;

async fn read<S: Store>(State(store): State<S>, key: Key) -> Result<Json<Airport>, ApiError> {
    let Path(icao) = key?;
    blocking(move || store.get(&icao)).await.map(Json)
}

async fn list<S: Store>(
    State(store): State<S>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Airport>>, ApiError> {
    let Query(query) = query?;
    blocking(move || store.list(&query)).await.map(Json)
}

async fn create<S: Store>(
    State(store): State<S>,
    body: Result<Json<Airport>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(airport) = body?;
    airport.check().map_err(ApiError::Invalid)?;
    blocking(move || {
        store.create(&airport)?;
        let location = [(header::LOCATION, format!("/airports/{}", airport.icao))];
        Ok((StatusCode::CREATED, location, Json(airport)))
    })
    .await
}

async fn replace<S: Store>(
    State(store): State<S>,
    key: Key,
    body: Result<Json<Airport>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let (Path(icao), Json(airport)) = (key?, body?);
    airport.check().map_err(ApiError::Invalid)?;
    if airport.icao != icao {
        return Err(ApiError::Invalid("icao: differs from the path".into()));
    }
    blocking(move || {
        let status = match store.replace(&airport)? {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        Ok((status, Json(airport)))
    })
    .await
}

async fn patch<S: Store>(
    State(store): State<S>,
    key: Key,
    body: Result<Json<Patch>, JsonRejection>,
) -> Result<Json<Airport>, ApiError> {
    let (Path(icao), Json(patch)) = (key?, body?);
    blocking(move || store.patch(&icao, &patch)).await.map(Json)
}

async fn delete<S: Store>(State(store): State<S>, key: Key) -> Result<StatusCode, ApiError> {
    let Path(icao) = key?;
    blocking(move || store.delete(&icao)).await?;
    Ok(StatusCode::NO_CONTENT)
}
