//! What the client of a sampled read waits for, whatever the other side does.

use tower_migration::{
    BoxError, Limits, Stage,
    compare::{Compare, Headers, Status, json::Json},
};

use super::{Contender, Turns, by_hand};
use crate::{
    args::Args,
    clients::{Ask, Pace},
    plot::{Curves, Plot},
    servers::Servers,
    sides::{Health, side},
    table::{self, Line, ratio, time},
};

pub(super) fn run(args: &Args, servers: &Servers, plot: &mut Plot) -> Result<(), BoxError> {
    let mut migrations = Vec::new();
    let mut layered = |other, rate| {
        let migration = servers.at(Stage::WriteBoth)?;
        migration.set_shadow_rate(rate)?;
        let comparer = Status.and(Headers::default()).and(Json::new());
        let sides = [Health::Fine, other];
        // As many as hang until their deadline: with the default's 64 slots most reads
        // beside a hanging side are not sampled, and cost less for that.
        let limits = Limits::default().shadow_tasks(100_000).captured_bytes(1 << 30);
        let address = servers
            .layered(&migration, sides, |layer| Ok(layer.compare(comparer).limits(limits)?));
        migrations.push(migration);
        address
    };
    let contenders: [Contender; 8] = [
        ("other side fine", layered(Health::Fine, 1.0)?),
        ("other side dead", layered(Health::Dead, 1.0)?),
        ("other side at 500 ms", layered(Health::After(500), 1.0)?),
        ("other side hanging", layered(Health::Hangs, 1.0)?),
        ("none sampled", layered(Health::Fine, 0.0)?),
        ("no layer", servers.router(side(Health::Fine))?),
        ("no layer, spawn by hand, fine", by_hand::start(servers, Health::Fine)?),
        ("no layer, spawn by hand, dead", by_hand::start(servers, Health::Dead)?),
    ];
    // Far below what one core can do with both sides on it.
    let rate = 2_000.0;
    let turns = Turns::take(args, &contenders, Ask::Read, Pace::PerSecond(rate))?;
    let compared: Vec<_> = migrations
        .iter()
        .map(|migration| migration.report().routes.iter().map(|route| route.compared).sum::<u64>())
        .collect();
    let lines: Vec<_> = contenders
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let cells = vec![
                time(turns.median(at, |seen| seen.quantile(0.5))),
                ratio(turns.ratio(at, 0, |seen| seen.quantile(0.5))),
                time(turns.median(at, |seen| seen.quantile(0.99))),
                ratio(turns.ratio(at, 0, |seen| seen.quantile(0.99))),
                time(turns.overall(at, 0.99)),
                compared.get(at).map_or_else(|| "–".to_owned(), u64::to_string),
            ];
            Line { name, cells }
        })
        .collect();
    let title = format!("A read, every one sampled, {rate:.0} a second");
    let columns = ["p50", "of fine's", "a turn's p99", "of fine's", "p99 overall", "compared"];
    table::print(&title, &columns, &lines);
    if migrations.iter().any(|migration| migration.report().no_slot > 0) {
        return Err("reads were left out: those that were not shadowed cost less".into());
    }
    plot.curves(Curves::of("a sampled read, by the other side's health", &contenders, &turns));
    for migration in migrations {
        servers.wait(migration.shutdown());
    }
    Ok(())
}
