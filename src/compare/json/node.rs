//! A value that has not been parsed.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

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

    fn weight(&self) -> usize {
        self.0.len()
    }

    fn text(&self) -> Cow<'a, str> {
        Cow::Borrowed(self.0)
    }
}

/// Stands before what is no Unicode, and is doubled where it stands for itself: no
/// text of JSON has a use for it.
const ODD: char = '\u{fdd0}';

/// A text without its quotes and escapes. Half of a surrogate pair, which is no
/// Unicode, stands for itself and for nothing else.
fn unquoted(text: &str) -> Cow<'_, str> {
    let inner = text.get(1..text.len() - 1).unwrap_or_default();
    if !inner.contains(['\\', ODD]) {
        return Cow::Borrowed(inner);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // Read as bytes, halves of surrogate pairs are no error.
    deserializer.deserialize_bytes(Odd).map_or(Cow::Borrowed(inner), Cow::Owned)
}

struct Odd;

impl Visitor<'_> for Odd {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for letter in chunk.valid().chars() {
                text.push(letter);
                if letter == ODD {
                    text.push(ODD);
                }
            }
            for byte in chunk.invalid() {
                // A `String` takes everything.
                let _ = write!(text, "{ODD}{byte:02x}");
            }
        }
        Ok(text)
    }
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
