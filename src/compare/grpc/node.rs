//! A message, opened one level at a time.

use std::borrow::Cow;

use jiff::Timestamp;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::compare::rules::{Node, Open};

/// A value of a message, and what the descriptors say of it.
#[derive(Clone, Debug)]
pub(super) struct Proto<'a> {
    value: Cow<'a, Value>,
    kind: Kind,
    /// Nobody wrote it: it is what a field is by default.
    is_default: bool,
    /// Bytes of a message that no rule looks into.
    is_opaque: bool,
}

impl<'a> Proto<'a> {
    pub(super) const fn of(value: &'a Value, kind: Kind) -> Self {
        Self { value: Cow::Borrowed(value), kind, is_default: false, is_opaque: false }
    }
}

impl<'a> Node<'a> for Proto<'a> {
    fn same(&self, other: &Self) -> bool {
        self.value == other.value
    }

    fn open(&self) -> Open<'a, Self> {
        match &self.value {
            Cow::Borrowed(value) => open(value, &self.kind),
            // A default: a scalar, or something with nothing in it.
            Cow::Owned(value) => match scalar(value, &self.kind) {
                Some(Open::Null) | None => empty(value),
                Some(Open::Bool(value)) => Open::Bool(value),
                Some(Open::Number(text)) => Open::Number(text.into_owned().into()),
                Some(Open::Text(text)) => Open::Text(text.into_owned().into()),
                Some(Open::Name(text)) => Open::Name(text.into_owned().into()),
                Some(Open::List(_) | Open::Object(_) | Open::Map(_)) => empty(value),
            },
        }
    }

    fn weight(&self) -> usize {
        match &*self.value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            // Opened, it is one reference for each.
            Value::List(values) => values.len() * 64,
            Value::Map(entries) => entries.len() * 64,
            Value::Message(message) => message.descriptor().fields().len() * 64,
            _ => 8,
        }
    }

    fn text(&self) -> Cow<'a, str> {
        self.value.to_string().into()
    }

    fn is_shown(&self) -> bool {
        !self.is_default
    }

    fn is_opaque(&self) -> bool {
        self.is_opaque
    }
}

fn empty<'a>(value: &Value) -> Open<'a, Proto<'a>> {
    match value {
        Value::List(_) => Open::List(Vec::new()),
        Value::Map(_) => Open::Map(Vec::new()),
        _ => Open::Object(Vec::new()),
    }
}

fn open<'a>(value: &'a Value, kind: &Kind) -> Open<'a, Proto<'a>> {
    match value {
        Value::Message(message) => match moment(message) {
            Some(moment) => Open::Text(moment.into()),
            None => Open::Object(fields(message)),
        },
        Value::List(values) => {
            let element = |value| Proto::of(value, kind.clone());
            Open::List(values.iter().map(element).collect())
        }
        Value::Map(entries) => {
            let kind = match kind.as_message() {
                Some(entry) => entry.map_entry_value_field().kind(),
                None => kind.clone(),
            };
            let entry = |(key, value): (&'a MapKey, &'a Value)| {
                (Cow::<'a, str>::Owned(name(key)), Proto::of(value, kind.clone()))
            };
            let mut entries: Vec<_> = entries.iter().map(entry).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Open::Map(entries)
        }
        value => scalar(value, kind).unwrap_or(Open::Null),
    }
}

fn scalar<'v>(value: &'v Value, kind: &Kind) -> Option<Open<'v, Proto<'v>>> {
    Some(match value {
        Value::Bool(value) => Open::Bool(*value),
        Value::I32(value) => Open::Number(value.to_string().into()),
        Value::I64(value) => Open::Number(value.to_string().into()),
        Value::U32(value) => Open::Number(value.to_string().into()),
        Value::U64(value) => Open::Number(value.to_string().into()),
        // One that is no number is equal to any other: both sides say so.
        // The sign of a zero says nothing.
        Value::F32(value) if value.is_finite() => Open::Number((value + 0.0).to_string().into()),
        Value::F64(value) if value.is_finite() => Open::Number((value + 0.0).to_string().into()),
        Value::F32(value) => Open::Text(value.to_string().into()),
        Value::F64(value) => Open::Text(value.to_string().into()),
        Value::String(text) => Open::Text(text.into()),
        Value::Bytes(bytes) => Open::Name(bytes.escape_ascii().to_string().into()),
        Value::EnumNumber(number) => {
            let value = kind.as_enum().and_then(|kind| kind.get_value(*number));
            match value {
                Some(value) => Open::Name(value.name().to_owned().into()),
                None => Open::Name(number.to_string().into()),
            }
        }
        Value::Message(_) | Value::List(_) | Value::Map(_) => return None,
    })
}

/// The fields that are there, and those that nobody can tell from their default.
fn fields(message: &DynamicMessage) -> Vec<(Cow<'_, str>, Proto<'_>)> {
    let mut members = Vec::new();
    let is_any = message.descriptor().full_name() == "google.protobuf.Any";
    for field in message.descriptor().fields() {
        let there = message.has_field(&field);
        if there || !field.supports_presence() {
            let value = message.get_field(&field);
            let (kind, is_default) = (field.kind(), !there);
            let is_opaque = is_any && field.name() == "value";
            members.push((name_of(&field), Proto { value, kind, is_default, is_opaque }));
        }
    }
    for (extension, value) in message.extensions() {
        let name = format!("[{}]", extension.full_name());
        members.push((Cow::Owned(name), Proto::of(value, extension.kind())));
    }
    members
}

fn name_of<'a>(field: &FieldDescriptor) -> Cow<'a, str> {
    Cow::Owned(field.name().to_owned())
}

fn name(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// A point in time, as it is written in JSON. `None`: it is none, or one that no
/// calendar has.
fn moment(message: &DynamicMessage) -> Option<String> {
    if message.descriptor().full_name() != "google.protobuf.Timestamp" {
        return None;
    }
    let seconds = message.get_field_by_name("seconds")?.as_i64()?;
    let nanos = message.get_field_by_name("nanos")?.as_i32()?;
    Timestamp::new(seconds, nanos).ok().map(|moment| moment.to_string())
}
