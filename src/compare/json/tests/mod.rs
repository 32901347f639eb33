mod hard;

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::*;
use crate::{
    compare::rules::{Duplicates, Field, FieldKind, Numbers, Tolerance},
    stage::Side,
};

fn documents(rules: Rules, a: &str, b: &str) -> String {
    let context = Context::new(Side::Old);
    Json::with(rules).documents(a.as_bytes(), b.as_bytes(), context).to_string()
}

fn diff(a: &str, b: &str) -> String {
    documents(Rules::new(), a, b)
}

const NONE: &str = "no difference";

#[test]
fn what_means_the_same_is_equal() {
    for (a, b) in [
        (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ],\r\n\t\"a\" : 1 }"),
        (r#""Z\u00fcrich \ud83d\ude80""#, r#""Zürich 🚀""#),
        (r#"{"\u0061":"\/"}"#, r#"{"a":"/"}"#),
        ("1.0", "1"),
        ("-0.0", "0"),
        ("[1e2, 10.50]", "[100, 1.05E1]"),
        (
            "12345678901234567890123456789012345678901",
            "12345678901234567890123456789012345678901.0",
        ),
        (r#""\ud800""#, r#" "\ud800""#),
        (r#"{"\ud800":1,"b":2}"#, r#"{"b":2,"\ud800":1}"#),
        ("[]", " [ ] "),
        ("{}", "{\n}"),
        (r#"{"a":1,"a":2}"#, r#"{"a":1.0,"a":2.0}"#),
    ] {
        assert_eq!(diff(a, b), NONE, "{a} {b}");
        assert_eq!(diff(b, a), NONE, "{b} {a}");
    }
}

#[test]
fn each_difference_has_its_pointer() {
    for (a, b, found) in [
        ("1", "2", r#"body: "1" against "2""#),
        ("1", r#""1""#, r#"body: "1" against "\"1\"""#),
        ("null", "false", r#"body: "null" against "false""#),
        (r#"{"a":{"b":[1,2]}}"#, r#"{"a":{"b":[1,3]}}"#, r#"/a/b/1: "2" against "3""#),
        (r#"{"a/b":{"~":1}}"#, r#"{"a/b":{"~":2}}"#, r#"/a~1b/~0: "1" against "2""#),
        (r#"{"":1}"#, r#"{"":2}"#, r#"/: "1" against "2""#),
        (r#"{"a":null}"#, "{}", r#"/a: "null" against "(absent)""#),
        ("{}", r#"{"a":[1,{"b":2}]}"#, r#"/a: "(absent)" against "[1,{\"b\":2}]""#),
        ("[1,2]", "[1]", r#"/1: "2" against "(absent)""#),
        ("[1,2]", "[2,1]", r#"/0: "1" against "2"; /1: "2" against "1""#),
        (r#"["Zürich"]"#, r#"["Zurich"]"#, r#"/0: "Zürich" against "Zurich""#),
        // Composed against decomposed: some clients can tell.
        (r#""\u00fc""#, r#""u\u0308""#, r#"body: "ü" against "u\u{308}""#),
        ("[0.3]", "[0.30000000000000004]", r#"/0: "0.3" against "0.30000000000000004""#),
        (
            "[9007199254740993]",
            "[9007199254740992]",
            r#"/0: "9007199254740993" against "9007199254740992""#,
        ),
        ("{}", "[]", r#"body: "{}" against "[]""#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, r#"/a: "1" against "2"; /a: "2" against "(absent)""#),
        (r#"{"a":2,"a":1}"#, r#"{"a":1,"a":2}"#, r#"/a: "2" against "1"; /a: "1" against "2""#),
    ] {
        assert_eq!(diff(a, b), found, "{a} {b}");
        assert_ne!(diff(b, a), NONE, "{b} {a}");
    }
}

#[test]
fn differences_in_a_list_are_counted_in_one_place() {
    let found = Json::new().documents(
        br#"{"airports":[{"name":"a"},{"name":"b"}]}"#,
        br#"{"airports":[{"name":"x"},{"name":"y"}]}"#,
        Context::new(Side::Old),
    );
    let places: Vec<_> = found.differences().iter().map(|d| (&*d.what, &*d.place)).collect();
    let place = "/airports/*/name";
    assert_eq!(places, [("/airports/0/name", place), ("/airports/1/name", place)]);
}

#[test]
fn a_number_can_be_its_text_or_a_float() {
    let with = |numbers| Rules::new().numbers(numbers);
    assert_ne!(documents(with(Numbers::Text), "1.0", "1"), NONE);
    assert_eq!(documents(with(Numbers::Text), "1.0", " 1.0"), NONE);
    let (a, b) = ("9007199254740993", "9007199254740992.0");
    assert_eq!(documents(with(Numbers::Binary64), a, b), NONE);
}

#[test]
fn of_several_members_of_one_name_the_last_can_win() {
    let last = || Rules::new().duplicates(Duplicates::LastWins);
    assert_eq!(documents(last(), r#"{"a":1,"a":2}"#, r#"{"a":2}"#), NONE);
    assert_eq!(documents(last(), r#"{"a":1,"b":0,"a":2}"#, r#"{"a":7,"b":0,"a":2}"#), NONE);
    assert_ne!(documents(last(), r#"{"a":1,"a":2}"#, r#"{"a":1}"#), NONE);
}

#[test]
fn fields_can_be_left_out() {
    let rules = || Rules::new().ignore("/id").unwrap().ignore("/**/at").unwrap();
    let (a, b) = (r#"{"id":1,"at":2,"x":[{"at":3,"y":1}]}"#, r#"{"x":[{"at":[4],"y":1}]}"#);
    assert_eq!(documents(rules(), a, b), NONE);
    let b = r#"{"x":[{"id":5,"y":1}]}"#;
    assert_eq!(documents(rules(), a, b), r#"/x/0/id: "(absent)" against "5""#);
    let star = Rules::new().ignore("/~2").unwrap();
    assert_eq!(documents(star, r#"{"*":1,"a":1}"#, r#"{"*":2,"a":1}"#), NONE);
}

#[test]
fn null_can_be_as_good_as_nothing() {
    let rules = || Rules::new().null_is_absent("/a").unwrap();
    assert_eq!(documents(rules(), r#"{"a":null}"#, "{}"), NONE);
    assert_eq!(documents(rules(), "{}", r#"{"a":null}"#), NONE);
    assert_eq!(documents(rules(), r#"{"a":null}"#, r#"{"a":1}"#), r#"/a: "(absent)" against "1""#);
    assert_ne!(documents(rules(), r#"{"b":null}"#, "{}"), NONE);
    let all = Rules::new().null_is_absent("/**").unwrap();
    assert_eq!(documents(all, r#"{"b":{"c":null}}"#, r#"{"b":{}}"#), NONE);
}

#[test]
fn values_can_be_a_little_apart() {
    let rules = || {
        Rules::new()
            .tolerate("/lat", Tolerance::absolute(0.01).unwrap())
            .unwrap()
            .tolerate("/price", Tolerance::relative(0.1).unwrap())
            .unwrap()
            .tolerate("/at", Tolerance::time(Duration::from_secs(2)))
            .unwrap()
    };
    let document = |lat: &str, price: &str, at: &str| {
        format!(r#"{{"lat":{lat},"price":"{price}","at":"{at}"}}"#)
    };
    let a = document("50.03", "100.0", "2026-11-28T12:00:00Z");
    let near = document("50.04", "91", "2026-11-28T13:00:01+01:00");
    let far = document("50.05", "89", "2026-11-28T12:00:03Z");
    assert_eq!(documents(rules(), &a, &near), NONE);
    let found = documents(rules(), &a, &far);
    assert_eq!(found.matches(" against ").count(), 3, "{found}");
    // A time is not a number, nor the other way round.
    assert_ne!(documents(rules(), r#"{"at":1}"#, r#"{"at":2}"#), NONE);
    assert_ne!(documents(rules(), r#"{"lat":1}"#, r#"{"lat":"1"}"#), NONE);
}

#[test]
fn a_list_can_be_a_set() {
    let set = || Rules::new().unordered("/tags").unwrap();
    let tags = |tags: &str| format!(r#"{{"tags":{tags}}}"#);
    for (a, b) in [
        ("[1,2,3]", "[3.0,1,2]"),
        (r#"[{"a":1,"b":[2]},{"c":3}]"#, r#"[{"c":3},{"b":[2],"a":1e0}]"#),
        ("[1,1,2]", "[1,2,1]"),
        ("[]", "[]"),
    ] {
        assert_eq!(documents(set(), &tags(a), &tags(b)), NONE, "{a} {b}");
    }
    let found = documents(set(), &tags("[1,1,2]"), &tags("[2,2,1]"));
    assert_eq!(found, r#"/tags/1: "1" against "(absent)"; /tags/1: "(absent)" against "2""#);
    assert_ne!(documents(set(), &tags("[[1,2]]"), &tags("[[2,1]]")), NONE, "inner lists have one");
    let deep = Rules::new().unordered("/tags").unwrap().unordered("/tags/*").unwrap();
    assert_eq!(documents(deep, &tags("[[1,2],[3]]"), &tags("[[3],[2,1]]")), NONE);
}

#[test]
fn elements_of_a_set_can_be_a_little_apart_and_have_ignored_fields() {
    let rules = || {
        Rules::new()
            .unordered("/points")
            .unwrap()
            .tolerate("/points/*/x", Tolerance::absolute(0.1).unwrap())
            .unwrap()
            .ignore("/points/*/id")
            .unwrap()
    };
    let a = r#"{"points":[{"x":1.0,"id":1},{"x":2.0,"id":2}]}"#;
    let b = r#"{"points":[{"x":2.05,"id":8},{"id":9,"x":1.05}]}"#;
    assert_eq!(documents(rules(), a, b), NONE);
    let b = r#"{"points":[{"x":2.05},{"x":1.2}]}"#;
    assert_ne!(documents(rules(), a, b), NONE);
}

#[test]
fn elements_can_be_matched_by_a_member() {
    let rules = || Rules::new().matched_by("/runways", "id").unwrap();
    let a = r#"{"runways":[{"id":"07","l":1},{"id":"18","l":2},{"l":0}]}"#;
    let b = r#"{"runways":[{"l":0},{"l":3,"id":"18"},{"id":"07","l":1}]}"#;
    assert_eq!(documents(rules(), a, b), r#"/runways/1/l: "2" against "3""#);
    let b = r#"{"runways":[{"id":"25","l":1},{"id":"18","l":2}]}"#;
    assert_eq!(
        documents(rules(), a, b),
        "/runways/0: \"{\\\"id\\\":\\\"07\\\",\\\"l\\\":1}\" against \"(absent)\"; \
         /runways/2: \"{\\\"l\\\":0}\" against \"(absent)\"; \
         /runways/0: \"(absent)\" against \"{\\\"id\\\":\\\"25\\\",\\\"l\\\":1}\""
    );
    // Numbers are matched by value.
    let (a, b) = (r#"{"runways":[{"id":1},{"id":2}]}"#, r#"{"runways":[{"id":2.0},{"id":1e0}]}"#);
    let found = documents(rules(), a, b);
    assert_eq!(found, NONE);
}

#[test]
fn a_function_can_compare() {
    let rules = Rules::new()
        .compare_with("/name", |a: &Field<'_>, b: &Field<'_>| {
            a.as_str().map(str::to_lowercase) == b.as_str().map(str::to_lowercase)
        })
        .unwrap()
        .compare_with("/seats", |a, b| {
            let count = |field: &Field<'_>| match field.kind() {
                FieldKind::Absent => Some(0.0),
                _ => field.as_f64(),
            };
            count(a) == count(b)
        })
        .unwrap();
    let (a, b) = (r#"{"name":"FRA","seats":0}"#, r#"{"name":"fra"}"#);
    assert_eq!(documents(rules.clone(), a, b), NONE);
    let b = r#"{"name":"muc","seats":1}"#;
    assert_eq!(documents(rules, a, b), r#"/name: "FRA" against "muc"; /seats: "0" against "1""#);
}

#[test]
fn each_side_can_be_read_in_its_own_way() {
    let rules = || {
        Rules::new()
            .rename(Side::New, "/runways/*/len", "length")
            .unwrap()
            .convert(Side::New, "/runways/*/length", |metres: &Field<'_>| {
                Some((metres.as_f64()? * 10.0).round().into())
            })
            .unwrap()
    };
    let a = r#"{"runways":[{"length":100}]}"#;
    assert_eq!(documents(rules(), a, r#"{"runways":[{"len":10}]}"#), NONE);
    assert_eq!(
        documents(rules(), a, r#"{"runways":[{"len":11}]}"#),
        r#"/runways/0/length: "100" against "110""#
    );
    // The same bytes on both sides mean different things.
    assert_eq!(documents(rules(), a, a), r#"/runways/0/length: "100" against "1000""#);
    // In a stage with new as the authority too.
    let json = Json::with(rules());
    let new = Context::new(Side::New);
    let found = json.documents(br#"{"runways":[{"len":10}]}"#, a.as_bytes(), new);
    assert!(found.is_empty(), "{found}");
    // And the authority against itself.
    let itself = json.documents(
        b"{\"runways\":[{\"len\":1}]}",
        b"{\"runways\":[{\"len\":1.0}]}",
        new.itself(),
    );
    assert!(itself.is_empty(), "{itself}");
}

#[test]
fn a_set_of_renamed_members_is_matched_by_their_common_names() {
    let rules =
        Rules::new().rename(Side::New, "/*/code", "id").unwrap().matched_by("", "id").unwrap();
    let (a, b) = (r#"[{"id":1},{"id":2}]"#, r#"[{"code":2},{"code":1}]"#);
    assert_eq!(documents(rules, a, b), NONE);
}

#[test]
fn secrets_are_compared_and_never_shown() {
    let rules = || {
        Rules::new()
            .redact("/**/password")
            .unwrap()
            .redact("/accounts/*")
            .unwrap()
            .entries("/accounts")
            .unwrap()
            .rename(Side::New, "/user/pw", "password")
            .unwrap()
            .unordered("/keys")
            .unwrap()
            .redact("/keys/*")
            .unwrap()
    };
    for (a, b) in [
        (r#"{"password":"hunter2"}"#, r#"{"password":"hunter3"}"#),
        (r#"{"password":"hunter2"}"#, "{}"),
        (r#"{"user":{"password":"hunter2","a":1}}"#, "{}"),
        (
            r#"{"user":{"password":{"deep":"hunter2"}}}"#,
            r#"{"user":{"password":{"deep":"hunter3"}}}"#,
        ),
        ("{}", r#"{"user":{"pw":"hunter2"}}"#),
        (r#"{"user":{"password":"hunter2"}}"#, r#"{"user":{"pw":"hunter3"}}"#),
        (r#"{"accounts":{"hunter2":1}}"#, r#"{"accounts":{"hunter3":1}}"#),
        (r#"{"accounts":{"hunter2":{"hunter4":1}}}"#, r#"{"accounts":{"hunter2":{"hunter4":2}}}"#),
        (r#"{"accounts":{"hunter2":1}}"#, "[]"),
        (r#"{"keys":["hunter2"]}"#, r#"{"keys":["hunter3","hunter4"]}"#),
        (r#"[{"password":"hunter2"}]"#, r#"[[{"password":"hunter3"}]]"#),
        ("\"hunter2", "\"hunter3"),
        (r#"{"password":"hunter2""#, r#"{"password":"hunter2"}"#),
        ("hunter2", "hunter3"),
    ] {
        let found =
            Json::with(rules()).documents(a.as_bytes(), b.as_bytes(), Context::new(Side::Old));
        assert!(!found.is_empty(), "{a} {b}");
        let shown = format!("{found} {found:?} {}", serde_json::to_string(&found).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn deep_documents_end_with_a_reason_and_not_with_a_crash() {
    let nested =
        |levels: usize, core: &str| format!("{}{core}{}", "[".repeat(levels), "]".repeat(levels));
    let found = |levels| {
        let (a, b) = (nested(levels, "1"), nested(levels, "2"));
        Json::new().documents(a.as_bytes(), b.as_bytes(), Context::new(Side::Old))
    };
    assert_eq!(found(120).differences().len(), 1);
    for levels in [129, 1_000, 100_000] {
        let found = found(levels);
        assert!(found.differences().is_empty(), "{levels}");
        assert_eq!(found.why_unclear(), Some(SkipReason::TooDeep.into()), "{levels}");
    }
    // What is certain counts for more.
    let a = format!(r#"{{"x":1,"y":{}}}"#, nested(200, "1"));
    let b = format!(r#"{{"x":2,"y":{}}}"#, nested(200, "2"));
    let found = Json::new().documents(a.as_bytes(), b.as_bytes(), Context::new(Side::Old));
    assert_eq!(found.to_string(), r#"/x: "1" against "2"; not all compared: too_deep"#);
    // Equal below, whatever the depth.
    let a = format!(r#"{{"x":1,"y":{}}}"#, nested(500, "1"));
    let b = format!(r#"{{"y":{},"x":1.0}}"#, nested(500, "1"));
    assert_eq!(diff(&a, &b), NONE);
    let shallow = Rules::new().depth(2).unwrap();
    assert!(documents(shallow, "[[[1]]]", "[[[2]]]").contains("too_deep"));
    assert!(Rules::new().depth(0).is_err() && Rules::new().depth(257).is_err());
}

#[test]
fn sets_that_are_deep_or_hold_deep_things_end_too() {
    let rules = || Rules::new().unordered("/**").unwrap();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let (a, b) = (nested(50_000), nested(49_999));
    assert_ne!(documents(rules(), &a, &b), NONE);
    let (a, b) = (format!("[1,{}]", nested(300)), format!("[{},1.0]", nested(300)));
    assert_eq!(documents(rules(), &a, &b), NONE);
}

fn answer(kind: &'static str, body: &str) -> Answer {
    let mut answer = Answer::new(StatusCode::OK, body.to_owned());
    answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn answers(a: &Answer, b: &Answer) -> String {
    Json::new().compare(&Answers::of(a, b)).to_string()
}

#[test]
fn only_what_says_so_is_json() {
    for kind in ["application/json", "application/JSON; charset=utf-8", "application/hal+json"] {
        let (a, b) = (answer(kind, "[1]"), answer(kind, "[1.0]"));
        assert_eq!(answers(&a, &b), NONE, "{kind}");
    }
    let (a, b) = (answer("text/plain", "[1]"), answer("text/plain", "[1.0]"));
    assert!(answers(&a, &b).starts_with("body at byte 2"));
    let (a, b) = (answer("application/json", "[1]"), answer("text/plain", "[1.0]"));
    assert_eq!(answers(&a, &b), NONE, "one of them says so");
}

#[test]
fn what_claims_to_be_json_and_is_none_differs() {
    let good = answer("application/json", "[1]");
    for bad in ["", "<html>", "[1", "[1]]", "[01]", "{\"a\":1,}", "NaN", "\"\u{1}\"", "[1]\0"] {
        let bad = answer("application/json", bad);
        let found = answers(&good, &bad);
        assert!(found.starts_with("body: \"JSON\" against \"no JSON, at line 1"), "{found}");
        assert_eq!(answers(&bad, &bad.clone()), NONE);
    }
    let (a, b) = (answer("application/json", "<a>"), answer("application/json", "<b>"));
    assert!(answers(&a, &b).starts_with("body at byte 1: "));
    let mut latin = good.clone();
    latin.body = b"\"Z\xfcrich\"".to_vec().into();
    assert!(answers(&good, &latin).contains("no JSON"));
    let marked = answer("application/json", "\u{feff}[1]");
    assert!(answers(&good, &marked).contains("no JSON"), "RFC 8259: no byte order mark");
}

#[test]
fn a_compare_that_has_no_time_says_so() {
    let list = |from: usize| {
        let all: Vec<_> = (from..from + 10_000).map(|n| format!("{{\"a\":{n}}}")).collect();
        format!("[{}]", all.join(","))
    };
    let rules = Rules::new().ignore("/*/a").unwrap();
    let late = Context::new(Side::Old).until(tokio::time::Instant::now());
    let json = Json::with(rules);
    let found = json.documents(list(0).as_bytes(), list(1).as_bytes(), late);
    assert_eq!(found.why_unclear(), Some(crate::compare::InconclusiveReason::Deadline.into()));
    let found = json.documents(list(0).as_bytes(), list(1).as_bytes(), Context::new(Side::Old));
    assert!(found.is_empty());
}

#[test]
fn a_long_list_of_differences_is_cut() {
    let list = |of: &str| format!("[{}]", vec![of; 1_000].join(","));
    let found =
        Json::new().documents(list("1").as_bytes(), list("2").as_bytes(), Context::new(Side::Old));
    assert_eq!(found.differences().len(), 3);
    let members: Vec<_> = (0..1_000).map(|n| format!("\"m{n}\":1")).collect();
    let found = Json::new().documents(
        format!("{{{}}}", members.join(",")).as_bytes(),
        b"{}",
        Context::new(Side::Old),
    );
    assert_eq!(found.differences().len(), 33);
    let long = format!("\"{}\"", "ü".repeat(100_000));
    let found = diff(&long, "1");
    assert!(found.len() < 1_000, "{}", found.len());
    let deep_name = format!("{{\"{}\":1}}", "n".repeat(100_000));
    assert!(diff(&deep_name, "{}").len() < 1_000);
}

#[test]
fn patterns_that_are_none_are_errors() {
    for pattern in ["a", "/~", "/~3", "/**/**"] {
        assert!(Rules::new().ignore(pattern).is_err(), "{pattern}");
    }
}
