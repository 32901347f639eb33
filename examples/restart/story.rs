//! What happens, scene by scene.

use std::{fs, path::Path};

use tower_migration::BoxError;

use crate::{
    client::{Memory, Writer},
    process::Server,
    stores::{Airport, Table},
};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airports.csv");
/// Enough for a kill to hit something.
const AIRPORTS: usize = 150;

fn scene(title: &str) {
    println!("\n=== {title}");
}

fn say(text: &str) {
    println!("   {text}");
}

/// The record as it lies on the disk.
fn record(dir: &Path) -> Result<(), BoxError> {
    say("airports.flag, as it lies on the disk:");
    for line in fs::read_to_string(dir.join("airports.flag"))?.lines() {
        println!("   | {line}");
    }
    Ok(())
}

pub(crate) async fn tell(dir: &Path) -> Result<(), BoxError> {
    let airports = csv::Reader::from_path(DATA)?
        .deserialize()
        .take(AIRPORTS)
        .collect::<Result<Vec<Airport>, _>>()?;
    Table::open(dir)?.load(&airports)?;
    let memory = Memory::of(&airports);

    killed_at_write_both(dir, &memory).await?;
    killed_at_read_new(dir, &memory).await?;
    stopped_in_order(dir, &memory).await?;
    deployed(dir, &memory).await?;

    scene("done");
    say(&format!("{} writes were acknowledged, none was lost", memory.acked()));
    Ok(())
}

async fn killed_at_write_both(dir: &Path, memory: &Memory) -> Result<(), BoxError> {
    scene("the first start: SQLite holds the airports, the new store nothing");
    let server = Server::start(dir).await?;
    server.shows(&["airports: old-only", "new is unsynced"]).await?;
    let writer = Writer::start(memory, &server.wire);
    writer.writes(20).await?;

    scene("from now on writes go to both stores. Then somebody trips over the plug");
    server.order("advance").await?;
    writer.writes(50).await?;
    server.kill().await?;
    writer.stop().await?;
    record(dir)?;
    say("`clean = no`: the process had no chance to say that it ends.");
    Ok(())
}

async fn killed_at_read_new(dir: &Path, memory: &Memory) -> Result<(), BoxError> {
    scene("started again: the stage is the one that it was");
    let server = Server::start(dir).await?;
    server.shows(&["airports: write-both", "new is unsynced"]).await?;
    memory.check(&server.wire).await?;
    say("new lacks what was never copied, so reads cannot go there yet:");
    server.is_refused("advance", "new is unsynced").await?;
    let writer = Writer::start(memory, &server.wire);
    say("copy the data while the client writes on, and go on:");
    server.order("copy").await?;
    server.order("advance").await?;

    scene("reads come from the new store now. The same again");
    writer.writes(50).await?;
    server.kill().await?;
    writer.stop().await?;
    record(dir)?;
    say("`old = synced` counts for nothing beside `clean = no`.");
    Ok(())
}

async fn stopped_in_order(dir: &Path, memory: &Memory) -> Result<(), BoxError> {
    scene("started again: new answers, as before");
    let server = Server::start(dir).await?;
    server.shows(&["airports: read-new", "old is unsynced"]).await?;
    memory.check(&server.wire).await?;
    say("a write may have reached new alone when the process died. So there is no way");
    say("back to old, until old has been copied to:");
    server.is_refused("rollback", "old is unsynced").await?;
    let writer = Writer::start(memory, &server.wire);
    server.order("copy").await?;
    server.shows(&["airports: read-new", "old is synced"]).await?;

    scene("the other way to stop: finish the requests, then `shutdown()`");
    writer.writes(20).await?;
    writer.stop().await?;
    server.stop().await?;
    record(dir)?;
    say("`clean = yes`: what was synced still is.");
    Ok(())
}

async fn deployed(dir: &Path, memory: &Memory) -> Result<(), BoxError> {
    scene("a deployment: the next version comes up while this one serves");
    let before = Server::start(dir).await?;
    before.shows(&["airports: read-new", "old is synced"]).await?;
    let writer = Writer::start(memory, &before.wire);
    writer.writes(20).await?;
    let after = Server::start(dir).await?;
    after.shows(&["airports: read-new", "follower"]).await?;
    writer.send_to(&[&before.wire, &after.wire]);
    writer.writes(50).await?;
    say("both serve, at the same stage. While there are two, nobody moves the flag:");
    before.is_refused("advance", "another process obeys").await?;
    after.is_refused("advance", "another process owns").await?;

    scene("the balancer turns to the new version, and the old one is told to stop");
    writer.send_to(&[&after.wire]);
    before.stop().await?;
    after.owns().await?;
    after.shows(&["airports: read-new", "old is synced"]).await?;
    writer.writes(20).await?;

    scene("the end of the migration");
    after.order("advance").await?;
    writer.writes(20).await?;
    writer.stop().await?;
    after.shows(&["airports: new-only"]).await?;
    memory.check(&after.wire).await?;
    after.stop().await?;
    record(dir)
}
