//! Steps of the flag, what blocks them, and what they do to writes in flight.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_test::{assert_pending, assert_ready, task};
use tower::Service;
use tower_migration::{
    Blocked, BoxError, BoxFuture, FailurePolicy, FlagStore, MemoryStore, MigrationHandle, Moved,
    OpenError, Reason, Record, Side, Stage, StoreError,
    reconcile::{Key, RightSide},
};

use crate::support::*;

fn both() -> Rig {
    Rig::new(Fake::says(200, "old"), Fake::says(200, "new"))
}

fn reasons(blocked: &Blocked) -> Vec<&'static str> {
    blocked
        .reasons()
        .iter()
        .map(|reason| match reason {
            Reason::NotNeighbour => "not neighbour",
            Reason::NoSuchStage => "no such stage",
            Reason::Busy => "busy",
            Reason::Overtaken => "overtaken",
            Reason::NotSynced { .. } => "not synced",
            Reason::DirtyKeys { .. } => "dirty",
            Reason::Conflicts { .. } => "conflicts",
            Reason::NotSettled { .. } => "not settled",
            Reason::HoldTooLong { .. } => "hold",
            Reason::OneSided => "one-sided",
            Reason::Store(_) => "store",
            Reason::ShutDown => "shut down",
            _ => "other",
        })
        .collect()
}

#[tokio::test]
async fn there_and_back_in_order() {
    let handle = MigrationHandle::new("x");
    let mut changes = handle.subscribe();
    assert_eq!(*changes.borrow_and_update(), Stage::OldOnly);
    for (to, confirm) in [
        (Stage::WriteBoth, Some(Side::New)),
        (Stage::ReadNew, None),
        (Stage::NewOnly, None),
        (Stage::ReadNew, Some(Side::Old)),
        (Stage::WriteBoth, None),
        (Stage::OldOnly, None),
    ] {
        let from = handle.stage();
        let moved = handle.move_to(to).await.unwrap();
        assert_eq!((moved.from, moved.to), (from, to));
        assert_eq!(handle.stage(), to);
        assert_eq!(*changes.borrow_and_update(), to);
        let again = handle.move_to(to).await.unwrap();
        assert_eq!((again.from, again.to, again.epoch), (to, to, moved.epoch), "idempotent");
        if let Some(side) = confirm {
            handle.confirm_synced(side).await.unwrap();
        }
    }
}

#[tokio::test]
async fn jumps_and_steps_over_the_ends_are_refused() {
    let handle = MigrationHandle::new("x");
    for (to, why) in [(Stage::ReadNew, "not neighbour"), (Stage::NewOnly, "not neighbour")] {
        assert_eq!(reasons(&handle.move_to(to).await.unwrap_err()), [why]);
    }
    let blocked = handle.rollback().await.unwrap_err();
    assert_eq!(reasons(&blocked), ["no such stage"]);
    assert_eq!((blocked.from(), blocked.to()), (Stage::OldOnly, None));
    handle.force(Stage::NewOnly, "test").await.unwrap();
    assert_eq!(reasons(&handle.advance().await.unwrap_err()), ["no such stage"]);
    assert_eq!(reasons(&handle.move_to(Stage::OldOnly).await.unwrap_err()), ["not neighbour"]);
}

#[tokio::test]
async fn a_side_must_be_synced_before_it_becomes_the_authority() {
    let rig = both();
    assert_eq!(reasons(&rig.handle.confirm_synced(Side::New).await.unwrap_err()), ["one-sided"]);
    rig.handle.advance().await.unwrap();
    assert_eq!(reasons(&rig.handle.advance().await.unwrap_err()), ["not synced"]);
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.advance().await.unwrap();
    rig.handle.advance().await.unwrap();
    // Old was not written at 3: it is stale, and no way leads back to it.
    rig.handle.rollback().await.unwrap();
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
    assert_eq!(reasons(&rig.handle.rollback().await.unwrap_err()), ["not synced"]);
    let orderly = rig.handle.move_to(Stage::WriteBoth).await.unwrap_err();
    assert_eq!(reasons(&orderly), ["not synced"]);
    rig.handle.confirm_synced(Side::Old).await.unwrap();
    assert_eq!(rig.handle.rollback().await.unwrap().to, Stage::WriteBoth);
    // New was written all the time; only 1 to 0 makes it stale.
    rig.handle.rollback().await.unwrap();
    rig.handle.advance().await.unwrap();
    assert_eq!(reasons(&rig.handle.advance().await.unwrap_err()), ["not synced"]);
}

