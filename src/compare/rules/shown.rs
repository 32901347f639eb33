//! What a difference shows, and what it keeps to itself.

use std::{borrow::Cow, fmt::Write};

use super::{
    Node, Open,
    held::Held,
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
            Open::Map(members) => self.render_members(text, members, frame.of_entries()),
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
            let below = below.hidden_if(hidden);
            let shown = if frame.entries && below.hidden { "*" } else { cut(&name) };
            let _ = write!(text, "{comma}{shown:?}:");
            self.render(text, &member, below);
            self.leave(&back);
            comma = ",";
        }
        write!(text, "}}")
    }
}

pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(LONG).map_or(text, |(end, _)| &text[..end])
}
