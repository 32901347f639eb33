//! Reads that are compared with the other side.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::timeout;
use tonic::Code;
use tower_migration::{
    FallbackRead, Limits, Outcome, Side, Stage,
    compare::{
        Compare,
        grpc::{DecodedMessages, ExactMessages, GrpcStatus, Metadata},
    },
    protocol::grpc::{Grpc, outcome},
    reconcile::Key,
};

use crate::{
    closing::count,
    fake::*,
    support::{
        AIRPORTS,
        airports::{Airport, GetRequest},
    },
};

const GET: &str = "/airports.v1.Airports/Get";
const LIST: &str = "/airports.v1.Airports/List";
const SECOND: Duration = Duration::from_secs(1);

fn grpc() -> Grpc {
    let grpc = Grpc::new().descriptors(AIRPORTS).unwrap();
    grpc.key_field(GET, "code").unwrap().key_field(LIST, "prefix").unwrap()
}

fn named(name: &str) -> Bytes {
    framed(&Airport { code: "A".into(), name: name.into(), ..Default::default() })
}

fn gives(name: &'static str) -> Fake {
    Fake::answers(move || says(&[named(name)], Code::Ok))
}

fn get(code: &str) -> Req {
    unary(GET, &GetRequest { code: code.into() })
}

async fn rig(grpc: Grpc, old: Fake, new: Fake) -> Rig {
    at(Stage::WriteBoth, grpc, old, new, |layer| layer).await
}

async fn at(
    stage: Stage,
    grpc: Grpc,
    old: Fake,
    new: Fake,
    set: impl FnOnce(Layered) -> Layered,
) -> Rig {
    let rig = Rig::new(grpc, old, new, set).at(stage).await;
    rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig
}

/// The verdict on one read.
async fn verdict(rig: &Rig, request: Req) -> String {
    let before = rig.verdicts().len();
    rig.ask(request).await;
    rig.assert_idle().await;
    let all = rig.verdicts();
    assert_eq!(all.len(), before + 1, "{all:?}");
    all[before].clone()
}

