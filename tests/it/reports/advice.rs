//! Is it safe to go on?

use tower_migration::{
    Advice, MigrationHandle, Side, Stage,
    compare::Noise,
    gates::{Evidence, named},
};

use super::*;

fn same() -> Fake {
    side(|_| r#"{"a":1}"#.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_report_says_what_is_missing_until_nothing_is() {
    let rig = shadowed(same(), same(), |layer| layer).await;
    rig.handle.set_shadow_rate(0.0).unwrap();
    let report = rig.handle.report();
    assert_eq!(report.advice, Advice::NotYet);
    assert_eq!(
        report.headline(),
        "not yet: 0 reads were compared, 268 are needed: the shadow rate is 0, so set_shadow_rate()"
    );
    rig.handle.set_shadow_rate(1.0).unwrap();
    let report = read_all(&rig, (0..267).map(|n| format!("/a/{n}"))).await;
    assert_eq!(report.headline(), "not yet: 267 reads were compared, 268 are needed");
    let report = read_all(&rig, ["/b".to_owned()]).await;
    assert_eq!(report.advice, Advice::Safe);
    let text = report.to_string();
    assert!(
        text.starts_with("test: SAFE TO ADVANCE to read-new: no real difference in 268 reads"),
        "{text}"
    );
    assert!(text.contains("hardly compared: GET /b"), "{text}");
    assert!(text.contains("GET /a/*\n  267 compared: 267 matched, 0 mismatched"), "{text}");
    assert!(text.contains("old p50 "), "{text}");
    // A dirty key stands in the way, and so says the step.
    rig.handle.mark_dirty(&"/a/1".into(), Side::Old);
    let report = rig.handle.report();
    assert_eq!(report.advice, Advice::NotYet);
    assert!(report.headline().contains("dirty"), "{}", report.headline());
    assert!(rig.handle.advance().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn each_stage_is_counted_by_itself() {
    let rig = shadowed(same(), same(), |layer| layer).await;
    read_all(&rig, (0..300).map(|n| format!("/a/{n}"))).await;
    assert_eq!(rig.handle.report().compared(), 300);
    rig.walk(Stage::ReadNew).await;
    let report = rig.handle.report();
    assert_eq!((report.compared(), report.stage), (0, Stage::ReadNew));
    assert!(report.since >= std::time::UNIX_EPOCH);
    let report = read_all(&rig, ["/a/1".to_owned()]).await;
    let route = &report.routes[0];
    assert_eq!((route.compared, route.new.unwrap().count, route.old.unwrap().count), (1, 1, 1));
    rig.walk(Stage::NewOnly).await;
    let report = rig.handle.report();
    assert_eq!(report.advice, Advice::NotYet);
    assert_eq!(report.reasons, ["new-only is the end of the way: no step is left"]);
}

#[tokio::test(start_paused = true)]
async fn gates_speak_in_the_report() {
    let handle = MigrationHandle::builder("gated")
        .gate(named("sign-off", |_: &Evidence| Err("nobody has signed".into())))
        .build()
        .unwrap();
    let report = handle.report();
    assert_eq!(report.advice, Advice::NotYet);
    assert!(report.headline().contains("nobody has signed"), "{}", report.headline());
}

#[tokio::test(start_paused = true)]
async fn a_side_that_fails_more_than_the_authority_is_wrong() {
    let dice = Dice::new(7);
    let new = Fake::new(move |_| {
        let fails = dice.roll(10) == 0;
        async move { if fails { Err("out of order".into()) } else { Ok(json(r#"{"a":1}"#.to_owned())) } }
    });
    let rig = shadowed(same(), new, |layer| layer.noise(Noise::off())).await;
    let report = read_all(&rig, (0..500).map(|n| format!("/a/{n}"))).await;
    assert_eq!(report.advice, Advice::No, "{report}");
    assert!(report.headline().starts_with("no: new fails "), "{}", report.headline());
    assert_eq!(report.routes[0].failed[0].reason, "error");
    // One that the authority shares is nobody's fault: it is not even compared.
    let dice = Dice::new(8);
    let both = || {
        let dice = dice.clone();
        Fake::new(move |_| {
            let fails = dice.roll(10) == 0;
            async move { Ok(if fails { answer(503, "") } else { json(r#"{"a":1}"#.to_owned()) }) }
        })
    };
    let rig = shadowed(both(), side(|_| r#"{"a":1}"#.to_owned()), |layer| layer).await;
    let report = read_all(&rig, (0..500).map(|n| format!("/a/{n}"))).await;
    assert_eq!(report.advice, Advice::Safe, "{report}");
    assert_eq!(report.routes[0].skipped[0].reason, "authority_failed");
}

#[tokio::test(start_paused = true)]
async fn a_304_of_the_other_side_is_no_difference() {
    let new = Fake::new(|_| async { Ok(answer(304, "")) });
    let rig = shadowed(same(), new, |layer| layer).await;
    let report = read_all(&rig, ["/a".to_owned()]).await;
    let route = &report.routes[0];
    assert_eq!(route.inconclusive[0].reason, "not_modified");
    assert_eq!((route.compared, route.mismatched), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_report_is_data() {
    let new = side(|_| r#"{"a":2}"#.to_owned());
    let rig = shadowed(same(), new, |layer| layer.noise(Noise::off())).await;
    let report = read_all(&rig, (0..20).map(|n| format!("/a/{n}"))).await;
    let data = serde_json::to_value(&report).unwrap();
    assert_eq!(data["advice"], "no");
    assert_eq!(data["routes"][0]["route"], "GET /a/*");
    assert_eq!(data["routes"][0]["places"][0]["place"], "/a");
    assert_eq!(data["routes"][0]["places"][0]["kind"], "real");
    assert_eq!(data["routes"][0]["places"][0]["example"]["request"], "GET /a/0");
    assert_eq!(data["routes"][0]["places"][0]["example"]["other"], "2");
}
