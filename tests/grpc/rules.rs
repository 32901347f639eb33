//! Rules for fields, on messages.

use std::time::Duration;

use http::{StatusCode, Uri};
use prost::Message;
use tower_migration::{
    Side,
    compare::{
        Answer, Answers, Compare,
        grpc::DecodedMessages,
        rules::{Field, Numbers, Rules, Tolerance},
    },
};

/// The `.proto` file that the descriptors are made of.
const PROTO: &str = r#"
    syntax = "proto3";
    import "google/protobuf/any.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    enum Kind { SMALL = 0; LARGE = 1; }
    message Runway {
        string id = 1; string password = 2; google.protobuf.Timestamp at = 3; Runway next = 4;
    }
    message Airport {
        repeated Runway list = 1; map<string, Runway> map = 2; map<string, string> labels = 3;
        Kind kind = 4; google.protobuf.Timestamp at = 5; google.protobuf.Any any = 6;
        google.protobuf.Struct data = 7; repeated double numbers = 8; Runway runway = 9;
        bytes raw = 10; repeated google.protobuf.Timestamp ats = 11; double metres = 12;
        map<string, google.protobuf.Timestamp> times = 13; repeated Kind kinds = 14;
    }
    service S { rpc Get(Airport) returns (Airport); }
"#;

mod wire {
    use std::collections::BTreeMap;

    use prost::Message;
    use prost_types::{Any, Struct, Timestamp};

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Runway {
        #[prost(string, tag = "1")]
        pub(super) id: String,
        #[prost(string, tag = "2")]
        pub(super) password: String,
        #[prost(message, optional, tag = "3")]
        pub(super) at: Option<Timestamp>,
        #[prost(message, optional, boxed, tag = "4")]
        pub(super) next: Option<Box<Self>>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Airport {
        #[prost(message, repeated, tag = "1")]
        pub(super) list: Vec<Runway>,
        #[prost(btree_map = "string, message", tag = "2")]
        pub(super) map: BTreeMap<String, Runway>,
        #[prost(btree_map = "string, string", tag = "3")]
        pub(super) labels: BTreeMap<String, String>,
        #[prost(int32, tag = "4")]
        pub(super) kind: i32,
        #[prost(message, optional, tag = "5")]
        pub(super) at: Option<Timestamp>,
        #[prost(message, optional, tag = "6")]
        pub(super) any: Option<Any>,
        #[prost(message, optional, tag = "7")]
        pub(super) data: Option<Struct>,
        #[prost(double, repeated, tag = "8")]
        pub(super) numbers: Vec<f64>,
        #[prost(message, optional, tag = "9")]
        pub(super) runway: Option<Runway>,
        #[prost(bytes = "vec", tag = "10")]
        pub(super) raw: Vec<u8>,
        #[prost(message, repeated, tag = "11")]
        pub(super) ats: Vec<Timestamp>,
        #[prost(double, tag = "12")]
        pub(super) metres: f64,
        #[prost(btree_map = "string, message", tag = "13")]
        pub(super) times: BTreeMap<String, Timestamp>,
        #[prost(int32, repeated, tag = "14")]
        pub(super) kinds: Vec<i32>,
    }
}
use prost_types::{Any, Struct, Timestamp, Value, value::Kind};
use wire::{Airport, Runway};

const NONE: &str = "no difference";

fn diff(rules: Rules, a: &Airport, b: &Airport) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.proto"), PROTO).unwrap();
    let set = protox::compile(["t.proto"], [folder.path()]).unwrap().encode_to_vec();
    let comparer = DecodedMessages::new(&set).unwrap().rules(rules);
    let framed = |airport: &Airport| {
        let message = airport.encode_to_vec();
        let length = (message.len() as u32).to_be_bytes();
        Answer::new(StatusCode::OK, [&[0][..], &length, &message].concat())
    };
    let (a, b) = (framed(a), framed(b));
    let uri = Uri::from_static("/S/Get");
    let mut answers = Answers::of(&a, &b);
    answers.uri = &uri;
    comparer.compare(&answers).to_string()
}

fn airport(change: impl FnOnce(&mut Airport)) -> Airport {
    let mut airport = Airport::default();
    change(&mut airport);
    airport
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 5 }
}

fn runway(id: &str, password: &str) -> Runway {
    Runway { id: id.into(), password: password.into(), ..Runway::default() }
}

#[test]
fn points_in_time_can_be_a_little_apart_wherever_they_are() {
    let two = Tolerance::time(Duration::from_secs(2));
    let rules = || Rules::new().tolerate("/**", two).unwrap().unordered("/ats").unwrap();
    let of = |second: i64| {
        airport(|airport| {
            airport.at = Some(at(second));
            airport.ats = vec![at(second), at(second + 100)];
            airport.times.insert("open".into(), at(second));
            airport.list = vec![Runway { at: Some(at(second)), ..runway("07", "") }];
        })
    };
    assert_eq!(diff(rules(), &of(100), &of(102)), NONE);
    let mut turned = of(102);
    turned.ats.reverse();
    assert_eq!(diff(rules(), &of(100), &turned), NONE);
    assert!(diff(rules(), &of(100), &of(103)).starts_with("message 0 /list/0/at: "));
    // The epoch is an empty message.
    let (epoch, second) = (Timestamp::default(), Timestamp { seconds: 1, nanos: 0 });
    let (a, b) = (airport(|a| a.at = Some(epoch)), airport(|b| b.at = Some(second)));
    assert_eq!(diff(rules(), &a, &b), NONE);
    // No calendar has these: they are compared all the same.
    let (a, b) = (airport(|a| a.at = Some(at(i64::MAX))), airport(|b| b.at = Some(at(i64::MIN))));
    assert_ne!(diff(rules(), &a, &b), NONE);
}

