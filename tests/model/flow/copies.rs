//! `copy_key`, from its admission to its end.

use tower_migration::{
    Side,
    stage::{
        Activity, CopyPlaces, CopyStart, CopyWay, Overtaken, copy_places, copy_repeats,
        is_absorbable, overtaken,
    },
};

use super::{
    Effect, Flow, State,
    state::{COPY, CUT, CopyPhase, Copying, Cut, Phase, leg_of, slot},
};
use crate::{list::List, rules::Off};

impl Flow {
    /// Whether the operator asks for this copy: a repair from the side that the
    /// mark names, or a backfill from a side that holds all data.
    fn asks_for(&self, state: &State, from: Side) -> bool {
        let synced = state.sync.get(from).is_synced();
        self.rules.copy_way(state.dirty, from, synced) != CopyWay::Unsynced
            && state
                .dirty
                .is_none_or(|mark| self.rules.repair_source(mark, state.stage) == Some(from))
    }

    pub(super) fn copy(&self, state: &State, from: Side) -> Option<State> {
        if state.left.copies == 0 || state.copying.is_some() || !self.asks_for(state, from) {
            return None;
        }
        let start =
            self.rules.copy_start(state.stage, state.holds || state.unrecorded, state.is_settled());
        if start != CopyStart::Go {
            return None;
        }
        let places = copy_places(state.stage, from);
        if places == CopyPlaces::Both && self.shuts_out_copies(state) {
            return None;
        }
        let mut next = state.clone();
        next.left.copies -= 1;
        next.hasty |= !state.is_truly_settled();
        if places == CopyPlaces::Both {
            next.queues.iter_mut().for_each(|queue| queue.push(COPY));
        }
        next.copying = Some(Copying {
            from,
            source: self.rules.queue_of(state.stage, from),
            target: self.rules.queue_of(state.stage, from.other()),
            places,
            phase: if places == CopyPlaces::Both { CopyPhase::Turn } else { CopyPhase::Source },
            earlier: false,
            void: false,
            found: None,
            read: List::default(),
            raced: false,
            absorbs: List::default(),
            again: false,
            repeats: 0,
        });
        Some(next)
    }

    pub(super) fn copy_goes_on(&self, state: &State) -> Option<State> {
        let mut copying = state.copying?;
        let Copying { from, source, target, places, .. } = copying;
        let alone = places == CopyPlaces::Both;
        let mut next = state.clone();
        match copying.phase {
            CopyPhase::Source => {
                if state.activity(source).busy {
                    return None;
                }
                next.queues[target].push(COPY);
                copying.phase = CopyPhase::Turn;
            }
            CopyPhase::Turn => {
                let first = |queue: usize| state.queues[queue].first() == Some(COPY);
                if !first(target) || (alone && !first(source)) {
                    return None;
                }
                let looks = self.rules.has(Off::CopyLooksAgain);
                let moved = looks && !alone && copy_places(state.stage, from) == CopyPlaces::Both;
                let synced = state.sync.get(from).is_synced();
                if moved || self.rules.copy_way(state.dirty, from, synced) != CopyWay::Free {
                    next.end_copy();
                    return Some(next);
                }
                copying.found = state.dirty;
                copying.phase = if alone { CopyPhase::Read } else { CopyPhase::Look };
            }
            CopyPhase::Look => {
                if state.activity(source).busy {
                    return None;
                }
                copying.raced = false;
                (copying.absorbs, copying.again) = self.overtaken(state, target);
                copying.phase = CopyPhase::Read;
            }
            CopyPhase::Read => {
                copying.read = state.data[from as usize];
                copying.phase = CopyPhase::Write;
            }
            CopyPhase::Write => {
                self.write_copy(&mut next, copying);
                let after = state.activity(source);
                if !alone
                    && self.rules.has(Off::Repeating)
                    && copy_repeats(Activity::default(), after)
                {
                    copying.repeats = 1;
                    copying.phase = CopyPhase::Look;
                    (copying.read, copying.absorbs) = (List::default(), List::default());
                } else {
                    self.finish_copy(&mut next, copying);
                    return Some(next);
                }
            }
        }
        next.copying = Some(copying);
        Some(next)
    }