#[tokio::test]
async fn dirty_keys_block_the_steps_that_would_lose_them() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(500, "")).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    let blocked = rig.handle.advance().await.unwrap_err();
    assert_eq!(reasons(&blocked), ["dirty"]);
    let text = blocked.to_string();
    assert!(text.contains("1 dirty keys are right on old only"), "{text}");
    assert!(text.contains("copy the dirty keys"), "{text}");
    // Back is fine: old has everything. New is stale as a whole then.
    rig.handle.rollback().await.unwrap();
    assert!(rig.handle.dirty_keys().is_empty());

    let rig = Rig::new(Fake::says(500, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Is(Side::New));
    assert_eq!(rig.handle.rollback().await.unwrap().to, Stage::WriteBoth, "the exit is open");
    let blocked = rig.handle.rollback().await.unwrap_err();
    assert_eq!(reasons(&blocked), ["dirty"], "the write on new alone would be lost");
}

#[tokio::test]
async fn marks_that_name_both_sides_are_a_conflict_that_a_person_resolves() {
    let rig = Rig::new(Fake::says(500, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    rig.handle.rollback().await.unwrap();
    rig.old.becomes(&Fake::says(200, ""));
    rig.new.becomes(&Fake::says(500, ""));
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Conflict);
    assert_eq!(rig.handle.status().conflicts, 1);
    assert_eq!(reasons(&rig.handle.advance().await.unwrap_err()), ["conflicts"]);
    let key = Key::from("/a");
    assert!(rig.handle.resolve_conflict(&key, Side::Old));
    assert!(!rig.handle.resolve_conflict(&key, Side::Old));
    assert_eq!(reasons(&rig.handle.advance().await.unwrap_err()), ["dirty"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_dirty_set_unsyncs_the_side_and_says_so() {
    let handle = MigrationHandle::builder("x").dirty_keys(2).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(500, ""), |layer| layer);
    rig.walk(Stage::WriteBoth).await;
    for path in ["/a", "/b"] {
        rig.ask(put(path, "")).await;
        rig.quiesce().await;
        assert!(rig.handle.status().sync.new.is_synced());
    }
    rig.ask(put("/c", "")).await;
    rig.quiesce().await;
    assert_eq!(rig.handle.status().sync.new.as_str(), "unsynced");
    assert_eq!(rig.dirty(), ["/a", "/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_waits_for_earlier_writes_and_gives_up_in_the_end() {
    let (old, latch) = latched(200, "");
    let rig = Rig::new(old, Fake::says(200, ""));
    let write = tokio::spawn(rig.service.clone().call(put("/a", "")));
    rig.quiesce().await;
    // Its own epoch does not count; the next one's does.
    rig.handle.advance().await.unwrap();
    assert_eq!(reasons(&rig.handle.confirm_synced(Side::New).await.unwrap_err()), ["not settled"]);
    let began = tokio::time::Instant::now();
    let blocked = rig.handle.rollback().await.unwrap_err();
    assert_eq!(began.elapsed(), SECOND * 10);
    assert_eq!(reasons(&blocked), ["not settled"]);
    assert!(matches!(blocked.reasons(), [Reason::NotSettled { writes: 1, .. }]));
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);

    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.rollback());
    assert_pending!(step.poll());
    latch.open();
    write.await.unwrap().unwrap();
    assert_eq!(step.await.unwrap().to, Stage::OldOnly);
}

#[tokio::test(start_paused = true)]
async fn the_flip_of_the_authority_holds_writes_until_what_runs_has_ended() {
    let (new, latch) = latched(200, "new");
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    let first = tokio::spawn(rig.service.clone().call(put("/a", "1")));
    rig.quiesce().await;
    let step = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.advance().await }
    });
    rig.quiesce().await;
    // The detached leg still runs: raised, not held yet, and nothing refused.
    assert!(!rig.handle.status().holding);
    assert!(rig.handle.status().stepping);
    let mut raised = task::spawn(rig.service.clone().call(put("/b", "2")));
    assert_pending!(raised.poll());
    rig.quiesce().await;
    assert_eq!(rig.old.count(), 2);
    assert_pending!(raised.poll(), "AuthorityWins waits for both now");
    assert_eq!(rig.ask(get("/a")).await.1, "old", "reads go on");
    first.await.unwrap().unwrap();
    latch.open();
    rig.quiesce().await;
    assert_ready!(raised.poll()).unwrap();
    drop(raised);
    let moved = step.await.unwrap().unwrap();
    assert_eq!(moved.to, Stage::ReadNew);
    assert!(moved.held < SECOND / 100, "{moved:?}");
    assert_eq!(rig.ask(get("/a")).await.1, "new");
    assert!(!rig.handle.status().holding);
}

