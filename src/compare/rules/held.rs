//! A value of either kind, opened one level at a time.

use std::borrow::Cow;

use super::{Field, FieldKind, Scalar, way::Step};

/// A value of a document of some kind, for as long as the document lives.
pub(in crate::compare) trait Node<'a>: Clone {
    /// Whether two values are the same to the last byte, so that nothing below
    /// differs.
    fn same(&self, other: &Self) -> bool;
    /// What it is, one level deep.
    fn open(&self) -> Open<'a, Self>;
    /// How much work it is to open it, about in bytes.
    fn weight(&self) -> usize;
    /// Its text, as a whole.
    fn text(&self) -> Cow<'a, str>;
    /// Whether it is worth showing among others: a default that nobody wrote is not.
    fn is_shown(&self) -> bool {
        true
    }
    /// Whether something may be secret in it that no rule can name.
    fn is_opaque(&self) -> bool {
        false
    }
}

/// A value, opened.
#[derive(Clone, Debug)]
pub(in crate::compare) enum Open<'a, N> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A text that is no number, whatever it looks like.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "enums and bytes"))]
    Name(Cow<'a, str>),
    List(Vec<N>),
    /// Members by name, in their order.
    Object(Vec<(Cow<'a, str>, N)>),
    /// The same, where names are data.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "only protobuf has maps"))]
    Map(Vec<(Cow<'a, str>, N)>),
}

/// A value of a document, or what a rule has put there.
#[derive(Clone, Debug)]
pub(super) enum Held<N> {
    Node(N),
    Made(Scalar),
}

impl<'a, N: Node<'a>> Held<N> {
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node(a), Self::Node(b)) => a.same(b),
            (Self::Made(a), Self::Made(b)) => a == b,
            _ => false,
        }
    }

    pub(super) fn open(&self) -> Open<'a, N> {
        match self {
            Self::Node(node) => node.open(),
            Self::Made(Scalar::Null) => Open::Null,
            Self::Made(Scalar::Bool(value)) => Open::Bool(*value),
            Self::Made(Scalar::Number(text)) => Open::Number(text.clone().into()),
            Self::Made(Scalar::Text(text)) => Open::Text(text.clone().into()),
        }
    }

    /// As a rule's function sees it.
    pub(super) fn field(&self) -> Field<'a> {
        let (kind, text) = match self.open() {
            Open::Null => (FieldKind::Null, Cow::Borrowed("null")),
            Open::Bool(value) => (FieldKind::Bool, if value { "true" } else { "false" }.into()),
            Open::Number(text) => (FieldKind::Number, text),
            Open::Text(text) | Open::Name(text) => (FieldKind::Text, text),
            Open::List(_) => (FieldKind::List, self.text()),
            Open::Object(_) | Open::Map(_) => (FieldKind::Object, self.text()),
        };
        Field { kind, text }
    }

    pub(super) fn is_null(&self) -> bool {
        match self {
            Self::Node(node) => matches!(node.open(), Open::Null),
            Self::Made(made) => *made == Scalar::Null,
        }
    }

    fn text(&self) -> Cow<'a, str> {
        match self {
            Self::Node(node) => node.text(),
            Self::Made(_) => Cow::Borrowed(""),
        }
    }

    pub(super) fn is_opaque(&self) -> bool {
        match self {
            Self::Node(node) => node.is_opaque(),
            Self::Made(_) => false,
        }
    }

    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Node(node) => node.weight(),
            Self::Made(_) => 0,
        }
    }

    pub(super) fn is_shown(&self) -> bool {
        match self {
            Self::Node(node) => node.is_shown(),
            Self::Made(_) => true,
        }
    }
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct Member<'a, N> {
    /// As both sides know it.
    pub(super) name: Cow<'a, str>,
    /// As it is written, if a rule has renamed it, and as it would be called if it were
    /// the other side's: by all of these, secret is secret.
    pub(super) others: Vec<Cow<'a, str>>,
    pub(super) value: Held<N>,
}

impl<N> Member<'_, N> {
    /// The step down to it, and to its counterpart on the other side.
    pub(super) fn step<'s>(&'s self, counterpart: Option<&'s Self>) -> Step<'s> {
        let others = |member: &'s Self| member.others.iter().map(|name| &**name);
        let all: Vec<_> = others(self).chain(counterpart.into_iter().flat_map(others)).collect();
        match all.is_empty() {
            true => Step::Name(&self.name),
            false => Step::Renamed(&self.name, all),
        }
    }
}

/// The entries of a map, whose names are data that no rule renames.
pub(super) fn unnamed<'a, N>(entries: Vec<(Cow<'a, str>, N)>) -> Vec<Member<'a, N>> {
    let member = |(name, node)| Member { name, others: Vec::new(), value: Held::Node(node) };
    entries.into_iter().map(member).collect()
}
