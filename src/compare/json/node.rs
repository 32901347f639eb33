//! A value that has not been parsed.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::compare::rules::{Node, Open};

/// A value of a JSON document, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    pub(super) fn of(raw: &'a RawValue) -> Self {
        Self(raw.get())
    }
}

impl<'a> Node<'a> for Value<'a> {
    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn open(&self) -> Open<'a, Self> {
        match self.0.as_bytes().first() {
            // It has been read as JSON before, so both can be had; if not, its letters
            // are compared.
            Some(b'{') => members(self.0).map_or(Open::Text(self.0.into()), Open::Object),
            Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(self.0) {
                Ok(elements) => Open::List(elements.into_iter().map(Self::of).collect()),
                Err(_) => Open::Text(self.0.into()),
            },
            Some(b'"') => Open::Text(unquoted(self.0)),
            Some(b't') => Open::Bool(true),
            Some(b'f') => Open::Bool(false),
            Some(b'n') | None => Open::Null,
            Some(_) => Open::Number(Cow::Borrowed(self.0)),
        }
    }

    fn text(&self) -> Cow<'a, str> {
        Cow::Borrowed(self.0)
    }
}

/// A text without its quotes and escapes. One that is no Unicode (half of a
/// surrogate pair) stays as it is written.
fn unquoted(text: &str) -> Cow<'_, str> {
    let inner = text.get(1..text.len() - 1).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(text).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// The members of an object, all of one name included.
fn members(text: &str) -> Option<Vec<(Cow<'_, str>, Value<'_>)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, Value<'de>)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            // Names are kept as they are written: one that is no Unicode is no error.
            while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                members.push((unquoted(name.get()), Value::of(value)));
            }
            Ok(members)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Members).ok()
}
