//! Steps under hostile conditions: runtimes that end, stores that hang or panic,
//! flips at the worst moment. Each test was a loss, a hang or a wrong answer.

use std::{
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tower_migration::{
    BoxFuture, Claim, FailurePolicy, FileStore, FlagStore, MemoryStore, MigrationHandle, Presence,
    Reason, Record, Side, Stage, Standing, StoreError, StoreErrorKind, reconcile::Key,
};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

/// Fakes are ready at once.
fn go(
    rig: &Rig,
    request: Req,
) -> impl Future<Output = Result<Answered, tower_migration::BoxError>> + Send + use<> {
    let mut service = rig.service.clone();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready());
    tower::Service::call(&mut service, request)
}

async fn at(handle: &MigrationHandle, stage: Stage) {
    while handle.stage() < stage {
        handle.advance().await.unwrap();
        if handle.stage() == Stage::WriteBoth {
            handle.confirm_synced(Side::New).await.unwrap();
        }
    }
}

/// `Lent` keeps `(Turn, Option<Restore>)`; a tuple is dropped from its first
/// field on, so the step lock is free before `Restore` stores its word.
#[test]
fn a_step_that_gives_way_does_not_undo_the_step_it_gave_way_to() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // A busy machine.
    let burners: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (mut undone, mut odd, mut tried) = (Vec::new(), Vec::new(), 0_u32);
    let seconds = std::env::var("RACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    runtime.block_on(async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) && undone.is_empty() {
            let rig = Rig::new(Fake::says(200, "old"), Fake::hangs());
            rig.handle.advance().await.unwrap();
            rig.handle.confirm_synced(Side::New).await.unwrap();
            // A write hangs on new, so that the step waits, raised.
            let _write = tokio::spawn(go(&rig, put("/a", "1")));
            while rig.new.count() == 0 {
                tokio::task::yield_now().await;
            }
            tried += 1;
            let handle = rig.handle.clone();
            let before = rig.handle.status().epoch;
            let step = tokio::spawn(async move { handle.move_to(Stage::ReadNew).await });
            while rig.handle.status().epoch == before {
                tokio::task::yield_now().await;
            }
            let moved = rig.handle.force(Stage::OldOnly, "x").await.unwrap();
            let _ = step.await;
            sleep(MS).await;
            let status = rig.handle.status();
            if status.stage != Stage::OldOnly {
                undone.push((moved.epoch, status.epoch, status.stage));
            } else if status.epoch != moved.epoch {
                odd.push((moved.epoch, status.epoch));
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    burners.into_iter().for_each(|b| b.join().unwrap());
    runtime.shutdown_background();
    eprintln!("tried {tried}, undone {undone:?}, odd epochs {odd:?}");
    assert!(
        undone.is_empty(),
        "of {tried}: force(OldOnly) answered Ok, then the flag was put back: {undone:?}"
    );
    assert!(
        odd.is_empty(),
        "of {tried}: an epoch was opened over that of the hurried step: {odd:?}"
    );
}

/// The same, with the emergency exit: it answers `Ok` and new still answers.
#[test]
fn an_emergency_exit_is_not_undone_by_the_orderly_step_that_gave_way_to_it() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let burners: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (mut undone, mut tried) = (Vec::new(), 0_u32);
    let seconds = std::env::var("RACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    runtime.block_on(async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) && undone.is_empty() {
            let rig = Rig::new(Fake::hangs(), Fake::says(200, "new"));
            at(&rig.handle, Stage::ReadNew).await;
            let _write = tokio::spawn(go(&rig, put("/a", "1")));
            while rig.old.count() == 0 {
                tokio::task::yield_now().await;
            }
            tried += 1;
            let handle = rig.handle.clone();
            let before = rig.handle.status().epoch;
            let step = tokio::spawn(async move { handle.move_to(Stage::WriteBoth).await });
            while rig.handle.status().epoch == before {
                tokio::task::yield_now().await;
            }
            let moved = rig.handle.rollback().await.unwrap();
            let _ = step.await;
            sleep(MS).await;
            let status = rig.handle.status();
            if status.stage != Stage::WriteBoth {
                undone.push((moved.to, status.stage, *rig.handle.subscribe().borrow()));
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    burners.into_iter().for_each(|b| b.join().unwrap());
    runtime.shutdown_background();
    assert!(
        undone.is_empty(),
        "of {tried}: rollback() answered, then the flag stood at (moved to, stage, told): {undone:?}"
    );
}

fn busy_service(rig: &Rig, until: Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<u64>> {
    (0..4)
        .map(|n| {
            let (mut service, until) = (rig.service.clone(), Arc::clone(&until));
            tokio::spawn(async move {
                let mut done = 0;
                while !until.load(Ordering::SeqCst) {
                    let request = put(&format!("/{n}"), "x");
                    let answer = {
                        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                        assert!(
                            tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready()
                        );
                        tower::Service::call(&mut service, request)
                    };
                    drop(answer.await.unwrap());
                    done += 1;
                }
                done
            })
        })
        .collect()
}

/// The service runs on one runtime; the operator's thread drives the handle with
/// a `block_on` of its own. The hold after the last step is released by a task
/// on the operator's runtime, which nobody drives any more.
fn last_step_from_another_runtime(keep: bool) -> bool {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let slow = || {
        Fake::new(|_| async {
            sleep(MS * 20).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Arc::new(Rig::new(slow(), slow()));
    runtime.block_on(rig.walk(Stage::ReadNew));
    let until = Arc::new(AtomicBool::new(false));
    let _guard = runtime.enter();
    let load = busy_service(&rig, Arc::clone(&until));
    std::thread::sleep(MS * 200);
    let handle = rig.handle.clone();
    let kept = std::thread::spawn(move || {
        let operator = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        operator.block_on(handle.advance()).unwrap();
        keep.then_some(operator)
    })
    .join()
    .unwrap();
    // Ten times what any hold may last… the default is 1 s.
    std::thread::sleep(Duration::from_secs(4));
    let holding = rig.handle.status().holding;
    let served = runtime
        .block_on(async { timeout(Duration::from_secs(2), rig.ask(put("/z", "x"))).await.is_ok() });
    drop(kept);
    until.store(true, Ordering::SeqCst);
    for task in load {
        task.abort();
    }
    eprintln!("holding: {holding}, served: {served}");
    served && !holding
}

#[test]
fn writes_are_released_although_the_operators_runtime_has_ended() {
    assert!(last_step_from_another_runtime(false), "writes are held for ever");
}

#[test]
fn writes_are_released_although_nobody_drives_the_operators_runtime() {
    assert!(last_step_from_another_runtime(true), "writes are held for ever");
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bad {
    No,
    Hangs,
    Panics,
}

#[derive(Default)]
struct Knobs {
    load: Mutex<Option<Bad>>,
    claim: Mutex<Option<Bad>>,
    attend: Mutex<Option<Bad>>,
    leave: Mutex<Option<Bad>>,
    watch: Mutex<Option<Bad>>,
    owner: AtomicBool,
    claims: AtomicUsize,
}

#[derive(Clone)]
struct Odd {
    inner: MemoryStore,
    knobs: Arc<Knobs>,
    lease: Option<Duration>,
}

impl Odd {
    fn new() -> Self {
        let knobs = Knobs { owner: AtomicBool::new(true), ..Knobs::default() };
        Self { inner: MemoryStore::new(), knobs: Arc::new(knobs), lease: None }
    }
}

fn behave<'a, T: Send + 'a>(
    bad: &Mutex<Option<Bad>>,
    well: BoxFuture<'a, Result<T, StoreError>>,
) -> BoxFuture<'a, Result<T, StoreError>> {
    let bad = bad.lock().unwrap().unwrap_or(Bad::No);
    match bad {
        Bad::No => well,
        Bad::Hangs => Box::pin(pending()),
        Bad::Panics => Box::pin(async { std::panic::resume_unwind(Box::new("on purpose")) }),
    }
}

impl FlagStore for Odd {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        behave(&self.knobs.load, self.inner.load())
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.save(replaces, record)
    }
    fn watch(&self, _: u64) -> BoxFuture<'_, Result<Record, StoreError>> {
        behave(&self.knobs.watch, Box::pin(pending()))
    }
    fn lease(&self) -> Option<Duration> {
        self.lease
    }
    fn attend(&self, _: Presence) -> BoxFuture<'_, Result<Standing, StoreError>> {
        let standing = if self.knobs.owner.load(Ordering::SeqCst) {
            Standing::Owner
        } else {
            Standing::Follower
        };
        behave(&self.knobs.attend, Box::pin(ready(Ok(standing))))
    }
    fn claim(&self) -> BoxFuture<'_, Result<Claim, StoreError>> {
        self.knobs.claims.fetch_add(1, Ordering::SeqCst);
        behave(&self.knobs.claim, Box::pin(ready(Ok(Claim::default()))))
    }
    fn leave(&self, _: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        behave(&self.knobs.leave, Box::pin(ready(Ok(()))))
    }
}

#[tokio::test]
async fn the_emergency_exit_is_open_although_the_store_panics_when_asked_for_a_claim() {
    let store = Odd::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    at(&handle, Stage::ReadNew).await;
    *store.knobs.claim.lock().unwrap() = Some(Bad::Panics);
    let h = handle.clone();
    let moved = tokio::spawn(async move { h.rollback().await }).await;
    assert!(moved.is_ok(), "rollback() panicked, the stage is {}", handle.stage());
    assert_eq!(handle.stage(), Stage::WriteBoth);
}

#[tokio::test]
async fn shutdown_survives_a_store_that_panics_in_leave() {
    let store = Odd::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    *store.knobs.leave.lock().unwrap() = Some(Bad::Panics);
    let h = handle.clone();
    assert!(tokio::spawn(async move { h.shutdown().await }).await.is_ok(), "shutdown() panicked");
}

async fn follower_whose_owner_has_ended(spoil: impl FnOnce(&Knobs)) -> (MigrationHandle, Odd) {
    let mut store = Odd::new();
    store.lease = Some(MS * 100);
    store.knobs.owner.store(false, Ordering::SeqCst);
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    assert_eq!(handle.status().standing, Standing::Follower);
    spoil(&store.knobs);
    store.knobs.owner.store(true, Ordering::SeqCst);
    (handle, store)
}

#[tokio::test(start_paused = true)]
async fn a_follower_can_be_shut_down_while_the_store_hangs_in_a_takeover() {
    let (handle, _store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let ended = timeout(Duration::from_secs(3_600), handle.shutdown()).await;
    assert!(ended.is_ok(), "shutdown() did not end within an hour");
}

#[tokio::test(start_paused = true)]
async fn a_follower_answers_force_while_the_store_hangs_in_a_takeover() {
    let (handle, _store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let ended = timeout(Duration::from_secs(3_600), handle.force(Stage::WriteBoth, "now")).await;
    assert!(ended.is_ok(), "force() did not answer within an hour");
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_the_store_has_hung_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.load.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(
        handle.status().standing,
        Standing::Owner,
        "one lost answer, and it follows for ever"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_attend_has_hung_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.attend.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.attend.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(handle.status().standing, Standing::Owner);
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_the_store_has_panicked_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.attend.lock().unwrap() = Some(Bad::Panics);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.attend.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(handle.status().standing, Standing::Owner);
}

#[tokio::test(start_paused = true)]
async fn open_is_bounded() {
    let store = Odd::new();
    *store.knobs.load.lock().unwrap() = Some(Bad::Hangs);
    let opened = timeout(Duration::from_secs(3_600), MigrationHandle::open("x", store)).await;
    assert!(opened.is_ok(), "open() has waited for an hour");
}

/// What `MemoryStore`'s own example does, with a `FileStore`.
#[tokio::test]
async fn a_record_behind_a_link_that_leads_nowhere_is_not_a_new_migration() {
    let (etc, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, real) = (etc.path().join("x.flag"), data.path().join("x.flag"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    // The first start, as in the README.
    std::fs::write(&real, "").unwrap();
    std::fs::remove_file(&real).unwrap();
    drop(FileStore::create_or_open(&real).unwrap());
    let handle =
        MigrationHandle::open("x", FileStore::create_or_open(&link).unwrap()).await.unwrap();
    at(&handle, Stage::NewOnly).await;
    handle.shutdown().await;
    drop(handle);
    // The volume is not mounted at the next start.
    let away = tempfile::tempdir().unwrap();
    std::fs::rename(data.path(), away.path().join("data")).unwrap();
    match FileStore::create_or_open(&link) {
        Err(error) => eprintln!("{error:?}"),
        Ok(store) => {
            let handle = MigrationHandle::open("x", store).await.unwrap();
            panic!("served at {} although the record says new-only", handle.stage());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_took_too_long_says_so() {
    let handle = MigrationHandle::builder("x").hold(MS * 20).build().unwrap();
    let slow = || {
        Fake::new(|_| async {
            sleep(MS * 100).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Rig::on(handle, slow(), slow(), |layer| layer);
    rig.walk(Stage::WriteBoth).await;
    let until = Arc::new(AtomicBool::new(false));
    let load = busy_service(&rig, Arc::clone(&until));
    let (mut overtaken, mut told, mut moved) = (0, 0, 0);
    for _ in 0..60 {
        match rig.handle.move_to(Stage::ReadNew).await {
            Ok(_) => {
                moved += 1;
                rig.handle.move_to(Stage::WriteBoth).await.ok();
            }
            Err(blocked) => match blocked.reasons() {
                [Reason::HoldTooLong { .. }] => told += 1,
                [Reason::Overtaken] => overtaken += 1,
                other => eprintln!("{other:?}"),
            },
        }
    }
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    eprintln!("hold too long: {told}, overtaken: {overtaken}, moved: {moved}");
    assert_eq!(overtaken, 0, "nobody else has asked for a step");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_a_copy_holds_up_names_the_copy() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
    rig.walk(Stage::ReadNew).await;
    let handle = rig.handle.clone();
    let copy = tokio::spawn(async move {
        let key = Key::from("/airports/EDDF");
        handle.copy_key(&key, Side::Old, pending::<Result<(), std::io::Error>>).await
    });
    rig.quiesce().await;
    let blocked = rig.handle.advance().await.unwrap_err();
    copy.abort();
    assert!(blocked.to_string().contains("/airports/EDDF"), "{blocked}");
}

#[tokio::test]
async fn settled_resolves_under_load_after_many_epochs() {
    let handle = MigrationHandle::builder("x").linger(Duration::ZERO).hold(MS).build().unwrap();
    let latch = Latch::default();
    let at_latch = latch.clone();
    let old = Fake::new(move |call| {
        let latch = at_latch.clone();
        async move {
            if call.uri.path().starts_with("/slow") {
                latch.passed().await;
            }
            let long = call.uri.path().as_bytes().last().map_or(0, |last| last % 16);
            sleep(MS * (7 + 6 * u32::from(long))).await;
            Ok(answer(200, ""))
        }
    });
    let rig = Rig::on(handle, old, Fake::says(200, ""), |layer| layer);
    let mut slow = Vec::new();
    for n in 0..20 {
        let to = if n % 2 == 0 { Stage::WriteBoth } else { Stage::OldOnly };
        rig.handle.force(to, "to and fro").await.unwrap();
        let request = put(&format!("/slow/{n}"), "x");
        slow.push(tokio::spawn(go(&rig, request)));
        sleep(MS * 2).await;
    }
    latch.open();
    for write in slow {
        write.await.unwrap().unwrap();
    }
    // All of those have ended. From here on a steady load of short writes.
    let until = Arc::new(AtomicBool::new(false));
    let load = busy_service(&rig, Arc::clone(&until));
    sleep(MS * 50).await;
    let settled = timeout(Duration::from_secs(5), rig.handle.settled()).await.is_ok();
    let status = rig.handle.status();
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    assert!(settled, "every write of an earlier epoch has ended 5 s ago:\n{status}");
}

fn post(path: &str) -> Req {
    http::Request::post(path).body(body("x")).unwrap()
}

/// `ramp`: "every write is acknowledged under `RequireBoth`, so both sides have
/// all that was acknowledged".
#[tokio::test]
async fn in_a_ramp_a_create_whose_sides_made_different_things_is_not_acknowledged() {
    let side = |id: &'static str| {
        Fake::new(move |call: Call| async move {
            if call.method == http::Method::POST {
                let mut made = answer(201, "");
                made.headers_mut().insert("location", id.parse().unwrap());
                return Ok(made);
            }
            let found = call.uri.path() == id;
            Ok(answer(if found { 200 } else { 404 }, ""))
        })
    };
    let rig = Rig::with(side("/airports/7"), side("/airports/9"), |layer| {
        layer.failure_policy(FailurePolicy::RequireBoth)
    });
    rig.walk(Stage::WriteBoth).await;
    rig.handle.ramp(1.0).await.unwrap();
    let created = rig.send(post("/airports")).await.unwrap();
    if created.status() != 201 {
        return;
    }
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    drop(created);
    rig.quiesce().await;
    let (status, _) = rig.ask(get(&location)).await;
    assert_eq!(
        status,
        200,
        "{location} was acknowledged with 201, and is not there; dirty: {:?}",
        rig.dirty()
    );
}

#[tokio::test]
async fn a_gate_over_errors_sees_how_new_fails_the_clients_of_a_ramp() {
    use tower_migration::gates::MaxErrorShare;
    let handle =
        MigrationHandle::builder("x").gate(MaxErrorShare::new(0.05).unwrap()).build().unwrap();
    let new = Fake::new(|call: Call| async move {
        // New fails whoever reads from it, and takes every write.
        Ok(answer(if call.method == http::Method::GET { 500 } else { 200 }, ""))
    });
    let rig = Rig::on(handle, Fake::says(200, ""), new, |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    for n in 0..200 {
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    sleep(MS * 200).await;
    rig.handle.ramp(0.5).await.unwrap();
    let mut failed = 0;
    for n in 0..200 {
        failed += u32::from(rig.ask(get(&format!("/{n}"))).await.0 == 500);
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    rig.quiesce().await;
    let evidence = rig.handle.evidence();
    let raised = rig.handle.ramp(0.9).await;
    assert!(
        raised.is_err(),
        "new failed {failed} of 200 clients' reads with 500, and the gate let more of them go there:\n{evidence}"
    );
}

#[tokio::test]
async fn a_whole_ramp_can_be_completed_although_there_are_gates() {
    use tower_migration::gates::MaxErrorShare;
    let handle =
        MigrationHandle::builder("x").gate(MaxErrorShare::new(0.05).unwrap()).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    for n in 0..200 {
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    sleep(MS * 200).await;
    rig.handle.ramp(1.0).await.unwrap();
    for n in 0..1_000 {
        assert_eq!(rig.ask(get(&format!("/{n}"))).await.0, 200);
        assert_eq!(rig.ask(put(&format!("/{n}"), "")).await.0, 200);
    }
    sleep(MS * 200).await;
    let step = rig.handle.advance().await;
    assert!(
        step.is_ok(),
        "2000 requests went well on new, all of them:\n{}\n{}",
        step.unwrap_err(),
        rig.handle.evidence()
    );
}

#[tokio::test]
async fn the_shadow_reads_that_a_gate_has_seen_are_not_forgotten_by_a_ramp() {
    use tower_migration::gates::MinComparisons;
    let handle =
        MigrationHandle::builder("x").gate(MinComparisons::new(50).unwrap()).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    for n in 0..100 {
        rig.ask(get(&format!("/{n}"))).await;
    }
    sleep(MS * 300).await;
    rig.handle.ramp(0.1).await.unwrap();
    // "everything counted since the present stage was entered"
    let seen = rig.handle.evidence().shadows.compared();
    assert!(seen >= 50, "{seen} of 100, at the same stage");
}

/// Saves fail, loads do not.
#[derive(Clone)]
struct Full {
    inner: MemoryStore,
    full: Arc<AtomicBool>,
}

impl FlagStore for Full {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.load()
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(ready(Err(StoreError::of(StoreErrorKind::Full, "no room"))));
        }
        self.inner.save(replaces, record)
    }
}

/// Design: "If the record cannot be written (full disk) it flips all the same,
/// writes wait for both sides until the record is durable".
#[tokio::test(start_paused = true)]
async fn writes_wait_for_the_record_of_an_exit_after_a_step_was_put_back() {
    let store = Full { inner: MemoryStore::new(), full: Arc::default() };
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    let rig = Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |layer| layer);
    at(&rig.handle, Stage::ReadNew).await;
    store.full.store(true, Ordering::SeqCst);
    rig.handle.rollback().await.unwrap();
    rig.handle.force(Stage::OldOnly, "get me out of here").await.unwrap_err();
    let blocked = rig.handle.advance().await.unwrap_err();
    eprintln!("{blocked}");
    rig.new.becomes(&Fake::says(500, ""));
    let began = tokio::time::Instant::now();
    assert_eq!(rig.ask(put("/b", "x")).await.0, 200);
    let waited = began.elapsed();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
    assert_eq!(store.inner.record().stage, Stage::ReadNew, "a restart leads there");
    // What the process would find after kill -9: new is the authority, and trusted.
    let again = MigrationHandle::open("x", store.inner.clone()).await.unwrap();
    eprintln!("after a kill: {}", again.status());
    assert!(
        waited >= Duration::from_secs(1),
        "/b is on old alone, was acknowledged after {waited:?}, and the record says read-new"
    );
}

#[tokio::test]
async fn nobody_joins_at_the_stage_before_while_the_record_of_an_exit_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let owner =
        MigrationHandle::open("x", FileStore::create_or_open(&path).unwrap()).await.unwrap();
    at(&owner, Stage::ReadNew).await;
    // The disk is full, as far as the store can tell.
    std::fs::create_dir_all(dir.path().join("x.flag.next/full")).unwrap();
    owner.rollback().await.unwrap();
    // Somebody makes sure.
    owner.force(Stage::WriteBoth, "sure").await.unwrap();
    let joined = timeout(Duration::from_secs(3), async {
        MigrationHandle::open("x", FileStore::open(&path).unwrap()).await.unwrap()
    })
    .await;
    if let Ok(follower) = joined {
        assert_eq!(
            follower.stage(),
            owner.stage(),
            "a follower serves at {} beside an owner at {}",
            follower.stage(),
            owner.stage()
        );
    }
}

type Rows = Arc<Mutex<std::collections::BTreeMap<String, u64>>>;

fn shelf(rows: &Rows, sick: &Arc<AtomicBool>) -> Fake {
    let (rows, sick) = (Arc::clone(rows), Arc::clone(sick));
    Fake::new(move |call: Call| {
        let (rows, sick) = (Arc::clone(&rows), Arc::clone(&sick));
        async move {
            let dice = fastrand::u8(..100);
            if dice % 3 == 0 {
                sleep(MS * u32::from(dice / 10)).await;
            } else if dice % 3 == 1 {
                tokio::task::yield_now().await;
            }
            let path = call.uri.path().to_owned();
            if call.method == http::Method::GET {
                let number = rows.lock().unwrap().get(&path).copied().unwrap_or(0);
                return Ok(answer(200, number.to_string()));
            }
            let number: u64 = std::str::from_utf8(&call.body).unwrap().parse().unwrap();
            let dice = if sick.load(Ordering::SeqCst) { fastrand::u8(..100) } else { 99 };
            match dice {
                0..3 => return Ok(answer(500, "")),
                3 => sleep(MS * 40).await,
                4..6 => {
                    rows.lock().unwrap().insert(path, number);
                    return Ok(answer(500, ""));
                }
                6 => return Ok(answer(409, "")),
                _ => {}
            }
            rows.lock().unwrap().insert(path, number);
            Ok(answer(200, ""))
        }
    })
}

async fn ramp_under_load(seconds: u64, order: tower_migration::WriteOrder) {
    let (old, new): (Rows, Rows) = Default::default();
    let sick = Arc::new(AtomicBool::new(false));
    let handle = MigrationHandle::builder("x").linger(MS * 5).build().unwrap();
    let limits = tower_migration::Limits::default();
    let rig = Arc::new(Rig::on(handle, shelf(&old, &sick), shelf(&new, &sick), |layer| {
        let limits = limits.leg_timeout(MS * 25);
        layer.write_order(order).limits(limits).unwrap()
    }));
    rig.walk(Stage::WriteBoth).await;
    let done = Arc::new(AtomicBool::new(false));
    let acked: Arc<Vec<std::sync::atomic::AtomicU64>> =
        Arc::new((0..6).map(|_| std::sync::atomic::AtomicU64::new(0)).collect());
    let stale = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let request = |method: &str, key: usize, text: String| {
        http::Request::builder().method(method).uri(format!("/{key}")).body(body(text)).unwrap()
    };
    for key in 0..6 {
        let (rig2, done2, acked2) = (Arc::clone(&rig), Arc::clone(&done), Arc::clone(&acked));
        tasks.spawn(async move {
            let mut number = 0;
            while !done2.load(Ordering::SeqCst) {
                number += 1;
                let answer = go(&rig2, request("PUT", key, number.to_string()));
                if fastrand::u8(..10) == 0 {
                    let _ = timeout(MS * 4, answer).await;
                } else if answer.await.is_ok_and(|answer| answer.status() == 200) {
                    acked2[key].fetch_max(number, Ordering::SeqCst);
                }
                // Else no copy of the key ever comes to an end.
                sleep(MS * u32::from(fastrand::u8(1..6))).await;
            }
        });
        let (rig2, done2, acked2) = (Arc::clone(&rig), Arc::clone(&done), Arc::clone(&acked));
        let stale2 = Arc::clone(&stale);
        tasks.spawn(async move {
            while !done2.load(Ordering::SeqCst) {
                let before = acked2[key].load(Ordering::SeqCst);
                let ramp = rig2.handle.status().ramp;
                let answer = go(&rig2, request("GET", key, String::new())).await.unwrap();
                let found: u64 = text(answer).await.parse().unwrap();
                if found < before {
                    stale2.lock().unwrap().push(format!(
                        "/{key}: {found} after {before} was acknowledged, ramp {ramp} -> {}",
                        rig2.handle.status().ramp
                    ));
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let began = Instant::now();
    let (mut raised, mut ended, mut refused) = (0, 0, 0);
    let mut why = String::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        let up = rig.handle.status().ramp > 0.0;
        if !up || fastrand::bool() {
            sick.store(false, Ordering::SeqCst);
            sleep(MS * 20).await;
        }
        for dirty in rig.handle.dirty_keys() {
            let Some(right) = dirty.right.source() else {
                rig.handle.resolve_conflict(&dirty.key, Side::Old);
                continue;
            };
            let (from, to) = if right == Side::Old { (&old, &new) } else { (&new, &old) };
            let path = dirty.key.to_string();
            let copy = rig.handle.copy_key(&dirty.key, right, || {
                let row = from.lock().unwrap().get(&path).copied();
                match row {
                    Some(row) => to.lock().unwrap().insert(path.clone(), row),
                    None => to.lock().unwrap().remove(&path),
                };
                ready(Ok::<(), std::io::Error>(()))
            });
            let _ = timeout(Duration::from_secs(2), copy).await;
        }
        if rig.handle.status().ramp > 0.0 && fastrand::bool() {
            rig.handle.rollback().await.unwrap();
            ended += 1;
        } else {
            let share = f64::from(fastrand::u8(..=10)) / 10.0;
            match timeout(Duration::from_secs(2), rig.handle.ramp(share)).await {
                Ok(Ok(_)) => raised += 1,
                Ok(Err(blocked)) => {
                    refused += 1;
                    why = blocked.to_string();
                }
                Err(_) => {
                    refused += 1;
                    why = rig.handle.status().to_string();
                }
            }
        }
        sick.store(true, Ordering::SeqCst);
        sleep(MS * u32::from(fastrand::u8(..12))).await;
    }
    done.store(true, Ordering::SeqCst);
    while tasks.join_next().await.is_some() {}
    let acked: Vec<_> = acked.iter().map(|n| n.load(Ordering::SeqCst)).collect();
    let stale = stale.lock().unwrap();
    eprintln!(
        "ramped {raised}, ended {ended}, refused {refused}; acked {acked:?}; stale {}; {why}",
        stale.len()
    );
    assert!(stale.is_empty(), "{:#?}", &stale[..stale.len().min(8)]);
}

#[tokio::test]
async fn a_ramp_under_load_on_one_thread() {
    for order in
        [tower_migration::WriteOrder::Concurrent, tower_migration::WriteOrder::AuthorityFirst]
    {
        ramp_under_load(2, order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_ramp_under_load_on_several_threads() {
    for order in
        [tower_migration::WriteOrder::Concurrent, tower_migration::WriteOrder::AuthorityFirst]
    {
        ramp_under_load(2, order).await;
    }
}

#[tokio::test]
async fn a_busy_key_can_be_copied_or_the_copy_says_that_it_cannot() {
    let side = || {
        Fake::new(|_| async {
            sleep(MS * 2).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Rig::new(side(), side());
    rig.walk(Stage::WriteBoth).await;
    // Two clients that write the same key, one request each at a time.
    let until = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (mut service, until) = (rig.service.clone(), Arc::clone(&until));
            tokio::spawn(async move {
                while !until.load(Ordering::SeqCst) {
                    let answer = {
                        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                        assert!(
                            tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready()
                        );
                        tower::Service::call(&mut service, put("/hot", "x"))
                    };
                    drop(answer.await.unwrap());
                }
            })
        })
        .collect();
    sleep(MS * 20).await;
    let key = Key::from("/hot");
    let copy = rig.handle.copy_key(&key, Side::Old, || ready(Ok::<(), std::io::Error>(())));
    let copied = timeout(Duration::from_secs(10), copy).await;
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    assert!(
        copied.is_ok(),
        "copy_key neither copied nor said `Contended` in 10 s; dirty: {:?}",
        rig.dirty()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn an_exit_is_put_on_record_although_the_operators_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let next = path.with_extension("flag.next");
    let service = runtime();
    let rig = service.block_on(async {
        let handle = MigrationHandle::open("x", FileStore::create(&path).unwrap()).await.unwrap();
        Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
            .at(Stage::ReadNew)
            .await
    });
    // A disk that is full for once.
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let operator = runtime();
    let moved = operator.block_on(rig.handle.rollback()).unwrap();
    assert_eq!(moved.to, Stage::WriteBoth);
    drop(operator);
    assert!(std::fs::read_to_string(&path).unwrap().contains("stage = read-new"));
    let recorded = async {
        while !std::fs::read_to_string(&path).unwrap().contains("stage = write-both") {
            rig.ask(get("/a")).await;
            sleep(MS * 20).await;
        }
        // And whoever waited for it goes on.
        while rig.handle.confirm_synced(Side::New).await.is_err() {
            sleep(MS * 20).await;
        }
    };
    service.block_on(async { timeout(20 * SECOND, recorded).await }).unwrap();
}
