//! What shadow reads show: noise, planted defects, secrets, and what the report makes
//! of them.

mod advice;
mod bounds;
mod hidden;
mod long;
mod noise;
mod observers;
mod planted;
mod races;
mod secrets;

use std::sync::{Arc, Mutex};

use http::{HeaderValue, header::CONTENT_TYPE};
use tower_migration::{
    MigrationLayer, PlaceKind, PlaceReport, Report, Stage,
    compare::{Compare, Headers, Noise, Status, json::Json, rules::Rules},
};

use crate::support::*;

/// A document, as JSON.
pub(crate) fn json(text: String) -> Res {
    let mut answer = answer(200, text);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A side that makes a document for each path.
fn side(document: impl Fn(&str) -> String + Send + Sync + 'static) -> Fake {
    Fake::new(move |call| {
        let document = document(call.uri.path());
        async move { Ok(json(document)) }
    })
}

fn by_fields(rules: Rules) -> impl Compare {
    Status.and(Headers::default()).and(Json::with(rules))
}

/// At `WriteBoth`, synced, every read shadowed, bodies compared field by field.
async fn shadowed(
    old: Fake,
    new: Fake,
    set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
) -> Rig {
    // The layer draws from the thread's dice too: the same in every run.
    fastrand::seed(7);
    let rig = Rig::with(old, new, |layer| set(layer.compare(by_fields(Rules::new()))));
    let rig = rig.at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig
}

/// Reads each path, a few at a time, and waits for all that they leave behind.
async fn read_all(rig: &Rig, paths: impl IntoIterator<Item = String>) -> Report {
    let mut since = 0;
    for path in paths {
        rig.ask(get(&path)).await;
        since += 1;
        if since == 32 {
            rest(rig).await;
            since = 0;
        }
    }
    rest(rig).await;
    rig.handle.report()
}

/// Waits, on paused time, until no shadow read is left.
async fn rest(rig: &Rig) {
    while rig.handle.status().on_new.shadows + rig.handle.status().on_old.shadows > 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
}

fn place<'r>(report: &'r Report, name: &str) -> Option<&'r PlaceReport> {
    report.places().find(|place| &*place.place == name)
}

fn kind(report: &Report, name: &str) -> Option<PlaceKind> {
    place(report, name).map(|place| place.kind)
}

fn often(share: f64) -> Noise {
    Noise::share(share).unwrap()
}

/// Numbers that seem random and are the same in every run.
#[derive(Clone)]
struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    fn roll(&self, sides: u64) -> u64 {
        self.0.lock().unwrap().u64(..sides)
    }
}
