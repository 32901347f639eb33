//! Counting, with bounds.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    Example, PlaceKind, PlaceReport, Route, RouteReport,
    failing::Failing,
    place::{FEWEST, Place},
};
use crate::{
    compare::{Difference, Verdict},
    flag::gates::ShadowCounts,
    stage::Side,
};

/// What those are counted under for which there is no room.
const OTHERS: &str = "(others)";

/// What shadow reads have shown. Written once for each of them, in its own task.
#[derive(Debug)]
pub(crate) struct Table {
    counted: Mutex<Counted>,
    most_routes: usize,
    most_places: usize,
    /// Reads of routes, and differences at places, for which there was no room; ever.
    pub(crate) overflown: [AtomicU64; 2],
    /// Given up before anything was known of them, since the count began.
    no_slot: AtomicU64,
    /// Which count this is.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    generation: u64,
    since: SystemTime,
    began: Instant,
    routes: HashMap<Arc<str>, Route>,
}

impl Default for Counted {
    fn default() -> Self {
        let (since, began) = (SystemTime::now(), Instant::now());
        Self { generation: 0, since, began, routes: HashMap::new() }
    }
}

/// What one shadow read has found.
#[derive(Debug)]
pub(crate) struct Finding<'a> {
    /// The [generation](Table::generation) when it was asked for.
    pub(crate) generation: u64,
    pub(crate) route: &'a Arc<str>,
    /// Needed where something differs.
    pub(crate) request: Option<Arc<str>>,
    pub(crate) authority: Side,
    pub(crate) verdict: &'a Verdict,
    /// Where the sides differ, whatever is known of noise there.
    pub(crate) differs: &'a [Difference],
    /// Where they do, and the authority contradicted itself.
    pub(crate) contradicted: &'a [String],
    /// The sides' first answers differed, or may have, and nobody knows what to think
    /// of it.
    pub(crate) unresolved: bool,
    pub(crate) authority_took: Option<Duration>,
    pub(crate) other_took: Option<Duration>,
    /// Whether the authority may be asked twice for such a read.
    pub(crate) is_measured: bool,
}

/// Why the authority should be asked twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To know its noise, in case that something differs.
    Usual,
    /// Something differs, and too little is known to say what it is.
    Undecided,
    /// Something differs, and nothing is known yet.
    Urgent,
}

impl Table {
    pub(crate) fn new(most_routes: usize, most_places: usize) -> Self {
        Self {
            counted: Mutex::default(),
            most_routes,
            most_places,
            overflown: Default::default(),
            no_slot: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Only counts lie under it.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from here on: what was asked for before counts no more.
    pub(crate) fn reset(&self) {
        let mut counted = self.lock();
        let generation = counted.generation + 1;
        let old = std::mem::replace(&mut *counted, Counted { generation, ..Counted::default() });
        self.generation.store(generation, Ordering::Release);
        self.no_slot.store(0, Ordering::Relaxed);
        drop(counted);
        drop(old);
    }

    /// Which count this is; the next one begins with a [`reset`](Self::reset).
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn no_slot(&self) {
        self.no_slot.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, finding: &Finding<'_>) {
        let mut counted = self.lock();
        if finding.generation != counted.generation {
            return;
        }
        let route = self.route(&mut counted, finding.route);
        route.is_measured |= finding.is_measured;
        route.count(finding.verdict);
        if finding.unresolved {
            route.unresolved(finding.verdict);
        }
        route.took(finding.authority, finding.authority_took);
        route.took(finding.authority.other(), finding.other_took);
        for difference in once_each(finding.differs) {
            let Some(place) = self.place(route, &difference.place, true) else { continue };
            place.differ += 1;
            place.example.get_or_insert_with(|| Example {
                request: finding.request.clone().unwrap_or_default(),
                what: difference.what.clone(),
                authority: difference.authority.clone(),
                other: difference.other.clone(),
                at: SystemTime::now(),
            });
        }
        if finding.differs.iter().any(Difference::is_further) {
            route.more_places += 1;
            self.overflown[1].fetch_add(1, Ordering::Relaxed);
        }
        for name in finding.contradicted {
            if let Some(place) = self.place(route, name, false) {
                place.contradicted += 1;
            }
        }
    }

    /// The authority has answered a read twice, and differs from itself there.
    pub(crate) fn count_noise(&self, generation: u64, route: &Arc<str>, differs: &[Difference]) {
        let mut counted = self.lock();
        if generation != counted.generation {
            return;
        }
        let route = self.route(&mut counted, route);
        route.is_measured = true;
        route.answered_twice += 1;
        for difference in once_each(differs) {
            if let Some(place) = self.place(route, &difference.place, false) {
                place.noise += 1;
            }
        }
    }

    fn route<'c>(&self, counted: &'c mut Counted, name: &Arc<str>) -> &'c mut Route {
        let routes = &mut counted.routes;
        if routes.contains_key(name) {
            return routes.get_mut(name).expect("just found");
        }
        if routes.len() < self.most_routes {
            return routes.entry(Arc::clone(name)).or_default();
        }
        self.overflown[0].fetch_add(1, Ordering::Relaxed);
        routes.entry(OTHERS.into()).or_default()
    }

