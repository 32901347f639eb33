//! Without the layer, and with it where it has nothing to do.

use axum::Router;
use tower::Layer;
use tower_migration::{BoxError, MigrationLayer, Stage};

use super::{Contender, Turns};
use crate::{
    args::Args,
    clients::{Ask, Pace},
    plot::{Bars, Plot},
    servers::Servers,
    sides::{Health, side},
    table::{self, Line, ratio, time},
};

pub(super) fn run(args: &Args, servers: &Servers, plot: &mut Plot) -> Result<(), BoxError> {
    let fine = [Health::Fine; 2];
    let at = |stage| servers.layered(&servers.at(stage)?, fine, Ok);
    let nested = Router::new().fallback_service(side(Health::Fine));
    let layer = MigrationLayer::new(servers.at(Stage::OldOnly)?, side(Health::Fine));
    let in_router =
        servers.wait(async { Router::new().fallback_service(layer.layer(side(Health::Fine))) });
    let contenders: [Contender; 6] = [
        ("bare", servers.router(side(Health::Fine))?),
        ("old-only", at(Stage::OldOnly)?),
        ("new-only", at(Stage::NewOnly)?),
        ("write-both, no read sampled", at(Stage::WriteBoth)?),
        ("a router in a router, no layer", servers.router(nested)?),
        ("old-only in a router", servers.router(in_router)?),
    ];
    let full = Turns::take(args, &contenders, Ask::Read, Pace::Full)?;
    // Half of what the bare service can do.
    let rate = full.median(0, |seen| seen.per_second) / 2.0;
    let paced = Turns::take(args, &contenders, Ask::Read, Pace::PerSecond(rate))?;

    let mut bars = Vec::new();
    let lines: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let throughput = full.ratio(at, 0, |seen| seen.per_second);
            bars.push(((*name).to_owned(), throughput));
            let cells = vec![
                format!("{:.0}", full.median(at, |seen| seen.per_second)),
                ratio(throughput),
                time(paced.median(at, |seen| seen.quantile(0.5))),
                time(paced.median(at, |seen| seen.quantile(0.99))),
                ratio(paced.ratio(at, 0, |seen| seen.quantile(0.99))),
                time(paced.overall(at, 0.99)),
            ];
            Line { name, cells }
        })
        .collect();
    let title = format!(
        "One side, {} connections: at saturation, and at {rate:.0} requests a second",
        args.connections
    );
    let columns = ["requests/s", "of bare's", "p50", "a turn's p99", "of bare's", "p99 overall"];
    table::print(&title, &columns, &lines);
    plot.bars(Bars { title: "throughput on one side, of the bare service's".to_owned(), bars });
    Ok(())
}
