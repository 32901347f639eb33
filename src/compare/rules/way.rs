//! Where a walk is, and which rules hold there.

use super::{Action, Convert, Same, Tolerance, shown::cut, walk::Walk};
use crate::pattern::reach;

/// How much a path may grow before it is cut, in bytes.
const LONGEST_PATH: usize = 300;

/// A place on the way.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    from: usize,
    to: usize,
    pub(super) depth: usize,
    /// It or one above is secret.
    pub(super) hidden: bool,
    /// Names below are data.
    pub(super) entries: bool,
}

impl Frame {
    pub(super) fn of_entries(mut self) -> Self {
        self.entries = true;
        self
    }
}

/// What to go back to.
pub(super) struct Back {
    states: usize,
    path: usize,
    place: usize,
}

pub(super) enum Step<'s> {
    Name(&'s str),
    /// One that a side, or both, calls something else.
    Renamed(&'s str, Vec<&'s str>),
    Index(usize),
}

/// What the rules say of a place.
#[derive(Clone, Copy, Default)]
pub(super) struct Applied<'r> {
    pub(super) ignored: bool,
    pub(super) null_is_absent: bool,
    pub(super) tolerance: Option<Tolerance>,
    pub(super) list: ListOrder<'r>,
    pub(super) same: Option<&'r Same>,
    pub(super) converts: [Option<&'r Convert>; 2],
}

#[derive(Clone, Copy, Default)]
pub(super) enum ListOrder<'r> {
    #[default]
    Ordered,
    Unordered,
    MatchedBy(&'r str),
}

impl<'r> Walk<'r> {
    pub(super) fn frame(&self, from: usize, depth: usize, hidden: bool) -> Frame {
        let mut frame = Frame { from, to: self.states.len(), depth, hidden, entries: false };
        for action in self.actions(frame) {
            match action {
                Action::Redact => frame.hidden = true,
                Action::Entries => frame.entries = true,
                _ => {}
            }
        }
        frame
    }

    /// The rules whose patterns end here.
    pub(super) fn actions(&self, frame: Frame) -> impl Iterator<Item = &'r Action> {
        let rules = &self.rules.rules;
        self.states[frame.from..frame.to].iter().filter_map(move |(rule, position)| {
            let (pattern, action) = &rules[usize::from(*rule)];
            pattern.ends(usize::from(*position)).then_some(action)
        })
    }

    pub(super) fn applied(&self, frame: Frame) -> Applied<'r> {
        let mut applied = Applied::default();
        for action in self.actions(frame) {
            match action {
                Action::Ignore => applied.ignored = true,
                Action::NullIsAbsent => applied.null_is_absent = true,
                Action::Tolerate(tolerance) => applied.tolerance = Some(*tolerance),
                Action::Unordered => applied.list = ListOrder::Unordered,
                Action::MatchedBy(name) => applied.list = ListOrder::MatchedBy(name),
                Action::With(same) => applied.same = Some(&**same),
                Action::Convert(side, convert) => {
                    applied.converts[side.index()] = Some(&**convert);
                }
                Action::Redact | Action::Entries | Action::Rename(..) => {}
            }
        }
        applied
    }

    /// Goes one step down. [`leave`](Self::leave) goes back.
    pub(super) fn enter(&mut self, frame: Frame, step: &Step<'_>) -> (Frame, Back) {
        let back =
            Back { states: self.states.len(), path: self.path.len(), place: self.place.len() };
        let index;
        let (name, others) = match step {
            Step::Name(name) => (*name, &[][..]),
            Step::Renamed(name, others) => (*name, &**others),
            Step::Index(at) => {
                index = at.to_string();
                (&*index, &[][..])
            }
        };
        // Where the states of the present rule begin: those of one are side by side.
        let (mut present, mut first) = (None, back.states);
        for at in frame.from..frame.to {
            let (rule, position) = self.states[at];
            if present != Some(rule) {
                (present, first) = (Some(rule), self.states.len());
            }
            let (pattern, action) = &self.rules.rules[usize::from(rule)];
            let states = &mut self.states;
            let mut to = |name| {
                let reach = |position| reach(states, first, (rule, position as u16));
                pattern.step(usize::from(position), |own| own == name, reach);
            };
            to(name);
            // Secret is secret, by whatever name.
            if matches!(action, Action::Redact) {
                others.iter().copied().for_each(to);
            }
        }
        let below = self.frame(back.states, frame.depth + 1, frame.hidden);
        let masked = frame.hidden || (frame.entries && below.hidden);
        let named = if masked { "*" } else { name };
        push_step(&mut self.path, named);
        let data = frame.entries || matches!(step, Step::Index(_));
        push_step(&mut self.place, if data { "*" } else { named });
        (below, back)
    }

    pub(super) fn leave(&mut self, back: &Back) {
        self.states.truncate(back.states);
        self.path.truncate(back.path);
        self.place.truncate(back.place);
    }
}

fn push_step(path: &mut String, name: &str) {
    if path.len() > LONGEST_PATH {
        if !path.ends_with("/…") {
            path.push_str("/…");
        }
        return;
    }
    path.push('/');
    for letter in cut(name).chars() {
        match letter {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            letter => path.push(letter),
        }
    }
}
