//! Two documents, side by side: only what differs is opened.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
};

use super::{
    Action, Duplicates, Field, Node, Open, Rules, Tolerance,
    held::{Held, Member, unnamed},
    way::{Applied, Frame, Step},
};
use crate::{
    compare::{Context, Diff, InconclusiveReason, SkipReason, Unclear, findings::Findings},
    stage::Side,
};

/// How much is read between two looks at the clock, about in bytes.
const BETWEEN_LOOKS: usize = 64 << 10;

/// How often a document may be read over to try which elements of its lists are alike.
const TRIALS: usize = 256;

/// One walk over two documents.
pub(in crate::compare) struct Walk<'r> {
    pub(super) rules: &'r Rules,
    pub(super) context: Context,
    pub(super) found: Findings,
    /// Why the walk has ended before its end.
    pub(super) stopped: Option<Unclear>,
    /// What comes before the pointer, such as `message 3 `.
    pub(super) before: String,
    /// Where the walk is, and where that is counted.
    pub(super) path: String,
    pub(super) place: String,
    /// How far each rule's pattern has come, for each place on the way.
    pub(super) states: Vec<(u16, u16)>,
    /// What has been read since the clock was looked at, and what may still be read
    /// for trials.
    read: usize,
    trials: usize,
    /// Within a trial: nothing that is found there is shown.
    pub(super) tries: bool,
    /// A value has been met that is deeper than the walk goes.
    pub(super) deep: bool,
    tells_apart: bool,
    renames: bool,
}

impl<'r> Walk<'r> {
    /// Walks two documents of so many bytes together. `before` is put before each
    /// pointer.
    pub(in crate::compare) fn over<'a, N: Node<'a>>(
        rules: &'r Rules,
        context: Context,
        before: String,
        size: usize,
        (a, b): (N, N),
    ) -> Diff {
        let mut walk = Self {
            rules,
            context,
            found: Findings::default(),
            stopped: None,
            before,
            path: String::new(),
            place: String::new(),
            states: Vec::new(),
            read: 0,
            trials: size.saturating_mul(TRIALS).saturating_add(BETWEEN_LOOKS),
            tries: false,
            deep: false,
            tells_apart: rules.tell_sides_apart(),
            renames: rules.rename_anything(),
        };
        for (rule, (pattern, _)) in rules.rules.iter().enumerate() {
            for position in pattern.starts() {
                walk.states.push((rule as u16, position as u16));
            }
        }
        let root = walk.frame(0, 1, false);
        walk.pair(Some(Held::Node(a)), Some(Held::Node(b)), root);
        if let Some(reason) = walk.stopped {
            walk.found.unclear(reason);
        }
        walk.found.end()
    }

    /// Whether the walk has ended: there is no time, or no use, for more. The clock is
    /// asked now and then.
    pub(super) fn has_ended(&mut self, weight: usize) -> bool {
        if self.stopped.is_some() {
            return true;
        }
        let weight = weight.saturating_add(64);
        self.read += weight;
        if self.read >= BETWEEN_LOOKS {
            self.read = 0;
            if self.context.is_late() {
                self.stopped = Some(InconclusiveReason::Deadline.into());
            }
        }
        if self.tries {
            self.trials = self.trials.saturating_sub(weight);
            if self.trials == 0 {
                self.stopped = Some(SkipReason::TooLarge.into());
            }
        }
        self.stopped.is_some()
    }

    /// Two values of which one may be missing.
    pub(super) fn pair<'a, N: Node<'a>>(
        &mut self,
        a: Option<Held<N>>,
        b: Option<Held<N>>,
        frame: Frame,
    ) {
        let weight = |held: &Option<Held<N>>| held.as_ref().map_or(0, Held::weight);
        if self.found.is_full() || self.has_ended(weight(&a) + weight(&b)) {
            return;
        }
        let applied = self.applied(frame);
        if applied.ignored {
            return;
        }
        let a = prepared(a, &applied, self.context.authority);
        let b = prepared(b, &applied, self.context.other);
        if let (Some(a), Some(b)) = (&a, &b)
            && !self.tells_apart
            && a.same(b)
        {
            return;
        }
        if let Some(same) = applied.same {
            let field = |held: &Option<Held<N>>| held.as_ref().map_or(Field::ABSENT, Held::field);
            if !same(&field(&a), &field(&b)) {
                self.differ(a.as_ref(), b.as_ref(), frame);
            }
            return;
        }
        match (a, b) {
            (None, None) => {}
            (Some(a), Some(b)) => self.both(&a, &b, &applied, frame),
            (a, b) => self.differ(a.as_ref(), b.as_ref(), frame),
        }
    }