/// A rig at `WriteBoth` whose step to `ReadNew` is holding writes, because of
/// one that was admitted after the raise.
async fn holding()
-> (Rig, Arc<Semaphore>, JoinHandle<Result<Moved, Blocked>>, JoinHandle<Result<Answered, BoxError>>)
{
    let (new, _, permits) = stepped();
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    rig.ask(put("/first", "")).await;
    rig.quiesce().await;
    let handle = rig.handle.clone();
    let step = tokio::spawn(async move { handle.advance().await });
    rig.quiesce().await;
    let under_way = tokio::spawn(rig.service.clone().call(put("/second", "")));
    rig.quiesce().await;
    assert!(!rig.handle.status().holding);
    permits.add_permits(1);
    rig.quiesce().await;
    assert!(rig.handle.status().holding);
    (rig, permits, step, under_way)
}

#[tokio::test(start_paused = true)]
async fn held_writes_wait_see_the_new_stage_and_are_not_refused() {
    let (rig, permits, step, under_way) = holding().await;
    let mut held = task::spawn(rig.service.clone().call(put("/b", "2")));
    assert_pending!(held.poll());
    rig.quiesce().await;
    assert_pending!(held.poll());
    assert_eq!(rig.old.count(), 2, "neither side has seen the held write");
    permits.add_permits(1);
    assert_eq!(under_way.await.unwrap().unwrap().status(), 200);
    let moved = step.await.unwrap().unwrap();
    assert_eq!((moved.from, moved.to), (Stage::WriteBoth, Stage::ReadNew));
    assert!(held.is_woken());
    permits.add_permits(1);
    let answer = held.await.unwrap();
    assert_eq!(text(answer).await, "stepped", "served by new, at the stage after the flip");
    rig.quiesce().await;
    let calls = rig.old.calls();
    assert_eq!(calls[2].dispatch.unwrap().stage, Stage::ReadNew);
    assert_eq!(rig.handle.status().held_writes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_while_held_has_written_nothing() {
    let (rig, permits, step, under_way) = holding().await;
    let mut held = task::spawn(rig.service.clone().call(put("/b", "2")));
    assert_pending!(held.poll());
    drop(held);
    permits.add_permits(5);
    under_way.await.unwrap().unwrap();
    assert!(step.await.unwrap().is_ok());
    rig.quiesce().await;
    assert_eq!((rig.old.count(), rig.new.count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_takes_too_long_puts_everything_back() {
    let (rig, permits, step, under_way) = holding().await;
    let held = tokio::spawn(rig.service.clone().call(put("/b", "2")));
    let began = tokio::time::Instant::now();
    let blocked = step.await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), SECOND, "the bound of the hold");
    assert_eq!(reasons(&blocked), ["hold"]);
    assert!(matches!(blocked.reasons(), [Reason::HoldTooLong { writes: 2, .. }]), "{blocked}");
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert!(!rig.handle.status().holding);
    rig.quiesce().await;
    assert_eq!(rig.old.count(), 3, "the held write went on");
    permits.add_permits(5);
    under_way.await.unwrap().unwrap();
    held.await.unwrap().unwrap();
    rig.quiesce().await;
    assert_eq!(rig.ask(put("/c", "")).await.1, "old");
    assert!(rig.handle.advance().await.is_ok(), "and it can be had later");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_dropped_while_it_holds_lets_the_held_writes_go() {
    let (rig, permits, step, _under_way) = holding().await;
    let held = tokio::spawn(rig.service.clone().call(put("/b", "2")));
    rig.quiesce().await;
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    assert!(!rig.handle.status().holding);
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(text(held.await.unwrap().unwrap()).await, "old");
    drop(permits);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_step_that_waits_puts_everything_back() {
    let (new, _latch) = latched(200, "new");
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "1")).await;
    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.advance());
    assert_pending!(step.poll());
    let mut raised = task::spawn(rig.service.clone().call(put("/b", "2")));
    assert_pending!(raised.poll());
    drop(step);
    assert!(!rig.handle.status().stepping);
    let (status, _) = rig.ask(put("/c", "3")).await;
    assert_eq!(status, 200, "not raised any more: it does not wait for new");
}

#[tokio::test(start_paused = true)]
async fn of_two_steps_at_once_one_is_told_that_it_is_busy() {
    let (new, latch) = latched(200, "new");
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "1")).await;
    let handle = rig.handle.clone();
    let mut step = task::spawn(handle.advance());
    assert_pending!(step.poll());
    for other in [rig.handle.advance().await, rig.handle.move_to(Stage::OldOnly).await] {
        assert_eq!(reasons(&other.unwrap_err()), ["busy"]);
    }
    let busy = rig.handle.confirm_synced(Side::New).await.unwrap_err();
    assert_eq!(reasons(&busy), ["busy"]);
    latch.open();
    assert!(step.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_emergency_exit_flips_at_once_and_names_what_was_in_flight() {
    let (old, latch) = latched(200, "old");
    let rig = Rig::new(old, Fake::says(200, "new")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "1")).await;
    rig.quiesce().await;
    assert_eq!(rig.old.alive(), 1);
    let began = tokio::time::Instant::now();
    let moved = rig.handle.rollback().await.unwrap();
    assert!(began.elapsed().is_zero());
    assert_eq!(moved.tainted.iter().map(Key::as_str).collect::<Vec<_>>(), ["/a"]);
    let [dirty] = &rig.handle.dirty_keys()[..] else { panic!("one dirty key") };
    assert_eq!(dirty.right, RightSide::Is(Side::New));
    latch.open();
    rig.quiesce().await;
    assert_eq!(rig.ask(get("/b")).await.1, "old");
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_over_the_emergency_exit_is_not_acknowledged_before_it_is_on_old() {
    let (old, latch_old) = latched(200, "old");
    let (new, latch_new) = latched(200, "new");
    let rig = Rig::new(old, new).at(Stage::ReadNew).await;
    let mut write = task::spawn(rig.service.clone().call(put("/a", "1")));
    assert_pending!(write.poll());
    rig.handle.rollback().await.unwrap();
    latch_new.open();
    rig.quiesce().await;
    assert_pending!(write.poll(), "reads go to old now, which does not have it yet");
    latch_old.open();
    rig.quiesce().await;
    assert_eq!(text(assert_ready!(write.poll()).unwrap()).await, "new");
}

#[tokio::test(start_paused = true)]
async fn the_emergency_exit_makes_a_waiting_step_give_way() {
    let (old, _latch) = latched(200, "old");
    let rig = Rig::new(old, Fake::says(200, "new")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "1")).await;
    let _ = rig.handle.confirm_synced(Side::Old).await;
    let handle = rig.handle.clone();
    // Orderly, it waits for the leg on old.
    let mut orderly = task::spawn(handle.move_to(Stage::WriteBoth));
    assert_pending!(orderly.poll());
    let exit = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.rollback().await }
    });
    rig.quiesce().await;
    assert!(orderly.is_woken());
    assert_eq!(reasons(&orderly.await.unwrap_err()), ["overtaken"]);
    assert_eq!(exit.await.unwrap().unwrap().to, Stage::WriteBoth);
}

