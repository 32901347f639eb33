//! Whatever the traffic, the report stays small.

use tower_migration::{Advice, MigrationHandle, compare::Noise};

use super::*;

#[tokio::test(start_paused = true)]
async fn routes_and_places_without_room_are_counted_together() {
    let handle = MigrationHandle::builder("small").report_routes(3).report_places(2);
    let handle = handle.build().unwrap();
    let old = side(|path| format!(r#"{{"{}":1}}"#, path.replace('/', "_")));
    let rig = Rig::on(handle, old, side(|_| "{}".to_owned()), |layer| {
        layer.compare(by_fields(Rules::new())).noise(Noise::off())
    });
    let rig = rig.at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let words = ["a", "b", "c", "d", "e"];
    let report = read_all(&rig, words.map(|word| format!("/{word}"))).await;
    let mut routes: Vec<_> = report.routes.iter().map(|r| (&*r.route, r.compared)).collect();
    routes.sort_unstable();
    assert_eq!(routes, [("(others)", 2), ("GET /a", 1), ("GET /b", 1), ("GET /c", 1)]);
    // Each number makes a place of its own on one route.
    let report = read_all(&rig, (0..40).map(|n| format!("/a/{n}"))).await;
    let others = report.routes.iter().find(|route| &*route.route == "(others)").unwrap();
    assert_eq!((others.places.len(), others.more_places), (2, 40));
    assert_ne!(report.advice, Advice::Safe);
    let says = report.reasons.iter().any(|reason| reason.contains("more places than are kept"));
    assert!(says, "{report}");
    for zero in [
        MigrationHandle::builder("x").report_routes(0),
        MigrationHandle::builder("x").report_places(0),
    ] {
        assert!(zero.build().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn routes_can_be_named() {
    let same = || side(|_| "{}".to_owned());
    let rig =
        shadowed(same(), same(), |layer| layer.routes(["/cities/*", "/cities/**"]).unwrap()).await;
    let paths = ["/cities/berlin", "/cities/bern?x=1", "/cities/bonn/map", "/towns/ulm/7"];
    let report = read_all(&rig, paths.map(str::to_owned)).await;
    let mut routes: Vec<_> = report.routes.iter().map(|r| (&*r.route, r.compared)).collect();
    routes.sort_unstable();
    let named = [("GET /cities/*", 2), ("GET /cities/**", 1), ("GET /towns/ulm/*", 1)];
    assert_eq!(routes, named);
}
