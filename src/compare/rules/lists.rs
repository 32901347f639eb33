//! Lists: in their order, without one, or matched by a member.

use std::collections::{HashMap, VecDeque};

use super::{
    Node,
    held::Held,
    pairing::Pairing,
    walk::Walk,
    way::{Frame, ListOrder, Step},
};
use crate::{
    compare::{SkipReason, findings::Findings},
    stage::Side,
};

/// How many elements are tried with each other.
const TRIED: usize = 64;

impl Walk<'_> {
    pub(super) fn lists<'a, N: Node<'a>>(
        &mut self,
        a: Vec<Held<N>>,
        b: Vec<Held<N>>,
        order: ListOrder<'_>,
        frame: Frame,
    ) {
        match order {
            ListOrder::Ordered => {
                let longest = a.len().max(b.len());
                let (mut a, mut b) = (a.into_iter(), b.into_iter());
                for at in 0..longest {
                    self.below(&Step::Index(at), a.next(), b.next(), frame);
                }
            }
            ListOrder::Unordered => self.sets(a, b, frame),
            ListOrder::MatchedBy(name) => self.matched(a, b, name, frame),
        }
    }

    fn sets<'a, N: Node<'a>>(&mut self, a: Vec<Held<N>>, b: Vec<Held<N>>, frame: Frame) {
        let a = self.elements(a, self.context.authority, frame);
        let b = self.elements(b, self.context.other, frame);
        let mut pairing = Pairing::of(
            a.iter().map(|element| element.canonical),
            b.iter().map(|element| element.canonical),
        );
        if self.rules.are_lenient() {
            // Of long lists, only what has no equal is tried.
            let short = a.len() <= TRIED && b.len() <= TRIED;
            let (mine, theirs) = if short { pairing.all() } else { pairing.alone() };
            if mine.len() <= TRIED && theirs.len() <= TRIED {
                pairing.widen(&mine, &theirs, |mine, theirs| {
                    self.alike(mine, &a[mine].value, &b[theirs].value, frame)
                });
            }
        }
        if self.stopped.is_some() {
            return;
        }
        let (mine, theirs) = pairing.alone();
        let deep = |all: &[Element<N>], alone: &[usize]| alone.iter().any(|at| all[*at].deep);
        // What is too deep to be read may be equal to what is, on the other side.
        let unclear = deep(&a, &mine) && deep(&b, &theirs);
        if unclear {
            self.found.unclear(SkipReason::TooDeep);
        }
        for at in mine.into_iter().filter(|at| !(unclear && a[*at].deep)) {
            self.below(&Step::Index(at), Some(a[at].value.clone()), None, frame);
        }
        for at in theirs.into_iter().filter(|at| !(unclear && b[*at].deep)) {
            self.below(&Step::Index(at), None, Some(b[at].value.clone()), frame);
        }
    }

    fn elements<'a, N: Node<'a>>(
        &mut self,
        values: Vec<Held<N>>,
        side: Side,
        frame: Frame,
    ) -> Vec<Element<N>> {
        let mut elements = Vec::with_capacity(values.len());
        for (at, value) in values.into_iter().enumerate() {
            let outer = std::mem::replace(&mut self.deep, false);
            let canonical = self.element(&value, at, side, frame);
            let deep = std::mem::replace(&mut self.deep, outer);
            self.deep |= deep;
            elements.push(Element { value, canonical, deep });
        }
        elements
    }

    /// Whether two elements are equal by the rules.
    fn alike<'a, N: Node<'a>>(
        &mut self,
        at: usize,
        mine: &Held<N>,
        theirs: &Held<N>,
        frame: Frame,
    ) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        let found = std::mem::take(&mut self.found);
        let outer = std::mem::replace(&mut self.tries, true);
        self.below(&Step::Index(at), Some(mine.clone()), Some(theirs.clone()), frame);
        self.tries = outer;
        let tried: Findings = std::mem::replace(&mut self.found, found);
        self.stopped.is_none() && tried.is_empty()
    }

    fn matched<'a, N: Node<'a>>(
        &mut self,
        a: Vec<Held<N>>,
        b: Vec<Held<N>>,
        name: &str,
        frame: Frame,
    ) {
        let (mine, theirs) = (self.context.authority, self.context.other);
        let mut there: HashMap<Option<u128>, VecDeque<usize>> = HashMap::new();
        for (at, element) in b.iter().enumerate() {
            let identity = self.identity(element, at, name, theirs, frame);
            there.entry(identity).or_default().push_back(at);
        }
        let mut b: Vec<_> = b.into_iter().map(Some).collect();
        for (at, element) in a.into_iter().enumerate() {
            let identity = self.identity(&element, at, name, mine, frame);
            let found = there.get_mut(&identity).and_then(VecDeque::pop_front);
            let other = found.and_then(|found| b[found].take());
            self.below(&Step::Index(at), Some(element), other, frame);
        }
        for (at, element) in b.into_iter().enumerate() {
            if element.is_some() {
                self.below(&Step::Index(at), None, element, frame);
            }
        }
    }
}

/// An element of a list without order.
struct Element<N> {
    value: Held<N>,
    canonical: Option<u128>,
    /// It is deeper than the walk goes, or something in it is.
    deep: bool,
}
