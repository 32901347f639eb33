//! The watch, fed with the counters, and what it decides, done.

use std::{
    sync::{Arc, Mutex, MutexGuard, Weak, atomic::Ordering},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{
    Alarm, AlarmReason, AutoRollback,
    watch::{Act, Finding, Watch},
    window::Counts,
};
use crate::{
    flag::{
        Core, Kind, Reason,
        core::locked,
        gate::Position,
        gates::LegTally,
        steps::{passage_between, permission_between},
    },
    stage::{Passage, Side, Stage, SyncState, Urgency},
};

/// The automatic rollback of one handle.
#[derive(Debug)]
pub(in crate::flag) struct Guard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watch: Watch,
    /// Where the watch's clock begins.
    began: Instant,
    /// The stay that the window is of, by the epoch that opened it.
    stay: Option<u64>,
    alarm: Option<Alarm>,
    /// What the flag went back for, until it is re-armed.
    fired: Option<Alarm>,
}

impl Guard {
    pub(in crate::flag) fn new(config: AutoRollback) -> Self {
        let watch = Watch::new(config);
        let began = Instant::now();
        Self { state: Mutex::new(State { watch, began, stay: None, alarm: None, fired: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Whether clients are served by new in this stage.
const fn serves_new(stage: Stage) -> bool {
    matches!(stage.authority(), Side::New)
}

impl Core {
    /// Whether any client is served by new: also where a ramp lets some of the
    /// keys go ahead.
    fn new_serves_clients(&self, stage: Stage) -> bool {
        serves_new(stage) || self.word().ramps()
    }
}

impl State {
    /// New's legs as the authority.
    fn counts(&self, tally: impl Fn(Kind) -> LegTally) -> Counts {
        let bound = self.watch.config.slow_bound();
        let mut counts = Counts::default();
        for kind in [Kind::read(Side::New), Kind::write(Side::New)] {
            let legs = tally(kind);
            counts.ended += legs.counts.total();
            counts.unknown += legs.counts.unknown;
            counts.dropped += legs.dropped;
            if let Some(bound) = bound {
                counts.timed += legs.durations.count();
                counts.slow += legs.durations.slower_than(bound);
            }
        }
        counts
    }

    fn alarm(&self, finding: Finding, stage: Stage) -> Alarm {
        let Finding { reason, measured, threshold, samples } = finding;
        Alarm {
            reason,
            measured,
            threshold,
            samples,
            window: self.watch.config.window,
            slower_than: self.watch.config.slow_bound().filter(|_| reason == AlarmReason::Latency),
            stage,
            at: SystemTime::now(),
        }
    }
}

impl Core {
    /// Looks at new, and does something about it. Called once a second.
    pub(in crate::flag) fn keep_watch(self: &Arc<Self>) {
        let Some(guard) = &self.guard else {
            return;
        };
        // Of one piece, also while the flag moves.
        let entered = self.entered();
        let stage = entered.stage;
        let may = self.may_roll_back(stage);
        let mut state = guard.lock();
        if state.stay != Some(entered.epoch) {
            state.stay = Some(entered.epoch);
            let at = entered.at.saturating_duration_since(state.began);
            let counts = state.counts(|kind| entered.tally(kind));
            state.watch.enter(at, counts);
        }
        let act = if self.new_serves_clients(stage) {
            let counts = state.counts(|kind| self.tally(kind));
            let now = state.began.elapsed();
            state.watch.look(now, counts, may.is_ok())
        } else {
            state.watch.idle()
        };
        match act {
            Act::Nothing => {}
            Act::RollBack(finding) => {
                let alarm = state.alarm(finding, stage);
                drop(state);
                let firing = Firing { core: Arc::downgrade(self), finding, alarm };
                tokio::spawn(Arc::clone(self).roll_back_by_itself(entered.epoch, firing));
            }
            Act::Alarm(finding) => {
                let why = match may {
                    Ok(()) => "it has gone back once and was not re-armed",
                    Err(why) => why,
                };
                let alarm = state.alarm(finding, stage);
                self.raise(&mut state, alarm, why);
            }
            Act::AllClear => {
                state.alarm = None;
                tracing::info!(
                    target: "tower_migration",
                    migration = %self.name(), %stage,
                    "the alarm is over"
                );
            }
        }
    }

    /// Whether this process may move the flag back from `stage` by itself, or
    /// why not.
    fn may_roll_back(&self, stage: Stage) -> Result<(), &'static str> {
        let from = Position { stage, share: self.word().share() };
        let to = Position::from(Stage::WriteBoth);
        if self.follows() {
            return Err("another process owns the flag");
        }
        if passage_between(from, to, Urgency::Emergency) != Passage::Emergency {
            return Err("old has missed writes in this stage, going back would lose them");
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err("the handle was shut down");
        }
        if stage == Stage::ReadNew && self.sync().get(Side::Old) == SyncState::Unsynced {
            return Err("old is unsynced and would serve data with holes");
        }
        if self.check(permission_between(from, to, Urgency::Emergency)).is_err() {
            return Err("the way back is blocked");
        }
        Ok(())
    }

    async fn roll_back_by_itself(self: Arc<Self>, stay: u64, firing: Firing) {
        let alarm = firing.alarm.clone();
        let fired = || {
            // Before anybody can have the next turn.
            if let Some(guard) = &self.guard {
                let mut state = guard.lock();
                state.watch.fired();
                state.alarm = None;
                state.fired = Some(alarm.clone());
            }
            self.counters.auto_rolled_back(alarm.reason);
            tracing::error!(
                target: "tower_migration",
                migration = %self.name(),
                reason = %alarm.reason,
                measured = alarm.measured,
                threshold = alarm.threshold,
                samples = alarm.samples,
                "ROLLING BACK BY ITSELF: {alarm}; rearm() lets the flag go to read-new again"
            );
        };
        if let Err(blocked) = self.exit_by_itself(stay, fired).await {
            tracing::warn!(target: "tower_migration", migration = %self.name(), "{blocked}");
        }
        drop(firing);
    }

    fn raise(&self, state: &mut State, alarm: Alarm, why: &str) {
        tracing::error!(
            target: "tower_migration",
            migration = %self.name(),
            reason = %alarm.reason,
            measured = alarm.measured,
            threshold = alarm.threshold,
            samples = alarm.samples,
            stage = %alarm.stage,
            "ALARM: {alarm}; not rolled back: {why}"
        );
        state.alarm = Some(alarm);
    }

    /// What the flag has gone back for by itself, if it was not re-armed since.
    pub(in crate::flag) fn auto_rollback(&self) -> Option<Alarm> {
        self.guard.as_ref()?.lock().fired.clone()
    }

    /// The alarm that stands.
    pub(in crate::flag) fn alarm(&self) -> Option<Alarm> {
        self.guard.as_ref()?.lock().alarm.clone()
    }

    /// Why an orderly step is refused after the flag has gone back by itself.
    pub(in crate::flag) fn rolled_back(&self, from: Stage, to: Stage) -> Option<Reason> {
        if !serves_new(to) || serves_new(from) {
            return None;
        }
        self.auto_rollback().map(|alarm| Reason::RolledBack { alarm })
    }

    pub(in crate::flag) fn rearm(&self) -> Option<Alarm> {
        let guard = self.guard.as_ref()?;
        let mut state = guard.lock();
        state.watch.rearm();
        let alarm = state.alarm.take();
        let lifted = state.fired.take().or(alarm)?;
        tracing::warn!(
            target: "tower_migration",
            migration = %self.name(),
            "re-armed by an operator, after: {lifted}"
        );
        Some(lifted)
    }
}

/// A rollback under way. Dropped without one, for whatever reason, it leaves an
/// alarm, and the watch may try again.
struct Firing {
    core: Weak<Core>,
    finding: Finding,
    alarm: Alarm,
}

impl Drop for Firing {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if let Some(guard) = &core.guard {
            let mut state = guard.lock();
            if state.watch.misfired(self.finding) {
                core.raise(&mut state, self.alarm.clone(), "the step was refused");
            }
        }
    }
}
