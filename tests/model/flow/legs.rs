//! What becomes of a leg: applied, refused, failed, late, given up.

use tower_migration::{Outcome, Role, Side, stage::lingers};

use super::{
    Effect, Flow, State,
    state::{Leg, Phase, ticket},
};
use crate::rules::Off;

impl Flow {
    /// Whether the leg is in its store: nobody is ahead of it.
    pub(super) fn runs(&self, state: &State, n: usize, role: Role) -> Option<Leg> {
        let leg = *state.leg(n, role)?;
        let queue = self.rules.queue(state.writes[n]?.stage, role);
        let first = state.queues[queue].first() == Some(ticket(n, role));
        (!leg.placed || first).then_some(leg)
    }

    /// The leg, if it runs and has not been reported on.
    fn running(&self, state: &State, n: usize, role: Role) -> Option<Leg> {
        self.runs(state, n, role).filter(|leg| leg.phase == Phase::Begun)
    }

    /// The write is in the data from here on.
    fn write(&self, state: &mut State, n: usize, role: Role, side: Side) {
        let data = &mut state.data[side as usize];
        if self.effect == Effect::Replaces {
            *data = crate::list::List::default();
        }
        data.push(n as u8 + 1);
        if let Some(leg) = state.leg_mut(n, role) {
            leg.landed = true;
        }
    }

    /// Its place goes to the next one, and the ledger forgets it.
    pub(super) fn release(&self, state: &mut State, n: usize, role: Role) {
        let Some(write) = state.writes[n] else { return };
        state.queues[self.rules.queue(write.stage, role)].remove(ticket(n, role));
        if let Some(leg) = state.leg_mut(n, role) {
            leg.phase = Phase::Ended;
            (leg.placed, leg.marked, leg.earlier) = (false, false, false);
        }
    }

    fn ended(&self, state: &mut State, n: usize, role: Role, outcome: Outcome) {
        if let Some(leg) = state.leg_mut(n, role) {
            leg.outcome = Some(outcome);
        }
        self.release(state, n, role);
        self.reported(state, n, role);
    }

    pub(super) fn apply(&self, state: &State, n: usize, role: Role) -> Option<State> {
        let leg = self.running(state, n, role)?;
        let mut next = state.clone();
        self.write(&mut next, n, role, leg.side);
        self.ended(&mut next, n, role, Outcome::Applied);
        Some(next)
    }

    pub(super) fn refuse(&self, state: &State, n: usize, role: Role) -> Option<State> {
        self.running(state, n, role).filter(|_| state.left.faults > 0)?;
        let mut next = state.clone();
        next.left.faults -= 1;
        self.ended(&mut next, n, role, Outcome::Refused);
        Some(next)
    }

    pub(super) fn fail(&self, state: &State, n: usize, role: Role, landed: bool) -> Option<State> {
        let leg = self.running(state, n, role).filter(|_| state.left.faults > 0)?;
        let mut next = state.clone();
        next.left.faults -= 1;
        if !leg.placed {
            // A one-sided write may land after it has answered.
            if let Some(leg) = next.leg_mut(n, role) {
                leg.outcome = Some(Outcome::Unknown);
            }
            self.set_adrift(&mut next, n, role, lingers(Some(Outcome::Unknown)));
            self.reported(&mut next, n, role);
            return Some(next);
        }
        if landed {
            self.write(&mut next, n, role, leg.side);
        }
        self.ended(&mut next, n, role, Outcome::Unknown);
        if !landed
            && self.world.lands_after_failure
            && let Some(leg) = next.leg_mut(n, role)
        {
            leg.phase = Phase::Adrift;
        }
        Some(next)
    }

    /// Reported as unknown; it keeps its place and its mark.
    pub(super) fn time_out(&self, state: &State, n: usize, role: Role) -> Option<State> {
        let leg = state.leg(n, role).filter(|leg| leg.phase == Phase::Begun && leg.placed)?;
        if state.left.faults == 0 {
            return None;
        }
        let mut next = state.clone();
        next.left.faults -= 1;
        let late = Leg { phase: Phase::Late, outcome: Some(Outcome::Unknown), ..*leg };
        *next.leg_mut(n, role)? = late;
        self.reported(&mut next, n, role);
        Some(next)
    }

    pub(super) fn end_late(
        &self,
        state: &State,
        n: usize,
        role: Role,
        landed: bool,
    ) -> Option<State> {
        let leg = self.runs(state, n, role).filter(|leg| leg.phase == Phase::Late)?;
        let mut next = state.clone();
        if landed {
            self.write(&mut next, n, role, leg.side);
        }
        self.release(&mut next, n, role);
        Some(next)
    }

    pub(super) fn give_up(&self, state: &State, n: usize, role: Role) -> Option<State> {
        let leg = state.leg(n, role).filter(|leg| leg.phase == Phase::Late)?;
        let mut next = state.clone();
        if self.runs(state, n, role).is_some() {
            self.set_adrift(&mut next, n, role, leg.marked);
        } else {
            // It never began. Its place and mark linger all the same, which
            // only makes others wait.
            self.release(&mut next, n, role);
        }
        Some(next)
    }

    /// Nobody runs it any more, and it may land. What it holds, it holds until
    /// it cannot, if it `lingers`.
    pub(super) fn set_adrift(&self, state: &mut State, n: usize, role: Role, lingers: bool) {
        if !lingers || !self.rules.has(Off::Linger) {
            let earlier = state.leg(n, role).is_some_and(|leg| leg.earlier);
            self.release(state, n, role);
            if let Some(leg) = state.leg_mut(n, role) {
                leg.earlier = earlier;
            }
        }
        if let Some(leg) = state.leg_mut(n, role) {
            leg.phase = Phase::Adrift;
        }
    }

    pub(super) fn land(&self, state: &State, n: usize, role: Role) -> Option<State> {
        let leg = state.leg(n, role).filter(|leg| leg.phase == Phase::Adrift)?;
        let mut next = state.clone();
        self.write(&mut next, n, role, leg.side);
        next.landed_late = true;
        self.release(&mut next, n, role);
        Some(next)
    }

    pub(super) fn expire(&self, state: &State, n: usize, role: Role) -> Option<State> {
        state.leg(n, role).filter(|leg| leg.phase == Phase::Adrift)?;
        let mut next = state.clone();
        self.release(&mut next, n, role);
        Some(next)
    }

    /// A copy has told it that its write is there already.
    pub(super) fn absorb(&self, state: &mut State, n: usize, role: Role, landed: bool) {
        let Some(leg) = state.leg_mut(n, role) else { return };
        leg.landed |= landed;
        match leg.phase {
            Phase::Begun => {
                leg.absorbed = true;
                state.absorbed = true;
                self.ended(state, n, role, Outcome::Applied);
            }
            Phase::Late => self.release(state, n, role),
            Phase::Unstarted | Phase::Adrift | Phase::Ended => {}
        }
    }
}
