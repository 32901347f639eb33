//! The two stores answer the same, byte for byte; and the way, under load.

mod chaos;
mod defects;
mod random;
mod trip;

use crate::CSV;
use crate::model::{Airport, ApiError, ListQuery, Patch, Store, router};
use crate::new::{RedbStore, Saves};
use crate::old::SqliteStore;
use crate::seed;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use random::{Rng, doc, op};
use serde_json::json;
use tower::ServiceExt;

/// Every so many rows of the data set: a debug build takes long over all.
const STEP: usize = 7;

fn stores() -> (tempfile::TempDir, SqliteStore, RedbStore) {
    let dir = tempfile::tempdir().unwrap();
    let old = SqliteStore::open(dir.path().join("old.db")).unwrap();
    let new = RedbStore::open(dir.path().join("new.redb"), Saves::Seldom).unwrap();
    (dir, old, new)
}

async fn call(
    app: &Router,
    m: &Method,
    uri: &str,
    body: Option<&[u8]>,
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut req = Request::builder().method(m).uri(uri);
    if body.is_some() {
        req = req.header(header::CONTENT_TYPE, "application/json");
    }
    let req = req.body(body.map_or(Body::empty(), |b| Body::from(b.to_vec()))).unwrap();
    let res = app.clone().oneshot(req).await.unwrap();
    let (head, body) = res.into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn random_requests_get_the_same_answers() {
    for seed in 0..3 {
        let (_dir, old, new) = stores();
        let (a, b) = (router(old.clone()), router(new.clone()));
        let mut r = Rng(seed);
        for step in 0..1200 {
            let (m, uri, body) = op(&mut r);
            let x = call(&a, &m, &uri, body.as_deref()).await;
            let y = call(&b, &m, &uri, body.as_deref()).await;
            assert_eq!(x.0, y.0, "seed {seed} step {step} {m} {uri}");
            assert_eq!(x.1, y.1, "seed {seed} step {step} {m} {uri}");
            assert_eq!(
                String::from_utf8_lossy(&x.2),
                String::from_utf8_lossy(&y.2),
                "seed {seed} step {step} {m} {uri}"
            );
            assert_ne!(x.0, 500, "{m} {uri}");
            if x.0.is_client_error()
                && uri.starts_with("/airports/")
                && uri.len() > 10
                && m != "OPTIONS"
                && m != "POST"
            {
                assert_eq!(x.1[header::CONTENT_TYPE], "application/problem+json", "{m} {uri}");
            }
        }
        same(&old, &new);
        let all = new.list(&ListQuery { limit: Some(1000), ..Default::default() }).unwrap();
        let mut by: Vec<Airport> = vec![];
        for c in ["DE", "FR", "GB", "US"] {
            by.extend(
                new.list(&ListQuery { country: Some(c.into()), ..Default::default() }).unwrap(),
            );
        }
        by.sort_by(|a, b| a.icao.cmp(&b.icao));
        assert_eq!(all, by, "index and table agree");
    }
}

fn bits(a: &Airport) -> [u64; 3] {
    [a.elevation.to_bits(), a.lat.to_bits(), a.lon.to_bits()]
}

fn same(old: &SqliteStore, new: &RedbStore) {
    assert_eq!(old.len().unwrap(), new.len().unwrap());
    let mut after: Option<String> = None;
    loop {
        let q = ListQuery { after: after.clone(), limit: Some(1000), ..Default::default() };
        let (a, b) = (old.list(&q).unwrap(), new.list(&q).unwrap());
        assert_eq!(serde_json::to_string(&a).unwrap(), serde_json::to_string(&b).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| bits(a) == bits(b)));
        let k = old.keys(after.as_deref(), 1000).unwrap();
        assert_eq!(k, new.keys(after.as_deref(), 1000).unwrap());
        assert_eq!(k, a.iter().map(|a| a.icao.clone()).collect::<Vec<_>>());
        match k.last() {
            Some(l) => after = Some(l.clone()),
            None => return,
        }
    }
}

