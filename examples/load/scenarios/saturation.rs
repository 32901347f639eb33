//! All that one core can do while every read is shadowed and compared.

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
use tower_migration::{
    BoxError, Limits, Stage,
    compare::{Compare, Headers, Noise, Status, json::Json},
};

use super::{Contender, Turns};
use crate::{
    args::Args,
    clients::{Ask, Pace},
    plot::{Bars, Plot},
    servers::Servers,
    sides::{Health, side},
    table::{self, Line, ratio},
};

static EQUAL: AtomicU64 = AtomicU64::new(0);

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

/// Two routers, made once.
fn by_hand(servers: &Servers) -> Result<SocketAddr, BoxError> {
    let (old, new) = (side(Health::Fine), side(Health::Fine));
    servers.service(service_fn(move |request| spawned(old.clone(), new.clone(), request)))
}

pub(super) fn run(args: &Args, servers: &Servers, plot: &mut Plot) -> Result<(), BoxError> {
    let migration = servers.at(Stage::WriteBoth)?;
    migration.set_shadow_rate(1.0)?;
    // As many as there are reads under way: none may be left out.
    let limits = Limits::default().shadow_tasks(100_000).captured_bytes(1 << 30);
    let comparer = Status.and(Headers::default()).and(Json::new());
    let layered = servers.layered(&migration, [Health::Fine; 2], |layer| {
        // The hand-written one asks the authority once, too.
        Ok(layer.compare(comparer).noise(Noise::off()).limits(limits)?)
    })?;
    let contenders: [Contender; 3] = [
        ("spawn by hand", by_hand(servers)?),
        ("the layer, rate 1.0", layered),
        ("no shadow at all", servers.router(side(Health::Fine))?),
    ];
    let turns = Turns::take(args, &contenders, Ask::Read, Pace::Full)?;
    let mut bars = Vec::new();
    let lines: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let throughput = turns.ratio(at, 0, |seen| seen.per_second);
            bars.push(((*name).to_owned(), throughput));
            let rate = turns.median(at, |seen| seen.per_second);
            Line { name, cells: vec![format!("{rate:.0}"), ratio(throughput)] }
        })
        .collect();
    table::print("Each read shadowed, at saturation", &["requests/s", "of by hand"], &lines);
    let report = migration.report();
    let compared: u64 = report.routes.iter().map(|route| route.compared).sum();
    let by_hand = EQUAL.load(Ordering::Relaxed);
    println!("  compared: {by_hand} by hand, {compared} by the layer\n");
    plot.bars(Bars { title: "throughput with shadows, of a spawn by hand".to_owned(), bars });
    servers.wait(migration.shutdown());
    Ok(())
}
