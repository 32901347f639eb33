//! What must hold in every state, and what must be possible at all.

use stateright::Property;
use tower_migration::{
    Side,
    reconcile::RightSide,
    stage::{Passage, Urgency, passage},
};

use super::{Effect, Flow, State, state::Step};
use crate::list::List;

pub const READS: &str =
    "a read begun after a write's acknowledgement returns it or something newer";
pub const KEPT: &str = "when all is quiet the authority holds the latest acknowledged write";
pub const EQUAL: &str = "when all is quiet, both sides of a clean key are equal";
pub const DIRTY: &str = "every started dual write ends equal or dirty";
pub const SETTLED: &str = "no copy starts before settled";
pub const NEIGHBOURS: &str = "at most neighbouring stages live";

pub fn all() -> Vec<Property<Flow>> {
    vec![
        Property::always(READS, reads_see_what_was_acknowledged),
        Property::always(KEPT, nothing_acknowledged_is_lost),
        Property::always(EQUAL, clean_sides_are_equal),
        Property::always(DIRTY, |_, s: &State| !s.split),
        Property::always(SETTLED, |_, s: &State| !s.hasty),
        Property::always(NEIGHBOURS, only_neighbours_live),
        Property::sometimes("a flip is held", |_, s: &State| matches!(s.step, Some(Step::Held(_)))),
        Property::sometimes("an emergency exit", |_, s: &State| s.unrecorded),
        Property::sometimes("a write lands late", |_, s: &State| s.landed_late),
        Property::sometimes("a copy repeats", |_, s: &State| {
            s.copying.is_some_and(|c| c.repeats > 0)
        }),
        Property::sometimes("a leg is absorbed", |_, s: &State| s.absorbed),
        Property::sometimes("a dirty key is healed", |_, s: &State| s.healed),
        Property::sometimes("a restart after a crash", |m: &Flow, s: &State| {
            s.left.crashes < m.budget.crashes
        }),
        Property::sometimes("a clean restart", |m: &Flow, s: &State| s.left.stops < m.budget.stops),
        Property::sometimes("a side is confirmed", |m: &Flow, s: &State| {
            let crashed = s.left.crashes < m.budget.crashes;
            let unsynced = !(m.old_synced && m.new_synced) || crashed;
            unsynced && Side::ALL.into_iter().all(|side| s.sync.get(side).is_synced())
        }),
        Property::sometimes("a conflict", |_, s: &State| s.dirty == Some(RightSide::Conflict)),
        Property::sometimes("both sides equal after two writes", |_, s: &State| {
            s.is_quiet() && s.acknowledged().as_slice().len() > 2 && s.data[0] == s.data[1]
        }),
    ]
}

impl Flow {
    /// Whether a read of `data` would miss what was promised.
    fn misses(&self, data: &List, promised: &List) -> bool {
        match self.effect {
            Effect::Adds => promised.as_slice().iter().any(|write| data.count(*write) != 1),
            Effect::Replaces => data.last().is_none_or(|write| promised.contains(write)),
        }
    }
}

/// Whether the status says that this side may lack something: an emergency exit
/// was taken under running writes.
fn is_known_to_lack(state: &State, side: Side) -> bool {
    state.dirty.is_some_and(|mark| mark != RightSide::Is(side)) || !state.sync.get(side).is_synced()
}

fn reads_see_what_was_acknowledged(flow: &Flow, state: &State) -> bool {
    let now = (state.stage.authority(), state.promised(flow.effect));
    [Some(now), state.read].into_iter().flatten().all(|(side, promised)| {
        !flow.misses(&state.data[side as usize], &promised) || is_known_to_lack(state, side)
    })
}

/// Also where the status says that the authority may lack something: then the
/// right side has it, or if nobody knows which that is, one of the two.
fn nothing_acknowledged_is_lost(flow: &Flow, state: &State) -> bool {
    if !state.is_quiet() {
        return true;
    }
    let authority = state.stage.authority();
    let keeps = |side: Side| !flow.misses(&state.data[side as usize], &state.promised(flow.effect));
    match state.dirty {
        Some(RightSide::Is(right)) if state.sync.get(right).is_synced() => keeps(right),
        None if state.sync.get(authority).is_synced() => keeps(authority),
        _ => keeps_between_them(flow, state),
    }
}

fn keeps_between_them(flow: &Flow, state: &State) -> bool {
    let promised = state.promised(flow.effect);
    match flow.effect {
        Effect::Adds => promised
            .as_slice()
            .iter()
            .all(|write| state.data.iter().any(|data| data.contains(*write))),
        Effect::Replaces => state.data.iter().any(|data| !flow.misses(data, &promised)),
    }
}

fn clean_sides_are_equal(_: &Flow, state: &State) -> bool {
    let synced = Side::ALL.into_iter().all(|side| state.sync.get(side).is_synced());
    let comparable = state.is_quiet() && state.stage.is_two_sided() && synced;
    !comparable || state.dirty.is_some() || state.data[0] == state.data[1]
}

fn only_neighbours_live(_: &Flow, state: &State) -> bool {
    let stages = || {
        let live = state.legs().filter(|(_, leg)| leg.is_live());
        live.map(|(write, _)| write.stage).chain([state.stage])
    };
    stages().all(|a| stages().all(|b| passage(a, b, Urgency::Orderly) != Passage::Jump))
}