#[tokio::test]
async fn rows_of_the_data_set_are_the_same_on_both_sides_and_after_a_restart() {
    let all = seed::read(CSV).unwrap();
    assert_eq!(all.len(), 28_298);
    let rows: Vec<_> = all.into_iter().step_by(STEP).collect();
    let (dir, old, new) = stores();
    old.load(rows.iter().cloned()).unwrap();
    for row in &rows {
        new.create(row).unwrap();
    }
    same(&old, &new);
    for row in &rows {
        let (a, b) = (old.get(&row.icao).unwrap(), new.get(&row.icao).unwrap());
        assert!(*row == a && *row == b && bits(row) == bits(&a) && bits(row) == bits(&b));
    }
    let countries: std::collections::BTreeSet<_> = rows.iter().map(|r| r.country.clone()).collect();
    let (a, b) = (router(old.clone()), router(new.clone()));
    for c in countries {
        for tail in ["", "&limit=1000", "&after=M&limit=7"] {
            let uri = format!("/airports?country={c}{tail}");
            assert_eq!(
                call(&a, &Method::GET, &uri, None).await,
                call(&b, &Method::GET, &uri, None).await
            );
        }
    }
    new.flush().unwrap();
    drop((a, b, old, new));
    same(
        &SqliteStore::open(dir.path().join("old.db")).unwrap(),
        &RedbStore::open(dir.path().join("new.redb"), Saves::Seldom).unwrap(),
    );
}

#[tokio::test]
async fn each_route_answers_with_the_status_it_should() {
    let (_dir, old, new) = stores();
    for app in [router(old), router(new)] {
        let mut r = Rng(1);
        let mut d = doc(&mut r, "EDDF");
        for (k, v) in [
            ("country", json!("DE")),
            ("lat", json!(50.0)),
            ("lon", json!(-0.0)),
            ("elevation", json!(-0.0)),
        ] {
            d[k] = v;
        }
        let body = serde_json::to_vec(&d).unwrap();
        let x = call(&app, &Method::POST, "/airports", Some(&body)).await;
        assert_eq!(
            (x.0.as_u16(), &x.1[header::LOCATION]),
            (201, &"/airports/EDDF".parse().unwrap())
        );
        let got = call(&app, &Method::GET, "/airports/EDDF", None).await;
        assert_eq!((got.0.as_u16(), &got.2), (200, &x.2));
        assert!(String::from_utf8(got.2).unwrap().contains("\"elevation\":-0.0,"));
        let code = async |m, u, b: Option<&[u8]>| call(&app, &m, u, b).await.0.as_u16();
        assert_eq!(code(Method::POST, "/airports", Some(&body)).await, 409);
        assert_eq!(code(Method::PUT, "/airports/EDDF", Some(&body)).await, 200);
        assert_eq!(code(Method::PUT, "/airports/EDDX", Some(&body)).await, 422);
        assert_eq!(code(Method::PATCH, "/airports/EDDF", Some(b"{\"lat\":91}")).await, 422);
        assert_eq!(code(Method::PATCH, "/airports/EDDF", Some(b"{\"lat\":9}")).await, 200);
        assert_eq!(code(Method::PATCH, "/airports/EDDX", Some(b"{}")).await, 404);
        assert_eq!(code(Method::POST, "/airports", Some(b"{")).await, 422);
        assert_eq!(code(Method::DELETE, "/airports/EDDF", None).await, 204);
        assert_eq!(code(Method::DELETE, "/airports/EDDF", None).await, 404);
        assert_eq!(code(Method::PUT, "/airports/EDDF", Some(&body)).await, 201);
    }
}

#[test]
fn a_panic_in_a_write_leaves_the_store_sound() {
    let rows = seed::read(CSV).unwrap();
    let (_dir, old, _new) = stores();
    let o = old.clone();
    assert!(
        std::thread::spawn({
            let bad: Vec<_> = rows[..5].to_vec();
            move || o.load(bad.into_iter().chain(std::iter::once_with(|| panic!("on purpose"))))
        })
        .join()
        .is_err()
    );
    assert_eq!(old.len(), Ok(0));
    old.create(&rows[0]).unwrap();
    assert_eq!(old.create(&rows[0]), Err(ApiError::Exists));
    assert_eq!(old.patch("NONE", &Patch::default()), Err(ApiError::NotFound));
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let (o, rows) = (old.clone(), rows[t * 50..(t + 1) * 50].to_vec());
            std::thread::spawn(move || {
                for r in rows {
                    o.replace(&r).unwrap();
                    assert_eq!(o.get(&r.icao).unwrap(), r);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(old.len(), Ok(400));
}

/// Values that never went through JSON before: needs `float_roundtrip`.
#[test]
fn numbers_come_back_bit_for_bit() {
    let (_dir, old, new) = stores();
    let mut row = seed::read(CSV).unwrap().remove(0);
    let mut r = Rng(7);
    for _ in 0..500 {
        (row.elevation, row.lat, row.lon) = (r.num(1e12), r.num(89.0), r.num(178.0));
        old.replace(&row).unwrap();
        new.replace(&row).unwrap();
        assert_eq!(bits(&old.get(&row.icao).unwrap()), bits(&row));
        assert_eq!(bits(&new.get(&row.icao).unwrap()), bits(&row));
    }
}
