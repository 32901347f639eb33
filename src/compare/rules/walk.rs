//! Two documents, side by side: only what differs is opened.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write,
};

use super::{Action, Convert, Duplicates, Field, Node, Open, Rules, Same, Tolerance, held::Held};
use crate::{
    compare::{Context, Diff, InconclusiveReason, SkipReason, findings::Findings},
    stage::Side,
};

/// What stands where one side has nothing.
const ABSENT: &str = "(absent)";

/// Where a text is cut that is shown: a little more than a difference shows.
const LONG: usize = 200;

/// How much a path may grow before it is cut, in bytes.
const LONGEST_PATH: usize = 300;

/// One walk over two documents.
pub(in crate::compare) struct Walk<'r> {
    pub(super) rules: &'r Rules,
    pub(super) context: Context,
    pub(super) found: Findings,
    /// What comes before the pointer, such as `message 3 `.
    before: String,
    /// Where the walk is, and where that is counted.
    path: String,
    place: String,
    /// How far each rule's pattern has come, for each place on the way.
    states: Vec<(u16, u16)>,
    steps: u32,
    tells_apart: bool,
    renames: bool,
}

/// A place on the way.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    from: usize,
    to: usize,
    pub(super) depth: usize,
    /// It or one above is secret.
    hidden: bool,
    /// Names below are data.
    entries: bool,
}

/// What to go back to.
pub(super) struct Back {
    states: usize,
    path: usize,
    place: usize,
}

pub(super) enum Step<'s> {
    Name(&'s str),
    Index(usize),
}

/// What the rules say of a place.
#[derive(Clone, Copy, Default)]
pub(super) struct Applied<'r> {
    pub(super) ignored: bool,
    pub(super) null_is_absent: bool,
    pub(super) tolerance: Option<Tolerance>,
    pub(super) list: ListOrder<'r>,
    same: Option<&'r Same>,
    converts: [Option<&'r Convert>; 2],
}

#[derive(Clone, Copy, Default)]
pub(super) enum ListOrder<'r> {
    #[default]
    Ordered,
    Unordered,
    MatchedBy(&'r str),
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

    fn frame(&self, from: usize, depth: usize, hidden: bool) -> Frame {
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
    fn actions(&self, frame: Frame) -> impl Iterator<Item = &'r Action> {
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
        let name = match step {
            Step::Name(name) => name,
            Step::Index(at) => {
                index = at.to_string();
                &*index
            }
        };
        for at in frame.from..frame.to {
            let (rule, position) = self.states[at];
            let (pattern, _) = &self.rules.rules[usize::from(rule)];
            let states = &mut self.states;
            let reach = |position| states.push((rule, position as u16));
            pattern.step(usize::from(position), |own| own == name, reach);
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
                let frame = Frame { entries: true, ..frame };
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

    fn renamed<'a>(&mut self, name: Cow<'a, str>, side: Side, frame: Frame) -> Cow<'a, str> {
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

    /// Notes a difference here.
    fn differ<'a, N: Node<'a>>(&mut self, a: Option<&Held<N>>, b: Option<&Held<N>>, frame: Frame) {
        // Else a number and a text of the same letters would look alike.
        let quoted = match (a, b) {
            (Some(a), Some(b)) => a.field().kind() != b.field().kind(),
            _ => false,
        };
        let mut shown = |held: Option<&Held<N>>| match held {
            None => ABSENT.to_owned(),
            Some(_) if frame.hidden => "(redacted)".to_owned(),
            Some(held) => match held.open() {
                Open::Text(text) if !quoted => text.into_owned(),
                _ => {
                    let mut text = String::new();
                    self.render(&mut text, held, frame);
                    text
                }
            },
        };
        let (a, b) = (shown(a), shown(b));
        let path = if self.path.is_empty() && self.before.is_empty() { "body" } else { &self.path };
        let place = if self.place.is_empty() { "body" } else { &self.place };
        let what = format!("{}{path}", self.before);
        self.found.add(Diff::at(place, what.trim_end(), a, b));
    }

    /// A value as JSON, cut where it is long and blank where it is secret.
    fn render<'a, N: Node<'a>>(&mut self, text: &mut String, held: &Held<N>, frame: Frame) {
        if text.len() > LONG {
            return;
        }
        if frame.hidden {
            text.push_str("(redacted)");
            return;
        }
        // A `String` takes everything.
        let _ = match held.open() {
            Open::Null => write!(text, "null"),
            Open::Bool(value) => write!(text, "{value}"),
            Open::Number(number) => write!(text, "{}", cut(&number)),
            Open::Text(of) => write!(text, "{:?}", cut(&of)),
            Open::List(elements) => {
                text.push('[');
                for (at, element) in elements.into_iter().enumerate() {
                    if text.len() > LONG {
                        break;
                    }
                    text.push_str(if at == 0 { "" } else { "," });
                    let (below, back) = self.enter(frame, &Step::Index(at));
                    self.render(text, &Held::Node(element), below);
                    self.leave(&back);
                }
                write!(text, "]")
            }
            Open::Object(members) => self.render_members(text, members, frame),
            Open::Map(members) => {
                self.render_members(text, members, Frame { entries: true, ..frame })
            }
        };
    }

    fn render_members<'a, N: Node<'a>>(
        &mut self,
        text: &mut String,
        members: Vec<(Cow<'a, str>, N)>,
        frame: Frame,
    ) -> std::fmt::Result {
        text.push('{');
        let mut comma = "";
        for (name, node) in members {
            let member = Held::Node(node);
            if text.len() > LONG || !member.is_shown() {
                continue;
            }
            // By either side's name, secret is secret.
            let hidden = Side::ALL.into_iter().any(|side| {
                let known = self.renamed(Cow::Borrowed(&*name), side, frame);
                let (below, back) = self.enter(frame, &Step::Name(&known));
                self.leave(&back);
                below.hidden
            });
            let (below, back) = self.enter(frame, &Step::Name(&name));
            let below = Frame { hidden: hidden || below.hidden, ..below };
            let shown = if frame.entries && below.hidden { "*" } else { cut(&name) };
            let _ = write!(text, "{comma}{shown:?}:");
            self.render(text, &member, below);
            self.leave(&back);
            comma = ",";
        }
        write!(text, "}}")
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

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONG).map_or(text, |(end, _)| &text[..end])
}
