//! All that one core can do while every read is shadowed and compared, beside a shadow by
//! hand: one that promises nothing, and one that keeps most of what the layer promises.

use tower_migration::{
    BoxError, Limits, Stage,
    compare::{Compare, Headers, Noise, Status, json::Json},
};

use super::{Contender, Turns, by_hand};
use crate::{
    args::Args,
    clients::{Ask, Pace},
    plot::{Bars, Plot},
    servers::Servers,
    sides::{Health, side},
    table::{self, Line, ratio},
};

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
    let contenders: [Contender; 4] = [
        ("spawn by hand", by_hand::start(servers, Health::Fine)?),
        ("the same, with care", by_hand::start_careful(servers, Health::Fine)?),
        ("the layer, rate 1.0", layered),
        ("no shadow at all", servers.router(side(Health::Fine))?),
    ];
    let before = by_hand::equal();
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
    if report.no_slot > 0 {
        return Err("reads were left out: those that were not shadowed cost less".into());
    }
    let by_hand = by_hand::equal() - before;
    println!("  compared: {by_hand} by hand, {compared} by the layer\n");
    plot.bars(Bars { title: "throughput with shadows, of a spawn by hand".to_owned(), bars });
    servers.wait(migration.shutdown());
    Ok(())
}
