//! What the client of a write waits for.

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use tower::{Service, service_fn};
use tower_migration::{BoxError, FailurePolicy, Stage};

use super::{Contender, Turns};
use crate::{
    args::Args,
    clients::{Ask, Pace},
    plot::{Curves, Plot},
    servers::Servers,
    sides::{Health, side},
    table::{self, Line, ratio, time},
};

/// Both sides at once, by hand. Old's answer counts.
async fn join(mut old: Router, mut new: Router, request: Request) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 2 << 20).await.unwrap_or_default();
    let copy = || Request::from_parts(head.clone(), Body::from(body.clone()));
    let (old, new) = tokio::join!(old.call(copy()), new.call(copy()));
    drop(new);
    old
}

pub(super) fn run(args: &Args, servers: &Servers, plot: &mut Plot) -> Result<(), BoxError> {
    // Made once.
    let (old, new) = (side(Health::After(1)), side(Health::After(1)));
    let join = service_fn(move |request| join(old.clone(), new.clone(), request));
    use FailurePolicy::{AuthorityWins, AwaitBoth, RequireBoth};
    let layered = |other, policy| {
        let sides = [Health::After(1), Health::After(other)];
        let migration = servers.at(Stage::WriteBoth)?;
        let address = servers.layered(&migration, sides, |layer| Ok(layer.failure_policy(policy)));
        address.map(|address| (migration, address))
    };
    let legs = [
        layered(1, AuthorityWins)?,
        layered(20, AuthorityWins)?,
        layered(1, AwaitBoth)?,
        layered(1, RequireBoth)?,
    ];
    let contenders: [Contender; 6] = [
        ("the authority alone", servers.router(side(Health::After(1)))?),
        ("join! by hand", servers.service(join)?),
        ("AuthorityWins", legs[0].1),
        ("AuthorityWins, other at 20 ms", legs[1].1),
        ("AwaitBoth", legs[2].1),
        ("RequireBoth", legs[3].1),
    ];
    let rate = 2_000.0;
    let turns = Turns::take(args, &contenders, Ask::Write, Pace::PerSecond(rate))?;
    for (migration, _) in &legs {
        servers.wait(migration.shutdown());
        if !migration.dirty_keys().is_empty() {
            return Err("a leg was left out: something else was measured".into());
        }
    }
    let lines: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let cells = vec![
                time(turns.median(at, |seen| seen.quantile(0.5))),
                ratio(turns.ratio(at, 0, |seen| seen.quantile(0.5))),
                ratio(turns.ratio(at, 1, |seen| seen.quantile(0.5))),
                time(turns.median(at, |seen| seen.quantile(0.99))),
            ];
            Line { name, cells }
        })
        .collect();
    let title = format!("A write, sides of 1 ms, {rate:.0} a second");
    table::print(&title, &["p50", "of the authority's", "of join!'s", "p99"], &lines);
    plot.curves(Curves::of("a write, sides of 1 ms", &contenders, &turns));
    Ok(())
}
