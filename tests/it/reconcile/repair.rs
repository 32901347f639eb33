//! Mending dirty keys in the background.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower_migration::{
    ConfigError, FailurePolicy, MigrationHandle, Side, Stage,
    reconcile::{Conflicts, DirtyKey, Key, RightSide},
};

use super::world::*;
use crate::support::*;

impl World {
    /// At write-both, with new synced.
    async fn two_sided() -> Self {
        let handle = MigrationHandle::new("test");
        let world = Self::on(handle, |layer| layer.failure_policy(FailurePolicy::AwaitBoth));
        world.advance().await;
        world.backfill().run().await.unwrap();
        world
    }

    fn dirty(&self, key: u32) -> Option<DirtyKey> {
        let keys = self.handle().dirty_keys();
        keys.into_iter().find(|dirty| dirty.key.as_str() == name(key))
    }

    async fn healed(&self) {
        let healed = async {
            while !self.handle().dirty_keys().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let left = timeout(SECOND * 3_600, healed).await;
        assert!(left.is_ok(), "still dirty: {:?}", self.handle().dirty_keys());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_fails_is_made_up_for() {
    let world = World::two_sided().await;
    let repairing = world.repair().start().unwrap();
    world.tables.down(Side::New, true);
    for key in 0..20 {
        assert_eq!(world.rig.ask(set(key, 5)).await.0, 200);
    }
    assert_eq!(world.handle().dirty_keys().len(), 20);
    world.tables.down(Side::New, false);
    world.healed().await;
    world.tables.assert_equal();
    assert_eq!(world.tables.writes(Side::Old), 0, "never to the side that is right");
    repairing.stop().await;
    world.advance().await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_by_the_mark_and_not_by_the_stage() {
    let world = World::two_sided().await;
    world.advance().await;
    // New is the authority, and old does not get it.
    world.tables.down(Side::Old, true);
    world.rig.ask(set(1, 7)).await;
    world.tables.down(Side::Old, false);
    world.handle().rollback().await.unwrap();
    assert_eq!(world.handle().stage(), Stage::WriteBoth);
    assert_eq!(world.dirty(1).unwrap().right, RightSide::Is(Side::New));
    world.repair().start().unwrap();
    world.healed().await;
    assert_eq!(world.tables.old().get(&name(1)), Some(&7));
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_never_heals_is_parked_with_its_error_and_holds_up_no_other() {
    let world = World::two_sided().await;
    let repairing = world
        .repair()
        .concurrency(2)
        .park_after(4)
        .backoff(Duration::from_millis(100), SECOND)
        .parked_pause(SECOND * 60)
        .start()
        .unwrap();
    world.tables.way(1, Some(Way::Fails));
    world.tables.way(2, Some(Way::Panics));
    for key in 0..5 {
        world.handle().mark_dirty(&name(key).into(), Side::Old);
    }
    let began = Instant::now();
    while world.handle().status().parked < 1 {
        sleep(Duration::from_millis(10)).await;
    }
    // 100 + 200 + 400 ms, each give or take a half.
    let took = began.elapsed().as_millis();
    assert!((350..1_200).contains(&took), "{took} ms");
    // What has panicked may still land: its key is kept for a second each time.
    sleep(SECOND * 4).await;
    assert_eq!(world.handle().status().parked, 2);
    let parked = world.dirty(1).unwrap();
    assert_eq!((parked.parked, parked.attempts), (true, 4));
    assert_eq!(parked.error.as_deref(), Some("on purpose"));
    assert_eq!(world.dirty(2).unwrap().error.as_deref(), Some("it panicked"));
    assert_eq!(world.handle().dirty_keys().len(), 2, "the others are mended");
    assert!(world.handle().status().to_string().contains("2 of them are parked"));

    // Rarely, but not never.
    let attempts = || world.dirty(1).unwrap().attempts;
    sleep(SECOND * 20).await;
    assert_eq!(attempts(), 4);
    sleep(SECOND * 100).await;
    assert!((5..=8).contains(&attempts()), "{}", attempts());

    world.tables.way(1, None);
    world.tables.way(2, None);
    assert_eq!(repairing.retry_parked(), 2);
    // The one that panics may just have, and be kept for a second.
    timeout(SECOND * 3, world.healed()).await.unwrap();
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_down_costs_one_try_now_and_then() {
    let world = World::two_sided().await;
    let repairing = world.repair().park_after(1_000).start().unwrap();
    world.tables.down(Side::New, true);
    for key in 0..500 {
        world.handle().mark_dirty(&name(key).into(), Side::Old);
    }
    sleep(SECOND * 60).await;
    assert!(repairing.is_paused());
    let attempts = || {
        let keys = world.handle().dirty_keys();
        keys.iter().map(|dirty| u64::from(dirty.attempts)).sum::<u64>()
    };
    let before = attempts();
    assert!(before < 30, "{before} tries in the first minute");
    sleep(SECOND * 3_600).await;
    let hour = attempts() - before;
    assert!((60..=130).contains(&hour), "{hour} tries in an hour");
    world.tables.down(Side::New, false);
    let began = Instant::now();
    world.healed().await;
    assert!(began.elapsed() < SECOND * 35, "{:?}", began.elapsed());
    assert!(!repairing.is_paused());
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn who_says_that_a_side_works_again_does_not_wait_for_its_next_probe() {
    let world = World::two_sided().await;
    let repairing = world.repair().park_after(2).start().unwrap();
    world.tables.down(Side::New, true);
    for key in 0..20 {
        world.handle().mark_dirty(&name(key).into(), Side::Old);
    }
    // By now it is probed twice a minute.
    sleep(SECOND * 600).await;
    assert!(repairing.is_paused());
    world.tables.down(Side::New, false);
    // Still down, as far as the repair knows: one try, and the next one soon.
    repairing.retry_parked();
    timeout(SECOND, world.healed()).await.unwrap();
    assert!(!repairing.is_paused());
    world.tables.assert_equal();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_left_to_a_person_unless_told_otherwise() {
    let world = World::two_sided().await;
    world.tables.fill(Side::Old, [(1, 1)]);
    world.tables.fill(Side::New, [(1, 2)]);
    let conflict = |world: &World| {
        world.handle().mark_dirty(&name(1).into(), Side::Old);
        world.handle().mark_dirty(&name(1).into(), Side::New);
    };
    conflict(&world);
    let repairing = world.repair().start().unwrap();
    sleep(SECOND * 600).await;
    assert_eq!(world.dirty(1).unwrap().right, RightSide::Conflict);
    assert!(world.handle().resolve_conflict(&name(1).into(), Side::New));
    timeout(SECOND, world.healed()).await.unwrap();
    assert_eq!(world.tables.old().get(&name(1)), Some(&2));
    repairing.stop().await;

    world.tables.fill(Side::New, [(1, 3)]);
    conflict(&world);
    world.repair().conflicts(Conflicts::TrustAuthority).start().unwrap();
    timeout(SECOND * 10, world.healed()).await.unwrap();
    assert_eq!(world.tables.newer().get(&name(1)), Some(&2), "old is the authority");
}

#[tokio::test(start_paused = true)]
async fn it_keeps_to_its_rate() {
    let world = World::two_sided().await;
    world.repair().rate(10.0).start().unwrap();
    let began = Instant::now();
    for key in 0..20 {
        world.handle().mark_dirty(&name(key).into(), Side::Old);
    }
    world.healed().await;
    let took = began.elapsed();
    assert!((SECOND..SECOND * 3).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_and_only_until_it_is_stopped() {
    let world = World::two_sided().await;
    let repairing = world.repair().start().unwrap();
    assert!(matches!(world.repair().start(), Err(ConfigError::Twice { .. })));
    world.tables.slow.store(100, Ordering::SeqCst);
    world.handle().mark_dirty(&name(1).into(), Side::Old);
    sleep(Duration::from_millis(50)).await;
    repairing.stop().await;
    assert!(world.handle().dirty_keys().is_empty(), "what was under way has ended");
    world.handle().mark_dirty(&name(2).into(), Side::Old);
    sleep(SECOND * 60).await;
    assert_eq!(world.handle().dirty_keys().len(), 1);
    world.repair().start().unwrap();
    world.healed().await;
    // A shutdown does not wait for all that is dirty to be mended.
    world.tables.down(Side::New, true);
    world.handle().mark_dirty(&name(3).into(), Side::Old);
    timeout(SECOND * 30, world.handle().shutdown()).await.unwrap();
    world.tables.down(Side::New, false);
    sleep(SECOND * 600).await;
    assert!(world.tables.newer().get(&name(3)).is_none());
    assert_eq!(world.handle().dirty_keys().len(), 1, "not behind the back of the record");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_said_at_the_start() {
    let world = World::new();
    let zero = |repair: tower_migration::reconcile::Repair<Tables>| {
        matches!(repair.start(), Err(ConfigError::Zero { .. }))
    };
    assert!(zero(world.repair().concurrency(0)));
    assert!(zero(world.repair().park_after(0)));
    assert!(zero(world.repair().key_timeout(Duration::ZERO)));
    assert!(zero(world.repair().backoff(Duration::ZERO, SECOND)));
    let nonsense = world.repair().rate(-1.0).start();
    assert!(matches!(nonsense, Err(ConfigError::OutOfRange { .. })));
    let short = world.repair().backoff(SECOND, Duration::from_millis(1)).start();
    assert!(matches!(short, Err(ConfigError::TooSmall { .. })));
}

#[tokio::test(start_paused = true)]
async fn it_waits_while_the_stage_forbids_it_and_goes_on_then() {
    let world = World::two_sided().await;
    world.repair().start().unwrap();
    // Right on the side that the step leaves behind: kept, as a conflict.
    world.handle().mark_dirty(&name(1).into(), Side::Old);
    world.healed().await;
    world.tables.fill(Side::Old, [(2, 9)]);
    world.tables.fill(Side::New, [(2, 9)]);
    let key = Key::from(name(2));
    let hang = world.tables.clone();
    hang.way(2, Some(Way::Hangs));
    world.handle().mark_dirty(&key, Side::Old);
    sleep(SECOND * 31).await;
    // The copy took too long, its key is dirty still, and is tried again.
    assert_eq!(world.dirty(2).unwrap().error.as_deref(), Some("it took longer than 30s"));
    hang.way(2, None);
    world.healed().await;
}