#[tokio::test(start_paused = true)]
async fn equal_answers_match_and_others_do_not() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for path in [GET, LIST] {
            let ask = || unary(path, &GetRequest { code: "A".into() });
            let streamed = |last: &'static str, code| {
                Fake::answers(move || says(&[named("x"), named("y"), named(last)], code))
            };
            let pairs = [
                (streamed("z", Code::Ok), "match"),
                (streamed("other", Code::Ok), "mismatch"),
                // The same messages, and then a status that is another.
                (streamed("z", Code::Internal), "mismatch"),
                (streamed("z", Code::NotFound), "mismatch"),
                (Fake::answers(|| only(Code::NotFound)), "mismatch"),
                (Fake::answers(|| says(&[named("x"), named("y")], Code::Ok)), "mismatch"),
                (Fake::answers(|| ends(&[named("x"), named("y"), named("z")], None)), "mismatch"),
                (Fake::panics(), "failed: panicked"),
                (Fake::errs(), "failed: error"),
                (Fake::hangs(), "failed: deadline"),
            ];
            for (theirs, wanted) in pairs {
                let mine = streamed("z", Code::Ok);
                let (old, new) = match stage.authority() {
                    Side::Old => (mine, theirs),
                    Side::New => (theirs, mine),
                };
                let rig = at(stage, grpc(), old, new, |layer| layer).await;
                assert_eq!(verdict(&rig, ask()).await, wanted, "{stage} {path}");
                assert_eq!(rig.handle.recent_mismatches().len(), usize::from(wanted == "mismatch"));
                assert_eq!(rig.dirty(), [""; 0]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chosen_metadata_counts_wherever_it_stands() {
    let version = HeaderName::from_static("x-version");
    let with = |value: &'static str, in_head: bool| {
        Fake::answers(move || {
            let pair = (HeaderName::from_static("x-version"), HeaderValue::from_static(value));
            let mut trailers = status(Code::Ok);
            let extra = HeaderMap::from_iter([pair]);
            if !in_head {
                trailers.extend(extra.clone());
            }
            let mut answer = ends(&[named("x")], Some(trailers));
            if in_head {
                answer.headers_mut().extend(extra);
            }
            answer
        })
    };
    for in_head in [true, false] {
        for (theirs, chosen, wanted) in
            [("1", true, "match"), ("2", true, "mismatch"), ("2", false, "match")]
        {
            let mut grpc = grpc();
            if chosen {
                grpc = grpc
                    .compare(GrpcStatus.and(ExactMessages).and(Metadata::new([version.clone()])));
            }
            let rig = rig(grpc, with("1", in_head), with(theirs, in_head)).await;
            assert_eq!(verdict(&rig, get("A")).await, wanted, "{in_head} {theirs} {chosen}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_fails_is_not_compared_with_wherever_it_says_so() {
    for code in (1..=16).map(Code::from_i32) {
        for early in [true, false] {
            let mine =
                Fake::answers(move || if early { only(code) } else { says(&[named("x")], code) });
            let rig = rig(grpc(), mine, gives("x")).await;
            let reason = match outcome(code) {
                Outcome::Unknown => "skipped: authority_failed",
                _ => "skipped: authority_refused",
            };
            assert_eq!(verdict(&rig, get("A")).await, reason, "{code:?} {early}");
        }
    }
    let rig = rig(grpc(), Fake::answers(|| ends(&[named("x")], None)), gives("x")).await;
    assert_eq!(verdict(&rig, get("A")).await, "skipped: authority_failed", "no status at all");
}

/// An answer without an end: a message at each step.
fn for_ever(pause: Duration) -> Fake {
    Fake::new(move |request: Req| async move {
        let _ = request.into_body().collect().await;
        let (mut sender, body) = piecewise();
        tokio::spawn(async move {
            while sender.send_data(named(&"x".repeat(10_000))).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        });
        Ok(streams(body))
    })
}

#[tokio::test(start_paused = true)]
async fn a_read_without_an_end_costs_a_bounded_amount() {
    let limits = || Limits::default().captured_body(100_000).captured_bytes(300_000);
    for (pause, reads, wanted) in [
        (Duration::from_millis(1), SECOND, "skipped: answer_too_large"),
        (SECOND * 2, SECOND * 20, "skipped: client_slow"),
    ] {
        let rig = at(Stage::WriteBoth, grpc(), for_ever(pause), gives("x"), |layer| {
            layer.limits(limits()).unwrap()
        });
        let rig = rig.await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let sent = rig.send(unary(LIST, &GetRequest::default()));
            clients.push(tokio::spawn(async move {
                let mut answer = sent.await.unwrap();
                while answer.body_mut().frame().await.is_some() {}
            }));
        }
        tokio::time::sleep(reads).await;
        let captured = count(&rig.handle, "tower_migration_captured_bytes");
        assert!(captured < 1.0, "given back though the reads go on: {captured}");
        assert_eq!(rig.handle.status().on_old.reads, 5, "and they do");
        let verdicts = rig.verdicts();
        assert_eq!(verdicts.len(), 5);
        assert!(
            verdicts.iter().all(|one| one == wanted || one == "skipped: captured_bytes"),
            "{verdicts:?}"
        );
        // A read holds up no step.
        timeout(SECOND, rig.handle.settled()).await.unwrap();
        assert!(rig.handle.advance().await.is_ok());
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        rig.assert_idle().await;
    }
}

/// As `Airport`, with its map in the order that is wanted.
#[derive(Clone, PartialEq, Message)]
struct Ordered {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(message, repeated, tag = "5")]
    labels: Vec<Label>,
    /// Of a later version.
    #[prost(string, tag = "99")]
    unknown: String,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn ordered(labels: &'static [(&'static str, &'static str)], unknown: &'static str) -> Fake {
    Fake::answers(move || {
        let label =
            |(key, value): &(&str, &str)| Label { key: (*key).into(), value: (*value).into() };
        let labels = labels.iter().map(label).collect();
        let airport = Ordered { code: "A".into(), labels, unknown: unknown.into() };
        says(&[framed(&airport)], Code::Ok)
    })
}

#[tokio::test(start_paused = true)]
async fn decoded_messages_do_not_mind_the_order_of_a_map() {
    let decoded = || grpc().compare(GrpcStatus.and(DecodedMessages::new(AIRPORTS).unwrap()));
    let mine = || ordered(&[("a", "1"), ("b", "2")], "");
    for (theirs, exactly, by_fields) in [
        (ordered(&[("a", "1"), ("b", "2")], ""), "match", "match"),
        (ordered(&[("b", "2"), ("a", "1")], ""), "mismatch", "match"),
        (ordered(&[("a", "1"), ("b", "2")], "new"), "mismatch", "match"),
        (ordered(&[("a", "1"), ("b", "3")], ""), "mismatch", "mismatch"),
        (ordered(&[("a", "1")], ""), "mismatch", "mismatch"),
    ] {
        let exact = rig(grpc(), mine(), theirs.clone()).await;
        assert_eq!(verdict(&exact, get("A")).await, exactly);
        let decoded = rig(decoded(), mine(), theirs).await;
        assert_eq!(verdict(&decoded, get("A")).await, by_fields);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dirty_key_skips_the_reads_of_it_and_no_others() {
    let rig = rig(grpc(), gives("x"), gives("x")).await;
    rig.handle.mark_dirty(&Key::from("A"), Side::Old);
    assert_eq!(verdict(&rig, get("A")).await, "skipped: dirty");
    assert_eq!(verdict(&rig, get("B")).await, "match");
    // Without a key it may be about anything.
    assert_eq!(verdict(&rig, get("")).await, "skipped: dirty");
    let nothing = || async { Ok::<_, Infallible>(()) };
    rig.handle.copy_key(&Key::from("A"), Side::Old, nothing).await.unwrap();
    assert_eq!(verdict(&rig, get("A")).await, "match");
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_message_is_slow_to_come_is_served_all_the_same() {
    for rate in [0.0, 1.0] {
        let rig = rig(grpc(), gives("x"), gives("x")).await;
        rig.handle.set_shadow_rate(rate).unwrap();
        for breaks in [false, true] {
            let (mut sender, body) = piecewise();
            let whole = framed(&GetRequest { code: "A".into() });
            let sent = rig.send(call(GET, body));
            let client = tokio::spawn(async move { seen(sent.await.unwrap()).await });
            tokio::time::sleep(SECOND * 100).await;
            sender.send_data(whole.slice(..3)).await.unwrap();
            tokio::time::sleep(SECOND * 100).await;
            if breaks {
                sender.abort("reset".into());
            } else {
                sender.send_data(whole.slice(3..)).await.unwrap();
                drop(sender);
            }
            // The fake answers, however its request ended.
            assert_eq!(client.await.unwrap().code, Some(Code::Ok), "{rate}");
            rig.assert_idle().await;
        }
        assert_eq!(rig.old.count(), 2);
        let wanted: &[&str] = if rate > 0.0 { &["match", "skipped: answer_broken"] } else { &[] };
        assert_eq!(rig.verdicts(), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_the_authority_fails_in_its_head_may_be_answered_by_the_other_side() {
    let fails: [(&str, Fake); 5] = [
        ("a status", Fake::answers(|| only(Code::Unavailable))),
        ("an error", Fake::errs()),
        ("a panic", Fake::panics()),
        ("nothing", Fake::hangs()),
        (
            "a proxy",
            Fake::answers(|| {
                http::Response::builder().status(502).body(Default::default()).unwrap()
            }),
        ),
    ];
    for (how, old) in fails {
        let old = if how == "nothing" {
            // Covered once it has read the request.
            Fake::new(|request: Req| async move {
                let _ = request.into_body().collect().await;
                std::future::pending().await
            })
        } else if how == "an error" || how == "a panic" {
            let end = old;
            Fake::new(move |request: Req| {
                let mut end = end.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let _ = body.collect().await;
                    let empty = http::Request::from_parts(parts, Default::default());
                    tower::Service::call(&mut end, empty).await
                }
            })
        } else {
            old
        };
        let set = |layer: Layered| layer.read_fallback(SECOND).unwrap();
        let rig = at(Stage::WriteBoth, grpc(), old, gives("new"), set).await;
        let answer = rig.send(get("A")).await.unwrap();
        let side = answer.extensions().get::<FallbackRead>().map(|read| read.side);
        assert_eq!(side, Some(Side::New), "{how}");
        assert_eq!(seen(answer).await.data, named("new"), "{how}");
        rig.handle.mark_dirty(&Key::from("A"), Side::Old);
        let sent = timeout(SECOND * 5, rig.send(get("A"))).await.unwrap();
        let fell_back =
            sent.is_ok_and(|answer| answer.extensions().get::<FallbackRead>().is_some());
        assert!(!fell_back, "{how}: its key is dirty");
        rig.assert_idle().await;
    }
    // What is refused is an answer, and what has begun cannot be taken back.
    for (old, code) in [
        (Fake::answers(|| only(Code::NotFound)), Code::NotFound),
        (Fake::answers(|| says(&[named("x")], Code::Unavailable)), Code::Unavailable),
    ] {
        let set = |layer: Layered| layer.read_fallback(SECOND).unwrap();
        let rig = at(Stage::WriteBoth, grpc(), old, gives("new"), set).await;
        assert_eq!(rig.ask(get("A")).await.code, Some(code));
    }
}