#[tokio::test]
async fn force_goes_anywhere_marks_the_status_and_unsyncs_what_it_skipped() {
    let handle = MigrationHandle::new("x");
    let moved = handle.force(Stage::ReadNew, "the old disk is dying").await.unwrap();
    assert_eq!((moved.from, moved.to), (Stage::OldOnly, Stage::ReadNew));
    let status = handle.status();
    assert!(!status.sync.new.is_synced());
    assert_eq!(status.forced[0].reason, "the old disk is dying");
    let page = status.to_string();
    assert!(page.contains("FORCED old-only to read-new: the old disk is dying"), "{page}");
    handle.force(Stage::NewOnly, "on").await.unwrap();
    assert!(!handle.status().sync.old.is_synced());
    handle.force(Stage::OldOnly, "back").await.unwrap();
    assert!(!handle.status().sync.old.is_synced(), "it missed the writes at 3");
    for n in 0..40 {
        handle.force(Stage::ALL[n % 4], "again").await.unwrap();
    }
    assert_eq!(handle.status().forced.len(), 16, "bounded");
}

#[tokio::test]
async fn a_forced_step_away_from_the_side_that_is_right_makes_a_conflict() {
    let rig = Rig::new(Fake::says(500, ""), Fake::says(200, "")).at(Stage::ReadNew).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Is(Side::New));
    rig.handle.force(Stage::OldOnly, "new is on fire").await.unwrap();
    // Copied from new later on, it would overwrite what old took meanwhile.
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Conflict);
}

