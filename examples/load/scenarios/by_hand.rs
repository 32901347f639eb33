//! A shadow as one writes it without the layer.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use tower::{Service, service_fn};
use tower_migration::BoxError;

use crate::{
    servers::Servers,
    sides::{Health, side},
};

static EQUAL: AtomicU64 = AtomicU64::new(0);

/// How many it has compared and found equal.
pub(super) fn equal() -> u64 {
    EQUAL.load(Ordering::Relaxed)
}

/// What one would write: the client's answer, and a task that asks the other side and
/// compares. Nothing is bounded, named, counted by route or told from a race.
async fn spawned(
    mut old: Router,
    mut new: Router,
    request: Request,
) -> Result<Response, Infallible> {
    let (head, _) = request.into_parts();
    let copy = Request::from_parts(head.clone(), Body::empty());
    let answer = old.call(Request::from_parts(head, Body::empty())).await?;
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let (status, of_old) = (head.status, body.clone());
    tokio::spawn(async move {
        let Ok(answer) = new.call(copy).await;
        let same_status = answer.status() == status;
        let of_new = to_bytes(answer.into_body(), 1 << 20).await.unwrap_or_default();
        if same_status && of_new == of_old {
            EQUAL.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Serves it, with two routers that are made once, the new one of this health.
pub(super) fn start(servers: &Servers, new: Health) -> Result<SocketAddr, BoxError> {
    let (old, new) = (side(Health::Fine), side(new));
    servers.service(service_fn(move |request| spawned(old.clone(), new.clone(), request)))
}
