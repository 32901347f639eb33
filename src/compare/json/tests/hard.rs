//! What somebody had to think of: each has once gone wrong.

use super::*;
use crate::compare::InconclusiveReason;

fn near(most: f64) -> Tolerance {
    Tolerance::absolute(most).unwrap()
}

#[test]
fn a_list_of_which_every_row_differs_hides_nothing_after_it() {
    let rows =
        |from: usize| (from..from + 500).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let document = |from, total| format!(r#"{{"rows":[{}],"total":{total}}}"#, rows(from));
    let found = diff(&document(0, 1), &document(1, 2));
    assert!(found.contains("/total: \"1\" against \"2\""), "{found}");
}

#[test]
fn halves_of_surrogate_pairs_are_what_they_are() {
    for (a, b) in [
        (r#"["\ud800"]"#, r#"["\uD800"]"#),
        (r#"["\ud800\u0041"]"#, r#"["\ud800A"]"#),
        (r#"{"\ud800":1}"#, r#"{"\uD800":1.0}"#),
    ] {
        assert_eq!(diff(a, b), NONE, "{a} {b}");
    }
    for (a, b) in [
        (r#"["\ud800"]"#, r#"["\\ud800"]"#),
        (r#"["\ud800"]"#, r#"["\ud801"]"#),
        (r#"["\ud800"]"#, r#"["\ufffd"]"#),
        (r#"{"\ud800":1}"#, r#"{"\\ud800":1}"#),
        // The mark that stands before what is odd, written out.
        (r#"["\ud800"]"#, "[\"\u{fdd0}ed\u{fdd0}a0\u{fdd0}80\"]"),
    ] {
        assert_ne!(diff(a, b), NONE, "{a} {b}");
    }
}

#[test]
fn names_do_not_break_a_line() {
    let found = diff("{\"a\\nairports: SAFE TO ADVANCE\":1}", "{}");
    assert!(!found.contains('\n') && found.contains("SAFE"), "{found}");
    let found = Json::new().documents(br#"{"\u0007\u001b[2J":1}"#, b"{}", Context::new(Side::Old));
    assert!(!found.differences()[0].place.contains(char::is_control));
}

#[test]
fn secrets_below_a_renamed_member_are_not_shown() {
    for (rename, to, redact, there) in [
        ("/x/acct", "account", "/x/account/password", r#"{"x":{"acct":{"password":"hunter2"}}}"#),
        // By the name that nobody was asked to use any more, too.
        ("/x/acct", "account", "/x/acct/password", r#"{"x":{"acct":{"password":"hunter2"}}}"#),
        (
            "/users/*/creds",
            "credentials",
            "/users/*/credentials/*",
            r#"{"users":[{"creds":{"pw":"hunter2"}}]}"#,
        ),
    ] {
        let rules = || {
            let rules = Rules::new().rename(Side::New, rename, to).unwrap();
            rules.redact(redact).unwrap()
        };
        let other = there.replace("hunter2", "hunter3");
        for (a, b) in
            [("{}", there), (there, "{}"), (r#"{"x":{},"users":[]}"#, there), (there, &other)]
        {
            let found = documents(rules(), a, b);
            assert!(found != NONE && !found.contains("hunter"), "{found}");
        }
    }
}

#[test]
fn of_near_elements_as_many_are_matched_as_can_be() {
    let rules = || Rules::new().unordered("").unwrap().tolerate("/*", near(0.1)).unwrap();
    assert_eq!(documents(rules(), "[1.1,1.0]", "[1.05,1.15]"), NONE);
    assert_eq!(documents(rules(), "[1.0,1.1]", "[1.1,1.2]"), NONE);
    assert_ne!(documents(rules(), "[1.0,1.1]", "[1.15,1.25]"), NONE);
}

#[test]
fn in_sets_the_same_is_equal_as_elsewhere() {
    let set = || Rules::new().unordered("").unwrap();
    let nulls = || set().null_is_absent("/**").unwrap();
    assert_eq!(documents(nulls(), "[[1,null],2]", "[2,[1]]"), NONE);
    assert_eq!(documents(nulls().unordered("/*").unwrap(), "[[null,1],2]", "[2,[1]]"), NONE);
    assert_ne!(documents(nulls(), "[[null,1],2]", "[2,[1]]"), NONE, "it has its place");
    assert_eq!(documents(set().ignore("/*/1").unwrap(), "[[1,7],[2]]", "[[2,8],[1]]"), NONE);
    // What is matched by a member keeps its order where that member is the same.
    let matched = || set().matched_by("/*", "id").unwrap();
    let (a, b) = (r#"{"id":1,"x":1}"#, r#"{"id":1,"x":2}"#);
    let two = |first: &str, second: &str| format!("[[{first},{second}],0]");
    assert_ne!(documents(matched(), &two(a, b), &two(b, a)), NONE);
    let c = r#"{"id":2}"#;
    assert_eq!(documents(matched(), &two(a, c), &two(c, a)), NONE);
}

#[test]
fn sets_that_are_too_deep_are_not_called_different() {
    let nested = |core: &str| format!("{}{core}{}", "[".repeat(140), "]".repeat(140));
    let rules = || Rules::new().unordered("").unwrap();
    let found = |a: &str, b: &str| {
        Json::with(rules()).documents(a.as_bytes(), b.as_bytes(), Context::new(Side::Old))
    };
    let (a, b) = (format!("[1,{}]", nested("1")), format!("[{},1]", nested(" 1.0 ")));
    let found_deep = found(&a, &b);
    assert!(found_deep.differences().is_empty());
    assert_eq!(found_deep.why_unclear(), Some(SkipReason::TooDeep.into()));
    assert_eq!(found(&a, "[1]").differences().len(), 1, "nothing there can be equal to it");
}

/// Numbers in lists in lists.
fn tree(depth: usize, wide: usize, next: &mut u64) -> String {
    if depth == 0 {
        *next += 10;
        return next.to_string();
    }
    let all: Vec<_> = (0..wide).map(|_| tree(depth - 1, wide, next)).collect();
    format!("[{}]", all.join(","))
}

#[test]
fn sets_in_sets_are_given_up_before_they_take_for_ever() {
    let rules = || Rules::new().unordered("/**").unwrap().tolerate("/**", near(0.1)).unwrap();
    // Each of 20 with each of 20, three levels deep: 64 million comparisons.
    let (a, b) = (tree(3, 20, &mut 0), tree(3, 20, &mut 1_000_000));
    let found = Json::with(rules()).documents(a.as_bytes(), b.as_bytes(), Context::new(Side::Old));
    assert!(found.differences().is_empty());
    assert_eq!(found.why_unclear(), Some(SkipReason::TooLarge.into()));
    // One level is no trouble.
    let (a, b) = (tree(1, 64, &mut 0), tree(1, 64, &mut 0).replace("0,", "0.01,"));
    assert_eq!(documents(rules(), &a, &b), NONE);
}

#[test]
fn a_deadline_within_a_set_makes_no_difference_out_of_it() {
    let list = |of: &dyn Fn(usize) -> String| (0..64).map(of).collect::<Vec<_>>().join(",");
    let row = |n: usize, end: &str| {
        (0..400).map(|m| format!("{}{end}", n * 1_000 + m)).collect::<Vec<_>>().join(",")
    };
    let a = format!("[{}]", list(&|n| format!("[{}]", row(n, ""))));
    let b = format!("[{}]", list(&|n| format!("[{}]", row(63 - n, ".01"))));
    let rules = || Rules::new().unordered("").unwrap().tolerate("/**", near(0.1)).unwrap();
    assert_eq!(documents(rules(), &a, &b), NONE);
    let late = Context::new(Side::Old).until(tokio::time::Instant::now());
    let found = Json::with(rules()).documents(a.as_bytes(), b.as_bytes(), late);
    assert!(found.differences().is_empty(), "{found}");
    assert_eq!(found.why_unclear(), Some(InconclusiveReason::Deadline.into()));
}

#[test]
fn a_deep_document_with_many_wildcards_is_read_in_the_time_that_there_is() {
    let rules = Rules::new().ignore("/**/*/**/*/**/*/**/zz").unwrap();
    let inner = |more: usize| {
        let all: Vec<_> = (0..200).map(|n| (n + more).to_string()).collect();
        format!("{}[{}]{}", "{\"a\":".repeat(110), all.join(","), "}".repeat(110))
    };
    // More than 200 000 ways lead down there.
    assert!(documents(rules, &inner(0), &inner(1)).contains("against"));
}

#[test]
fn trailers_and_empty_bodies() {
    let mut a = answer("application/json", "{}");
    let mut b = a.clone();
    let trailers = |text: &str| {
        let value = HeaderValue::from_str(text).unwrap();
        http::HeaderMap::from_iter([(http::HeaderName::from_static("x-token"), value)])
    };
    (a.trailers, b.trailers) = (Some(trailers("hunter2")), Some(trailers("hunter3")));
    assert_eq!(answers(&a, &b), "trailer x-token: \"(not shown)\" against \"(not shown)\"");
    b.trailers = None;
    assert_eq!(answers(&a, &b), "trailers: \"there\" against \"(absent)\"");
    // An answer to HEAD speaks of a body that is not there.
    for encoding in ["gzip", "deflate", "br"] {
        let (mut a, b) = (answer("application/json", ""), answer("application/json", ""));
        a.headers.insert("content-encoding", HeaderValue::from_static(encoding));
        assert_eq!(answers(&a, &b), NONE);
    }
}
