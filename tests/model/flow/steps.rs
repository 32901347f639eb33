//! How the flag moves, in the order that `MigrationHandle`'s steps have.

use tower_migration::{
    Side, Stage,
    reconcile::RightSide,
    stage::{Passage, SyncState, Urgency, permission},
};

use super::{
    Flow, State,
    state::{Durable, Step},
};
use crate::rules::Off;

impl Flow {
    /// A step begins. Waiting until it may is no event of its own: it changes
    /// nothing.
    pub(super) fn step(&self, state: &State, to: Stage, urgency: Urgency) -> Option<State> {
        let passage = self.rules.passage(state.stage, to, urgency);
        let hurried = urgency == Urgency::Emergency;
        if state.left.steps == 0 || state.unrecorded || hurried != (passage == Passage::Emergency) {
            return None;
        }
        let overtakes = hurried && matches!(state.step, Some(Step::Raised(_) | Step::Held(_)));
        if matches!(passage, Passage::Stay | Passage::Jump) || (state.step.is_some() && !overtakes)
        {
            return None;
        }
        if !self.may_step(state, to, urgency) {
            return None;
        }
        let mut next = state.clone();
        next.left.steps -= 1;
        match passage {
            Passage::Emergency => self.exit(&mut next, to),
            Passage::Held => {
                next.open_epoch(true, false);
                next.step = Some(Step::Raised(to));
            }
            _ => {
                next.save(to, false);
                next.step = Some(Step::Recorded(to));
            }
        }
        Some(next)
    }

    /// What [`permission`] asks for, right now.
    fn may_step(&self, state: &State, to: Stage, urgency: Urgency) -> bool {
        let needs = permission(state.stage, to, urgency);
        needs.lacks(state.sync).is_none()
            && !state.dirty.is_some_and(|mark| needs.forbids(mark))
            && (!needs.settled || state.is_settled())
            && !(self.rules.copies_ended(needs) && state.has_copy_to_authority())
    }

    /// Whether a step is under way that waited for copies to the authority: it
    /// lets no new one in.
    pub(super) fn shuts_out_copies(&self, state: &State) -> bool {
        let Some(Step::Recorded(to)) = state.step else { return false };
        self.rules.copies_ended(permission(state.stage, to, Urgency::Orderly))
    }

    pub(super) fn step_goes_on(&self, state: &State) -> Option<State> {
        let step = state.step?;
        if !matches!(step, Step::Recorded(_)) && !state.is_settled() {
            return None;
        }
        let mut next = state.clone();
        match step {
            Step::Raised(to) => {
                next.open_epoch(true, true);
                next.step = Some(Step::Held(to));
            }
            Step::Held(to) => {
                if !self.may_step(state, to, Urgency::Orderly) {
                    return None;
                }
                next.save(to, false);
                next.step = Some(Step::Recorded(to));
            }
            Step::Recorded(to) => {
                next.flip(to, false);
                next.step = None;
            }
        }
        Some(next)
    }

    pub(super) fn step_back(state: &State) -> Option<State> {
        let Some(Step::Raised(_) | Step::Held(_)) = state.step else { return None };
        let mut next = state.clone();
        next.open_epoch(false, false);
        next.step = None;
        Some(next)
    }

    /// The emergency exit: the flag first, then the keys in flight, then the
    /// record.
    fn exit(&self, state: &mut State, to: Stage) {
        let from = state.stage;
        state.step = None;
        state.flip(to, true);
        let side = to.authority();
        let queue = self.rules.queue_of(from, side);
        if self.rules.has(Off::Tainting) && !state.queues[queue].is_empty() {
            state.mark_dirty(side.other(), 0);
        }
        state.unrecorded = true;
    }

    pub(super) fn record(&self, state: &State) -> Option<State> {
        if !state.unrecorded {
            return None;
        }
        let mut next = state.clone();
        next.unrecorded = false;
        next.save(state.stage, false);
        next.open_epoch(false, false);
        (0..next.writes.len())
            .for_each(|n| self.answer(&mut next, n, tower_migration::Role::Other));
        Some(next)
    }

    /// The operator says that a side holds all data, and says so only after
    /// copying all keys to it.
    pub(super) fn confirm(state: &State, side: Side) -> Option<State> {
        let free = state.step.is_none() && !state.unrecorded;
        let known = state.copied[side as usize] && !state.sync.get(side).is_synced();
        if !free || !known || !state.stage.is_two_sided() || !state.is_settled() {
            return None;
        }
        let mut next = state.clone();
        next.sync = next.sync.with(side, SyncState::Synced);
        next.save(state.stage, false);
        Some(next)
    }
}

impl State {
    fn open_epoch(&mut self, raised: bool, holds: bool) {
        (self.raised, self.holds) = (raised, holds);
        self.age();
    }

    /// Everything in flight is of an earlier epoch from here on.
    pub(super) fn age(&mut self) {
        let legs = self.writes.iter_mut().flatten().flat_map(|write| &mut write.legs);
        legs.flatten().for_each(|leg| leg.earlier = leg.is_live());
        if let Some(copying) = &mut self.copying {
            copying.earlier = true;
        }
        if let Some(cut) = &mut self.cut {
            cut.earlier = true;
        }
    }

    fn flip(&mut self, to: Stage, raised: bool) {
        self.sync = self.sync.entering(to);
        self.stage = to;
        self.open_epoch(raised, false);
        if !to.is_two_sided() {
            self.copied[to.authority().other() as usize] = false;
            if let Some(copying) = &mut self.copying {
                copying.void = true;
            }
            if let Some(mark) = self.dirty {
                self.dirty = mark.entering(to);
                // Counts as a new mark.
                if let Some(copying) = &mut self.copying {
                    copying.found = None;
                }
            }
        }
    }

    pub(super) fn save(&mut self, stage: Stage, clean: bool) {
        let right_on = Side::ALL.map(|side| self.dirty == Some(RightSide::Is(side)));
        let conflict = self.dirty == Some(RightSide::Conflict);
        let sync = self.sync.recorded(stage, right_on, conflict);
        self.durable = Durable { stage, sync, clean };
    }
}
