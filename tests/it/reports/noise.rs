//! A service that differs from itself.

use tower_migration::{
    Advice, Limits, PlaceKind, Role, Stage,
    compare::{InconclusiveReason, Noise, Verdict},
};

use super::*;
use crate::shadow::Shadowed;

/// An airport with a new id and the time of day in each answer.
fn restless(dice: &Dice) -> Fake {
    let dice = dice.clone();
    side(move |path| {
        let (id, at) = (dice.roll(u64::MAX), dice.roll(1_000_000));
        format!(r#"{{"request_id":"{id}","at":{at},"path":"{path}","list":[{{"trace":{id}}}]}}"#)
    })
}

#[tokio::test(start_paused = true)]
async fn random_ids_and_times_are_no_difference() {
    let dice = Dice::new(1);
    let rig = shadowed(restless(&dice), restless(&dice), |layer| layer.noise(often(0.5))).await;
    let report = read_all(&rig, (0..600).map(|n| format!("/airports/{n}"))).await;
    assert_eq!(report.advice, Advice::Safe, "{report}");
    let [route] = &report.routes[..] else { panic!("one route: {report}") };
    assert_eq!(&*route.route, "GET /airports/*");
    assert_eq!((route.mismatched, route.noisy, route.compared), (0, 600, 600));
    for name in ["/request_id", "/at", "/list/*/trace"] {
        assert_eq!(kind(&report, name), Some(PlaceKind::Noise), "{name}: {report}");
    }
    assert_eq!(report.places().count(), 3);
    assert!(rig.handle.recent_mismatches().is_empty());
    assert_eq!(rig.handle.evidence().shadows.mismatches, 0);
    assert!(report.to_string().contains("noise at /request_id: "), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_first_read_that_differs_in_noise_alone_is_known_to_be_noise() {
    let dice = Dice::new(2);
    let s = Shadowed::new(restless(&dice), restless(&dice)).await;
    s.rig.ask(get("/a")).await;
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Inconclusive(InconclusiveReason::Noise));
}

#[tokio::test(start_paused = true)]
async fn a_difference_beside_noise_is_found_and_named_alone() {
    let dice = Dice::new(3);
    let (old, new) = (dice.clone(), dice);
    let old = side(move |_| format!(r#"{{"id":{},"name":"Zürich"}}"#, old.roll(u64::MAX)));
    let new = side(move |_| format!(r#"{{"id":{},"name":"Zurich"}}"#, new.roll(u64::MAX)));
    let rig = shadowed(old, new, |layer| layer).await;
    read_all(&rig, ["/a".to_owned()]).await;
    let [mismatch] = &rig.handle.recent_mismatches()[..] else { panic!("one") };
    assert_eq!(mismatch.diff.to_string(), r#"/name: "Zürich" against "Zurich""#);
    assert_eq!(&*mismatch.route, "GET /a");
}

/// A field that has another value in one answer of ten, on either side, and keeps it
/// while a read is made again.
fn moody(dice: &Dice, salt: u64) -> Fake {
    let dice = dice.clone();
    let moods = Mutex::new(std::collections::HashMap::<String, (u64, u64)>::new());
    side(move |path| {
        let mut moods = moods.lock().unwrap();
        let (mood, left) = moods.entry(path.to_owned()).or_insert((0, 0));
        if *left == 0 {
            (*mood, *left) = (u64::from(dice.roll(10) == 0) * (1 + salt), 1);
        }
        format!(r#"{{"mood":{mood}}}"#)
    })
}

#[tokio::test(start_paused = true)]
async fn what_differs_now_and_then_on_either_side_is_not_called_real() {
    // Every answer of its own: nothing is stable, so nothing may be called real.
    let dice = Dice::new(4);
    let flips = |dice: &Dice| {
        let dice = dice.clone();
        side(move |_| format!(r#"{{"mood":{}}}"#, u64::from(dice.roll(10) == 0)))
    };
    let rig = shadowed(flips(&dice), flips(&dice), |layer| {
        // The first difference counts, so only the statistics can tell.
        layer.noise(often(0.5)).limits(Limits::default().rereads(0)).unwrap()
    })
    .await;
    let report = read_all(&rig, (0..2_000).map(|n| format!("/{n}"))).await;
    let mood = place(&report, "/mood").expect("it differs");
    assert!(mood.differ > 200 && mood.noise > 50, "{report}");
    assert_eq!(mood.kind, PlaceKind::Noise, "{report}");
    assert_eq!(report.advice, Advice::Safe, "{report}");
    // Known by now, so it is not reported as a mismatch any more.
    assert!(report.routes[0].noisy > report.routes[0].mismatched, "{report}");
}

#[tokio::test(start_paused = true)]
async fn what_differs_more_often_than_the_authority_from_itself_is_real() {
    let dice = Dice::new(5);
    let rig = shadowed(moody(&dice, 0), side(|_| r#"{"mood":7}"#.to_owned()), |layer| {
        layer.noise(often(0.5))
    })
    .await;
    let report = read_all(&rig, (0..200).map(|n| format!("/x/{n}"))).await;
    assert_eq!(kind(&report, "/mood"), Some(PlaceKind::Real), "{report}");
    assert_eq!(report.advice, Advice::No, "{report}");
    assert!(report.headline().starts_with("no: GET /x/* differs at /mood in 200 of 200 reads"));
}

#[tokio::test(start_paused = true)]
async fn the_authority_is_asked_twice_for_a_share_of_the_reads_and_never_where_it_says_so() {
    let same = || side(|_| "{}".to_owned());
    let rig =
        shadowed(same(), same(), |layer| layer.noise(often(0.2).never(["/exports/**"]).unwrap()))
            .await;
    read_all(&rig, (0..500).map(|n| format!("/airports/{n}"))).await;
    let asked = rig.old.count() - 500;
    assert!((60..=140).contains(&asked), "{asked} of 500");
    assert_eq!(rig.new.count(), 500, "the other side is asked once");
    let before = rig.old.count();
    let report = read_all(&rig, (0..200).map(|n| format!("/exports/2026/{n}"))).await;
    assert_eq!(rig.old.count() - before, 200);
    let twice: Vec<_> = report.routes.iter().map(|r| (&*r.route, r.answered_twice)).collect();
    assert_eq!(twice, [("GET /airports/*", asked as u64), ("GET /exports/*/*", 0)]);
    // None at all, if it is off.
    let rig = shadowed(same(), same(), |layer| layer.noise(Noise::off())).await;
    read_all(&rig, (0..100).map(|n| format!("/airports/{n}"))).await;
    assert_eq!(rig.old.count(), 100);
    for bad in [-0.1, 0.51, f64::NAN] {
        assert!(Noise::share(bad).is_err());
    }
    assert!(Noise::off().never(["exports"]).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_second_answer_of_the_authority_delays_nobody_and_fails_nothing() {
    // It answers clients at once, and hangs when it is asked by a shadow read.
    let old = Fake::new(|call| async move {
        if call.dispatch.is_some_and(|dispatch| dispatch.role == Role::Shadow) {
            std::future::pending::<()>().await;
        }
        Ok(json("{}".to_owned()))
    });
    let rig = shadowed(old, side(|_| "{ }".to_owned()), |layer| layer.noise(often(0.5))).await;
    for n in 0..40 {
        let (status, text) = rig.ask(get(&format!("/{n}"))).await;
        assert_eq!((status, &*text), (200, "{}"));
    }
    rest(&rig).await;
    assert!(rig.old.count() > 40, "it was asked twice");
    let report = rig.handle.report();
    let route = &report.routes[0];
    assert_eq!((route.matched, &route.failed[..], &route.skipped[..]), (40, &[][..], &[][..]));
    assert_eq!(route.answered_twice, 0);
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_heals_is_transient_and_reported_as_such() {
    let times = Mutex::new(0);
    let new = side(move |_| {
        let mut times = times.lock().unwrap();
        *times += 1;
        format!(r#"{{"version":{}}}"#, u8::from(*times > 1))
    });
    let rig = shadowed(side(|_| r#"{"version":1}"#.to_owned()), new, |layer| layer).await;
    let report = read_all(&rig, ["/a".to_owned()]).await;
    assert_eq!((report.routes[0].transient, report.routes[0].mismatched), (1, 0), "{report}");
    assert_eq!(report.places().count(), 0);
    assert_eq!(rig.handle.stage(), Stage::WriteBoth);
}

#[tokio::test(start_paused = true)]
async fn only_what_differs_each_time_is_a_mismatch() {
    // Another field is wrong each time; one is wrong always.
    let times = Mutex::new(0);
    let new = side(move |_| {
        let mut times = times.lock().unwrap();
        *times += 1;
        let wrong = |n| if *times == n { 9 } else { 1 };
        format!(r#"{{"a":{},"b":{},"c":{},"d":9}}"#, wrong(1), wrong(2), wrong(3))
    });
    let old = side(|_| r#"{"a":1,"b":1,"c":1,"d":1}"#.to_owned());
    let rig = shadowed(old, new, |layer| layer).await;
    read_all(&rig, ["/a".to_owned()]).await;
    let [mismatch] = &rig.handle.recent_mismatches()[..] else { panic!("one") };
    assert_eq!(mismatch.diff.to_string(), r#"/d: "1" against "9""#);
}

#[tokio::test(start_paused = true)]
async fn a_write_in_the_pause_before_a_read_is_made_again_makes_no_mismatch_of_noise() {
    let dice = Dice::new(6);
    let rig = shadowed(restless(&dice), restless(&dice), |layer| layer.noise(Noise::off())).await;
    rig.ask(get("/a")).await;
    // The read is made again after 50 ms and after 100 ms more: one write before each.
    for _ in 0..2 {
        tokio::time::sleep(SECOND / 40).await;
        rig.ask(put("/a", "")).await;
        tokio::time::sleep(SECOND / 25).await;
    }
    rest(&rig).await;
    assert!(rig.handle.recent_mismatches().is_empty(), "{}", rig.handle.report());
    let route = &rig.handle.report().routes[0];
    assert_eq!(route.inconclusive[0].reason, "raced");
}
