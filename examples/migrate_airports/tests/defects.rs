//! `--defects`: each of the five is there, in a few answers, and has its own place.

use std::collections::BTreeMap;

use serde_json::Value;
use tower_migration::{
    Side,
    compare::{Context, json::Json, rules::Rules},
};

use crate::{CSV, defects::Defects, seed};

/// Every so many rows of the data set: a debug build takes long over all.
const STEP: usize = 7;

/// The places at which new's answer differs.
fn places(defects: &Defects, comparer: &Json, old: &Value) -> Vec<String> {
    let mut new = old.clone();
    defects.spoil(&mut new);
    let (old, new) = (old.to_string(), new.to_string());
    let diff = comparer.documents(old.as_bytes(), new.as_bytes(), Context::new(Side::Old));
    diff.differences().iter().map(|difference| difference.place.clone()).collect()
}

#[test]
fn each_defect_is_in_a_few_airports_and_has_its_own_place() {
    let (defects, comparer) = (Defects::default(), Json::new());
    let rows = seed::read(CSV).unwrap().into_iter().step_by(STEP);
    let rows: Vec<_> = rows.map(|row| serde_json::to_value(row).unwrap()).collect();
    let mut found = BTreeMap::<String, usize>::new();
    for mut row in rows.clone() {
        let first = places(&defects, &comparer, &row);
        // Written, and read again.
        row["elevation"] = (row["elevation"].as_f64().unwrap() + 10.0).into();
        let again = places(&defects, &comparer, &row);
        assert!(!first.contains(&"/elevation".to_owned()), "{row}");
        assert!(again.len() <= 1, "{row} {again:?}");
        again.into_iter().for_each(|place| *found.entry(place).or_default() += 1);
    }
    assert_eq!(Vec::from_iter(found.keys()), ["/city", "/elevation", "/lat", "/subd"]);
    for (place, count) in found {
        assert!((20..rows.len() / 8).contains(&count), "{place}: {count} of {}", rows.len());
    }
}

#[test]
fn pages_of_some_countries_are_reversed_which_a_rule_lets_pass() {
    let (defects, ordered) = (Defects::default(), Json::new());
    let unordered = Json::with(Rules::new().unordered("").unwrap());
    let mut countries = BTreeMap::<String, Vec<Value>>::new();
    for row in seed::read(CSV).unwrap() {
        let page = countries.entry(row.country.clone()).or_default();
        page.push(serde_json::to_value(row).unwrap());
    }
    let pages: Vec<_> = countries.into_values().filter(|page| page.len() > 1).collect();
    let mut reversed = 0;
    for page in pages.iter().cloned().map(|page| page.into_iter().take(20).collect()) {
        let found = places(&defects, &ordered, &page);
        reversed += usize::from(found.contains(&"/*/icao".to_owned()));
        assert!(places(&defects, &unordered, &page).is_empty(), "{page}");
    }
    assert!((10..pages.len() / 4).contains(&reversed), "{reversed} of {}", pages.len());
}
