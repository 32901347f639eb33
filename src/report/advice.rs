//! Whether it is safe to go on, and why.

use std::sync::Arc;

use super::{
    Advice, PlaceKind, PlaceReport, ReasonCount, Report, RouteReport, Table, failing::Failing,
    place::FEWEST, table::Reported,
};
use crate::{
    compare::{FailReason, SkipReason},
    flag::gates::{Confidence, lower, percent, upper},
    stage::{Side, Stage},
};

/// What share of reads may differ without having been seen.
const UNSEEN: f64 = 0.01;

/// What the flag knows.
pub(crate) struct Standing {
    pub(crate) name: Arc<str>,
    pub(crate) stage: Stage,
    pub(crate) shadow_rate: f64,
    /// What stands against the next step, the gates included.
    pub(crate) against: Vec<String>,
}

/// The report, and its advice.
pub(crate) fn advise(table: &Table, standing: Standing) -> Report {
    let Standing { name, stage, shadow_rate, against } = standing;
    let reported = table.report();
    let mut wrong: Vec<String> = of_kind(&reported, PlaceKind::Real).map(real).collect();
    wrong.extend(reported.failures.iter().map(|failing| fails(failing, stage)));
    let missing = missing(&reported, stage, shadow_rate, against);
    let (advice, reasons) = match (wrong.is_empty(), missing.is_empty()) {
        (false, _) => (Advice::No, wrong.into_iter().chain(missing).collect()),
        (true, false) => (Advice::NotYet, missing),
        (true, true) => (Advice::Safe, vec![safe(&reported, stage)]),
    };
    let Reported { since, lasted, routes, no_slot, .. } = reported;
    Report { name, stage, since, lasted, advice, reasons, routes, no_slot }
}

fn of_kind(reported: &Reported, kind: PlaceKind) -> impl Iterator<Item = &PlaceReport> {
    let places = reported.routes.iter().flat_map(|route| &route.places);
    let mut places: Vec<_> = places.filter(|place| place.kind == kind).collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.differ));
    places.into_iter()
}

fn share(count: u64, of: u64) -> String {
    percent(count as f64 / of.max(1) as f64)
}

fn real(place: &PlaceReport) -> String {
    let PlaceReport { route, place, differ, compared, noise, answered_twice, .. } = place;
    format!(
        "{route} differs at {place} in {differ} of {compared} reads ({}), and from itself in \
         {noise} of {answered_twice}",
        share(*differ, *compared)
    )
}

fn fails(failing: &Failing, stage: Stage) -> String {
    let Failing { route, other: (failed, asked), authority: (authority_failed, all) } = failing;
    let authority = stage.authority();
    let other = authority.other();
    format!(
        "{other} fails {failed} of {asked} reads of {route}, {authority} {authority_failed} of {all}"
    )
}

fn missing(
    reported: &Reported,
    stage: Stage,
    shadow_rate: f64,
    against: Vec<String>,
) -> Vec<String> {
    let mut missing = Vec::new();
    if stage == Stage::NewOnly {
        missing.push("new-only is the end of the way: no step is left".to_owned());
    }
    if stage.is_two_sided() {
        let compared: u64 = reported.routes.iter().map(|route| route.compared).sum();
        let z = Confidence::P95.z();
        if upper(0, compared, z) > UNSEEN {
            let needed = (1..).find(|n| upper(0, *n, z) <= UNSEEN).unwrap_or(u64::MAX);
            let hint = match shadow_rate > 0.0 {
                true => "",
                false => ": the shadow rate is 0, so set_shadow_rate()",
            };
            missing.push(format!("{compared} reads were compared, {needed} are needed{hint}"));
        }
        missing.extend(unresolved(reported));
        for place in of_kind(reported, PlaceKind::Undecided) {
            missing.push(undecided(place));
        }
        for route in reported.routes.iter().filter(|route| route.more_places > 0) {
            missing.push(format!(
                "{} differs at more places than are kept, {} times",
                route.route, route.more_places
            ));
        }
    }
    missing.extend(against);
    missing
}

/// Reads that differed and of which nobody knows what to think. They stand against a
/// step where they may be more than may go unseen, of all reads or of one route's.
fn unresolved(reported: &Reported) -> Vec<String> {
    let z = Confidence::P95.z();
    let open: u64 = reported.routes.iter().map(RouteReport::left_open).sum();
    let compared: u64 = reported.routes.iter().map(|route| route.compared).sum();
    let many = open > 0 && upper(open, compared + open, z) > UNSEEN;
    let mut lines = Vec::new();
    for route in &reported.routes {
        let open = route.left_open();
        let all = route.compared + open;
        if open > 0 && (many || lower(open, all, z) > UNSEEN) {
            let reasons = route.unresolved.iter();
            let reasons: Vec<_> =
                reasons.map(|reason| format!("{} {}", reason.count, reason.reason)).collect();
            lines.push(format!(
                "{} differs, or may differ, in {open} of {all} reads that came to no end ({})",
                route.route,
                reasons.join(", ")
            ));
        }
    }
    lines
}

fn undecided(place: &PlaceReport) -> String {
    let PlaceReport { route, place, differ, compared, answered_twice, .. } = place;
    format!(
        "{route} differs at {place} in {differ} of {compared} reads: more reads will tell \
         whether that is noise, of which {answered_twice} were answered twice so far"
    )
}

/// How many reads were not compared for one of these reasons, or failed for one.
fn count(of: &[ReasonCount], counts: impl Fn(&str) -> bool) -> u64 {
    of.iter().filter(|reason| counts(reason.reason)).map(|reason| reason.count).sum()
}

fn safe(reported: &Reported, stage: Stage) -> String {
    if stage == Stage::OldOnly {
        return "nothing is compared at old-only".to_owned();
    }
    let sum = |of: fn(&RouteReport) -> u64| reported.routes.iter().map(of).sum::<u64>();
    let compared = sum(|route| route.compared);
    let z = Confidence::P95.z();
    let mut text = format!(
        "no real difference in {compared} reads, so at most {} of them differ at 95 % confidence",
        percent(upper(0, compared, z))
    );
    let thin = reported.routes.iter().filter(|route| route.compared < FEWEST);
    let thin: Vec<_> = thin.map(|route| &*route.route).collect();
    if !thin.is_empty() {
        let more = if thin.len() > 3 { ", …" } else { "" };
        let shown = thin[..thin.len().min(3)].join(", ");
        text.push_str(&format!("; hardly compared: {shown}{more}"));
    }
    let refused = sum(|route| {
        count(&route.skipped, |reason| reason == SkipReason::AuthorityRefused.as_str())
    });
    let authority: Side = stage.authority();
    if refused > 0 {
        text.push_str(&format!("; {refused} that {authority} refused were not compared"));
    }
    let failed =
        sum(|route| count(&route.failed, |reason| reason != FailReason::ComparerPanicked.as_str()));
    if failed > 0 {
        let other = authority.other();
        text.push_str(&format!(
            "; {other} failed {failed}, which is not shown to be more than {authority} fails"
        ));
    }
    text
}
