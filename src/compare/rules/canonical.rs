//! A number for a value, equal where the value is.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    Node, Open,
    held::{Held, Member, unnamed},
    walk::{Walk, held, prepared},
    way::{Frame, ListOrder, Step},
};
use crate::stage::Side;

impl Walk<'_> {
    /// What an element is matched by. `None`: it does not say.
    pub(super) fn identity<'a, N: Node<'a>>(
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
        let member = members.iter().find(|member| member.name == name);
        let identity = member.map(|member| self.member_number(member, side, below));
        self.leave(&back);
        identity.flatten()
    }

    pub(super) fn element<'a, N: Node<'a>>(
        &mut self,
        element: &Held<N>,
        at: usize,
        side: Side,
        frame: Frame,
    ) -> Option<u128> {
        let (below, back) = self.enter(frame, &Step::Index(at));
        let canonical = self.canonical(element, side, below);
        self.leave(&back);
        canonical
    }

    fn member_number<'a, N: Node<'a>>(
        &mut self,
        member: &Member<'a, N>,
        side: Side,
        frame: Frame,
    ) -> Option<u128> {
        let (below, back) = self.enter(frame, &member.step(None));
        let number = self.canonical(&member.value, side, below);
        self.leave(&back);
        number
    }

    /// A number that is the same for values that are equal by all rules but those
    /// that tolerate. `None`: the value is as good as absent.
    fn canonical<'a, N: Node<'a>>(
        &mut self,
        value: &Held<N>,
        side: Side,
        frame: Frame,
    ) -> Option<u128> {
        if self.has_ended(value.weight()) {
            return None;
        }
        let applied = self.applied(frame);
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
            Open::Name(text) => write(4, &text),
            // By its letters: who finds no equal looks at `deep`.
            Open::List(_) | Open::Object(_) | Open::Map(_) if frame.depth > self.rules.depth => {
                self.deep = true;
                write(5, value.field().text());
            }
            Open::List(elements) => {
                let parts = self.list_parts(&held(elements), applied.list, side, frame);
                hash.write_u8(6);
                for part in parts {
                    hash.write_u128(part.map_or(0, |part| part | 1));
                }
            }
            Open::Object(members) => {
                let members = self.members(members, side, frame);
                self.write_members(&mut hash, members, side, frame);
            }
            Open::Map(entries) => {
                self.write_members(&mut hash, unnamed(entries), side, frame.of_entries());
            }
        }
        Some(hash.finish128().as_u128())
    }

    /// The numbers of a list's elements, in an order that says what the list says.
    fn list_parts<'a, N: Node<'a>>(
        &mut self,
        elements: &[Held<N>],
        order: ListOrder<'_>,
        side: Side,
        frame: Frame,
    ) -> Vec<Option<u128>> {
        let mut parts = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            let identity = match order {
                ListOrder::MatchedBy(name) => self.identity(element, at, name, side, frame),
                ListOrder::Ordered | ListOrder::Unordered => None,
            };
            parts.push((identity, self.element(element, at, side, frame)));
        }
        match order {
            ListOrder::Ordered => {}
            ListOrder::Unordered => parts.sort_unstable(),
            // Stable: those of one identity are matched in their order.
            ListOrder::MatchedBy(_) => parts.sort_by_key(|(identity, _)| *identity),
        }
        let mut parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
        match order {
            // What is as good as absent at the end makes a list no longer.
            ListOrder::Ordered => {
                let end = parts.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                parts.truncate(end);
            }
            ListOrder::Unordered | ListOrder::MatchedBy(_) => parts.retain(Option::is_some),
        }
        parts
    }

    fn write_members<'a, N: Node<'a>>(
        &mut self,
        hash: &mut SipHasher13,
        members: Vec<Member<'a, N>>,
        side: Side,
        frame: Frame,
    ) {
        let mut parts = Vec::with_capacity(members.len());
        for member in members {
            let part = self.member_number(&member, side, frame);
            parts.extend(part.map(|part| (member.name, part)));
        }
        // Stable: members of one name keep their order.
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        hash.write_u8(7);
        for (name, part) in &parts {
            hash.write_usize(name.len());
            hash.write(name.as_bytes());
            hash.write_u128(*part);
        }
    }
}
