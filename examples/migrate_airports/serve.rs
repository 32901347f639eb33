//! `--serve`: the flag in the user's own hands.

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use tower_migration::{BoxError, Side, Stage};

use crate::{
    console::Console,
    sides::{compare_all, copy_all},
    world::{World, serve},
};

/// What a page answers: a text, or why not.
type Page = Result<String, (StatusCode, String)>;

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn refused(why: impl ToString) -> (StatusCode, String) {
    (StatusCode::CONFLICT, format!("{}\n", why.to_string()))
}

fn side(text: &str) -> Result<Side, (StatusCode, String)> {
    match text {
        "old" => Ok(Side::Old),
        "new" => Ok(Side::New),
        _ => Err((StatusCode::NOT_FOUND, "a side is old or new\n".to_owned())),
    }
}

fn stage(text: &str) -> Result<Stage, (StatusCode, String)> {
    text.parse().map_err(|error| (StatusCode::NOT_FOUND, format!("{error}\n")))
}

fn status(world: &World) -> String {
    world.migration.status().to_string()
}

async fn show(State(world): State<World>) -> String {
    status(&world)
}

async fn advance(State(world): State<World>) -> Page {
    let moved = world.migration.advance().await.map_err(refused)?;
    Ok(format!("{} -> {}\n{}", moved.from, moved.to, status(&world)))
}

async fn rollback(State(world): State<World>) -> Page {
    let moved = world.migration.rollback().await.map_err(refused)?;
    let tainted = &moved.tainted;
    Ok(format!("{} -> {}, tainted: {tainted:?}\n{}", moved.from, moved.to, status(&world)))
}

async fn move_to(State(world): State<World>, Path(to): Path<String>) -> Page {
    let to = stage(&to)?;
    let moved = world.migration.move_to(to).await.map_err(refused)?;
    Ok(format!("{} -> {}\n{}", moved.from, moved.to, status(&world)))
}

async fn force(State(world): State<World>, Path(to): Path<String>) -> Page {
    let to = stage(&to)?;
    let reason = "asked for over HTTP";
    let moved = world.migration.force(to, reason).await.map_err(refused)?;
    Ok(format!("{} -> {}\n{}", moved.from, moved.to, status(&world)))
}

/// All keys from the authority to the other side.
async fn copy(State(world): State<World>) -> Page {
    let report = copy_all(&world, &Console::new()).await.map_err(refused)?;
    Ok(format!("{report}\n{}", status(&world)))
}

async fn verify(State(world): State<World>) -> Page {
    let report = compare_all(&world, &Console::new()).await.map_err(refused)?;
    Ok(format!("{report}\n{}", status(&world)))
}

async fn confirm(State(world): State<World>, Path(which): Path<String>) -> Page {
    let which = side(&which)?;
    world.migration.confirm_synced(which).await.map_err(refused)?;
    Ok(status(&world))
}

async fn shadow(State(world): State<World>, Path(rate): Path<f64>) -> Page {
    world.migration.set_shadow_rate(rate).map_err(refused)?;
    Ok(status(&world))
}

/// Serves until ctrl-c.
pub(crate) async fn stay_up(world: World) -> Result<(), BoxError> {
    // A key that goes wrong is mended without anybody asking for it.
    let _repairing = world.repair()?;
    let app = Router::new()
        .route("/migration", get(show))
        .route("/migration/advance", post(advance))
        .route("/migration/rollback", post(rollback))
        .route("/migration/move/{stage}", post(move_to))
        .route("/migration/force/{stage}", post(force))
        .route("/migration/copy", post(copy))
        .route("/migration/verify", post(verify))
        .route("/migration/confirm/{side}", post(confirm))
        .route("/migration/shadow/{rate}", post(shadow))
        .with_state(world.clone())
        // The airports, old or new.
        .fallback_service(world.router());
    let (address, server) = serve(app).await?;
    println!(
        "Old is loaded, new is empty, the flag is at old-only. Try, in this order:

  curl http://{address}/migration
  curl http://{address}/airports/EDDF
  curl 'http://{address}/airports?country=LU'
  curl -X POST http://{address}/migration/advance
  curl -X PATCH -H 'content-type: application/json' -d '{{\"name\":\"Rhein-Main\"}}' \\
       http://{address}/airports/EDDF
  curl -X POST http://{address}/migration/copy
  curl -X POST http://{address}/migration/verify
  curl -X POST http://{address}/migration/shadow/1
  curl -X POST http://{address}/migration/advance
  curl -X POST http://{address}/migration/rollback
  curl -X POST http://{address}/migration/move/read-new
  curl -X POST http://{address}/migration/move/new-only
  curl -X POST http://{address}/migration/move/read-new
  curl -X POST http://{address}/migration/copy
  curl -X POST http://{address}/migration/move/write-both
  curl -X POST http://{address}/migration/move/old-only
  curl -X POST http://{address}/migration/force/new-only

ctrl-c ends it."
    );
    tokio::signal::ctrl_c().await?;
    server.abort();
    println!("\nbye");
    Ok(())
}
