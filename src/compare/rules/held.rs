//! A value of either kind, opened one level at a time.

use std::borrow::Cow;

use super::{Field, FieldKind, Scalar};

/// A value of a document of some kind, for as long as the document lives.
pub(in crate::compare) trait Node<'a>: Clone {
    /// Whether two values are the same to the last byte, so that nothing below
    /// differs.
    fn same(&self, other: &Self) -> bool;
    /// What it is, one level deep.
    fn open(&self) -> Open<'a, Self>;
    /// Its text, as a whole.
    fn text(&self) -> Cow<'a, str>;
    /// Whether it is worth showing among others: a default that nobody wrote is not.
    fn is_shown(&self) -> bool {
        true
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
            Open::Text(text) => (FieldKind::Text, text),
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

    pub(super) fn is_shown(&self) -> bool {
        match self {
            Self::Node(node) => node.is_shown(),
            Self::Made(_) => true,
        }
    }
}
