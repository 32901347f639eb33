//! Keys that a repair had forgotten once.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_migration::{
    Side,
    reconcile::{Key, RightSide},
};

use super::world::*;
use crate::support::*;

/// Parked by the repair, mended by somebody else (a backfill, copy_key), and dirty
/// anew: a fresh mark, not parked, no attempts. It is not looked at until the parked
/// pause of its former life is over, and `retry_parked` does not help.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_parked_mended_and_is_dirty_anew_is_repaired() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, [(1, 5)]);
    world.tables.way(1, Some(Way::Fails));
    let repairing =
        world.repair().park_after(1).parked_pause(Duration::from_secs(86_400)).start().unwrap();
    let key = Key::from(name(1));
    world.handle().mark_dirty(&key, Side::Old);
    sleep(SECOND).await;
    assert!(world.handle().dirty_keys()[0].parked);
    // It heals, and a backfill mends it.
    world.tables.way(1, None);
    let report = world.backfill().run().await.unwrap();
    assert!(report.synced, "{report}");
    assert!(world.handle().dirty_keys().is_empty());
    // A leg fails on it again.
    world.handle().mark_dirty(&key, Side::Old);
    sleep(SECOND * 600).await;
    let left = world.handle().dirty_keys();
    let retried = repairing.retry_parked();
    sleep(SECOND * 600).await;
    assert!(
        left.is_empty(),
        "after 10 min: {left:?}; retry_parked found {retried}; after 10 more: {:?}",
        world.handle().dirty_keys()
    );
}

/// `resolve_conflict` of a key that had been parked before it became a conflict.
#[tokio::test(start_paused = true)]
async fn a_conflict_that_is_resolved_is_repaired_soon() {
    let world = World::new();
    world.advance().await;
    world.handle().confirm_synced(Side::New).await.unwrap();
    world.tables.fill(Side::Old, [(1, 5)]);
    world.tables.way(1, Some(Way::Fails));
    let _repairing =
        world.repair().park_after(1).parked_pause(Duration::from_secs(86_400)).start().unwrap();
    let key = Key::from(name(1));
    world.handle().mark_dirty(&key, Side::Old);
    sleep(SECOND).await;
    assert!(world.handle().dirty_keys()[0].parked);
    world.handle().mark_dirty(&key, Side::New);
    assert_eq!(world.handle().dirty_keys()[0].right, RightSide::Conflict);
    world.tables.way(1, None);
    assert!(world.handle().resolve_conflict(&key, Side::Old));
    sleep(SECOND * 600).await;
    let left = world.handle().dirty_keys();
    assert!(left.is_empty(), "ten minutes after it was decided: {left:?}");
}

/// "Begins no further copy, and waits for those under way."
#[tokio::test(start_paused = true)]
async fn a_slow_rate_does_not_hold_up_the_stop() {
    let world = World::new();
    world.advance().await;
    world.tables.fill(Side::Old, (0..8).map(|k| (k, 5)));
    for k in 0..8 {
        world.handle().mark_dirty(&name(k).into(), Side::Old);
    }
    let repairing = world.repair().rate(0.01).start().unwrap();
    sleep(SECOND).await;
    let stopped = timeout(SECOND * 10, repairing.stop()).await;
    assert!(stopped.is_ok(), "still waiting for keys that are not even being copied");
}
