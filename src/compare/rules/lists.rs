//! Lists: in their order, without one, or matched by a member.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hasher,
};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    Node, Open,
    held::Held,
    walk::{Walk, held, prepared},
    way::{Applied, Frame, ListOrder, Step},
};
use crate::{compare::findings::Findings, stage::Side};

/// How many elements without an equal are tried with each other.
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
        let (mine, theirs) = (self.context.authority, self.context.other);
        let mut there: HashMap<u128, VecDeque<usize>> = HashMap::new();
        for (at, element) in b.iter().enumerate() {
            let canonical = self.element(element, at, theirs, frame);
            there.entry(canonical).or_default().push_back(at);
        }
        let mut b: Vec<_> = b.into_iter().map(Some).collect();
        let mut left = Vec::new();
        for (at, element) in a.into_iter().enumerate() {
            let canonical = self.element(&element, at, mine, frame);
            match there.get_mut(&canonical).and_then(VecDeque::pop_front) {
                Some(equal) => b[equal] = None,
                None => left.push((at, element)),
            }
        }
        let mut others: Vec<_> =
            b.into_iter().enumerate().filter_map(|(at, b)| Some((at, b?))).collect();
        if self.rules.are_lenient() && left.len() <= TRIED && others.len() <= TRIED {
            left.retain(|(at, mine)| {
                let like = |(_, theirs): &(usize, Held<N>)| self.alike(*at, mine, theirs, frame);
                let found = others.iter().position(like);
                found.map(|found| others.remove(found)).is_none()
            });
        }
        for (at, element) in left {
            self.below(&Step::Index(at), Some(element), None, frame);
        }
        for (at, element) in others {
            self.below(&Step::Index(at), None, Some(element), frame);
        }
    }

    /// Whether two elements are equal by the rules.
    fn alike<'a, N: Node<'a>>(
        &mut self,
        at: usize,
        mine: &Held<N>,
        theirs: &Held<N>,
        frame: Frame,
    ) -> bool {
        let found = std::mem::take(&mut self.found);
        self.below(&Step::Index(at), Some(mine.clone()), Some(theirs.clone()), frame);
        let tried: Findings = std::mem::replace(&mut self.found, found);
        tried.is_empty()
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

    /// What an element is matched by. `None`: it does not say.
    fn identity<'a, N: Node<'a>>(
        &mut self,
        element: &Held<N>,
        at: usize,
        name: &str,
        side: Side,
        frame: Frame,
    ) -> Option<u128> {
        let Open::Object(members) = element.open() else { return None };
        let (below, back) = self.enter(frame, &Step::Index(at));
        let members = self.members(members, side, below);
        let member = members.into_iter().find(|(own, _)| own == name);
        let identity = member.map(|(name, member)| {
            let (below, back) = self.enter(below, &Step::Name(&name));
            let identity = self.canonical(&member, side, below);
            self.leave(&back);
            identity
        });
        self.leave(&back);
        identity.flatten()
    }

    fn element<'a, N: Node<'a>>(
        &mut self,
        element: &Held<N>,
        at: usize,
        side: Side,
        frame: Frame,
    ) -> u128 {
        let (below, back) = self.enter(frame, &Step::Index(at));
        let canonical = self.canonical(element, side, below);
        self.leave(&back);
        canonical.unwrap_or(0)
    }

    /// A number that is the same for values that are equal by all rules but those
    /// that tolerate. `None`: the value is as good as absent.
    fn canonical<'a, N: Node<'a>>(
        &mut self,
        value: &Held<N>,
        side: Side,
        frame: Frame,
    ) -> Option<u128> {
        let applied: Applied<'_> = self.applied(frame);
        if applied.ignored {
            return None;
        }
        let value = prepared(Some(value.clone()), &applied, side)?;
        let mut hash = SipHasher13::new();
        let mut write = |kind: u8, text: &str| {
            hash.write_u8(kind);
            hash.write(text.as_bytes());
        };
        match value.open() {
            Open::Null => write(0, ""),
            Open::Bool(value) => write(1, if value { "t" } else { "f" }),
            Open::Number(number) => write(2, &self.rules.numbers.canonical(&number)),
            Open::Text(text) => write(3, &text),
            // Deeper than the walk goes: by its letters.
            Open::List(_) | Open::Object(_) | Open::Map(_) if frame.depth > self.rules.depth => {
                write(4, value.field().text());
            }
            Open::List(elements) => {
                let mut parts = Vec::with_capacity(elements.len());
                for (at, element) in held(elements).iter().enumerate() {
                    parts.push(self.element(element, at, side, frame));
                }
                if !matches!(applied.list, ListOrder::Ordered) {
                    parts.sort_unstable();
                }
                hash.write_u8(5);
                parts.iter().for_each(|part| hash.write_u128(*part));
            }
            Open::Object(members) | Open::Map(members) => {
                let mut parts = Vec::with_capacity(members.len());
                for (name, member) in self.members(members, side, frame) {
                    let (below, back) = self.enter(frame, &Step::Name(&name));
                    let part = self.canonical(&member, side, below);
                    self.leave(&back);
                    parts.extend(part.map(|part| (name, part)));
                }
                // Stable: members of one name keep their order.
                parts.sort_by(|(a, _), (b, _)| a.cmp(b));
                hash.write_u8(6);
                for (name, part) in &parts {
                    hash.write_usize(name.len());
                    hash.write(name.as_bytes());
                    hash.write_u128(*part);
                }
            }
        }
        Some(hash.finish128().as_u128())
    }
}
