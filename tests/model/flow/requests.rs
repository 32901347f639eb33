//! How requests begin, and what their clients are told.

use tower_migration::{
    FailurePolicy, Operation, Outcome, Role, Side,
    stage::{Agreement, Reply, acknowledged_on_record, agreement, lingers, reply},
};

use super::{
    Effect, Flow, State,
    state::{Client, Leg, Phase, ROLES, Write, slot, ticket},
};
use crate::{list::List, rules::Off};

impl Flow {
    /// A write, with a leg on every side that its stage reaches.
    pub(super) fn begin(&self, state: &State, room: bool) -> Option<State> {
        let n = state.writes.iter().position(Option::is_none)?;
        let two_sided = state.stage.is_two_sided();
        let blocked = state.left.writes == 0 || state.holds;
        if blocked || (!room && (!two_sided || state.left.faults == 0)) {
            return None;
        }
        let mut next = state.clone();
        next.left.writes -= 1;
        next.left.faults -= u8::from(!room);
        let stage = state.stage;
        let mut write = Write {
            stage,
            raised: state.raised,
            synced: state.sync.get(stage.authority().other()).is_synced(),
            policy: None,
            client: Client::Waits,
            legs: [None; 2],
            after: match self.effect {
                Effect::Adds => List::default(),
                Effect::Replaces => state.acknowledged(),
            },
        };
        for role in ROLES {
            let side = stage.side_of(role);
            if !stage.reaches(Operation::Write, side) || (role == Role::Other && !room) {
                continue;
            }
            let starts = role == Role::Authority || self.order.starts_other(None);
            write.legs[slot(role)] = Some(Leg {
                side,
                phase: if starts { Phase::Begun } else { Phase::Unstarted },
                placed: two_sided,
                marked: true,
                earlier: false,
                landed: false,
                absorbed: false,
                outcome: None,
            });
            if two_sided {
                next.enqueue(self.rules.queue(stage, role), ticket(n, role));
            }
        }
        next.writes[n] = Some(write);
        Some(next)
    }

    pub(super) fn begin_read(&self, state: &State) -> Option<State> {
        if state.left.reads == 0 || state.read.is_some() {
            return None;
        }
        let mut next = state.clone();
        next.left.reads -= 1;
        next.read = Some((state.stage.authority(), state.promised(self.effect)));
        Some(next)
    }

    pub(super) fn end_read(state: &State) -> Option<State> {
        state.read?;
        Some(State { read: None, ..state.clone() })
    }

    /// One leg has said how it ended, or that it is not run.
    pub(super) fn reported(&self, state: &mut State, n: usize, role: Role) {
        let Some(write) = state.writes[n] else { return };
        let outcome =
            |role| write.legs[slot(role)].map_or(Some(Outcome::NotRun), |leg| leg.outcome);
        if role == Role::Authority && write.stage.is_two_sided() {
            let applied = outcome(Role::Authority);
            if let Some(leg) = state.leg_mut(n, Role::Other)
                && leg.phase == Phase::Unstarted
            {
                if self.order.starts_other(applied) {
                    leg.phase = Phase::Begun;
                } else {
                    leg.outcome = Some(Outcome::NotRun);
                    self.release(state, n, Role::Other);
                }
            }
        }
        self.compare(state, n);
        self.answer(state, n, role);
    }

    /// Once both outcomes are known: equal or dirty.
    fn compare(&self, state: &mut State, n: usize) {
        let Some(write) = state.writes[n].filter(|write| write.stage.is_two_sided()) else {
            return;
        };
        let leg = |role| write.legs[slot(role)];
        let Some(authority) = leg(Role::Authority).and_then(|leg| leg.outcome) else { return };
        let other = match leg(Role::Other) {
            None => Some(Outcome::NotRun),
            Some(leg) if leg.absorbed => Some(authority),
            Some(leg) => leg.outcome,
        };
        let Some(other) = other else { return };
        let dirty = agreement(authority, other) == Agreement::Dirty;
        if dirty && self.rules.has(Off::Marking) {
            state.mark_dirty(write.stage.authority(), n);
        }
        let landed = |role| leg(role).is_some_and(|leg| leg.landed);
        let equal = landed(Role::Authority) == landed(Role::Other);
        let stale = !state.stage.is_two_sided();
        state.split |= !equal && state.dirty.is_none() && !stale;
    }

