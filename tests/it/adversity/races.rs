//! The turn, the moment it changes hands.

use tower_migration::Blocked;

use super::*;

/// Tries again and again, on more threads than the machine has, until something
/// is found or the time is over.
fn search<F>(attempt: impl Fn() -> F)
where
    F: Future<Output = Option<String>> + Send,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let spin = |stop: Arc<AtomicBool>| {
        move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        }
    };
    let burners: Vec<_> = (0..3).map(|_| std::thread::spawn(spin(Arc::clone(&stop)))).collect();
    let seconds = std::env::var("RACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let (found, tried) = runtime.block_on(async {
        let began = Instant::now();
        let (mut found, mut tried) = (None, 0_u32);
        while began.elapsed() < Duration::from_secs(seconds) && found.is_none() {
            found = attempt().await;
            tried += 1;
        }
        (found, tried)
    });
    stop.store(true, Ordering::Relaxed);
    burners.into_iter().for_each(|burner| burner.join().unwrap());
    runtime.shutdown_background();
    assert_eq!(found, None, "at try {tried}");
}

/// Starts an orderly step to `to`, which waits, raised, for a write that hangs on
/// `on`.
async fn waiting_step(rig: &Rig, on: Side, to: Stage) -> JoinHandle<Result<Moved, Blocked>> {
    drop(tokio::spawn(go(rig, put("/a", "1"))));
    while rig.side(on).count() == 0 {
        tokio::task::yield_now().await;
    }
    let handle = rig.handle.clone();
    let before = handle.status().epoch;
    let step = tokio::spawn(async move { handle.move_to(to).await });
    while rig.handle.status().epoch == before {
        tokio::task::yield_now().await;
    }
    step
}

/// The flag must be put back before anybody else can have the turn.
#[test]
fn a_step_that_gives_way_does_not_undo_the_step_it_gave_way_to() {
    search(|| async {
        let rig = Rig::new(Fake::says(200, "old"), Fake::hangs());
        at(&rig.handle, Stage::WriteBoth).await;
        let step = waiting_step(&rig, Side::New, Stage::ReadNew).await;
        let moved = rig.handle.force(Stage::OldOnly, "x").await.unwrap();
        let _ = step.await;
        sleep(MS).await;
        let now = rig.handle.status();
        let undone = (now.stage, now.epoch) != (Stage::OldOnly, moved.epoch);
        undone.then(|| format!("forced to {} in epoch {}, but: {now}", moved.to, moved.epoch))
    });
}

/// The same, with the emergency exit: it answers `Ok` and new still answers.
#[test]
fn an_emergency_exit_is_not_undone_by_the_orderly_step_that_gave_way_to_it() {
    search(|| async {
        let rig = Rig::new(Fake::hangs(), Fake::says(200, "new"));
        at(&rig.handle, Stage::ReadNew).await;
        let step = waiting_step(&rig, Side::Old, Stage::WriteBoth).await;
        let moved = rig.handle.rollback().await.unwrap();
        let _ = step.await;
        sleep(MS).await;
        let now = rig.handle.status();
        (now.stage != Stage::WriteBoth).then(|| format!("moved to {}, but: {now}", moved.to))
    });
}