    fn both<'a, N: Node<'a>>(
        &mut self,
        a: &Held<N>,
        b: &Held<N>,
        applied: &Applied<'r>,
        frame: Frame,
    ) {
        let equal = match (a.open(), b.open()) {
            (Open::Null, Open::Null) => true,
            (Open::Bool(a), Open::Bool(b)) => a == b,
            (Open::Number(a), Open::Number(b)) => {
                let near = |t: Tolerance| t.is_of_numbers() && t.allows(&a, &b);
                self.rules.numbers.same(&a, &b) || applied.tolerance.is_some_and(near)
            }
            (Open::Text(a), Open::Text(b)) => {
                a == b || applied.tolerance.is_some_and(|t| t.allows(&a, &b))
            }
            (Open::Name(a), Open::Name(b)) => a == b,
            (Open::List(_) | Open::Object(_) | Open::Map(_), _)
                if frame.depth > self.rules.depth =>
            {
                self.found.unclear(SkipReason::TooDeep);
                return;
            }
            (Open::List(a), Open::List(b)) => {
                self.lists(held(a), held(b), applied.list, frame);
                return;
            }
            (Open::Object(a), Open::Object(b)) => {
                let a = self.members(a, self.context.authority, frame);
                let b = self.members(b, self.context.other, frame);
                self.objects(a, b, frame);
                return;
            }
            (Open::Map(a), Open::Map(b)) => {
                self.objects(unnamed(a), unnamed(b), frame.of_entries());
                return;
            }
            _ => false,
        };
        if !equal {
            self.differ(Some(a), Some(b), frame);
        }
    }

    /// The members of an object by the names that both sides know.
    pub(super) fn members<'a, N: Node<'a>>(
        &mut self,
        members: Vec<(Cow<'a, str>, N)>,
        side: Side,
        frame: Frame,
    ) -> Vec<Member<'a, N>> {
        let mut named = unnamed(members);
        if self.renames {
            for member in &mut named {
                let other = self.renamed(&member.name, side.other(), frame);
                if let Some(known) = self.renamed(&member.name, side, frame) {
                    member.others.push(std::mem::replace(&mut member.name, known));
                }
                member.others.extend(other);
            }
        }
        if self.rules.duplicates == Duplicates::LastWins {
            let mut last = HashMap::new();
            for (at, member) in named.iter().enumerate() {
                last.insert(member.name.to_string(), at);
            }
            let mut at = 0..;
            named.retain(|member| last.get(&*member.name).copied() == at.next());
        }
        named
    }

    /// What a member of this side is called by a rule.
    fn renamed<'a>(&mut self, name: &str, side: Side, frame: Frame) -> Option<Cow<'a, str>> {
        let (below, back) = self.enter(frame, &Step::Name(name));
        let to = self.actions(below).filter_map(|action| match action {
            Action::Rename(of, to) if *of == side => Some(to),
            _ => None,
        });
        let to = to.last().map(|to| Cow::Owned(to.to_string()));
        self.leave(&back);
        to
    }

    fn objects<'a, N: Node<'a>>(
        &mut self,
        a: Vec<Member<'a, N>>,
        b: Vec<Member<'a, N>>,
        frame: Frame,
    ) {
        if a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.name == b.name) {
            for (a, b) in a.iter().zip(&b) {
                self.member(Some(a), Some(b), frame);
            }
            return;
        }
        // Of each name the first with the first, and so on.
        let mut theirs: BTreeMap<Cow<'a, str>, VecDeque<Member<'a, N>>> = BTreeMap::new();
        for b in b {
            theirs.entry(b.name.clone()).or_default().push_back(b);
        }
        for a in a {
            let b = theirs.get_mut(&a.name).and_then(VecDeque::pop_front);
            self.member(Some(&a), b.as_ref(), frame);
        }
        for b in theirs.into_values().flatten() {
            self.member(None, Some(&b), frame);
        }
    }

    /// Two members of one name, of which one may be missing.
    fn member<'a, N: Node<'a>>(
        &mut self,
        a: Option<&Member<'a, N>>,
        b: Option<&Member<'a, N>>,
        frame: Frame,
    ) {
        let step = match (a, b) {
            (Some(a), b) => a.step(b),
            (None, Some(b)) => b.step(None),
            (None, None) => return,
        };
        let value = |member: Option<&Member<'a, N>>| Some(member?.value.clone());
        self.below(&step, value(a), value(b), frame);
    }

    pub(super) fn below<'a, N: Node<'a>>(
        &mut self,
        step: &Step<'_>,
        a: Option<Held<N>>,
        b: Option<Held<N>>,
        frame: Frame,
    ) {
        if self.found.is_full() || self.stopped.is_some() {
            return;
        }
        // Most are equal: those need no path.
        if let (Some(a), Some(b)) = (&a, &b)
            && !self.tells_apart
            && a.same(b)
        {
            return;
        }
        let (below, back) = self.enter(frame, step);
        self.pair(a, b, below);
        self.leave(&back);
    }
}

/// As the rules want a value of this side to be seen. `None`: there is nothing.
pub(super) fn prepared<'a, N: Node<'a>>(
    held: Option<Held<N>>,
    applied: &Applied<'_>,
    side: Side,
) -> Option<Held<N>> {
    let held = held?;
    let held = match applied.converts[side.index()] {
        Some(convert) => convert(&held.field()).map_or(held, Held::Made),
        None => held,
    };
    if applied.null_is_absent && held.is_null() { None } else { Some(held) }
}

pub(super) fn held<N>(nodes: Vec<N>) -> Vec<Held<N>> {
    nodes.into_iter().map(Held::Node).collect()
}
