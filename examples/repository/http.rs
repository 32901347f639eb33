//! The handlers. They hold the service that the layer made, and know nothing of
//! the migration either.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tower::ServiceExt;
use tower_migration::{Migration, protocol::Plain};

use crate::airports::{Airport, Airports, Answer, Op, Served, StoreError};

/// The two stores behind the flag.
pub(crate) type Migrated<Old, New> =
    Migration<Served<Old>, Served<New>, Plain<Op, Answer, StoreError>>;

// Before, every handler of a write had this, and its reads the like:
//
//     if flags.write_to_redb() {
//         redb.put(&airport)?;             // fails: and SQLite?
//         if flags.still_write_to_sqlite() {
//             let _ = sqlite.put(&airport); // fails: who will ever know?
//         }
//     } else {
//         sqlite.put(&airport)?;
//     }
//
// Two writers of one airport may come through it in different orders on the two
// sides; a client that hangs up leaves it between two lines; and each flag is
// read on its own.

pub(crate) fn router<Old: Airports, New: Airports>(airports: Migrated<Old, New>) -> Router {
    let list = async |State(airports): State<Migrated<Old, New>>| {
        airports.oneshot(Op::List(String::new(), 50)).await
    };
    let read = async |State(airports): State<Migrated<Old, New>>, Path(icao): Path<String>| {
        airports.oneshot(Op::Get(icao)).await
    };
    let write = async |State(airports): State<Migrated<Old, New>>, Json(airport): Json<Airport>| {
        airports.oneshot(Op::Put(airport)).await
    };
    let delete = async |State(airports): State<Migrated<Old, New>>, Path(icao): Path<String>| {
        airports.oneshot(Op::Delete(icao)).await
    };
    Router::new()
        .route("/airports", get(list).put(write))
        .route("/airports/{icao}", get(read).delete(delete))
        .with_state(airports)
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            found => Json(found).into_response(),
        }
    }
}

impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Nameless => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Layer(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, self.to_string()).into_response()
    }
}
