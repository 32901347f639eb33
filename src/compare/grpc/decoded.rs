//! Messages, field by field.

use std::{collections::HashMap, fmt, sync::Arc};

use bytes::Bytes;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use super::{
    node::Proto,
    pairs::{How, each_pair},
};
use crate::{
    compare::{
        Answers, Compare, Context, Diff,
        findings::Findings,
        rules::{Rules, Walk},
    },
    protocol::grpc::{GrpcConfigError, pool},
};

/// Compares the messages field by field, as a descriptor set describes them,
/// and lists each field that differs with its pointer, such as
/// `message 0 /airport/runways/1/length` or `message 2 /labels/iata`. With
/// [`rules`](Self::rules) fields can be left out, tolerated, matched, converted and
/// kept secret: their patterns begin at the message, `/airport/runways/*/length`.
///
/// No differences are: the order of a map's entries and of fields, a default
/// value that one side writes out, packed or single numbers, fields that the
/// descriptors do not know, compression, the sign of a zero. Differences are:
/// the order of repeated fields, and whether a field is there at all where the
/// `.proto` file lets one ask (messages, `optional`, `oneof`).
///
/// A `google.protobuf.Timestamp` is a point in time, for
/// [`Tolerance::time`](crate::compare::rules::Tolerance::time), and has no fields of its
/// own: a pattern ends at it. What an `Any` holds is bytes, which are not shown where
/// anything is redacted. Names of enums, and bytes, are texts that no tolerance of
/// numbers holds for.
///
/// Where this cannot be had, bytes are compared and the difference says so: a
/// method that the descriptors lack, a message that they do not fit, or one that is
/// nested more than a hundred levels deep.
///
/// ```
/// use tower_migration::{compare::grpc::DecodedMessages, protocol::grpc::Grpc};
///
/// # const AIRPORTS: &[u8] =
/// #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tonic/airports.bin"));
/// let grpc = Grpc::new().compare(DecodedMessages::new(AIRPORTS)?);
/// # let _ = grpc;
/// # Ok::<(), tower_migration::protocol::grpc::GrpcConfigError>(())
/// ```
#[derive(Clone)]
pub struct DecodedMessages {
    /// What each method answers, by its path.
    answers: Arc<HashMap<Box<str>, MessageDescriptor>>,
    rules: Arc<Rules>,
}

impl fmt::Debug for DecodedMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodedMessages").field("methods", &self.answers.len()).finish()
    }
}

impl DecodedMessages {
    /// By the services of a compiled `FileDescriptorSet`, with all that it
    /// imports.
    ///
    /// # Errors
    ///
    /// If the bytes are no such set, or one without any service.
    pub fn new(descriptors: &[u8]) -> Result<Self, GrpcConfigError> {
        let pool = pool(descriptors)?;
        let mut answers = HashMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                answers.insert(path.into(), method.output());
            }
        }
        Ok(Self { answers: Arc::new(answers), rules: Arc::default() })
    }

    /// With these rules for fields.
    ///
    /// ```
    /// # const AIRPORTS: &[u8] =
    /// #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tonic/airports.bin"));
    /// use tower_migration::compare::{grpc::DecodedMessages, rules::{Rules, Tolerance}};
    ///
    /// let rules = Rules::new().tolerate("/**/latitude", Tolerance::absolute(1e-6)?)?;
    /// let comparer = DecodedMessages::new(AIRPORTS)?.rules(rules);
    /// # let _ = comparer;
    /// # Ok::<(), tower_migration::BoxError>(())
    /// ```
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }
}

impl Compare for DecodedMessages {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        let rules = &self.rules;
        let how = How { tells_apart: rules.tell_sides_apart(), hides: rules.redact_anything() };
        match self.answers.get(answers.uri.path()) {
            Some(answer) => each_pair(answers, how, |at, a, b, found| {
                let pair = Pair { answer, at, context: answers.context };
                pair.decode(a, b, rules, how, found);
            }),
            None => each_pair(answers, how, |at, a, b, found| {
                let what = format!("message {at} (bytes: method not described)");
                found.add("message", || how.bytes("message", &what, a, b));
            }),
        }
    }

    fn looks_into_equal(&self) -> bool {
        self.rules.tell_sides_apart()
    }
}

/// The messages of one number.
struct Pair<'a> {
    answer: &'a MessageDescriptor,
    at: usize,
    context: Context,
}

