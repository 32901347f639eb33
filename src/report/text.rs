//! The report as a page.

use std::fmt;

use super::{PlaceKind, PlaceReport, ReasonCount, Report, RouteReport, SideLatency};

/// How many places of a route are shown.
const SHOWN: usize = 8;

/// A page for a person.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = self.advice.as_str().to_uppercase();
        let to = self.stage.next().map_or(String::new(), |next| format!(" to {next}"));
        let first = self.reasons.first().map_or("", String::as_str);
        match self.advice {
            super::Advice::Safe => writeln!(f, "{}: {advice}{to}: {first}", self.name)?,
            _ => writeln!(f, "{}: {advice}: {first}", self.name)?,
        }
        for reason in self.reasons.iter().skip(1).take(SHOWN) {
            writeln!(f, "  also: {reason}")?;
        }
        if self.reasons.len() > SHOWN + 1 {
            writeln!(f, "  and {} more", self.reasons.len() - SHOWN - 1)?;
        }
        writeln!(
            f,
            "  at {} for {:.0?}: {} reads compared",
            self.stage,
            self.lasted,
            self.compared()
        )?;
        if self.no_slot > 0 {
            writeln!(f, "  {} more were not, since no slot was free", self.no_slot)?;
        }
        for route in &self.routes {
            write_route(f, route)?;
        }
        Ok(())
    }
}

fn write_route(f: &mut fmt::Formatter<'_>, route: &RouteReport) -> fmt::Result {
    let RouteReport { compared, matched, mismatched, transient, noisy, .. } = route;
    writeln!(f, "{}", route.route)?;
    write!(f, "  {compared} compared: {matched} matched, {mismatched} mismatched")?;
    for (count, what) in [(transient, "healed"), (noisy, "noise only")] {
        if *count > 0 {
            write!(f, ", {count} {what}")?;
        }
    }
    writeln!(f)?;
    for (what, reasons) in [
        ("inconclusive", &route.inconclusive),
        ("skipped", &route.skipped),
        ("failed", &route.failed),
        ("of these, unresolved", &route.unresolved),
    ] {
        if !reasons.is_empty() {
            let all =
                reasons.iter().map(|ReasonCount { reason, count }| format!("{count} {reason}"));
            writeln!(f, "  {what}: {}", all.collect::<Vec<_>>().join(", "))?;
        }
    }
    let sides = [("old", route.old), ("new", route.new)];
    let took = sides.iter().filter_map(|(side, latency)| {
        let SideLatency { p50, p99, .. } = (*latency)?;
        Some(format!("{side} p50 {p50:.1?}, p99 {p99:.1?}"))
    });
    let took: Vec<_> = took.collect();
    if !took.is_empty() {
        writeln!(f, "  {}", took.join("; "))?;
    }
    for place in route.places.iter().take(SHOWN) {
        write_place(f, place)?;
    }
    let more = route.places.len().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(f, "  … and at {more} more places")?;
    }
    Ok(())
}

fn write_place(f: &mut fmt::Formatter<'_>, place: &PlaceReport) -> fmt::Result {
    let kind = match place.kind {
        PlaceKind::Real => "DIFFERS",
        PlaceKind::Undecided => "differs?",
        PlaceKind::Noise => "noise",
    };
    write!(f, "  {kind} at {}: {} of {}", place.place, place.differ, place.compared)?;
    write!(f, ", from itself {} of {}", place.noise, place.answered_twice)?;
    if place.contradicted > 0 {
        write!(f, ", {} contradicted", place.contradicted)?;
    }
    writeln!(f)?;
    match &place.example {
        Some(example) if place.kind != PlaceKind::Noise => writeln!(
            f,
            "    {} at {}: {:?} against {:?}",
            example.request, example.what, example.authority, example.other
        ),
        _ => Ok(()),
    }
}
