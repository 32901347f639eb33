//! The process ends, in order or not, and another one takes over.

use tower_migration::{Record, stage::SyncTable};

use crate::rules::Off;

use super::{
    Flow, State,
    state::{Client, CopyPhase, Cut, Durable, Phase, ROLES},
};

impl Flow {
    pub(super) fn crash(&self, state: &State) -> Option<State> {
        if state.left.crashes == 0 {
            return None;
        }
        let mut next = state.clone();
        next.left.crashes -= 1;
        self.restart(&mut next);
        Some(next)
    }

    /// `shutdown` waits for all legs, what lingers, and a step under way.
    pub(super) fn stop_cleanly(&self, state: &State) -> Option<State> {
        let background = state.legs().any(|(_, leg)| leg.is_live());
        let busy = state.step.is_some()
            || state.unrecorded
            || state.copying.is_some()
            || state.cut.is_some();
        if state.left.stops == 0 || background || busy {
            return None;
        }
        let mut next = state.clone();
        next.left.stops -= 1;
        next.save(state.stage, true);
        self.restart(&mut next);
        Some(next)
    }

    /// All that is left is the record, and what is still on its way to a store.
    fn restart(&self, state: &mut State) {
        let record = self.rules.after_restart(record(state.durable));
        let before = state.clone();
        let lingers = !state.durable.clean && self.rules.has(Off::Linger);
        for n in 0..state.writes.len() {
            for role in ROLES {
                let sent = self.runs(&before, n, role).is_some_and(|leg| {
                    matches!(leg.phase, Phase::Begun | Phase::Late | Phase::Adrift)
                });
                self.release(state, n, role);
                if let Some(leg) = state.leg_mut(n, role)
                    && sent
                {
                    leg.phase = Phase::Adrift;
                    leg.marked = lingers;
                }
            }
            if let Some(write) = &mut state.writes[n]
                && write.client == Client::Waits
            {
                write.client = Client::Unsure;
            }
        }
        state.queues = [crate::list::List::default(); 2];
        (state.raised, state.holds) = (false, false);
        (state.stage, state.sync) = (record.stage, record.sync);
        (state.dirty, state.culprit) = (None, 0);
        if self.world.copy_lands_after_death
            && let Some(copying) = state.copying.filter(|c| c.phase == CopyPhase::Write)
        {
            state.cut = Some(Cut { lingers: false, ..self.cut_off(copying) });
        }
        if !self.world.copy_lands_after_death {
            state.cut = None;
        }
        (state.copying, state.step, state.unrecorded) = (None, None, false);
        // What was copied is void, and so are the reads of the old process.
        (state.copied, state.read) = ([false; 2], None);
        state.durable = Durable { stage: record.stage, sync: record.sync, clean: false };
        state.age();
    }
}

fn record(durable: Durable) -> Record {
    let Durable { stage, sync, clean } = durable;
    let mut record = Record::start();
    record.stage = stage;
    record.sync = SyncTable::start();
    record.sync.old = sync.old;
    record.sync.new = sync.new;
    record.clean = clean;
    record
}
