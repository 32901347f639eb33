//! A key that is a field of a message, found through descriptors.

use std::fmt::Write;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{FieldProblem, GrpcConfigError};
use crate::reconcile::{Key, Keys};

/// A path that was checked: it leads to a scalar field.
#[derive(Debug)]
pub(super) struct FieldPath {
    message: MessageDescriptor,
    fields: Vec<FieldDescriptor>,
}

impl FieldPath {
    /// Follows `path` from the messages of this type.
    pub(super) fn new(
        method: &str,
        message: MessageDescriptor,
        path: &str,
    ) -> Result<Self, GrpcConfigError> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        let mut inside = Some(message.clone());
        let wrong = |at: &str, problem| {
            let (method, path, at) = (method.into(), path.into(), at.into());
            GrpcConfigError::Field { method, path, at, problem }
        };
        for name in path.split('.') {
            let Some(here) = &inside else { return Err(wrong(name, FieldProblem::NoMessage)) };
            let field = here.get_field_by_name(name);
            let field = field.ok_or_else(|| wrong(name, FieldProblem::Missing))?;
            inside = match field.kind() {
                _ if field.is_map() => return Err(wrong(name, FieldProblem::Map)),
                Kind::Float | Kind::Double => return Err(wrong(name, FieldProblem::Float)),
                Kind::Message(next) => Some(next),
                _ => None,
            };
            fields.push(field);
        }
        match (inside, fields.last()) {
            (None, Some(_)) => Ok(Self { message, fields }),
            (_, last) => Err(wrong(last.map_or("", |field| field.name()), FieldProblem::Message)),
        }
    }

    /// The keys of one message. None if it cannot be decoded.
    pub(super) fn of(&self, message: &Bytes) -> Keys {
        let mut keys = Vec::new();
        if let Ok(message) = DynamicMessage::decode(self.message.clone(), message.clone()) {
            follow(&message, &self.fields, &mut keys);
        }
        keys.into()
    }
}

fn follow(message: &DynamicMessage, fields: &[FieldDescriptor], keys: &mut Vec<Key>) {
    let Some((field, rest)) = fields.split_first() else { return };
    if field.supports_presence() && !message.has_field(field) {
        return;
    }
    match &*message.get_field(field) {
        Value::List(values) => values.iter().for_each(|value| take(value, rest, keys)),
        value => take(value, rest, keys),
    }
}

fn take(value: &Value, rest: &[FieldDescriptor], keys: &mut Vec<Key>) {
    match value {
        Value::Message(message) => follow(message, rest, keys),
        value => keys.extend(text(value).filter(|text| !text.is_empty()).map(Key::from)),
    }
}

fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Bytes(value) => {
            value.iter().fold(String::with_capacity(2 * value.len()), |mut text, byte| {
                // A `String` takes everything.
                let _ = write!(text, "{byte:02x}");
                text
            })
        }
        // The path was checked: it ends at none of these.
        Value::F32(_) | Value::F64(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::{DescriptorPool, ReflectMessage};

    use super::*;

    fn pool() -> DescriptorPool {
        let folder = tempfile::tempdir().expect("a directory");
        let proto = r#"
            syntax = "proto3";
            enum Kind { NONE = 0; BIG = 1; }
            message Inner { string name = 1; repeated int64 ids = 2; }
            message Outer {
                string text = 1; bytes raw = 2; int32 number = 3; bool flag = 4; Kind kind = 5;
                Inner inner = 6; repeated Inner inners = 7; map<string, string> map = 8;
                double size = 9; optional uint64 maybe = 10;
            }
        "#;
        std::fs::write(folder.path().join("t.proto"), proto).expect("written");
        let set = protox::compile(["t.proto"], [folder.path()]).expect("valid");
        DescriptorPool::decode(&*set.encode_to_vec()).expect("valid")
    }

    fn outer() -> MessageDescriptor {
        pool().get_message_by_name("Outer").expect("it is there")
    }

    fn keys(path: &str, message: &DynamicMessage) -> String {
        let path = FieldPath::new("/a/B", message.descriptor(), path).expect("a good path");
        path.of(&message.encode_to_vec().into()).to_string()
    }

    fn inner(name: &str, ids: &[i64]) -> Value {
        let mut inner =
            DynamicMessage::new(pool().get_message_by_name("Inner").expect("it is there"));
        inner.set_field_by_name("name", Value::String(name.into()));
        let ids = ids.iter().map(|id| Value::I64(*id)).collect();
        inner.set_field_by_name("ids", Value::List(ids));
        Value::Message(inner)
    }

    #[test]
    fn every_kind_of_scalar_has_a_text() {
        let mut message = DynamicMessage::new(outer());
        message.set_field_by_name("text", Value::String("a b".into()));
        message.set_field_by_name("raw", Value::Bytes(Bytes::from_static(&[0, 0xab])));
        message.set_field_by_name("number", Value::I32(-7));
        message.set_field_by_name("flag", Value::Bool(true));
        message.set_field_by_name("kind", Value::EnumNumber(1));
        message.set_field_by_name("maybe", Value::U64(0));
        for (path, key) in [
            ("text", "a b"),
            ("raw", "00ab"),
            ("number", "-7"),
            ("flag", "true"),
            ("kind", "1"),
            ("maybe", "0"),
        ] {
            assert_eq!(keys(path, &message), key, "{path}");
        }
    }

    #[test]
    fn what_is_absent_or_empty_is_no_key_but_zero_is() {
        let message = DynamicMessage::new(outer());
        for path in ["text", "raw", "maybe", "inner.name", "inners.ids"] {
            assert_eq!(keys(path, &message), "(no key)", "{path}");
        }
        assert_eq!(keys("number", &message), "0");
    }

    #[test]
    fn paths_go_through_messages_and_give_each_of_a_repeated_field() {
        let mut message = DynamicMessage::new(outer());
        message.set_field_by_name("inner", inner("x", &[]));
        let inners = vec![inner("b", &[2, 1]), inner("a", &[3])];
        message.set_field_by_name("inners", Value::List(inners));
        assert_eq!(keys("inner.name", &message), "x");
        assert_eq!(keys("inners.name", &message), "a, b");
        assert_eq!(keys("inners.ids", &message), "1, 2, 3");
    }

    #[test]
    fn a_path_that_leads_nowhere_is_an_error_that_says_where() {
        for (path, at, problem) in [
            ("nme", "nme", FieldProblem::Missing),
            ("", "", FieldProblem::Missing),
            ("text.", "", FieldProblem::NoMessage),
            ("inner.nme", "nme", FieldProblem::Missing),
            ("text.more", "more", FieldProblem::NoMessage),
            ("inner", "inner", FieldProblem::Message),
            ("map", "map", FieldProblem::Map),
            ("map.key", "map", FieldProblem::Map),
            ("size", "size", FieldProblem::Float),
        ] {
            let error = FieldPath::new("/a/B", outer(), path).expect_err("a bad path");
            let GrpcConfigError::Field { at: found, problem: what, .. } = &error else {
                panic!("{error:?}")
            };
            assert_eq!((&**found, *what), (at, problem), "{path}");
        }
    }

    #[test]
    fn a_message_that_cannot_be_decoded_has_no_key() {
        let path = FieldPath::new("/a/B", outer(), "text").expect("a good path");
        assert!(path.of(&Bytes::from_static(&[0x0a, 0xff])).is_empty());
    }
}