#[test]
fn repeated_fields_can_be_sets_or_be_matched() {
    let rules = || {
        let rules = Rules::new().matched_by("/list", "id").unwrap();
        rules.unordered("/numbers").unwrap().unordered("/kinds").unwrap()
    };
    let a = airport(|a| {
        a.list = vec![runway("07", "x"), runway("18", "y")];
        a.numbers = vec![1.0, f64::NAN, -0.0];
        a.kinds = vec![0, 7];
    });
    let b = airport(|b| {
        b.list = vec![runway("18", "y"), runway("07", "x")];
        b.numbers = vec![0.0, 1.0, -f64::NAN];
        b.kinds = vec![7, 0];
    });
    assert_eq!(diff(rules(), &a, &b), NONE);
    assert_eq!(diff(rules().numbers(Numbers::Text), &a, &b), NONE, "a zero has no sign here");
    let mut c = b.clone();
    c.list[0].password = "z".into();
    assert_eq!(diff(rules(), &a, &c), "message 0 /list/1/password: \"y\" against \"z\"");
    let mut c = b;
    c.numbers[1] = f64::INFINITY;
    assert_ne!(diff(rules(), &a, &c), NONE);
}

#[test]
fn fields_can_be_left_out_renamed_and_converted() {
    let of = |change: &dyn Fn(&mut Airport)| airport(|airport| change(airport));
    let a = of(&|a| {
        a.map.insert("a/b~".into(), runway("07", "x"));
    });
    let b = of(&|b| {
        b.map.insert("a/b~".into(), runway("07", "y"));
    });
    for pattern in ["/map/*/password", "/map/a~1b~0/password", "/**/password"] {
        assert_eq!(diff(Rules::new().ignore(pattern).unwrap(), &a, &b), NONE, "{pattern}");
    }
    assert_ne!(diff(Rules::new().ignore("/map/password").unwrap(), &a, &b), NONE);
    let feet = Rules::new()
        .convert(Side::New, "/metres", |metres: &Field<'_>| {
            Some((metres.as_f64()? / 0.3048).round().into())
        })
        .unwrap();
    assert_eq!(diff(feet.clone(), &of(&|a| a.metres = 1_000.0), &of(&|b| b.metres = 304.8)), NONE);
    assert_ne!(diff(feet, &of(&|a| a.metres = 1_000.0), &of(&|b| b.metres = 1_000.0)), NONE);
}

#[test]
fn no_tolerance_of_numbers_holds_for_enums_and_bytes() {
    let rules = || Rules::new().tolerate("/**", Tolerance::absolute(1.0).unwrap()).unwrap();
    assert_ne!(diff(rules(), &airport(|a| a.kind = 7), &airport(|b| b.kind = 8)), NONE);
    let raw = |text: &[u8]| airport(|airport| airport.raw = text.to_vec());
    assert_ne!(diff(rules(), &raw(b"7"), &raw(b"8")), NONE);
    assert_eq!(diff(rules(), &airport(|a| a.metres = 7.0), &airport(|b| b.metres = 8.0)), NONE);
}

#[test]
fn secrets_are_compared_and_never_shown() {
    let rules = || {
        let mut rules = Rules::new().rename(Side::New, "/runway/next", "following").unwrap();
        for secret in ["/**/password", "/labels/*", "/raw", "/runway/following/id"] {
            rules = rules.redact(secret).unwrap();
        }
        rules
    };
    let secret = |text: &str| {
        let any = |text: &str| Any {
            type_url: "type.googleapis.com/Runway".into(),
            value: runway("07", text).encode_to_vec(),
        };
        let text_value = Value { kind: Some(Kind::StringValue(text.into())) };
        let data = Struct { fields: [("password".to_owned(), text_value)].into() };
        let next = Some(Box::new(runway(text, text)));
        [
            airport(|a| a.list = vec![runway("07", text)]),
            airport(|a| a.map = [("k".to_owned(), runway("07", text))].into()),
            airport(|a| a.labels = [(text.to_owned(), text.to_owned())].into()),
            airport(|a| a.raw = text.into()),
            airport(|a| a.any = Some(any(text))),
            airport(|a| a.data = Some(data)),
            airport(|a| a.runway = Some(Runway { next, ..Runway::default() })),
        ]
    };
    let none = Airport::default();
    for (a, b) in secret("hunter2").iter().zip(&secret("hunter3")) {
        for (a, b) in [(a, b), (a, &none), (&none, b)] {
            let found = diff(rules(), a, b);
            assert_ne!(found, NONE, "{a:?} {b:?}");
            assert!(!found.contains("hunter"), "{found}");
        }
    }
}