    /// A place, if there is room. One that differs takes the room of one that was only
    /// ever noise, once: names of members that are data would be in the way of all
    /// others.
    fn place<'c>(&self, route: &'c mut Route, name: &str, differs: bool) -> Option<&'c mut Place> {
        if !route.places.contains_key(name) {
            if route.places.len() >= self.most_places {
                route.more_places += 1;
                self.overflown[1].fetch_add(1, Ordering::Relaxed);
                let idle = route.places.iter().find(|(_, place)| place.is_fleeting());
                let idle = idle.map(|(name, _)| Arc::clone(name)).filter(|_| differs)?;
                route.places.remove(&idle);
            }
            route.places.insert(name.into(), Place::default());
        }
        route.places.get_mut(name)
    }

    /// Of these places, those that are known to be noise.
    pub(crate) fn known_noise(&self, route: &Arc<str>, differs: &[Difference]) -> Vec<String> {
        let counted = self.lock();
        let Some(route) = counted.routes.get(route) else { return Vec::new() };
        let among = route.among();
        let noise = |difference: &&Difference| {
            let place = route.places.get(&*difference.place);
            place.is_some_and(|place| {
                among.answered_twice >= FEWEST
                    && place.noise > 0
                    && place.kind(among) == PlaceKind::Noise
            })
        };
        once_each(differs).filter(noise).map(|difference| difference.place.clone()).collect()
    }

    /// How much a route needs its noise to be known.
    pub(crate) fn need(&self, route: &Arc<str>) -> Need {
        let counted = self.lock();
        let Some(route) = counted.routes.get(route) else { return Need::Usual };
        let among = route.among();
        let undecided = |place: &Place| place.kind(among) == PlaceKind::Undecided;
        if !route.places.values().any(undecided) {
            return Need::Usual;
        }
        if among.answered_twice < FEWEST { Need::Urgent } else { Need::Undecided }
    }

    /// The places of all routes, the worst first.
    pub(crate) fn places(&self) -> Vec<PlaceReport> {
        let counted = self.lock();
        let routes = counted.routes.iter();
        let mut places: Vec<_> = routes.flat_map(|(name, route)| route.places(name)).collect();
        drop(counted);
        places.sort_by_key(|place| (place.kind, std::cmp::Reverse(place.differ)));
        places
    }

    /// How many places there are of each kind.
    pub(crate) fn kinds(&self) -> [u64; PlaceKind::ALL.len()] {
        let mut kinds = [0; PlaceKind::ALL.len()];
        for route in self.lock().routes.values() {
            let among = route.among();
            for place in route.places.values() {
                kinds[place.kind(among) as usize] += 1;
            }
        }
        kinds
    }

    /// The verdicts of all routes.
    pub(crate) fn verdicts(&self) -> ShadowCounts {
        let counted = self.lock();
        let none = ShadowCounts::default();
        let mut all = counted.routes.values().fold(none, |all, route| route.verdicts(all));
        all.skipped += self.no_slot.load(Ordering::Relaxed);
        all
    }

    /// Everything, the busiest route first.
    pub(super) fn report(&self) -> Reported {
        let counted = self.lock();
        let mut failures = Vec::new();
        let mut routes = Vec::new();
        for (name, route) in &counted.routes {
            routes.push((route.all(), route.report(name)));
            if let Some(failing) = Failing::of(name, route) {
                failures.push(failing);
            }
        }
        let (since, lasted) = (counted.since, counted.began.elapsed());
        drop(counted);
        routes.sort_by(|(a, one), (b, two)| b.cmp(a).then_with(|| one.route.cmp(&two.route)));
        Reported {
            since,
            lasted,
            routes: routes.into_iter().map(|(_, route)| route).collect(),
            failures,
            no_slot: self.no_slot.load(Ordering::Relaxed),
        }
    }
}

/// What the table says.
#[derive(Debug)]
pub(super) struct Reported {
    pub(super) since: SystemTime,
    pub(super) lasted: Duration,
    pub(super) routes: Vec<RouteReport>,
    pub(super) failures: Vec<Failing>,
    pub(super) no_slot: u64,
}

/// The first difference of each place.
fn once_each(differs: &[Difference]) -> impl Iterator<Item = &Difference> {
    differs.iter().enumerate().filter_map(|(at, difference)| {
        let before = differs[..at].iter().any(|earlier| earlier.place == difference.place);
        (!before && !difference.is_further()).then_some(difference)
    })
}
