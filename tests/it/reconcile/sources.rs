//! Where keys come from: listings, streams, one side alone.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tower_migration::{
    Side, Stage,
    reconcile::{Backfill, FileCheckpoints, Key, Listing, Sweep, SweepError, Verify},
};

use super::world::*;

/// Keys as they come, the last one first.
fn streamed(
    tables: &Tables,
) -> impl Fn(Side) -> Pin<Box<dyn Stream<Item = Result<String, String>> + Send>> + use<> {
    let tables = tables.clone();
    move |side| {
        let keys: Vec<_> = tables.on(side).keys().rev().cloned().map(Ok).collect();
        Box::pin(stream::iter(keys))
    }
}

#[tokio::test(start_paused = true)]
async fn keys_may_come_in_any_order() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..30).map(|key| (key, 1)));
    world.tables.fill(Side::New, [(5, 9), (50, 9), (51, 9)]);
    world.advance().await;
    let tables = &world.tables;
    let backfill = Backfill::new(world.handle(), tables.clone()).streams(streamed(tables));
    let report = backfill.run().await.unwrap();
    assert_eq!((report.written, report.deleted, report.synced), (30, 2, true), "{report}");
    tables.assert_equal();
    tables.fill(Side::New, [(3, 8), (60, 8)]);
    let verify = Verify::new(world.handle(), tables.clone()).streams(streamed(tables));
    let report = verify.run().await.unwrap();
    assert_eq!(report.fields.get("row"), Some(&3), "/0003 is compared twice");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_ends_the_run_and_counts_for_nothing() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    world.advance().await;
    let breaks = |_| stream::iter([Ok(name(1)), Err("the cursor is gone")]);
    let backfill = Backfill::new(world.handle(), world.tables.clone()).streams(breaks);
    let error = backfill.run().await.unwrap_err();
    assert_eq!(error.to_string(), "the stream of keys broke off: the cursor is gone");
    assert!(!world.handle().status().sync.new.is_synced());
}

#[tokio::test(start_paused = true)]
async fn checkpoints_need_an_order() {
    let world = World::new();
    world.advance().await;
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = FileCheckpoints::at(dir.path().join("c")).unwrap();
    let sweep = Sweep::new().checkpoints(checkpoints);
    let backfill = Backfill::new(world.handle(), world.tables.clone())
        .streams(streamed(&world.tables))
        .sweep(sweep);
    assert!(matches!(backfill.run().await, Err(SweepError::Config(_))));
}

/// A listing with something wrong.
struct Wrong(Vec<&'static str>);

impl Listing for Wrong {
    type Error = &'static str;

    async fn page(&self, _: Side, _: Option<&Key>, _: usize) -> Result<Vec<Key>, Self::Error> {
        if self.0.is_empty() {
            return Err("no such table");
        }
        Ok(self.0.iter().copied().map(Key::from).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_not_in_order_of_bytes_is_an_error() {
    let world = World::new();
    world.advance().await;
    for keys in [vec!["a", "c", "b"], vec!["a", "a"], vec!["b", "B"], vec!["é", "z"]] {
        let backfill =
            Backfill::new(world.handle(), world.tables.clone()).listing(Wrong(keys.clone()));
        let error = backfill.run().await.unwrap_err();
        assert!(matches!(error, SweepError::Disorder { side: Side::Old, .. }), "{keys:?}: {error}");
        assert!(error.lifted_by().contains("collate"));
    }
    // The same page for ever: else the run would never end.
    let again = Backfill::new(world.handle(), world.tables.clone()).listing(Wrong(vec!["a", "b"]));
    assert!(matches!(again.run().await, Err(SweepError::Disorder { .. })));
    let fails = Backfill::new(world.handle(), world.tables.clone()).listing(Wrong(Vec::new()));
    let error = fails.run().await.unwrap_err();
    assert_eq!(error.to_string(), "the keys of old cannot be listed: no such table");
}

#[tokio::test(start_paused = true)]
async fn an_empty_target_need_not_be_listed_if_it_was_found_so() {
    let world = World::new();
    world.tables.fill(Side::Old, (0..20).map(|key| (key, 1)));
    let backfill = world.backfill().target_empty();
    backfill.find_empty().await.unwrap();
    world.advance().await;
    // By now it is not empty any more, and that is nothing to be afraid of.
    world.rig.ask(set(3, 2)).await;
    let report = backfill.run().await.unwrap();
    assert_eq!((report.written, report.synced), (20, true));
    assert_eq!(world.tables.reads(Side::New), 0, "nothing there to be looked at");
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_empty_is_found_out() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    world.tables.fill(Side::New, [(7, 1)]);
    let backfill = world.backfill().target_empty();
    assert!(matches!(backfill.find_empty().await, Err(SweepError::NotEmpty(_))));
    world.advance().await;
    let error = backfill.run().await.unwrap_err();
    assert_eq!(error.to_string(), "the target is not empty: /0007 is there");
    assert_eq!(world.tables.writes(Side::New), 0);
    assert!(matches!(backfill.find_empty().await, Err(SweepError::Moved { .. })), "too late");
}

#[tokio::test(start_paused = true)]
async fn what_was_found_empty_is_not_any_more_after_a_stage_that_wrote_it() {
    let world = World::new();
    world.tables.fill(Side::Old, [(1, 1)]);
    let backfill = world.backfill().target_empty();
    backfill.find_empty().await.unwrap();
    world.advance().await;
    world.rig.ask(set(2, 2)).await;
    world.handle().move_to(Stage::OldOnly).await.unwrap();
    world.tables.old().remove(&name(2));
    world.advance().await;
    assert!(matches!(backfill.run().await, Err(SweepError::NotEmpty(_))));
}
