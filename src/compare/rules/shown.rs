//! What a difference shows, and what it keeps to itself.

use std::fmt::Write;

use super::{
    Node, Open,
    held::{Held, Member, unnamed},
    walk::Walk,
    way::{Frame, Step},
};
use crate::{compare::Diff, stage::Side};

/// What stands where one side has nothing.
const ABSENT: &str = "(absent)";

/// Where a text is cut that is shown: a little more than a difference shows.
const LONG: usize = 200;

impl Walk<'_> {
    /// Notes a difference here.
    pub(super) fn differ<'a, N: Node<'a>>(
        &mut self,
        a: Option<&Held<N>>,
        b: Option<&Held<N>>,
        frame: Frame,
    ) {
        if self.stopped.is_some() {
            return;
        }
        // Both are put back below: what is rendered may go down from here.
        let place = std::mem::take(&mut self.place);
        let mut found = std::mem::take(&mut self.found);
        let at = if place.is_empty() { "body" } else { &place };
        found.add(at, || {
            let whole = self.path.is_empty() && self.before.is_empty();
            let what = format!("{}{}", self.before, if whole { "body" } else { &self.path });
            // Else a number and a text of the same letters would look alike.
            let quoted = match (a, b) {
                (Some(a), Some(b)) => a.field().kind() != b.field().kind(),
                _ => false,
            };
            let a = self.shown(a, self.context.authority, quoted, frame);
            let b = self.shown(b, self.context.other, quoted, frame);
            Diff::at(at, what.trim_end(), a, b)
        });
        (self.found, self.place) = (found, place);
    }

    fn shown<'a, N: Node<'a>>(
        &mut self,
        held: Option<&Held<N>>,
        side: Side,
        quoted: bool,
        frame: Frame,
    ) -> String {
        match held {
            None => ABSENT.to_owned(),
            Some(held) if self.hides(held, frame) => "(redacted)".to_owned(),
            Some(held) => match held.open() {
                Open::Text(text) | Open::Name(text) if !quoted => text.into_owned(),
                _ => {
                    let mut text = String::new();
                    self.render(&mut text, held, side, frame);
                    text
                }
            },
        }
    }

    /// Whether a value is secret, or may hold a secret that no rule can name.
    fn hides<'a, N: Node<'a>>(&self, held: &Held<N>, frame: Frame) -> bool {
        frame.hidden || (held.is_opaque() && self.rules.redact_anything())
    }

    /// A value as JSON, cut where it is long and blank where it is secret.
    fn render<'a, N: Node<'a>>(
        &mut self,
        text: &mut String,
        held: &Held<N>,
        side: Side,
        frame: Frame,
    ) {
        if text.len() > LONG {
            return;
        }
        if self.hides(held, frame) {
            text.push_str("(redacted)");
            return;
        }
        // A `String` takes everything.
        let _ = match held.open() {
            Open::Null => write!(text, "null"),
            Open::Bool(value) => write!(text, "{value}"),
            Open::Number(number) => write!(text, "{}", cut(&number)),
            Open::Text(of) | Open::Name(of) => write!(text, "{:?}", cut(&of)),
            Open::List(elements) => {
                text.push('[');
                for (at, element) in elements.into_iter().enumerate() {
                    if text.len() > LONG {
                        break;
                    }
                    text.push_str(if at == 0 { "" } else { "," });
                    let (below, back) = self.enter(frame, &Step::Index(at));
                    self.render(text, &Held::Node(element), side, below);
                    self.leave(&back);
                }
                write!(text, "]")
            }
            Open::Object(members) => {
                let members = self.members(members, side, frame);
                self.render_members(text, members, side, frame)
            }
            Open::Map(entries) => {
                self.render_members(text, unnamed(entries), side, frame.of_entries())
            }
        };
    }

    fn render_members<'a, N: Node<'a>>(
        &mut self,
        text: &mut String,
        members: Vec<Member<'a, N>>,
        side: Side,
        frame: Frame,
    ) -> std::fmt::Result {
        text.push('{');
        let mut comma = "";
        for member in members {
            if text.len() > LONG || !member.value.is_shown() {
                continue;
            }
            let (below, back) = self.enter(frame, &member.step(None));
            let shown = if frame.entries && below.hidden { "*" } else { cut(&member.name) };
            let _ = write!(text, "{comma}{shown:?}:");
            self.render(text, &member.value, side, below);
            self.leave(&back);
            comma = ",";
        }
        write!(text, "}}")
    }
}

pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(LONG).map_or(text, |(end, _)| &text[..end])
}
