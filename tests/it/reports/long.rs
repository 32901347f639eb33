//! Comparisons that take long.

use std::sync::mpsc;

use tower_migration::{
    Event, Limits,
    compare::{Answers, Diff, InconclusiveReason, Noise, SkipReason, Verdict},
};

use super::*;

fn large(letter: char) -> Fake {
    side(move |_| format!("\"{}\"", String::from(letter).repeat(100_000)))
}

#[tokio::test]
async fn long_bodies_are_compared_on_a_thread_of_their_own() {
    let here = std::thread::current().id();
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&threads);
    let compare = move |_: &Answers<'_>| {
        seen.lock().unwrap().push(std::thread::current().id() == here);
        Diff::none()
    };
    let limits = Limits::default().rereads(0);
    let rig = shadowed(large('a'), large('b'), |layer| {
        layer.compare(compare.clone()).noise(Noise::off()).limits(limits.clone()).unwrap()
    })
    .await;
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    // Small ones, and equal ones of any size, are not.
    for (old, new) in [(large('a'), large('a')), (side(|_| "1".into()), side(|_| "2".into()))] {
        let rig = shadowed(old, new, |layer| {
            layer.compare(compare.clone()).noise(Noise::off()).limits(limits.clone()).unwrap()
        })
        .await;
        rig.ask(get("/a")).await;
        rig.handle.shutdown().await;
    }
    assert_eq!(*threads.lock().unwrap(), [false, true, true]);
}

#[tokio::test]
async fn a_comparison_that_outlives_its_deadline_keeps_its_slot_and_delays_nobody() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&verdicts);
    let limits = Limits::default().shadow_tasks(1).shadow_deadline(SECOND / 20);
    let rig = shadowed(large('a'), large('b'), |layer| {
        layer
            .compare(move |_: &Answers<'_>| {
                let _ = held.lock().unwrap().recv();
                Diff::none()
            })
            .noise(Noise::off())
            .limits(limits)
            .unwrap()
            .observer(move |event: &Event<'_>| {
                if let Event::Shadow(read) = event {
                    sink.lock().unwrap().push(read.verdict.clone());
                }
            })
    })
    .await;
    rig.ask(get("/a")).await;
    // The verdict comes with the deadline, whatever the comparer does.
    rig.handle.shutdown().await;
    let late = Verdict::Inconclusive(InconclusiveReason::Deadline);
    assert_eq!(verdicts.lock().unwrap().pop(), Some(late));
    // Its thread still runs, so there is no slot for another.
    rig.ask(get("/a")).await;
    let no_slot = Verdict::Skipped(SkipReason::NoSlot);
    assert_eq!(verdicts.lock().unwrap().pop(), Some(no_slot));
    assert_eq!(rig.handle.report().no_slot, 1);
    drop(release);
}

#[tokio::test]
async fn a_comparer_that_panics_on_its_own_thread_is_counted_as_one_that_panics() {
    let rig = shadowed(large('a'), large('b'), |layer| {
        layer.compare(|_: &Answers<'_>| -> Diff {
            std::panic::resume_unwind(Box::new("on purpose"))
        })
    })
    .await;
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    assert_eq!(rig.handle.report().routes[0].failed[0].reason, "comparer_panicked");
}