impl Pair<'_> {
    fn decode(&self, a: &Bytes, b: &Bytes, rules: &Rules, how: How, found: &mut Findings) {
        let read = |bytes: &Bytes| DynamicMessage::decode(self.answer.clone(), bytes.clone());
        let (at, size) = (self.at, a.len() + b.len());
        match (read(a), read(b)) {
            (Ok(a), Ok(b)) => {
                let (a, b) = (Value::Message(a), Value::Message(b));
                let kind = Kind::Message(self.answer.clone());
                let (a, b) = (Proto::of(&a, kind.clone()), Proto::of(&b, kind));
                let before = format!("message {at} ");
                found.extend(Walk::over(rules, self.context, before, size, (a, b)));
            }
            _ => {
                let what = format!("message {at} (bytes: no {})", self.answer.full_name());
                found.add("message", || how.bytes("message", &what, a, b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::compare::{
        Answer,
        grpc::testing::{answer, gzip, packed},
    };

    /// The same message by other hands: numbers and fields as in the `.proto`
    /// below, or deliberately not.
    mod wire {
        use prost::Message;

        #[derive(Clone, PartialEq, Message)]
        pub(super) struct Runway {
            #[prost(uint32, tag = "1")]
            pub(super) length: u32,
        }
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct Airport {
            #[prost(string, tag = "1")]
            pub(super) code: String,
            #[prost(double, tag = "2")]
            pub(super) latitude: f64,
            #[prost(btree_map = "string, message", tag = "3")]
            pub(super) runways: std::collections::BTreeMap<String, Runway>,
            #[prost(message, repeated, tag = "4")]
            pub(super) list: Vec<Runway>,
            #[prost(uint32, optional, tag = "5")]
            pub(super) seats: Option<u32>,
            #[prost(int32, repeated, tag = "6")]
            pub(super) numbers: Vec<i32>,
            #[prost(int32, tag = "7")]
            pub(super) kind: i32,
            #[prost(bytes = "vec", tag = "8")]
            pub(super) raw: Vec<u8>,
            #[prost(string, tag = "99")]
            pub(super) unknown: String,
        }
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct Unpacked {
            #[prost(int32, repeated, packed = "false", tag = "6")]
            pub(super) numbers: Vec<i32>,
        }
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct Reply {
            #[prost(message, optional, tag = "1")]
            pub(super) airport: Option<Airport>,
        }
    }
    use wire::{Airport, Reply, Runway, Unpacked};

    const PROTO: &str = r#"
        syntax = "proto3";
        enum Kind { SMALL = 0; LARGE = 1; }
        message Runway { uint32 length = 1; }
        message Airport {
            string code = 1; double latitude = 2; map<string, Runway> runways = 3;
            repeated Runway list = 4; optional uint32 seats = 5; repeated int32 numbers = 6;
            Kind kind = 7; bytes raw = 8;
        }
        message Reply { Airport airport = 1; }
        message Ask {}
        service S { rpc Get(Ask) returns (Airport); rpc Nested(Ask) returns (Reply); }
    "#;

    fn comparer() -> DecodedMessages {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("t.proto"), PROTO).expect("written");
        let set = protox::compile(["t.proto"], [folder.path()]).expect("valid");
        DecodedMessages::new(&set.encode_to_vec()).expect("valid")
    }

    fn found(path: &'static str, authority: &Answer, other: &Answer) -> Diff {
        let uri = http::Uri::from_static(path);
        let method = http::Method::POST;
        let context = Context::new(crate::Side::Old);
        let answers = Answers { method: &method, uri: &uri, authority, other, context };
        comparer().compare(&answers)
    }

    fn diff(a: &impl Message, b: &impl Message) -> String {
        let (a, b) = (a.encode_to_vec(), b.encode_to_vec());
        found("/S/Get", &answer(&[&a]), &answer(&[&b])).to_string()
    }

    fn airport(change: impl FnOnce(&mut Airport)) -> Airport {
        let mut airport = Airport { code: "EDDF".into(), ..Airport::default() };
        change(&mut airport);
        airport
    }

    fn runways(of: &[(&str, u32)]) -> std::collections::BTreeMap<String, Runway> {
        of.iter().map(|(name, length)| ((*name).to_owned(), Runway { length: *length })).collect()
    }

    #[test]
    fn what_means_the_same_is_equal() {
        let plain = airport(|_| ());
        assert_eq!(diff(&plain, &airport(|a| a.unknown = "newer".into())), "no difference");
        let nan = airport(|a| a.latitude = f64::NAN);
        assert_eq!(diff(&nan, &airport(|a| a.latitude = -f64::NAN)), "no difference");
        assert_eq!(diff(&plain, &airport(|a| a.latitude = -0.0)), "no difference");
        let packed = Airport { numbers: vec![1, -2], ..Airport::default() };
        assert_eq!(diff(&packed, &Unpacked { numbers: vec![1, -2] }), "no difference");
    }

    #[test]
    fn the_order_of_entries_and_of_fields_and_defaults_written_out_are_equal() {
        let entry = |name: &str, length| airport(|a| a.runways = runways(&[(name, length)]));
        let only =
            |airport: &Airport| Airport { code: String::new(), ..airport.clone() }.encode_to_vec();
        let (x, y, code) = (only(&entry("07", 1)), only(&entry("18", 2)), airport(|_| ()));
        let code = code.encode_to_vec();
        // Field 1, kept twice: the last one counts. Field 2, written out as 0.
        let odd = [&b"\x0a\x01z"[..], &[0x11, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let a = [&code[..], &x, &y].concat();
        let b = [&y[..], &odd, &code, &x].concat();
        assert_eq!(found("/S/Get", &answer(&[&a]), &answer(&[&b])).to_string(), "no difference");
        let exact = super::super::ExactMessages;
        assert!(!exact.compare(&Answers::of(&answer(&[&a]), &answer(&[&b]))).is_empty());
        // And compressed.
        let b = packed("gzip", &[&gzip(&b, 6)]);
        assert_eq!(found("/S/Get", &answer(&[&a]), &b).to_string(), "no difference");
    }

    #[test]
    fn each_field_that_differs_has_its_path() {
        let a = airport(|a| {
            a.list = vec![Runway { length: 1 }, Runway { length: 2 }, Runway { length: 3 }];
            a.runways = runways(&[("07", 1), ("18 \"W\"", 2)]);
            a.numbers = vec![1];
            a.raw = vec![0, 1];
            a.kind = 1;
        });
        let b = airport(|b| {
            b.code = "EDDM".into();
            b.list = vec![Runway { length: 1 }, Runway { length: 4 }];
            b.runways = runways(&[("07", 1), ("18 \"W\"", 3), ("25", 4)]);
            b.seats = Some(0);
            b.kind = 7;
        });
        let lines = [
            r#"message 0 /airport/code: "EDDF" against "EDDM""#,
            r#"message 0 /airport/runways/18 "W"/length: "2" against "3""#,
            r#"message 0 /airport/runways/25: "(absent)" against "{\"length\":4}""#,
            r#"message 0 /airport/list/1/length: "2" against "4""#,
            r#"message 0 /airport/list/2: "{\"length\":3}" against "(absent)""#,
            r#"message 0 /airport/numbers/0: "1" against "(absent)""#,
            r#"message 0 /airport/kind: "LARGE" against "7""#,
            r#"message 0 /airport/raw: "\\x00\\x01" against """#,
            r#"message 0 /airport/seats: "(absent)" against "0""#,
        ];
        let reply = |airport| Reply { airport: Some(airport) }.encode_to_vec();
        let (a, b) = (answer(&[&reply(a)]), answer(&[&reply(b)]));
        assert_eq!(found("/S/Nested", &a, &b).to_string(), lines.join("; "));
        let none = answer(&[&Reply { airport: None }.encode_to_vec()]);
        let missing = found("/S/Nested", &none, &b).to_string();
        let begin = r#"message 0 /airport: "(absent)" against "{\"code\":\"EDDM\",\"runways\":{"#;
        assert!(missing.starts_with(begin), "{missing}");
    }

    #[test]
    fn a_long_list_of_differences_is_cut() {
        let a = airport(|a| a.numbers = vec![1; 1_000]);
        let b = airport(|b| (b.numbers, b.code) = (vec![2; 1_000], "EDDM".into()));
        let (a, b) = (a.encode_to_vec(), b.encode_to_vec());
        let found = found("/S/Get", &answer(&[&a]), &answer(&[&b]));
        assert_eq!(found.differences().len(), 4);
    }

    #[test]
    fn where_it_cannot_decode_it_compares_bytes_and_says_so() {
        let (a, b) = (answer(&[&b"\x0a\x05ab"[..]]), answer(&[&b"\x0a\x05ac"[..]]));
        assert_eq!(
            found("/S/Get", &a, &b).to_string(),
            r#"message 0 (bytes: no Airport) at byte 3: "\\n\\x05ab" against "\\n\\x05ac""#
        );
        assert_eq!(found("/S/Get", &a, &a.clone()).to_string(), "no difference");
        let unknown = found("/S/Other", &a, &b).to_string();
        assert!(unknown.starts_with("message 0 (bytes: method not described) at byte 3"));
        let (a, b) = (packed("zstd", &[b"a"]), packed("zstd", &[b"b"]));
        let found = found("/S/Get", &a, &b);
        assert_eq!(found.why_unclear(), Some(crate::compare::SkipReason::Encoding.into()));
    }

    #[test]
    fn a_message_cut_or_changed_anywhere_does_no_harm() {
        let whole = airport(|a| {
            a.list = vec![Runway { length: 300 }];
            a.runways = runways(&[("07", 1)]);
            a.numbers = vec![1, 2];
        });
        let whole = whole.encode_to_vec();
        for end in 0..whole.len() {
            let found = found("/S/Get", &answer(&[&whole]), &answer(&[&whole[..end]]));
            assert!(!found.is_empty(), "cut at {end}");
            let mut changed = whole.clone();
            changed[end] ^= 0xff;
            let _ = self::found("/S/Get", &answer(&[&whole]), &answer(&[&changed]));
        }
    }

    #[test]
    fn garbage_is_no_descriptor_set() {
        assert!(matches!(
            DecodedMessages::new(b"garbage"),
            Err(GrpcConfigError::Descriptors { .. })
        ));
        assert!(matches!(DecodedMessages::new(b""), Err(GrpcConfigError::NoService)));
    }
}
