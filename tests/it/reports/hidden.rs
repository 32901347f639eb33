//! Defects that something else could hide: noise beside them, reads that come to no
//! end, an authority that has nothing to say. Each has once been hidden.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tower_migration::{
    Advice, Limits, PlaceKind, Role, Stage,
    compare::{Answers, Diff},
};

use super::*;

fn number(path: &str) -> u64 {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

fn numbered(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("/x/{n}"))
}

#[tokio::test(start_paused = true)]
async fn a_defect_after_a_noisy_list_is_found() {
    let document = |dice: &Dice, total: u64| {
        let dice = dice.clone();
        side(move |_| {
            let row = |n| format!(r#"{{"id":{n},"trace":{}}}"#, dice.roll(u64::MAX));
            let rows: Vec<_> = (0..40).map(row).collect();
            format!(r#"{{"items":[{}],"total":{total}}}"#, rows.join(","))
        })
    };
    let dice = Dice::new(1);
    let rig = shadowed(document(&dice, 40), document(&dice, 41), |l| l.noise(often(0.05))).await;
    let report = read_all(&rig, numbered(0..400)).await;
    assert_eq!(kind(&report, "/total"), Some(PlaceKind::Real), "{report}");
    assert_eq!(report.advice, Advice::No);
}

#[tokio::test(start_paused = true)]
async fn more_noisy_places_than_are_listed_are_not_taken_for_noise_only() {
    let document = |dice: &Dice, total: u64| {
        let dice = dice.clone();
        side(move |_| {
            let members = (0..40).map(|n| format!(r#""a{n}":{}"#, dice.roll(u64::MAX)));
            format!(r#"{{{},"total":{total}}}"#, members.collect::<Vec<_>>().join(","))
        })
    };
    let dice = Dice::new(2);
    let rig = shadowed(document(&dice, 40), document(&dice, 41), |l| l.noise(often(0.05))).await;
    let report = read_all(&rig, numbered(0..400)).await;
    assert_eq!(report.advice, Advice::NotYet, "{report}");
    assert_eq!((report.routes[0].noisy, report.routes[0].mismatched), (0, 0), "{report}");
    assert_eq!(report.routes[0].inconclusive[0].reason, "unlisted");
}

#[tokio::test(start_paused = true)]
async fn one_change_of_mind_of_the_authority_excuses_no_defect() {
    let asked = Arc::new(AtomicU64::new(0));
    let old = Fake::new(move |call| {
        let again = call.dispatch.is_some_and(|dispatch| dispatch.role == Role::Shadow);
        // The data changes once, from elsewhere, while /x/400 is read again.
        let n = number(call.uri.path());
        let changed = n == 400 && again && asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move { Ok(json(format!(r#"{{"name":"{}"}}"#, if changed { "b" } else { "a" }))) }
    });
    let wrong = |path: &str| number(path).is_multiple_of(400);
    let new =
        side(move |path| format!(r#"{{"name":"{}"}}"#, if wrong(path) { "WRONG" } else { "a" }));
    let rig = shadowed(old, new, |l| l.noise(often(0.05))).await;
    let report = read_all(&rig, numbered(1..4_000)).await;
    assert_ne!(report.advice, Advice::Safe, "{report}");
    assert_ne!(kind(&report, "/name"), Some(PlaceKind::Noise), "{report}");
}

/// The authority is wrong now and then by itself, for one answer, and so is new; and
/// new is wrong about the same rows besides.
#[tokio::test(start_paused = true)]
async fn a_defect_at_a_place_of_rare_noise_is_found() {
    let dice = Dice::new(5);
    let document = |bad: bool| {
        let dice = dice.clone();
        side(move |path| {
            let flaky = dice.roll(500) == 0;
            let wrong = bad && number(path) % 200 == 7;
            let name = if wrong {
                "Zurich"
            } else if flaky {
                "??"
            } else {
                "Zürich"
            };
            format!(r#"{{"name":"{name}"}}"#)
        })
    };
    let rig = shadowed(document(false), document(true), |l| l.noise(often(0.05))).await;
    for part in 0..20 {
        let report = read_all(&rig, numbered(part * 250..(part + 1) * 250)).await;
        assert_ne!(report.advice, Advice::Safe, "after part {part}: {report}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_of_members_that_are_data_leave_room_for_defects() {
    let document = |dice: &Dice, bad: bool| {
        let dice = dice.clone();
        side(move |path| {
            let random = dice.roll(u64::MAX);
            let name = if bad && number(path) % 100 == 99 { "Zurich" } else { "Zürich" };
            format!(r#"{{"name":"{name}","spans":{{"s{random}":1}}}}"#)
        })
    };
    let dice = Dice::new(3);
    let rig = shadowed(document(&dice, false), document(&dice, true), |l| l.noise(often(0.05)));
    let rig = rig.await;
    let report = read_all(&rig, numbered(0..1_000)).await;
    assert!(place(&report, "/name").is_some_and(|place| place.differ > 0), "{report}");
    assert_ne!(report.advice, Advice::Safe);
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_knows_nothing_hides_no_failure_of_the_other() {
    // Every second row is not there; of the others new fails a third.
    let old = Fake::new(|call| {
        let there = number(call.uri.path()).is_multiple_of(2);
        async move { Ok(if there { json("{}".to_owned()) } else { answer(404, "") }) }
    });
    let new = Fake::new(|call| {
        let fails = number(call.uri.path()).is_multiple_of(6);
        async move { if fails { Err("out of order".into()) } else { Ok(json("{}".to_owned())) } }
    });
    let rig = shadowed(old, new, |l| l.noise(Noise::off())).await;
    let report = read_all(&rig, numbered(0..1_200)).await;
    assert_eq!(
        report.headline(),
        "no: new fails 200 of 600 reads of GET /x/*, old 0 of 1200",
        "{report}"
    );
    // Where nothing fails, it is said that they were not compared.
    let old = Fake::new(|call| {
        let there = number(call.uri.path()).is_multiple_of(2);
        async move { Ok(if there { json("{}".to_owned()) } else { answer(404, "") }) }
    });
    let rig = shadowed(old, side(|_| "{}".to_owned()), |l| l).await;
    let report = read_all(&rig, numbered(0..1_200)).await;
    assert_eq!(report.advice, Advice::Safe, "{report}");
    assert!(report.headline().contains("600 that old refused were not compared"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_differ_and_come_to_no_end_stand_against_the_step() {
    // New is wrong, and hangs when it is asked again.
    let asked = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let new = Fake::new(move |call| {
        let path = call.uri.path().to_owned();
        let wrong = number(&path).is_multiple_of(3);
        let again = !asked.lock().unwrap().insert(path);
        async move {
            if wrong && again {
                std::future::pending::<()>().await;
            }
            Ok(json(format!(r#"{{"a":{}}}"#, u8::from(wrong))))
        }
    });
    let rig = shadowed(side(|_| r#"{"a":0}"#.to_owned()), new, |l| {
        l.noise(Noise::off()).limits(Limits::default().shadow_deadline(SECOND)).unwrap()
    });
    let rig = rig.await;
    let report = read_all(&rig, numbered(0..600)).await;
    assert_eq!(report.advice, Advice::NotYet, "{report}");
    assert_eq!(
        report.headline(),
        "not yet: GET /x/* differs, or may differ, in 200 of 600 reads that came to no end \
         (200 deadline)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_comparer_that_panics_where_the_sides_differ_is_not_safe() {
    let new = side(|path| format!(r#"{{"a":{}}}"#, u8::from(number(path).is_multiple_of(3))));
    let comparer = |answers: &Answers<'_>| {
        assert_eq!(answers.authority.body, answers.other.body);
        Diff::none()
    };
    let rig = shadowed(side(|_| r#"{"a":0}"#.to_owned()), new, |l| {
        l.noise(Noise::off()).compare(comparer)
    });
    let rig = rig.await;
    let report = read_all(&rig, numbered(0..600)).await;
    assert_eq!(report.advice, Advice::NotYet, "{report}");
    assert!(report.headline().contains("(200 comparer_panicked)"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_count_began_is_not_counted() {
    let old = || side(|_| r#"{"n":1}"#.to_owned());
    let new = || side(|path| format!(r#"{{"n":{}}}"#, 1 + u8::from(path == "/x/1")));
    // The next stage.
    let rig = shadowed(old(), new(), |l| l.noise(often(0.5))).await;
    for _ in 0..40 {
        rig.ask(get("/x/1")).await;
    }
    rig.walk(Stage::ReadNew).await;
    let report = read_all(&rig, []).await;
    assert_eq!((report.compared(), report.places().count()), (0, 0), "{report}");
    // And the same stage.
    let rig = shadowed(old(), new(), |l| l.noise(often(0.5))).await;
    for _ in 0..40 {
        rig.ask(get("/x/1")).await;
    }
    rig.handle.restart_report();
    let report = read_all(&rig, numbered(2..3)).await;
    assert_eq!((report.compared(), report.places().count()), (1, 0), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_huge_error_is_kept_short() {
    let new = Fake::new(|_| async { Err("e".repeat(5_000_000).into()) });
    let heard = Arc::new(Mutex::new(0));
    let longest = Arc::clone(&heard);
    let rig = shadowed(side(|_| "{}".to_owned()), new, |l| {
        l.observer(move |event: &tower_migration::Event<'_>| {
            if let tower_migration::Event::Shadow(read) = event {
                let length = read.error.as_ref().map_or(0, String::len);
                let mut longest = longest.lock().unwrap();
                *longest = length.max(*longest);
            }
        })
    });
    read_all(&rig.await, numbered(0..3)).await;
    assert_eq!(*heard.lock().unwrap(), 1_003);
}
