//! Whether memory stays where it is while the other side hangs.

use std::{fs, time::Duration};

use tower_migration::{BoxError, Stage};

use crate::{
    args::Args,
    clients::{Ask, Clients, Load, Pace},
    plot::{Line as Plotted, Plot},
    servers::Servers,
    sides::Health,
    table::{self, Line},
};

/// How much more than in the first half there may be in the last tenth: what an
/// allocator finds out late is in it, and what grows with traffic is not.
const GROWTH: f64 = 1.5;

/// Of this process, in KiB, as Linux says it.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

pub(super) fn run(args: &Args, servers: &Servers, plot: &mut Plot) -> Result<(), BoxError> {
    let migration = servers.at(Stage::WriteBoth)?;
    migration.set_shadow_rate(1.0)?;
    let address = servers.layered(&migration, [Health::Fine, Health::Hangs], Ok)?;
    let clients = Clients::start()?;
    // A part of the time each, and a look at the memory after it.
    let part = Duration::from_secs(1).min(args.memory / 20);
    let parts = (args.memory.as_secs_f64() / part.as_secs_f64()) as usize;
    let (mut sizes, mut requests) = (Vec::new(), 0);
    for _ in 0..parts {
        let load = Load {
            to: address,
            ask: Ask::Mixed(4),
            pace: Pace::Full,
            connections: args.connections,
            length: part,
        };
        requests += clients.load(load)?.latency.len();
        let Some(size) = resident() else {
            println!("Memory: this system does not say how much a process has.\n");
            return Ok(());
        };
        sizes.push(size as f64 / 1024.0);
    }
    let status = migration.status();
    let tenth = (sizes.len() / 10).max(1);
    let lines: Vec<_> = sizes
        .chunks(tenth)
        .enumerate()
        .map(|(at, sizes)| {
            let largest = sizes.iter().copied().fold(0.0, f64::max);
            let since = (at * tenth) as f64 * part.as_secs_f64();
            (format!("from {since:.1} s"), format!("{largest:.1} MiB"))
        })
        .collect();
    let lines: Vec<_> =
        lines.iter().map(|(name, size)| Line { name, cells: vec![size.clone()] }).collect();
    let title = format!(
        "Memory at full load, new hanging: {requests} requests, a quarter of them writes; \
         {} shadows and {} writes wait for new",
        status.on_new.shadows, status.on_new.writes
    );
    table::print(&title, &["resident, at most"], &lines);
    let most = |sizes: &[f64]| sizes.iter().copied().fold(0.0, f64::max);
    let (early, late) = (most(&sizes[..sizes.len() / 2]), most(&sizes[sizes.len() - tenth..]));
    if args.memory >= Duration::from_secs(60) && late > GROWTH * early {
        return Err(format!("memory grew from {early:.1} to {late:.1} MiB").into());
    }
    plot.line(Plotted {
        title: "resident memory in MiB, the other side hanging".to_owned(),
        values: sizes
            .iter()
            .enumerate()
            .map(|(at, size)| (at as f64 * part.as_secs_f64(), *size))
            .collect(),
    });
    Ok(())
}
