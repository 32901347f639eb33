//! Two messages of one type, field by field.

use std::collections::{BTreeSet, HashMap};

use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};

use super::{
    pairs::Findings,
    value::{key, shown},
};
use crate::compare::Diff;

/// What stands where one side has nothing.
const ABSENT: &str = "(absent)";

/// Lists the fields that differ, each with its path. The depth is bounded by
/// what the decoder takes, a hundred levels.
pub(super) fn walk(path: &str, a: &DynamicMessage, b: &DynamicMessage, found: &mut Findings) {
    let message = a.descriptor();
    for field in message.fields() {
        if found.is_full() {
            return;
        }
        let below = || join(path, field.name());
        // A field that can be absent says something by being so, even if the
        // other side has its default.
        match (a.has_field(&field), b.has_field(&field)) {
            (false, false) => {}
            (true, false) if field.supports_presence() => {
                found.add(Diff::of(below(), text(a, &field), ABSENT));
            }
            (false, true) if field.supports_presence() => {
                found.add(Diff::of(below(), ABSENT, text(b, &field)));
            }
            _ => {
                let (a, b) = (a.get_field(&field), b.get_field(&field));
                either(below, Some(&a), Some(&b), &field.kind(), found);
            }
        }
    }
    extensions(path, a, b, found);
}

fn extensions(path: &str, a: &DynamicMessage, b: &DynamicMessage, found: &mut Findings) {
    let of = |message: &DynamicMessage| -> Vec<ExtensionDescriptor> {
        message.extensions().map(|(extension, _)| extension).collect()
    };
    let mut all = of(a);
    all.extend(of(b));
    all.sort_by_key(ExtensionDescriptor::number);
    all.dedup_by_key(|extension| extension.number());
    for extension in all {
        let below = join(path, &format!("[{}]", extension.full_name()));
        let (left, right) = (a.get_extension(&extension), b.get_extension(&extension));
        match (a.has_extension(&extension), b.has_extension(&extension)) {
            (true, false) if extension.supports_presence() => {
                found.add(Diff::of(below, shown(&left, &extension.kind()), ABSENT));
            }
            (false, true) if extension.supports_presence() => {
                found.add(Diff::of(below, ABSENT, shown(&right, &extension.kind())));
            }
            _ => either(|| below, Some(&left), Some(&right), &extension.kind(), found),
        }
    }
}

fn values(path: &str, a: &Value, b: &Value, kind: &Kind, found: &mut Findings) {
    match (a, b) {
        (Value::Message(a), Value::Message(b)) => walk(path, a, b, found),
        (Value::List(a), Value::List(b)) => list(path, a, b, kind, found),
        (Value::Map(a), Value::Map(b)) => map(path, a, b, kind, found),
        (a, b) if same(a, b) => {}
        (a, b) => found.add(Diff::of(path, shown(a, kind), shown(b, kind))),
    }
}

fn list(path: &str, a: &[Value], b: &[Value], kind: &Kind, found: &mut Findings) {
    for at in 0..a.len().max(b.len()) {
        if found.is_full() {
            return;
        }
        either(|| format!("{path}[{at}]"), a.get(at), b.get(at), kind, found);
    }
}

type Entries = HashMap<MapKey, Value>;

fn map(path: &str, a: &Entries, b: &Entries, kind: &Kind, found: &mut Findings) {
    let Some(entry) = kind.as_message() else { return };
    let kind = entry.map_entry_value_field().kind();
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for name in keys {
        if found.is_full() {
            return;
        }
        let below = || format!("{path}[{}]", key(name));
        either(below, a.get(name), b.get(name), &kind, found);
    }
}

/// Two values of which one may be missing. Paths are made for those that are
/// not simply equal: most are.
fn either(
    path: impl FnOnce() -> String,
    a: Option<&Value>,
    b: Option<&Value>,
    kind: &Kind,
    found: &mut Findings,
) {
    match (a, b) {
        (Some(a), Some(b)) if a != b => values(&path(), a, b, kind, found),
        (Some(a), None) => found.add(Diff::of(path(), shown(a, kind), ABSENT)),
        (None, Some(b)) => found.add(Diff::of(path(), ABSENT, shown(b, kind))),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// As numbers, but for one that is none: both sides say so, so they agree.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a == b || a.is_nan() && b.is_nan(),
        (Value::F64(a), Value::F64(b)) => a == b || a.is_nan() && b.is_nan(),
        (a, b) => a == b,
    }
}

fn text(message: &DynamicMessage, field: &FieldDescriptor) -> String {
    shown(&message.get_field(field), &field.kind())
}

fn join(path: &str, name: &str) -> String {
    if path.ends_with(": ") { format!("{path}{name}") } else { format!("{path}.{name}") }
}