#[tokio::test]
async fn drained_resolves_when_nothing_runs_on_the_side_any_more() {
    let (new, latch) = latched(200, "");
    let rig = Rig::new(Fake::says(200, ""), new).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "")).await;
    let handle = rig.handle.clone();
    let mut drained = task::spawn(handle.drained(Side::New));
    assert_pending!(drained.poll());
    latch.open();
    rig.quiesce().await;
    assert!(drained.is_woken());
    assert_ready!(drained.poll());
}

// === stores ===

#[tokio::test]
async fn a_restart_continues_where_the_flag_stood() {
    let store = MemoryStore::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.shutdown().await;
    assert!(store.record().clean);
    let again = MigrationHandle::open("x", store.clone()).await.unwrap();
    assert_eq!(again.stage(), Stage::WriteBoth);
    assert!(again.status().sync.new.is_synced());
    assert!(again.status().epoch > handle.status().epoch);
    // No shutdown this time.
    drop(again);
    let unclean = MigrationHandle::open("x", store).await.unwrap();
    assert_eq!(unclean.stage(), Stage::WriteBoth);
    assert!(!unclean.status().sync.new.is_synced(), "a write may have landed on old alone");
    assert!(unclean.status().sync.old.is_synced());
}

#[derive(Clone, Default)]
struct Broken {
    inner: MemoryStore,
    full: std::sync::Arc<std::sync::atomic::AtomicBool>,
    missing: bool,
    unreadable: bool,
}

