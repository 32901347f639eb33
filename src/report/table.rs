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
    place::{FEWEST, Place},
};
use crate::{
    compare::{Difference, Verdict},
    flag::gates::lower,
    stage::Side,
};

/// What those are counted under for which there is no room.
const OTHERS: &str = "(others)";

/// How long a place's name may be, in characters.
const NAME: usize = 200;

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
}

#[derive(Debug)]
struct Counted {
    since: SystemTime,
    began: Instant,
    routes: HashMap<Arc<str>, Route>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { since: SystemTime::now(), began: Instant::now(), routes: HashMap::new() }
    }
}

/// What one shadow read has found.
#[derive(Debug)]
pub(crate) struct Finding<'a> {
    pub(crate) route: &'a Arc<str>,
    pub(crate) request: &'a Arc<str>,
    pub(crate) authority: Side,
    pub(crate) verdict: &'a Verdict,
    /// Where the sides differ, whatever is known of noise there.
    pub(crate) differs: &'a [Difference],
    /// Where they do, and the authority contradicted itself.
    pub(crate) contradicted: &'a [String],
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Only counts lie under it.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from here on.
    pub(crate) fn reset(&self) {
        let old = std::mem::take(&mut *self.lock());
        self.no_slot.store(0, Ordering::Relaxed);
        drop(old);
    }

    pub(crate) fn no_slot(&self) {
        self.no_slot.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, finding: &Finding<'_>) {
        let mut counted = self.lock();
        let route = self.route(&mut counted, finding.route);
        route.is_measured |= finding.is_measured;
        route.count(finding.verdict);
        route.took(finding.authority, finding.authority_took);
        route.took(finding.authority.other(), finding.other_took);
        for difference in once_each(finding.differs) {
            let Some(place) = self.place(route, &difference.place) else { continue };
            place.differ += 1;
            place.example.get_or_insert_with(|| Example {
                request: Arc::clone(finding.request),
                what: difference.what.clone(),
                authority: difference.authority.clone(),
                other: difference.other.clone(),
                at: SystemTime::now(),
            });
        }
        for name in finding.contradicted {
            if let Some(place) = self.place(route, name) {
                place.contradicted += 1;
            }
        }
    }

    /// The authority has answered a read twice, and differs from itself there.
    pub(crate) fn count_noise(&self, route: &Arc<str>, differs: &[Difference]) {
        let mut counted = self.lock();
        let route = self.route(&mut counted, route);
        route.is_measured = true;
        route.answered_twice += 1;
        for difference in once_each(differs) {
            if let Some(place) = self.place(route, &difference.place) {
                place.noise += 1;
            }
        }
    }

    fn route<'c>(&self, counted: &'c mut Counted, name: &Arc<str>) -> &'c mut Route {
        let routes = &mut counted.routes;
        if routes.contains_key(name) || routes.len() < self.most_routes {
            return routes.entry(Arc::clone(name)).or_default();
        }
        self.overflown[0].fetch_add(1, Ordering::Relaxed);
        routes.entry(OTHERS.into()).or_default()
    }

    fn place<'c>(&self, route: &'c mut Route, name: &str) -> Option<&'c mut Place> {
        let name = name.char_indices().nth(NAME).map_or(name, |(end, _)| &name[..end]);
        if !route.places.contains_key(name) {
            if route.places.len() >= self.most_places {
                route.more_places += 1;
                self.overflown[1].fetch_add(1, Ordering::Relaxed);
                return None;
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

/// A route that the other side fails more often than the authority does.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) route: Arc<str>,
    pub(super) failed: u64,
    pub(super) authority_failed: u64,
    pub(super) of: u64,
}

impl Failing {
    fn of(name: &Arc<str>, route: &Route) -> Option<Self> {
        let (failed, authority_failed) = route.failures();
        let of = route.all();
        let z = crate::flag::gates::Confidence::P95.z();
        let more = of >= FEWEST
            && lower(failed, of, z) > crate::flag::gates::upper(authority_failed, of, z);
        more.then(|| Self { route: Arc::clone(name), failed, authority_failed, of })
    }
}

/// The first difference of each place.
fn once_each(differs: &[Difference]) -> impl Iterator<Item = &Difference> {
    differs.iter().enumerate().filter_map(|(at, difference)| {
        let before = differs[..at].iter().any(|earlier| earlier.place == difference.place);
        (!before).then_some(difference)
    })
}
