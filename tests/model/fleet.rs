//! Several processes with one pair of stores, each at a stage of its own: what
//! they do to each other, with no failing legs.
//!
//! Within one process the same holds between the requests before and after a
//! flip, which is what the steps are made of.

use stateright::{Model, Property};
use tower_migration::{
    FailurePolicy, Operation, Outcome, Role, Side, Stage,
    stage::{Passage, Reply, SyncState, SyncTable, Urgency, passage, permission, reply},
};

use crate::{list::List, rules::Rules};

pub const READS: &str = "a read on any instance sees what was acknowledged on any";
pub const NEIGHBOURS: &str = "at most neighbouring stages live";

/// At most this many instances, and writes.
const MOST: usize = 3;

/// Who starts where, and how much of everything there is.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub rules: Rules,
    /// Where the instances start.
    pub stages: Vec<Stage>,
    /// What a write waits for when nobody has asked for more.
    pub policy: FailurePolicy,
    pub writes: u8,
    pub moves: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    stage: Stage,
    policy: FailurePolicy,
    outcomes: [Option<Outcome>; 2],
    acknowledged: bool,
}

impl Write {
    fn is_live(&self) -> bool {
        self.outcomes.contains(&None)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    data: [List; 2],
    stages: [Option<Stage>; MOST],
    sync: SyncTable,
    /// Every instance requires both legs from now on.
    raised: bool,
    writes: [Option<Write>; MOST],
    moves: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin(usize),
    Apply(usize, Role),
    /// All instances are told to require both legs, or no longer to.
    Raise(bool),
    Move(usize, Stage),
    /// A whole backfill, while nothing runs: single copies are `Flow`'s affair.
    Backfill,
}

const ROLES: [Role; 2] = [Role::Authority, Role::Other];

impl State {
    fn stages(&self) -> impl Iterator<Item = Stage> + '_ {
        self.stages.iter().flatten().copied()
    }

    fn live(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().flatten().filter(|write| write.is_live())
    }

    fn is_uniform(&self) -> bool {
        self.stages().all(|stage| Some(stage) == self.stages[0])
    }

    fn acknowledged(&self) -> impl Iterator<Item = u8> + '_ {
        let told = |write: &Option<Write>| write.is_some_and(|write| write.acknowledged);
        self.writes
            .iter()
            .enumerate()
            .filter(move |(_, write)| told(write))
            .map(|(n, _)| n as u8 + 1)
    }
}

impl Fleet {
    fn begin(&self, state: &State, instance: usize) -> Option<State> {
        let stage = state.stages[instance]?;
        let n = state.writes.iter().position(Option::is_none)?;
        if n >= usize::from(self.writes) {
            return None;
        }
        let mut next = state.clone();
        next.writes[n] = Some(Write {
            stage,
            policy: if state.raised { FailurePolicy::RequireBoth } else { self.policy },
            outcomes: ROLES.map(|role| {
                let reached = stage.reaches(Operation::Write, stage.side_of(role));
                if reached { None } else { Some(Outcome::NotRun) }
            }),
            acknowledged: false,
        });
        Some(next)
    }

    fn apply(state: &State, n: usize, role: Role) -> Option<State> {
        let mut write = state.writes[n]?;
        let slot = usize::from(role == Role::Other);
        if write.outcomes[slot].is_some() {
            return None;
        }
        let mut next = state.clone();
        next.data[write.stage.side_of(role) as usize].push(n as u8 + 1);
        write.outcomes[slot] = Some(Outcome::Applied);
        let waits = write.policy.awaits_other() && write.is_live();
        if let ([Some(authority), other], false) = (write.outcomes, waits) {
            let other = other.unwrap_or(Outcome::NotRun);
            let one_sided = !write.stage.is_two_sided();
            let policy = if one_sided { FailurePolicy::AuthorityWins } else { write.policy };
            write.acknowledged = reply(policy, true, authority, other) == Reply::Authority;
        }
        next.writes[n] = Some(write);
        Some(next)
    }