impl FlagStore for Broken {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        if self.unreadable {
            return Box::pin(async { Err(StoreError::new("bad checksum")) });
        }
        if self.missing {
            return Box::pin(async { Ok(None) });
        }
        self.inner.load()
    }

    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.full.load(std::sync::atomic::Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::new("disk full")) });
        }
        self.inner.save(replaces, record)
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_an_error_and_never_a_default() {
    let unreadable = Broken { unreadable: true, ..Broken::default() };
    let error = MigrationHandle::open("x", unreadable).await.unwrap_err();
    assert!(matches!(error, OpenError::Store(_)));
    let source = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert_eq!(source.unwrap().to_string(), "bad checksum");
    let missing = Broken { missing: true, ..Broken::default() };
    let error = MigrationHandle::open("x", missing).await.unwrap_err();
    assert!(matches!(error, OpenError::Missing));
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_record_cannot_be_written_is_refused_but_for_the_exit() {
    let store = Broken::default();
    let full = std::sync::Arc::clone(&store.full);
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let (new, latch) = latched(200, "new");
    let rig = Rig::on(handle, Fake::says(200, "old"), new, |layer| {
        layer.failure_policy(FailurePolicy::AuthorityWins)
    });
    latch.open();
    rig.walk(Stage::WriteBoth).await;
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    let blocked = rig.handle.advance().await.unwrap_err();
    assert_eq!(reasons(&blocked), ["store"]);
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert!(!rig.handle.status().holding);
    assert_eq!(store.inner.record().stage, Stage::WriteBoth);

    full.store(false, std::sync::atomic::Ordering::SeqCst);
    rig.walk(Stage::ReadNew).await;
    full.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(rig.handle.rollback().await.unwrap().to, Stage::WriteBoth);
    assert_eq!(store.inner.record().stage, Stage::ReadNew, "not on record yet");
    // Until it is, writes wait for both sides.
    let closed = latched(200, "new");
    rig.new.becomes(&closed.0);
    let mut write = task::spawn(rig.service.clone().call(put("/a", "")));
    assert_pending!(write.poll());
    rig.quiesce().await;
    assert_pending!(write.poll());
    closed.1.open();
    rig.quiesce().await;
    assert_ready!(write.poll()).unwrap();
    drop(write);
    full.store(false, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(store.inner.record().stage, Stage::WriteBoth);
    let closed = latched(200, "new");
    rig.new.becomes(&closed.0);
    assert_eq!(rig.ask(put("/b", "")).await.1, "old", "and does not wait any more");
}

#[tokio::test(start_paused = true)]
async fn a_forced_step_is_not_kept_waiting_by_a_record_that_cannot_be_written() {
    let store = Broken::default();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    rig.walk(Stage::ReadNew).await;
    store.full.store(true, std::sync::atomic::Ordering::SeqCst);
    rig.handle.rollback().await.unwrap();
    let forced = tokio::time::timeout(SECOND * 5, rig.handle.force(Stage::OldOnly, "test"));
    assert_eq!(reasons(&forced.await.expect("an answer").unwrap_err()), ["store"]);
    store.full.store(false, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(store.inner.record().stage, Stage::WriteBoth, "tried again all the same");
    assert!(!rig.handle.status().stepping);
}

/// Reads, writes and flips at random; every answer is checked against the rule
/// that a read after an acknowledged write sees it.
#[tokio::test(start_paused = true)]
async fn no_read_after_an_acknowledged_write_misses_it_while_the_flag_moves() {
    use std::sync::Mutex;
    let store = |seed: u64| {
        let value = Arc::new(Mutex::new(0_u64));
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Fake::new(move |call| {
            let (value, random) = (Arc::clone(&value), Arc::clone(&random));
            async move {
                let pause = random.lock().unwrap().u64(0..8);
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                if call.method == "PUT" {
                    *value.lock().unwrap() = std::str::from_utf8(&call.body)?.parse()?;
                }
                let now = value.lock().unwrap().to_string();
                Ok(answer(200, now))
            }
        })
    };
    for seed in 0..20 {
        let rig = Rig::new(store(seed), store(seed + 100));
        let acknowledged = Arc::new(Mutex::new(0_u64));
        let writer = tokio::spawn({
            let service = rig.service.clone();
            let acknowledged = Arc::clone(&acknowledged);
            async move {
                for n in 1..=200_u64 {
                    let request = http::Request::put("/k").body(body(n.to_string())).unwrap();
                    let answer = service.clone().call(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    *acknowledged.lock().unwrap() = n;
                }
            }
        });
        let reader = tokio::spawn({
            let service = rig.service.clone();
            let acknowledged = Arc::clone(&acknowledged);
            async move {
                for _ in 0..200 {
                    let at_least = *acknowledged.lock().unwrap();
                    let answer = service.clone().call(get("/k")).await.unwrap();
                    let seen: u64 = text(answer).await.parse().unwrap();
                    assert!(seen >= at_least, "read {seen} after {at_least} was acknowledged");
                }
            }
        });
        rig.handle.advance().await.unwrap();
        rig.handle.settled().await;
        rig.handle.confirm_synced(Side::New).await.unwrap();
        for to in [
            Stage::ReadNew,
            Stage::WriteBoth,
            Stage::ReadNew,
            Stage::WriteBoth,
            Stage::ReadNew,
            Stage::NewOnly,
        ] {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            rig.handle.move_to(to).await.unwrap();
        }
        writer.await.unwrap();
        reader.await.unwrap();
    }
}
