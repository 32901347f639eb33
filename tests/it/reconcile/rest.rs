//! Rows that are HTTP resources.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Extension, Path, State},
    response::IntoResponse,
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, service_fn};
use tower_migration::{
    Dispatch, MigrationHandle, MigrationLayer, Role, Side, Stage,
    compare::{Answers, Diff},
    reconcile::{Backfill, Key, Listing, Rest, RestError, Rows},
};

use crate::support::*;

type Shelf = Arc<Mutex<BTreeMap<String, Value>>>;
type Body = axum::body::Body;

/// What a service saw of writes: who made them.
type Seen = Arc<Mutex<Vec<(String, Option<Role>)>>>;

fn app(shelf: &Shelf, seen: &Seen) -> Router {
    async fn read(
        State((shelf, _)): State<(Shelf, Seen)>,
        Path(id): Path<String>,
    ) -> impl IntoResponse {
        match shelf.lock().unwrap().get(&id) {
            Some(value) => Ok(Json(value.clone())),
            None => Err(StatusCode::NOT_FOUND),
        }
    }
    async fn write(
        State((shelf, seen)): State<(Shelf, Seen)>,
        Path(id): Path<String>,
        leg: Option<Extension<Dispatch>>,
        Json(value): Json<Value>,
    ) {
        seen.lock().unwrap().push((format!("PUT {id}"), leg.map(|leg| leg.role)));
        shelf.lock().unwrap().insert(id, value);
    }
    async fn remove(
        State((shelf, seen)): State<(Shelf, Seen)>,
        Path(id): Path<String>,
        leg: Option<Extension<Dispatch>>,
    ) -> StatusCode {
        seen.lock().unwrap().push((format!("DELETE {id}"), leg.map(|leg| leg.role)));
        match shelf.lock().unwrap().remove(&id) {
            Some(_) => StatusCode::NO_CONTENT,
            None => StatusCode::NOT_FOUND,
        }
    }
    Router::new()
        .route("/things/{id}", get(read).put(write).delete(remove))
        .with_state((Arc::clone(shelf), Arc::clone(seen)))
}

struct Names([Shelf; 2]);

impl Listing for Names {
    type Error = Infallible;

    async fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        _: usize,
    ) -> Result<Vec<Key>, Infallible> {
        let shelf = self.0[side as usize].lock().unwrap();
        let keys = shelf.keys().map(|id| Key::from(format!("/things/{id}")));
        Ok(keys.filter(|key| Some(key) > after).collect())
    }
}

struct Two {
    migration: MigrationHandle,
    shelves: [Shelf; 2],
    seen: [Seen; 2],
}

impl Two {
    fn new() -> Self {
        let (shelves, seen) = (<[Shelf; 2]>::default(), <[Seen; 2]>::default());
        Self { migration: MigrationHandle::new("test"), shelves, seen }
    }

    fn app(&self, side: Side) -> Router {
        app(&self.shelves[side as usize], &self.seen[side as usize])
    }

    fn rest(&self) -> Rest<Router, Router, Body> {
        Rest::new(&self.migration, self.app(Side::Old), self.app(Side::New))
    }

    fn put(&self, side: Side, id: &str, value: Value) {
        self.shelves[side as usize].lock().unwrap().insert(id.to_owned(), value);
    }

