//! One process with one key: requests, flips, copies and crashes, in every
//! order.
//!
//! What is left out on purpose: time (a limit passes whenever it likes, and a
//! linger is always long enough), the table of several keys (they share
//! nothing but the flag), and what a client sees besides its acknowledgement.

mod copies;
mod crashes;
mod legs;
pub mod properties;
mod requests;
mod state;
mod steps;

use stateright::{Model, Property};
use tower_migration::{
    FailurePolicy, Role, Side, Stage, WriteOrder,
    stage::{SyncState, SyncTable, Urgency},
};

pub use self::state::{Budget, State};
use self::state::{Durable, ROLES};
use crate::{
    list::List,
    rules::{Off, Rules},
};

/// What a write does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Adds to it: an increment. Twice is wrong, and so is another order.
    Adds,
    /// Replaces it.
    Replaces,
}

/// Where the process starts, what its requests are like, and how much of
/// everything there is.
#[derive(Clone, Debug)]
pub struct Flow {
    pub rules: Rules,
    pub stage: Stage,
    pub old_synced: bool,
    pub new_synced: bool,
    pub effect: Effect,
    pub policy: FailurePolicy,
    pub order: WriteOrder,
    pub world: World,
    pub budget: Budget,
}

/// What the crate's promise does not reach: each is a loss that it cannot or
/// does not prevent, and has a test that says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct World {
    /// A leg that has answered that it failed lands all the same.
    pub lands_after_failure: bool,
    /// What a copy of a dead process had sent to its target lands all the same.
    pub copy_lands_after_death: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin,
    /// A write begins for whose other leg there is no room.
    BeginWithoutRoom,
    Apply(usize, Role),
    Refuse(usize, Role),
    /// Answers that nobody knows; the write has landed or it has not.
    Fail(usize, Role, bool),
    TimeOut(usize, Role),
    /// A leg whose limit has passed comes to its end.
    EndLate(usize, Role, bool),
    GiveUp(usize, Role),
    /// What was cut off or given up lands after all.
    Land(usize, Role),
    /// It will not land any more.
    Expire(usize, Role),
    HangUp(usize),
    BeginRead,
    EndRead,
    Copy(Side),
    CopyGoesOn,
    /// The copy's caller goes away, before or after its target was written.
    CutCopy(bool),
    /// What a copy that was cut off had sent lands, or never will.
    EndCut(bool),
    Confirm(Side),
    Step(Stage, Urgency),
    StepGoesOn,
    /// The step's caller goes away, or its deadline passes.
    StepBack,
    /// The record of an emergency exit is durable.
    Record,
    Crash,
    StopCleanly,
}

impl Flow {
    /// Starts at `stage`, with the sides synced that it needs to be reached.
    pub fn at(stage: Stage, budget: Budget) -> Self {
        Self {
            rules: Rules::ALL_ON,
            stage,
            old_synced: stage != Stage::NewOnly,
            new_synced: stage != Stage::OldOnly,
            effect: Effect::Adds,
            policy: FailurePolicy::AuthorityWins,
            order: WriteOrder::Concurrent,
            world: World::default(),
            budget,
        }
    }

    pub fn without(self, rule: Off) -> Self {
        Self { rules: Rules::without(rule), ..self }
    }
}

impl Model for Flow {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let known = |synced| if synced { SyncState::Synced } else { SyncState::Unsynced };
        let row = |synced| if synced { List::of(&[0]) } else { List::default() };
        let sync = SyncTable::start()
            .with(Side::Old, known(self.old_synced))
            .with(Side::New, known(self.new_synced));
        vec![State {
            data: [row(self.old_synced), row(self.new_synced)],
            stage: self.stage,
            raised: false,
            holds: false,
            sync,
            dirty: None,
            culprit: 0,
            queues: [List::default(); 2],
            writes: [None; 3],
            copying: None,
            step: None,
            unrecorded: false,
            durable: Durable { stage: self.stage, sync, clean: false },
            copied: [false; 2],
            read: None,
            cut: None,
            left: self.budget,
            split: false,
            hasty: false,
            healed: false,
            landed_late: false,
            absorbed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend([Action::Begin, Action::BeginWithoutRoom]);
        for (write, begun) in state.begun() {
            actions.push(Action::HangUp(write));
            for role in ROLES {
                if !state.leg(write, role).is_some_and(|leg| leg.is_live()) {
                    continue;
                }
                actions.extend([
                    Action::Apply(write, role),
                    Action::Refuse(write, role),
                    Action::Fail(write, role, true),
                    Action::TimeOut(write, role),
                    Action::EndLate(write, role, true),
                    Action::EndLate(write, role, false),
                    Action::GiveUp(write, role),
                    Action::Land(write, role),
                    Action::Expire(write, role),
                ]);
                if begun.stage.is_two_sided() {
                    actions.push(Action::Fail(write, role, false));
                }
            }
        }
        actions.extend([Action::BeginRead, Action::EndRead]);
        actions.extend(Side::ALL.map(Action::Copy));
        if state.copying.is_some() {
            actions.extend([Action::CopyGoesOn, Action::CutCopy(false), Action::CutCopy(true)]);
        }
        if state.cut.is_some() {
            actions.extend([Action::EndCut(false), Action::EndCut(true)]);
        }
        actions.extend(Side::ALL.map(Action::Confirm));
        for stage in Stage::ALL {
            actions.push(Action::Step(stage, Urgency::Orderly));
        }
        actions.push(Action::Step(Stage::WriteBoth, Urgency::Emergency));
        actions.extend([Action::StepGoesOn, Action::StepBack, Action::Record]);
        actions.extend([Action::Crash, Action::StopCleanly]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        match action {
            Action::Begin => self.begin(state, true),
            Action::BeginWithoutRoom => self.begin(state, false),
            Action::Apply(write, role) => self.apply(state, write, role),
            Action::Refuse(write, role) => self.refuse(state, write, role),
            Action::Fail(write, role, landed) => self.fail(state, write, role, landed),
            Action::TimeOut(write, role) => self.time_out(state, write, role),
            Action::EndLate(write, role, landed) => self.end_late(state, write, role, landed),
            Action::GiveUp(write, role) => self.give_up(state, write, role),
            Action::Land(write, role) => self.land(state, write, role),
            Action::Expire(write, role) => self.expire(state, write, role),
            Action::HangUp(write) => self.hang_up(state, write),
            Action::BeginRead => self.begin_read(state),
            Action::EndRead => Self::end_read(state),
            Action::Copy(from) => self.copy(state, from),
            Action::CopyGoesOn => self.copy_goes_on(state),
            Action::CutCopy(landed) => self.cut_copy(state, landed),
            Action::EndCut(landed) => Self::end_cut(state, landed),
            Action::Confirm(side) => Self::confirm(state, side),
            Action::Step(to, urgency) => self.step(state, to, urgency),
            Action::StepGoesOn => self.step_goes_on(state),
            Action::StepBack => Self::step_back(state),
            Action::Record => self.record(state),
            Action::Crash => self.crash(state),
            Action::StopCleanly => self.stop_cleanly(state),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
