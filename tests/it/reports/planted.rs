//! Defects in a few of many answers.

use tower_migration::{Advice, MigrationHandle, PlaceKind, gates::NoRealDifference};

use super::*;

/// One answer in so many has a defect.
const RARE: u64 = 60;

fn airport(n: u64, noise: u64) -> String {
    format!(
        r#"{{"id":{n},"name":"Zürich {n}","lat":47.464{n},"runways":[{{"id":1,"len":{n}}},{{"id":2,"len":7}}],"iata":"Z{n}","updated":{n},"trace":{noise}}}"#
    )
}

/// The same with one of five defects, by its number.
fn spoiled(n: u64, noise: u64) -> String {
    let good = airport(n, noise);
    if !n.is_multiple_of(RARE) {
        return good;
    }
    match n / RARE % 5 {
        0 => good.replace("Zürich", "Zurich"),
        1 => good.replace("\"lat\":47.464", "\"lat\":47.4640000001"),
        2 => good.replace(&format!(",\"iata\":\"Z{n}\""), ""),
        3 => good.replace(&format!("\"updated\":{n}"), &format!("\"updated\":{}", n - 1)),
        _ => format!(
            r#"{{"id":{n},"name":"Zürich {n}","lat":47.464{n},"runways":[{{"id":2,"len":7}},{{"id":1,"len":{n}}}],"iata":"Z{n}","updated":{n},"trace":{noise}}}"#
        ),
    }
}

const PLACES: [&str; 6] = ["/name", "/lat", "/iata", "/updated", "/runways/*/id", "/runways/*/len"];

fn number(path: &str) -> u64 {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_planted_defect_is_found_and_named_by_its_path() {
    let (mine, theirs) = (Dice::new(1), Dice::new(2));
    let old = side(move |path| airport(number(path), mine.roll(u64::MAX)));
    let new = side(move |path| spoiled(number(path), theirs.roll(u64::MAX)));
    let rig = shadowed(old, new, |layer| layer.noise(often(0.5))).await;
    let report = read_all(&rig, (1..=6_000).map(|n| format!("/airports/{n}"))).await;
    for name in PLACES {
        let found = place(&report, name).unwrap_or_else(|| panic!("{name}: {report}"));
        assert_eq!(found.kind, PlaceKind::Real, "{name}: {report}");
        let example = found.example.as_ref().expect("an example");
        assert_eq!(number(&example.request) % RARE, 0, "{example:?}");
    }
    assert_eq!(kind(&report, "/trace"), Some(PlaceKind::Noise), "{report}");
    assert_eq!(report.places().count(), PLACES.len() + 1, "{report}");
    assert_eq!(report.advice, Advice::No);
    let name = place(&report, "/name").unwrap().example.as_ref().unwrap().clone();
    assert!(name.authority.starts_with("Zürich ") && name.other.starts_with("Zurich "));
    let iata = place(&report, "/iata").unwrap().example.as_ref().unwrap().clone();
    assert_eq!(iata.other, "(absent)");
}

#[tokio::test(start_paused = true)]
async fn a_rare_defect_is_undecided_at_first_and_in_the_way_of_a_gate() {
    let handle = MigrationHandle::builder("planted").gate(NoRealDifference::new()).build().unwrap();
    let old = side(|path| airport(number(path), 0));
    let new = side(|path| spoiled(number(path), 0));
    let rig = Rig::on(handle, old, new, |layer| {
        layer.compare(by_fields(Rules::new())).noise(often(0.05))
    });
    let rig = rig.at(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    // The first defect is that of number 60: a rounded float.
    let good = || (0..300).map(|n| n * RARE + 1);
    let report = read_all(&rig, (1..=119).chain(good()).map(|n| format!("/airports/{n}"))).await;
    assert_eq!(kind(&report, "/lat"), Some(PlaceKind::Undecided), "{report}");
    assert_eq!(report.advice, Advice::NotYet, "{report}");
    assert!(report.headline().starts_with("not yet: GET /airports/* differs at /lat in 1 of 419"));
    let blocked = rig.handle.advance().await.unwrap_err().to_string();
    assert!(
        blocked.contains("gate no real difference: GET /airports/* differs at /lat"),
        "{blocked}"
    );
    // New was mended: what was counted before says nothing any more.
    rig.handle.restart_report();
    let report = read_all(&rig, good().map(|n| format!("/airports/{n}"))).await;
    assert_eq!(report.advice, Advice::Safe, "{report}");
    rig.handle.advance().await.unwrap();
    assert_eq!(rig.handle.stage(), Stage::ReadNew);
}
