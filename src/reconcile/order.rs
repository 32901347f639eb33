//! Same key, same order: on each side, a leg waits for every earlier leg of
//! its keys.
//!
//! Two concurrent writes to one key could land in opposite orders on the two
//! sides and leave them different for ever. So in the two-sided stages every
//! leg has a *place* in the queue of each of its keys on its own side. The
//! places of both legs are taken together, under one lock, so all queues agree
//! on who came first and no cycle of waiting can arise, however many keys a
//! request has. The two sides' queues move independently: a slow other side
//! never holds up the authority.
//!
//! The table has an entry only for keys that somebody is using.

mod observation;
mod place;
mod queue;
mod table;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

pub(crate) use self::observation::Observation;
pub(crate) use self::place::{Place, Turning};
use self::{
    queue::Queue,
    table::{Standing, Table},
};
use super::{Key, Keys};
use crate::stage::{Activity, Overtaken, Role, Side, is_absorbable, overtaken};

/// What a place in the queue turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Go on: every earlier leg on this side has ended.
    Run,
    /// Do not run: a copy has already brought this side to a state that
    /// includes the write.
    Absorbed,
}

/// The queues of all keys in use.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    table: Mutex<Table>,
    /// Told whenever a place is left.
    left: Notify,
}

/// What the places of one write share.
#[derive(Debug)]
struct Standers {
    order: Arc<KeyOrder>,
    keys: Keys,
    /// Which legs have ended, by side. A side that has none never does.
    ended: [AtomicBool; 2],
}

impl Standers {
    fn new(order: &Arc<KeyOrder>, keys: &Keys) -> Arc<Self> {
        let (order, keys) = (Arc::clone(order), keys.clone());
        Arc::new(Self { order, keys, ended: Default::default() })
    }

    fn ended_on(&self, side: Side) -> &AtomicBool {
        &self.ended[side.index()]
    }
}

/// The two places of one write.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) authority: Place,
    /// `None` where the queue of a key on the other side is full.
    pub(crate) other: Option<Place>,
}

impl KeyOrder {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under this lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the places of both legs of a write.
    pub(crate) fn take(self: &Arc<Self>, keys: &Keys, authority: Side, limit: usize) -> Places {
        self.take_both(keys, authority, limit, false)
    }

    /// As [`take`](Self::take), without a limit, for somebody who may only look.
    pub(super) fn stand_on_both(
        self: &Arc<Self>,
        keys: &Keys,
        authority: Side,
        looks: bool,
    ) -> Places {
        self.take_both(keys, authority, usize::MAX, looks)
    }

    fn take_both(
        self: &Arc<Self>,
        keys: &Keys,
        authority: Side,
        limit: usize,
        looks: bool,
    ) -> Places {
        let write = Standers::new(self, keys);
        let standing = |side: Side| {
            let role = if side == authority { Role::Authority } else { Role::Other };
            Standing { side, absorbable: is_absorbable(role, keys.len()), looks }
        };
        let [authority, other] = [authority, authority.other()].map(standing);
        let mut table = self.lock();
        let full = keys.iter().any(|key| {
            let entry = table.entries.get(key);
            entry.is_some_and(|entry| entry.queues[other.side.index()].len() >= limit)
        });
        if full {
            let [authority] = table.enqueue(&write, [authority]);
            return Places { authority, other: None };
        }
        let [authority, other] = table.enqueue(&write, [authority, other]);
        Places { authority, other: Some(other) }
    }

    /// Takes a place on one side: a copy on its target, or the late key of a
    /// leg that is already running (which will not wait for its turn).
    /// The second value says whether somebody was already queued on either side.
    pub(crate) fn take_one(self: &Arc<Self>, keys: &Keys, side: Side) -> (Place, bool) {
        let mut table = self.lock();
        let busy = |key| table.entries.get(key).is_some_and(|e| e.has_legs(&table.looking));
        let busy = keys.iter().any(busy);
        let write = Standers::new(self, keys);
        let [place] = table.enqueue(&write, [Standing::alone(side, false)]);
        (place, busy)
    }

    /// A place for a copy, or for somebody who only looks.
    pub(super) fn stand(self: &Arc<Self>, keys: &Keys, side: Side, looks: bool) -> Place {
        let write = Standers::new(self, keys);
        let [place] = self.lock().enqueue(&write, [Standing::alone(side, looks)]);
        place
    }

    /// The age that the next leg gets.
    pub(super) fn now(&self) -> u64 {
        self.lock().next
    }

    /// Whether a leg without a key runs that is older than this.
    pub(super) fn has_nameless_before(&self, age: u64) -> bool {
        self.lock().keyless.first().is_some_and(|oldest| *oldest < age)
    }