    /// Tells the client as soon as its policy allows.
    pub(super) fn answer(&self, state: &mut State, n: usize, role: Role) {
        let Some(mut write) = state.writes[n] else { return };
        let Some(authority) = write.legs[0].and_then(|leg| leg.outcome) else { return };
        // Once it waits, whoever has ended, and as things stand by then.
        if role == Role::Authority || write.policy.is_some() {
            let moved = state.stage.authority() != write.stage.authority();
            let policy = self.rules.policy(self.policy, write.raised, moved);
            let both = write.stage.is_two_sided();
            write.policy = Some(if both { policy } else { FailurePolicy::AuthorityWins });
            write.synced |= moved;
        }
        let Some(policy) = write.policy else { return };
        let theirs = match write.legs[1] {
            Some(leg) if policy.awaits_other() => match leg.outcome {
                Some(_) if leg.absorbed => authority,
                Some(outcome) => outcome,
                None => {
                    state.writes[n] = Some(write);
                    return;
                }
            },
            _ => Outcome::NotRun,
        };
        if write.client == Client::Waits {
            let promised = reply(policy, write.synced, authority, theirs) == Reply::Authority
                && authority == Outcome::Applied;
            let early = write.raised && state.unrecorded;
            if promised
                && self.rules.has(Off::AcknowledgedOnRecord)
                && acknowledged_on_record(early, theirs)
            {
                state.writes[n] = Some(write);
                return;
            }
            write.client = if promised { Client::Acknowledged } else { Client::Unsure };
        }
        // Of no further use: fewer states.
        write.policy = None;
        state.writes[n] = Some(write);
    }

    pub(super) fn hang_up(&self, state: &State, n: usize) -> Option<State> {
        let write = state.writes[n].filter(|write| write.client == Client::Waits)?;
        if state.left.faults == 0 {
            return None;
        }
        let mut next = state.clone();
        next.left.faults -= 1;
        if let Some(write) = &mut next.writes[n] {
            write.client = Client::Unsure;
        }
        if !write.stage.is_two_sided() {
            // Its future is dropped, its store may go on.
            self.set_adrift(&mut next, n, Role::Authority, lingers(None));
        }
        Some(next)
    }
}

impl State {
    pub(super) fn leg_mut(&mut self, n: usize, role: Role) -> Option<&mut Leg> {
        self.writes[n].as_mut()?.legs[slot(role)].as_mut()
    }

    pub(super) fn enqueue(&mut self, queue: usize, ticket: u8) {
        self.queues[queue].push(ticket);
        if let Some(copying) = &mut self.copying {
            copying.raced |= copying.source == queue;
        }
    }

    pub(super) fn mark_dirty(&mut self, right: Side, culprit: usize) {
        use tower_migration::{reconcile::RightSide, stage::is_marked};
        if !is_marked(self.stage, right) {
            return;
        }
        self.dirty = Some(RightSide::merged(self.dirty, right));
        self.culprit = culprit as u8 + 1;
        if let Some(copying) = &mut self.copying {
            copying.found = None;
        }
    }

    /// What a read that begins now must not miss: with `Adds`, the writes that
    /// its answer has; with `Replaces`, those that it is not.
    pub(super) fn promised(&self, effect: Effect) -> List {
        let acknowledged = self.acknowledged();
        if effect == Effect::Adds {
            return acknowledged;
        }
        let mut stale = List::default();
        for (n, write) in self.begun() {
            if acknowledged.contains(n as u8 + 1) {
                let new = write.after.as_slice().iter().filter(|w| !stale.contains(**w));
                new.copied().collect::<Vec<_>>().into_iter().for_each(|w| stale.push(w));
            }
        }
        stale
    }
}