    fn backfill(&self, rest: Rest<Router, Router, Body>) -> Backfill<Rest<Router, Router, Body>> {
        Backfill::new(&self.migration, rest).listing(Names(self.shelves.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn resources_are_copied_and_deleted_and_the_handlers_know_by_whom() {
    let two = Two::new();
    two.put(Side::Old, "a", json!({"name": "Zürich", "n": 1}));
    two.put(Side::Old, "b", json!([1, 2]));
    two.put(Side::New, "gone", json!(0));
    two.migration.advance().await.unwrap();
    let report = two.backfill(two.rest()).run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.synced), (2, 1, true), "{report}");
    assert_eq!(*two.shelves[0].lock().unwrap(), *two.shelves[1].lock().unwrap());
    let mut seen = two.seen[1].lock().unwrap().clone();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let by_copy = |what: &str| (what.to_owned(), Some(Role::Copy));
    assert_eq!(seen, [by_copy("DELETE gone"), by_copy("PUT a"), by_copy("PUT b")]);
    assert!(two.seen[0].lock().unwrap().is_empty(), "never to the side that is right");
}

#[tokio::test(start_paused = true)]
async fn a_layered_service_given_by_mistake_sends_it_to_the_side_that_is_meant() {
    let two = Two::new();
    two.put(Side::Old, "a", json!(1));
    two.migration.advance().await.unwrap();
    let layer = MigrationLayer::new(two.migration.clone(), two.app(Side::New));
    let whole = Router::new().fallback_service(layer.layer(two.app(Side::Old)));
    let rest: Rest<_, _, Body> = Rest::new(&two.migration, whole.clone(), whole);
    let backfill = Backfill::new(&two.migration, rest).listing(Names(two.shelves.clone()));
    assert!(backfill.run().await.unwrap().synced);
    assert_eq!(two.seen[0].lock().unwrap().len(), 0, "no dual write");
    assert_eq!(*two.seen[1].lock().unwrap(), [("PUT a".to_owned(), Some(Role::Copy))]);
    let _ = two.migration.move_to(Stage::ReadNew).await.unwrap();
}

/// The new service has other names, and wants a token.
#[tokio::test(start_paused = true)]
async fn hooks_translate_addresses_bodies_and_headers() {
    let two = Two::new();
    let (new, seen) = (Shelf::default(), Arc::new(Mutex::new(Vec::new())));
    let service = {
        let (new, seen) = (Arc::clone(&new), Arc::clone(&seen));
        Router::new().route(
            "/v2/{id}",
            get({
                let new = Arc::clone(&new);
                move |Path(id): Path<String>| async move {
                    new.lock().unwrap().get(&id).cloned().map(Json).ok_or(StatusCode::GONE)
                }
            })
            .post(move |Path(id): Path<String>, headers: HeaderMap, Json(value): Json<Value>| {
                async move {
                    seen.lock().unwrap().push(headers["authorization"].to_str().unwrap().to_owned());
                    new.lock().unwrap().insert(id, value);
                }
            }),
        )
    };
    two.put(Side::Old, "a", json!({"title": "x"}));
    let rest: Rest<_, _, Body> = Rest::new(&two.migration, two.app(Side::Old), service)
        .uri(|side, key| {
            let id = key.as_str().rsplit('/').next()?;
            let path = match side {
                Side::Old => format!("/things/{id}"),
                Side::New => format!("/v2/{id}"),
            };
            path.parse().ok()
        })
        // The old form is the common one.
        .read_as(|side, mut row| {
            if side == Side::New {
                let value: Value = serde_json::from_slice(&row.answer.body).unwrap();
                row.answer.body = json!({"title": value["name"]}).to_string().into();
            }
            row
        })
        .put(|side, _, row| {
            let value: Value = serde_json::from_slice(&row.answer.body).ok()?;
            let body = match side {
                Side::Old => value,
                Side::New => json!({"name": value["title"]}),
            };
            Request::post("/")
                .header("content-type", "application/json")
                .body(Bytes::from(body.to_string()))
                .ok()
        })
        .prepare(|_, key, request| {
            assert!(key.as_str().starts_with("/things/"));
            request.headers_mut().insert("authorization", "Bearer t".parse().unwrap());
        });
    let key = Key::from("/things/a");
    assert!(rest.read(Side::New, &key).await.unwrap().is_none(), "410 is none");
    let row = rest.read(Side::Old, &key).await.unwrap();
    rest.write(Side::New, &key, row.as_ref()).await.unwrap();
    assert_eq!(new.lock().unwrap()["a"], json!({"name": "x"}));
    assert_eq!(*seen.lock().unwrap(), ["Bearer t"]);
    assert!(rest.read(Side::New, &key).await.unwrap() == row, "the same in the common form");
}

type Boxed =
    tower::util::BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

fn says(status: u16) -> Rest<Boxed, Boxed, Full<Bytes>> {
    let side = service_fn(move |request: Request<Full<Bytes>>| async move {
        let mut response = Response::new(Full::new(Bytes::from("12345")));
        // A PUT is answered as a GET is.
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert!(request.method() != Method::POST);
        Ok::<_, Infallible>(response)
    });
    let side = Boxed::new(side);
    Rest::new(&MigrationHandle::new("test"), side.clone(), side)
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_means_status_by_status() {
    let key = Key::from("/a");
    for (status, read, put, delete) in [
        (200, Some(true), true, true),
        (204, Some(true), true, true),
        (301, None, false, false),
        (304, None, false, false),
        (401, None, false, false),
        (404, Some(false), false, true),
        (410, Some(false), false, true),
        (429, None, false, false),
        (500, None, false, false),
    ] {
        let rest = says(status);
        let found = rest.read(Side::Old, &key).await;
        assert_eq!(found.as_ref().ok().map(Option::is_some), read, "GET {status}");
        if let Err(error) = found {
            assert!(matches!(error, RestError::Status(_, _)), "{error}");
            assert!(error.to_string().starts_with(&format!("GET was answered {status}")));
        }
        let row = says(200).read(Side::Old, &key).await.unwrap().unwrap();
        assert_eq!(rest.write(Side::New, &key, Some(&row)).await.is_ok(), put, "PUT {status}");
        assert_eq!(rest.write(Side::New, &key, None).await.is_ok(), delete, "DELETE {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_or_has_no_address_is_an_error_and_never_cut() {
    let rest = says(200).body_limit(4);
    assert!(matches!(rest.read(Side::Old, &"/a".into()).await, Err(RestError::Body(_))));
    assert!(says(200).body_limit(5).read(Side::Old, &"/a".into()).await.is_ok());
    let rest = says(200);
    assert!(matches!(rest.read(Side::Old, &"no path".into()).await, Err(RestError::NoAddress)));
    let rest = says(200).put(|_, _, _| None);
    let row = rest.read(Side::Old, &"/a".into()).await.unwrap();
    let written = rest.write(Side::New, &"/a".into(), row.as_ref()).await;
    assert!(matches!(written, Err(RestError::NoRequest)));
}

#[tokio::test(start_paused = true)]
async fn it_compares_as_the_layer_does() {
    let handle = MigrationHandle::new("test");
    let new = Fake::says(200, "");
    let layer = MigrationLayer::new(handle.clone(), new).compare(|answers: &Answers<'_>| {
        let length = |answer: &tower_migration::compare::Answer| answer.body.len();
        let (a, b) = (length(answers.authority), length(answers.other));
        assert_eq!(answers.uri.path(), "/a");
        Diff::when(a != b, "length", a, b)
    });
    let two = Two::new();
    two.put(Side::Old, "a", json!("xx"));
    two.put(Side::New, "a", json!("yy"));
    let rest = two.rest().uri(|_, _| "/a".parse().ok()).compare(layer.comparer());
    let row = |text: &'static str| async move {
        let side = service_fn(move |_: Request<Full<Bytes>>| async move {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        let rest: Rest<_, _, Full<Bytes>> = Rest::new(&MigrationHandle::new("x"), side, side);
        rest.read(Side::Old, &"/a".into()).await.unwrap().unwrap()
    };
    let (one, same, longer) = (row("xx").await, row("yy").await, row("yyy").await);
    let key = Key::from("/a");
    assert!(rest.differ(&key, Some(&one), Some(&same)).is_empty());
    assert_eq!(rest.differ(&key, Some(&one), Some(&longer)).differences()[0].what, "length");
    assert!(!rest.differ(&key, Some(&one), None).is_empty());
    assert!(rest.differ(&key, None, None).is_empty());
}