    /// The legs behind the copy whose write it is about to read: those that
    /// need not run, and whether there are others.
    fn overtaken(&self, state: &State, target: usize) -> (List, bool) {
        let mut absorbs = List::default();
        let mut again = false;
        for ticket in state.queues[target].as_slice() {
            let Some((n, role)) = leg_of(*ticket) else { continue };
            let Some(write) = state.writes[n] else { continue };
            let source_ended = write.legs[1 - slot(role)].is_some_and(|leg| !leg.placed);
            match overtaken(source_ended, is_absorbable(role, 1)) {
                Overtaken::No => {}
                Overtaken::Absorbed if !self.rules.has(Off::Absorbing) => {}
                Overtaken::Absorbed => absorbs.push(*ticket),
                Overtaken::Again => again = true,
            }
        }
        (absorbs, again)
    }

    fn write_copy(&self, state: &mut State, copying: Copying) {
        let target = &mut state.data[copying.from.other() as usize];
        let replays = !self.rules.has(Off::Copying) && copying.found.is_some();
        if replays && state.culprit > 0 {
            if self.effect == Effect::Replaces {
                *target = List::default();
            }
            target.push(state.culprit);
        } else if self.rules.has(Off::Overwrite) || target.is_empty() {
            *target = copying.read;
        }
    }

    fn finish_copy(&self, state: &mut State, copying: Copying) {
        let target = copying.from.other();
        for ticket in copying.absorbs.as_slice() {
            let Some((n, role)) = leg_of(*ticket) else { continue };
            let waits =
                state.leg(n, role).is_some_and(|leg| leg.placed && leg.phase != Phase::Adrift);
            if waits {
                let source = state.writes[n].and_then(|write| write.legs[1 - slot(role)]);
                let landed = match self.effect {
                    Effect::Adds => copying.read.contains(n as u8 + 1),
                    Effect::Replaces => source.is_some_and(|leg| leg.landed),
                };
                self.absorb(state, n, role, landed);
            }
        }
        // A mark that came from the legs just absorbed is a new one.
        let found = state.copying.and_then(|copying| copying.found);
        if found.is_some() {
            (state.dirty, state.culprit, state.healed) = (None, 0, true);
        }
        state.copied[target as usize] |= !copying.void && state.stage.is_two_sided();
        state.end_copy();
        if copying.again {
            state.mark_dirty(copying.from, 0);
        }
    }

    /// Its target may be half written, so the key is dirty.
    pub(super) fn cut_copy(&self, state: &State, landed: bool) -> Option<State> {
        let copying = state.copying.filter(|copying| copying.phase == CopyPhase::Write)?;
        if state.left.faults == 0 {
            return None;
        }
        let mut next = state.clone();
        next.left.faults -= 1;
        if landed {
            self.write_copy(&mut next, copying);
        }
        if !landed {
            next.cut = Some(self.cut_off(copying));
            if self.rules.has(Off::Linger) {
                for queue in &mut next.queues {
                    queue.replace(COPY, CUT);
                }
            }
        }
        next.end_copy();
        next.mark_dirty(copying.from, 0);
        Some(next)
    }

    pub(super) fn cut_off(&self, copying: Copying) -> Cut {
        let Copying { from, read: row, places, earlier, .. } = copying;
        Cut { target: from.other(), row, places, lingers: self.rules.has(Off::Linger), earlier }
    }

    pub(super) fn end_cut(state: &State, landed: bool) -> Option<State> {
        let Cut { target, row, .. } = state.cut?;
        let mut next = state.clone();
        next.cut = None;
        next.queues.iter_mut().for_each(|queue| queue.remove(CUT));
        if landed {
            next.data[target as usize] = row;
        }
        Some(next)
    }
}

impl State {
    fn end_copy(&mut self) {
        self.copying = None;
        self.queues.iter_mut().for_each(|queue| queue.remove(COPY));
    }
}
