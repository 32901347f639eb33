//! Two documents, side by side: only what differs is opened.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
};

use super::{
    Action, Duplicates, Field, Node, Open, Rules, Tolerance,
    held::Held,
    way::{Applied, Frame, Step},
};
use crate::{
    compare::{Context, Diff, InconclusiveReason, SkipReason, findings::Findings},
    stage::Side,
};

/// One walk over two documents.
pub(in crate::compare) struct Walk<'r> {
    pub(super) rules: &'r Rules,
    pub(super) context: Context,
    pub(super) found: Findings,
    /// What comes before the pointer, such as `message 3 `.
    pub(super) before: String,
    /// Where the walk is, and where that is counted.
    pub(super) path: String,
    pub(super) place: String,
    /// How far each rule's pattern has come, for each place on the way.
    pub(super) states: Vec<(u16, u16)>,
    steps: u32,
    tells_apart: bool,
    renames: bool,
}

impl<'r> Walk<'r> {
    /// Walks two documents. `before` is put before each pointer.
    pub(in crate::compare) fn over<'a, N: Node<'a>>(
        rules: &'r Rules,
        context: Context,
        before: String,
        a: N,
        b: N,
    ) -> Diff {
        let mut walk = Self {
            rules,
            context,
            found: Findings::default(),
            before,
            path: String::new(),
            place: String::new(),
            states: Vec::new(),
            steps: 0,
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
        walk.found.end()
    }

    /// Whether there is no time for more. The clock is asked now and then.
    fn is_late(&mut self) -> bool {
        if self.found.why() == Some(InconclusiveReason::Deadline.into()) {
            return true;
        }
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(256) && self.context.is_late() {
            self.found.unclear(InconclusiveReason::Deadline);
            return true;
        }
        false
    }

    /// Two values of which one may be missing.
    pub(super) fn pair<'a, N: Node<'a>>(
        &mut self,
        a: Option<Held<N>>,
        b: Option<Held<N>>,
        frame: Frame,
    ) {
        if self.found.is_full() || self.is_late() {
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
                let frame = frame.of_entries();
                let members = |all: Vec<_>| -> Vec<_> {
                    all.into_iter().map(|(name, node)| (name, Held::Node(node))).collect()
                };
                self.objects(members(a), members(b), frame);
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
    ) -> Vec<(Cow<'a, str>, Held<N>)> {
        let mut named = Vec::with_capacity(members.len());
        for (name, node) in members {
            let name = if self.renames { self.renamed(name, side, frame) } else { name };
            named.push((name, Held::Node(node)));
        }
        if self.rules.duplicates == Duplicates::LastWins {
            let mut last = HashMap::new();
            for (at, (name, _)) in named.iter().enumerate() {
                last.insert(name.to_string(), at);
            }
            let mut at = 0..;
            named.retain(|(name, _)| last.get(&**name).copied() == at.next());
        }
        named
    }

    pub(super) fn renamed<'a>(
        &mut self,
        name: Cow<'a, str>,
        side: Side,
        frame: Frame,
    ) -> Cow<'a, str> {
        let (below, back) = self.enter(frame, &Step::Name(&name));
        let to = self.actions(below).filter_map(|action| match action {
            Action::Rename(of, to) if *of == side => Some(to),
            _ => None,
        });
        let to = to.last().map(|to| Cow::Owned(to.to_string()));
        self.leave(&back);
        to.unwrap_or(name)
    }

    fn objects<'a, N: Node<'a>>(
        &mut self,
        a: Vec<(Cow<'a, str>, Held<N>)>,
        b: Vec<(Cow<'a, str>, Held<N>)>,
        frame: Frame,
    ) {
        if a.len() == b.len() && a.iter().zip(&b).all(|((a, _), (b, _))| a == b) {
            for ((name, a), (_, b)) in a.into_iter().zip(b) {
                self.below(&Step::Name(&name), Some(a), Some(b), frame);
            }
            return;
        }
        // Of each name the first with the first, and so on.
        let mut theirs: BTreeMap<Cow<'a, str>, VecDeque<Held<N>>> = BTreeMap::new();
        for (name, b) in b {
            theirs.entry(name).or_default().push_back(b);
        }
        for (name, a) in a {
            let b = theirs.get_mut(&name).and_then(VecDeque::pop_front);
            self.below(&Step::Name(&name), Some(a), b, frame);
        }
        for (name, left) in theirs {
            for b in left {
                self.below(&Step::Name(&name), None, Some(b), frame);
            }
        }
    }

    pub(super) fn below<'a, N: Node<'a>>(
        &mut self,
        step: &Step<'_>,
        a: Option<Held<N>>,
        b: Option<Held<N>>,
        frame: Frame,
    ) {
        if self.found.is_full() {
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