    /// One instance takes one step. An instance at `to` and all others must be
    /// neighbours, and so must what still runs.
    fn step(&self, state: &State, instance: usize, to: Stage) -> Option<State> {
        let from = state.stages[instance]?;
        let passage = self.rules.passage(from, to, Urgency::Orderly);
        if state.moves == 0 || matches!(passage, Passage::Stay | Passage::Jump) {
            return None;
        }
        let far = |stage: Stage| self.rules.passage(stage, to, Urgency::Orderly) == Passage::Jump;
        if state.stages().any(far) || state.live().any(|write| far(write.stage)) {
            return None;
        }
        if permission(from, to, Urgency::Orderly).lacks(state.sync).is_some() {
            return None;
        }
        let alone = |write: &Write| !write.policy.awaits_other();
        if passage == Passage::Held && (!state.raised || state.live().any(alone)) {
            return None;
        }
        let mut next = state.clone();
        next.moves -= 1;
        next.stages[instance] = Some(to);
        next.sync = next.sync.entering(to);
        Some(next)
    }

    fn raise(state: &State, raised: bool) -> Option<State> {
        let lowers_early = !raised && !state.is_uniform();
        (state.raised != raised && !lowers_early).then(|| State { raised, ..state.clone() })
    }

    fn backfill(state: &State) -> Option<State> {
        let settled = state.live().next().is_none() && state.stages().all(Stage::is_two_sided);
        let authority = state.stages[0]?.authority();
        let side = authority.other();
        if !settled || !state.is_uniform() || state.sync.get(side).is_synced() {
            return None;
        }
        let mut next = state.clone();
        next.data[side as usize] = state.data[authority as usize];
        next.sync = next.sync.with(side, SyncState::Synced);
        Some(next)
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let both_hold_all = self.stages.iter().any(|stage| *stage != Stage::OldOnly);
        let new = if both_hold_all { SyncState::Synced } else { SyncState::Unsynced };
        vec![State {
            data: [List::default(); 2],
            stages: [0, 1, 2].map(|n| self.stages.get(n).copied()),
            sync: SyncTable::start().with(Side::New, new),
            raised: false,
            writes: [None; MOST],
            moves: self.moves,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for instance in 0..self.stages.len() {
            actions.push(Action::Begin(instance));
            actions.extend(Stage::ALL.map(|stage| Action::Move(instance, stage)));
        }
        for (n, _) in state.writes.iter().enumerate().filter(|(_, write)| write.is_some()) {
            actions.extend(ROLES.map(|role| Action::Apply(n, role)));
        }
        if self.moves > 0 {
            actions.extend([Action::Raise(true), Action::Raise(false), Action::Backfill]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        match action {
            Action::Begin(instance) => self.begin(state, instance),
            Action::Apply(write, role) => Self::apply(state, write, role),
            Action::Raise(raised) => Self::raise(state, raised),
            Action::Move(instance, to) => self.step(state, instance, to),
            Action::Backfill => Self::backfill(state),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(READS, |_, state: &State| {
                state.stages().all(|stage| {
                    let row = &state.data[stage.authority() as usize];
                    state.acknowledged().all(|write| row.contains(write))
                })
            }),
            Property::always(NEIGHBOURS, |fleet: &Self, state: &State| {
                let live = || state.live().map(|write| write.stage).chain(state.stages());
                let far = |a, b| passage(a, b, Urgency::Orderly) == Passage::Jump;
                // Where the stages are given, that is the question and no answer.
                fleet.moves == 0 || live().all(|a| live().all(|b| !far(a, b)))
            }),
            Property::sometimes("new misses a write", |_, s: &State| {
                s.acknowledged().any(|write| !s.data[1].contains(write))
            }),
            Property::sometimes("old misses a write", |_, s: &State| {
                s.acknowledged().any(|write| !s.data[0].contains(write))
            }),
            Property::sometimes("all writes are acknowledged", |m: &Self, s: &State| {
                s.acknowledged().count() == usize::from(m.writes)
            }),
            Property::sometimes("the fleet is at two stages", |_, s: &State| !s.is_uniform()),
            Property::sometimes("the fleet has arrived", |_, s: &State| {
                s.stages().all(|stage| stage == Stage::NewOnly)
            }),
        ]
    }
}