    /// Keys with a leg running or queued on `side`, and whether a leg without
    /// a key runs anywhere.
    pub(crate) fn running_on(&self, side: Side) -> (Vec<Key>, bool) {
        let table = self.lock();
        let keys = table
            .entries
            .iter()
            .filter(|(_, entry)| !entry.queues[side.index()].is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        (keys, !table.keyless.is_empty())
    }

    /// From now on, until the guard is dropped, what is done to any key is
    /// remembered for a write that may learn keys besides those it has.
    pub(crate) fn unsure(self: &Arc<Self>) -> Unsure {
        let mut table = self.lock();
        let id = table.next;
        table.next += 1;
        table.unsure.insert(id);
        Unsure { order: Arc::clone(self), id }
    }

    /// Whether any leg, of whatever key or of none, has a place on `side`.
    pub(crate) fn has_legs_on(&self, side: Side) -> bool {
        self.lock().running[side.index()] > 0
    }

    /// Places that are taken now, by side: legs and copies that run or queue.
    pub(crate) fn places(&self) -> [usize; 2] {
        self.lock().running
    }

    /// Keys with an entry now.
    pub(crate) fn keys_in_use(&self) -> usize {
        self.lock().entries.len()
    }

    /// The number of legs that took a place for `key` on `side`, and whether
    /// one is there now. Legs without a key do not count: they are in nobody's
    /// order.
    pub(super) fn activity(&self, key: &Key, side: Side) -> Activity {
        let table = self.lock();
        table.entries.get(key).map_or_else(Activity::default, |entry| Activity {
            turns: entry.turns[side.index()],
            busy: !entry.queues[side.index()].is_empty(),
        })
    }

    /// Whether a leg or a copy of one of `keys` has ended since the leg with
    /// this place, which had no key then, took it. Neither knew of the other, so
    /// they may have come in another order on the other side.
    pub(crate) fn touched_since(&self, id: u64, keys: &Keys) -> bool {
        let table = self.lock();
        id < table.forgotten
            || table.touched.iter().any(|(age, key)| *age > id && keys.iter().any(|k| k == key))
    }

    /// Waits until somebody leaves a place; `check` is asked before and after.
    pub(crate) async fn until(&self, mut check: impl FnMut() -> bool) {
        // Before it looks: what is left after the look wakes it.
        let _waiting = Waits::new(self);
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if check() {
                return;
            }
            left.await;
        }
    }

    /// The places queued behind `place` whose write has already ended on the
    /// other side: those that may be absorbed, and whether there are others.
    pub(super) fn overtaken(&self, place: &Place) -> (Vec<u64>, bool) {
        let table = self.lock();
        let Some(entry) = place.write.keys.iter().next().and_then(|key| table.entries.get(key))
        else {
            return (Vec::new(), false);
        };
        let mut absorbable = Vec::new();
        let mut others = false;
        for id in entry.queues[place.side.index()].iter() {
            let Some(waiting) = table.places.get(&id) else {
                continue;
            };
            // The leg of the same write on the side that the copy reads.
            let peer = waiting.write.ended_on(place.side.other()).load(Ordering::Acquire);
            match overtaken(peer, waiting.absorbable) {
                Overtaken::No => {}
                Overtaken::Absorbed => absorbable.push(id),
                Overtaken::Again => others = true,
            }
        }
        (absorbable, others)
    }

    /// Tells waiting places that their write is already there.
    pub(super) fn absorb(&self, ids: &[u64]) -> usize {
        let grants: Vec<_> = {
            let mut table = self.lock();
            let mut grant = |id| table.places.get_mut(id)?.grant.take();
            ids.iter().filter_map(&mut grant).collect()
        };
        // Not under the lock: who is woken is somebody else's.
        grants.into_iter().filter_map(|grant| grant.send(Turn::Absorbed).ok()).count()
    }
}

/// Somebody who waits for others to leave their places, of which those know.
struct Waits<'a>(&'a KeyOrder);

impl<'a> Waits<'a> {
    fn new(order: &'a KeyOrder) -> Self {
        order.lock().waiting += 1;
        Self(order)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// A write that may learn further keys: see [`KeyOrder::unsure`].
#[derive(Debug)]
pub(crate) struct Unsure {
    order: Arc<KeyOrder>,
    id: u64,
}

impl Drop for Unsure {
    fn drop(&mut self) {
        let mut table = self.order.lock();
        table.unsure.remove(&self.id);
        table.forget();
    }
}

#[cfg(test)]
mod tests;
