//! What two answers to one write come to.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tonic::{Code, body::Body};
use tower_migration::{
    FailurePolicy, Limits, Outcome, Side, Stage,
    protocol::grpc::{Grpc, outcome},
    stage::{Agreement, agreement},
};

use crate::{
    fake::*,
    support::{INTEROP, proto::*},
};

const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
const POLICIES: [FailurePolicy; 3] =
    [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth];

fn keyed() -> Grpc {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    grpc.key_of(UNARY, |_: &SimpleRequest| "it").unwrap()
}

fn ask() -> Req {
    unary(UNARY, &SimpleRequest::default())
}

fn message() -> Bytes {
    framed(&SimpleResponse { username: "x".into(), ..Default::default() })
}

/// How much of an answer comes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing but a status.
    Status,
    Once,
    /// The status comes later.
    Last,
}

fn coming(code: Code, at: At) -> Fake {
    Fake::answers(move || match at {
        At::Status => only(code),
        At::Once => says(&[message()], code),
        At::Last => says_late(&[message()], code),
    })
}

fn answering(code: Code, early: bool) -> Fake {
    Fake::answers(move || if early { only(code) } else { says(&[message()], code) })
}

async fn rig(old: Fake, new: Fake, policy: FailurePolicy, stage: Stage) -> Rig {
    rig_of(keyed(), old, new, policy, stage).await
}

async fn rig_of(grpc: Grpc, old: Fake, new: Fake, policy: FailurePolicy, stage: Stage) -> Rig {
    let limits = Limits::default().leg_timeout(Duration::from_secs(2));
    let limits = limits.ready_timeout(Duration::from_secs(1)).abandon_after(Duration::from_secs(3));
    let set = |layer: Layered| layer.failure_policy(policy).limits(limits).unwrap();
    let rig = Rig::new(grpc, old, new, set).at(stage).await;
    rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
    rig
}

/// What the client must see, and whether the key must be dirty.
fn wanted(policy: FailurePolicy, mine: Outcome, theirs: Outcome) -> (bool, bool) {
    let split = agreement(mine, theirs) == Agreement::Dirty;
    let settled = matches!(
        (mine, theirs),
        (Outcome::Applied, Outcome::Applied) | (Outcome::Refused, Outcome::Refused)
    );
    (policy == FailurePolicy::RequireBoth && !settled, split)
}

#[tokio::test(start_paused = true)]
async fn each_pair_of_codes_is_clean_or_dirty_as_the_table_says() {
    let codes = || (0..=16).map(Code::from_i32);
    let places = [
        (At::Status, At::Status),
        (At::Status, At::Last),
        (At::Once, At::Once),
        (At::Once, At::Last),
        (At::Last, At::Status),
        (At::Last, At::Last),
    ];
    for policy in POLICIES {
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            if stage == Stage::ReadNew && policy != FailurePolicy::RequireBoth {
                continue; // The same with the sides exchanged, and there are thousands.
            }
            for (at, theirs_at) in places {
                let rig = rig(Fake::hangs(), Fake::hangs(), policy, stage).await;
                let (mine, theirs) = match stage.authority() {
                    Side::Old => (&rig.old, &rig.new),
                    Side::New => (&rig.new, &rig.old),
                };
                for (code, other) in codes().flat_map(|code| codes().map(move |o| (code, o))) {
                    let what = format!("{policy:?} {stage} {code:?}/{other:?} {at:?}");
                    mine.becomes(&coming(code, at));
                    theirs.becomes(&coming(other, theirs_at));
                    let synced = rig.handle.status().sync;
                    let found = rig.ask(ask()).await;
                    rig.handle.settled().await;
                    rig.assert_idle().await;
                    let (refused, dirty) = wanted(policy, outcome(code), outcome(other));
                    assert_eq!(!rig.dirty().is_empty(), dirty, "{what}");
                    assert_eq!(rig.handle.status().sync, synced, "{what}");
                    if refused {
                        assert_eq!(found.code, Some(Code::Unavailable), "{what}: {found:?}");
                        assert!(found.text.starts_with("Partial write"), "{what}");
                        // What is here at once is judged before it is handed on.
                        let early = at != At::Last;
                        let told = if early { &found.headers } else { &found.trailers };
                        assert_eq!(told["grpc-retry-pushback-ms"], "-1", "{what}");
                        assert_eq!(found.early, early, "{what}");
                    } else {
                        assert_eq!(found.code, Some(code), "{what}");
                        assert_eq!(found.text, "said so", "{what}");
                    }
                    assert_eq!(found.http, 200, "{what}");
                    let nothing = at == At::Status || (refused && at == At::Once);
                    let data = if nothing { Bytes::new() } else { message() };
                    assert_eq!(found.data, data, "{what}");
                    heal(&rig, stage).await;
                }
            }
        }
    }
}

/// Makes the one key clean again.
async fn heal(rig: &Rig, stage: Stage) {
    for dirty in rig.handle.dirty_keys() {
        let nothing = || async { Ok::<_, std::convert::Infallible>(()) };
        rig.handle.copy_key(&dirty.key, stage.authority(), nothing).await.unwrap();
    }
    assert_eq!(rig.dirty(), [""; 0]);
}

fn no_status() -> Fake {
    Fake::answers(|| ends(&[message()], None))
}

/// A proxy's answer, which knows nothing of gRPC.
fn proxy(status: u16) -> Fake {
    Fake::answers(move || {
        Response::builder().status(status).body(Body::new(Full::from("sorry"))).unwrap()
    })
}

