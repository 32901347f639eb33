//! Asking the gates.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{Evidence, Gate, GateVerdict};
use crate::{
    flag::{Core, Reason, steps::permission_between},
    stage::{Stage, Urgency},
};

/// The gates of one handle, in the order in which they were given.
#[derive(Clone, Default)]
pub(in crate::flag) struct Gates(Vec<Arc<dyn Gate>>);

impl Gates {
    pub(in crate::flag) fn push(&mut self, gate: impl Gate) {
        self.0.push(Arc::new(gate));
    }

    fn ask(&self, evidence: &Evidence) -> Vec<GateVerdict> {
        let ask = |gate: &Arc<dyn Gate>| {
            let name = catch_unwind(AssertUnwindSafe(|| gate.name().into_owned()));
            let says = catch_unwind(AssertUnwindSafe(|| gate.check(evidence)));
            GateVerdict {
                gate: name.unwrap_or_else(|_| "a gate whose name panics".to_owned()),
                refuses: says.unwrap_or_else(|_| Err("it panicked".to_owned())).err(),
            }
        };
        self.0.iter().map(ask).collect()
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|gate| gate.name())).finish()
    }
}

impl Core {
    /// What the gates say to the step that comes next.
    pub(in crate::flag) fn gate_verdicts(&self) -> Vec<GateVerdict> {
        let gates = &self.options.gates;
        if gates.0.is_empty() || self.word().stage().next().is_none() {
            return Vec::new();
        }
        gates.ask(&self.evidence())
    }

    /// What stands against the next orderly step at this moment, in words.
    pub(in crate::flag) fn against_next(&self) -> Vec<String> {
        let from = self.word().position();
        let Some(to) = from.stage.next() else { return Vec::new() };
        let needs = permission_between(from, to.into(), Urgency::Orderly);
        let mut against = self.check(needs).err().unwrap_or_default();
        if needs.settled && !self.is_settled() {
            against.push(self.not_settled(Duration::ZERO));
        }
        against.extend(self.refusals(from.stage, to));
        against.iter().map(ToString::to_string).collect()
    }

    /// What stands against an orderly step towards new besides the conditions
    /// that are built in. Those who call it hold the turn, so `from` is the stage
    /// that the evidence is of.
    pub(in crate::flag) fn refusals(&self, from: Stage, to: Stage) -> Vec<Reason> {
        if to <= from {
            return Vec::new();
        }
        let rolled_back = self.rolled_back(from, to);
        let gates = &self.options.gates;
        if gates.0.is_empty() {
            return rolled_back.into_iter().collect();
        }
        let verdicts = gates.ask(&Evidence { to, ..self.evidence() });
        let refused =
            |GateVerdict { gate, refuses }| refuses.map(|says| Reason::Gate { gate, says });
        rolled_back.into_iter().chain(verdicts.into_iter().filter_map(refused)).collect()
    }
}
