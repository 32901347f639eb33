//! Values of messages, in words.

use std::fmt::Write;

use prost_reflect::{DynamicMessage, Kind, MapKey, Value};

/// Where a text is cut: a little more than a difference shows.
const LONG: usize = 200;

/// A value as a person would write it, cut if it is long.
pub(super) fn shown(value: &Value, kind: &Kind) -> String {
    let mut text = String::new();
    write(&mut text, value, kind);
    text
}

/// A map's key as it stands in a path.
pub(super) fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => format!("{key:?}"),
    }
}

fn write(text: &mut String, value: &Value, kind: &Kind) {
    if text.len() > LONG {
        return;
    }
    // A `String` takes everything.
    let _ = match value {
        Value::Bool(value) => write!(text, "{value}"),
        Value::I32(value) => write!(text, "{value}"),
        Value::I64(value) => write!(text, "{value}"),
        Value::U32(value) => write!(text, "{value}"),
        Value::U64(value) => write!(text, "{value}"),
        Value::F32(value) => write!(text, "{value}"),
        Value::F64(value) => write!(text, "{value}"),
        Value::String(value) => write!(text, "{}", cut(value)),
        Value::Bytes(value) => write!(text, "{}", value[..value.len().min(LONG)].escape_ascii()),
        Value::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|kind| kind.get_value(*number));
            match name {
                Some(value) => write!(text, "{}", value.name()),
                None => write!(text, "{number}"),
            }
        }
        Value::Message(message) => {
            write_message(text, message);
            Ok(())
        }
        Value::List(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate().take(LONG) {
                text.push_str(if at == 0 { "" } else { ", " });
                write(text, value, kind);
            }
            text.push(']');
            Ok(())
        }
        Value::Map(entries) => write!(text, "({} entries)", entries.len()),
    };
}

fn write_message(text: &mut String, message: &DynamicMessage) {
    text.push('{');
    for (at, (field, value)) in message.fields().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        text.push_str(field.name());
        text.push_str(": ");
        write(text, value, &field.kind());
    }
    text.push('}');
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONG).map_or(text, |(end, _)| &text[..end])
}