/// A message and then no end, but an error.
fn breaks() -> Fake {
    Fake::new(|request: Req| async move {
        let _ = request.into_body().collect().await;
        let (mut sender, body) = piecewise();
        sender.send_data(message()).await.unwrap();
        sender.abort("cut".into());
        Ok(streams(body))
    })
}

/// A message and then nothing, for ever.
fn never_ends() -> Fake {
    Fake::new(|_| async {
        let (mut sender, body) = piecewise();
        sender.send_data(message()).await.unwrap();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        Ok(streams(body))
    })
}

/// Everything that can be wrong with a side, and what that means.
fn faulty() -> Vec<(&'static str, Fake)> {
    let nonsense = || Fake::answers(|| ends(&[Bytes::from_static(b"\xff\xff")], None));
    vec![
        ("no status", no_status()),
        ("no status and no message", Fake::answers(|| ends(&[], None))),
        ("nonsense", nonsense()),
        ("a proxy's 503", proxy(503)),
        ("a proxy's 403", proxy(403)),
        ("a body that breaks off", breaks()),
        ("a panic", Fake::panics()),
        ("an error", Fake::errs()),
        ("no answer", Fake::hangs()),
        ("no end", never_ends()),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_other_side_that_fails_leaves_the_key_dirty_and_the_client_served() {
    for policy in POLICIES {
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            let all = faulty().into_iter().chain([("not ready", Fake::never_ready())]);
            for (fault, bad) in all {
                for early in [true, false] {
                    let what = format!("{fault} {policy:?} {stage} {early}");
                    let good = answering(if early { Code::NotFound } else { Code::Ok }, early);
                    let theirs = bad.clone();
                    let (old, new) = match stage.authority() {
                        Side::Old => (good, theirs),
                        Side::New => (theirs, good),
                    };
                    if fault == "not ready" && stage == Stage::ReadNew {
                        continue; // It cannot be walked to with an old that is never ready.
                    }
                    let rig = rig(old, new, policy, stage).await;
                    let found = rig.ask(ask()).await;
                    rig.assert_idle().await;
                    let agrees = fault == "a proxy's 403" && early;
                    let clean: &[&str] = if agrees { &[] } else { &["it"] };
                    assert_eq!(rig.dirty(), clean, "{what}");
                    let code = match policy {
                        FailurePolicy::RequireBoth if !agrees => Code::Unavailable,
                        _ if early => Code::NotFound,
                        _ => Code::Ok,
                    };
                    assert_eq!(found.code, Some(code), "{what}: {found:?}");
                    tokio::time::timeout(Duration::from_secs(60), rig.handle.settled())
                        .await
                        .unwrap_or_else(|_| panic!("{what}"));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_fails_leaves_the_key_dirty_and_its_client_told() {
    for policy in POLICIES {
        for (fault, bad) in faulty() {
            let what = format!("{fault} {policy:?}");
            let rig = rig(bad, answering(Code::Ok, false), policy, Stage::WriteBoth).await;
            let sent =
                async { Ok::<_, tower_migration::BoxError>(seen(rig.send(ask()).await?).await) };
            let found = tokio::time::timeout(Duration::from_secs(60), sent).await;
            let strict = policy == FailurePolicy::RequireBoth;
            if fault == "no end" {
                // Nobody is told: a client has its own deadline.
                assert!(found.is_err(), "{what}: {found:?}");
            } else if fault == "an error" && !strict {
                assert!(found.unwrap().is_err(), "{what}");
            } else {
                let found = found.unwrap().unwrap();
                let code = match fault {
                    _ if strict
                        && !["a body that breaks off", "a panic", "no answer"].contains(&fault) =>
                    {
                        Some(Code::Unavailable)
                    }
                    "a panic" if !strict => Some(Code::Internal),
                    "no answer" if !strict => Some(Code::DeadlineExceeded),
                    "a panic" | "no answer" => Some(Code::Unavailable),
                    _ => None,
                };
                assert_eq!(found.code, code, "{what}: {found:?}");
                assert_eq!(found.broke, fault == "a body that breaks off", "{what}");
            }
            rig.assert_idle().await;
            assert_eq!(rig.dirty(), ["it"], "{what}");
            tokio::time::timeout(Duration::from_secs(60), rig.handle.settled())
                .await
                .unwrap_or_else(|_| panic!("{what}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_what_is_gone_agrees_with_one_that_deletes() {
    for policy in POLICIES {
        for (mine, theirs) in [(Code::Ok, Code::NotFound), (Code::NotFound, Code::Ok)] {
            for early in [true, false] {
                let grpc = keyed().deletes([UNARY]).unwrap();
                let (old, new) = (answering(mine, early), answering(theirs, early));
                let rig = rig_of(grpc, old, new, policy, Stage::WriteBoth).await;
                let found = rig.ask(ask()).await;
                rig.assert_idle().await;
                assert_eq!(found.code, Some(mine));
                assert_eq!(rig.dirty(), [""; 0]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_key_that_splits_makes_the_side_suspect() {
    let grpc = Grpc::new().descriptors(INTEROP).unwrap();
    let (old, new) = (answering(Code::Ok, false), answering(Code::Internal, false));
    let rig = rig_of(grpc, old, new, FailurePolicy::AuthorityWins, Stage::WriteBoth).await;
    let before = rig.handle.status().sync;
    assert_eq!(rig.ask(ask()).await.code, Some(Code::Ok));
    rig.assert_idle().await;
    assert_ne!(rig.handle.status().sync, before);
    assert_eq!(rig.handle.status().untracked_on_new, 1);
}
