//! What each kind of call is about, what each side sees of it, and in which
//! order.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Code;
use tower_migration::{Role, Side, Stage, protocol::grpc::Grpc};

use crate::{
    fake::*,
    support::{
        AIRPORTS,
        airports::{Airport, DeleteRequest, GetRequest, PutRequest, PutResponse},
    },
};

const GET: &str = "/airports.v1.Airports/Get";
const PUT: &str = "/airports.v1.Airports/Put";
const DELETE: &str = "/airports.v1.Airports/Delete";
const IMPORT: &str = "/airports.v1.Airports/Import";
const FOLLOW: &str = "/airports.v1.Airports/Follow";

fn grpc() -> Grpc {
    let grpc = Grpc::new().descriptors(AIRPORTS).unwrap();
    let grpc = grpc.key_field(GET, "code").unwrap().key_field(DELETE, "code").unwrap();
    let of = |put: &PutRequest| put.airport.as_ref().map(|airport| airport.code.clone());
    let grpc = grpc.key_of(PUT, of).unwrap();
    grpc.key_field(IMPORT, "code").unwrap().key_field(FOLLOW, "code").unwrap()
}

fn airport(code: &str) -> Airport {
    Airport { code: code.into(), ..Default::default() }
}

fn put(code: &str) -> Req {
    unary(PUT, &PutRequest { airport: Some(airport(code)) })
}

fn fine() -> Fake {
    Fake::answers(|| says(&[framed(&PutResponse::default())], Code::Ok))
}

fn fails() -> Fake {
    Fake::answers(|| says(&[], Code::Internal))
}

async fn at(stage: Stage, grpc: Grpc, old: Fake, new: Fake) -> Rig {
    let rig = Rig::new(grpc, old, new, |layer| layer).at(stage).await;
    if stage.is_two_sided() {
        rig.handle.confirm_synced(stage.authority().other()).await.unwrap();
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn each_side_sees_its_leg_and_nothing_more() {
    for stage in Stage::ALL {
        for path in [GET, PUT, DELETE, IMPORT, FOLLOW] {
            let rig = at(stage, grpc(), fine(), fine()).await;
            assert_eq!(rig.ask(unary(path, &airport("A"))).await.code, Some(Code::Ok));
            rig.assert_idle().await;
            let both = stage.is_two_sided() && path != GET;
            for (side, fake) in [(Side::Old, &rig.old), (Side::New, &rig.new)] {
                let mine = stage.authority() == side;
                let calls = fake.calls();
                assert_eq!(calls.len(), usize::from(mine || both), "{stage} {path} {side}");
                let Some(call) = calls.first() else { continue };
                let dispatch = call.dispatch.map(|leg| (leg.stage, leg.side, leg.role));
                let role = if mine { Role::Authority } else { Role::Other };
                assert_eq!(dispatch, both.then_some((stage, side, role)), "{stage} {path}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_come_from_the_first_message_whatever_the_call() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        for (path, request) in [
            (PUT, put("P")),
            (DELETE, unary(DELETE, &DeleteRequest { code: "P".into() })),
            (IMPORT, unary(IMPORT, &airport("P"))),
            (FOLLOW, unary(FOLLOW, &airport("P"))),
        ] {
            let (old, new) = match stage.authority() {
                Side::Old => (fine(), fails()),
                Side::New => (fails(), fine()),
            };
            let rig = at(stage, grpc(), old, new).await;
            assert_eq!(rig.ask(request).await.code, Some(Code::Ok));
            rig.assert_idle().await;
            assert_eq!(rig.dirty(), ["P"], "{stage} {path}");
            assert_eq!(rig.handle.status().untracked_on_new, 0);
        }
    }
}

/// What was written, in which order: a side writes down its requests' names when
/// it has them whole, each after the pause that its name asks for.
fn writes(order: &Arc<Mutex<Vec<String>>>) -> Fake {
    let order = Arc::clone(order);
    Fake::new(move |request: Req| {
        let order = Arc::clone(&order);
        async move {
            let name = request.headers()["x-name"].to_str().unwrap().to_owned();
            let pause = request.headers()["x-pause"].to_str().unwrap().parse().unwrap();
            order.lock().unwrap().push(format!("{name} begins"));
            let _ = request.into_body().collect().await;
            tokio::time::sleep(Duration::from_secs(pause)).await;
            order.lock().unwrap().push(format!("{name} ends"));
            Ok(says(&[framed(&PutResponse::default())], Code::Ok))
        }
    })
}

fn named(mut request: Req, name: &str, pause: u32) -> Req {
    request.headers_mut().insert("x-name", name.parse().unwrap());
    request.headers_mut().insert("x-pause", pause.into());
    request
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_key_keep_their_order_on_each_side() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let (old, new) = <(Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>)>::default();
        let rig = at(stage, grpc(), writes(&old), writes(&new)).await;
        let (mut sender, body) = piecewise();
        sender.send_data(framed(&airport("A"))).await.unwrap();
        let all = [
            named(put("A"), "put", 3),
            named(call(IMPORT, body), "import", 0),
            named(unary(DELETE, &DeleteRequest { code: "A".into() }), "delete", 0),
        ];
        let mut clients = Vec::new();
        for request in all {
            let sent = rig.send(request);
            clients.push(tokio::spawn(async move { seen(sent.await.unwrap()).await }));
            let_run().await;
        }
        // Something else does not wait.
        assert_eq!(rig.ask(named(put("B"), "else", 0)).await.code, Some(Code::Ok));
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(sender);
        for client in clients {
            let found = timeout(Duration::from_secs(60), client).await.unwrap().unwrap();
            assert_eq!(found.code, Some(Code::Ok));
        }
        rig.assert_idle().await;
        for side in [old, new] {
            let order: Vec<_> = side.lock().unwrap().clone();
            let order: Vec<_> = order
                .iter()
                .filter(|entry| !entry.starts_with("else"))
                .map(String::as_str)
                .collect();
            let wanted = [
                "put begins",
                "put ends",
                "import begins",
                "import ends",
                "delete begins",
                "delete ends",
            ];
            assert_eq!(order, wanted, "{stage}");
        }
        assert_eq!(rig.dirty(), [""; 0]);
    }
}

fn creates(code: &'static str) -> Fake {
    Fake::answers(move || says(&[framed(&airport(code))], Code::Ok))
}

#[tokio::test(start_paused = true)]
async fn a_key_that_only_the_answer_tells_is_told_by_both() {
    let grpc = || {
        let grpc = Grpc::new().descriptors(AIRPORTS).unwrap();
        grpc.answer_key_of(PUT, |answer: &Airport| answer.code.clone()).unwrap()
    };
    let dirty = |rig: &Rig| {
        let mut all = rig.dirty();
        all.sort();
        all
    };
    let same = at(Stage::WriteBoth, grpc(), creates("A"), creates("A")).await;
    assert_eq!(same.ask(put("x")).await.code, Some(Code::Ok));
    same.assert_idle().await;
    assert_eq!(dirty(&same), [""; 0]);
    let apart = at(Stage::WriteBoth, grpc(), creates("A"), creates("B")).await;
    assert_eq!(apart.ask(put("x")).await.code, Some(Code::Ok));
    apart.assert_idle().await;
    assert_eq!(dirty(&apart), ["A", "B"]);
    let failed = at(Stage::WriteBoth, grpc(), creates("A"), fails()).await;
    assert_eq!(failed.ask(put("x")).await.code, Some(Code::Ok));
    failed.assert_idle().await;
    assert_eq!(dirty(&failed), ["A"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_key_takes_its_place_before_the_answer_ends() {
    let grpc = grpc().answer_key_of(IMPORT, |answer: &Airport| answer.code.clone()).unwrap();
    let slow = Fake::new(|request: Req| async move {
        let pause = if request.uri().path() == IMPORT { 5 } else { 0 };
        let _ = request.into_body().collect().await;
        tokio::time::sleep(Duration::from_secs(pause)).await;
        Ok(says(&[framed(&airport("L"))], Code::Ok))
    });
    let rig = at(Stage::WriteBoth, grpc, creates("L"), slow).await;
    assert_eq!(rig.ask(unary(IMPORT, &airport("A"))).await.code, Some(Code::Ok));
    // Known to its client by now: what it does with it must come after.
    assert_eq!(rig.ask(put("L")).await.code, Some(Code::Ok));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.new.count(), 1, "the put waits for the import on new");
    rig.assert_idle().await;
    assert_eq!(rig.new.count(), 2);
    assert_eq!(rig.dirty(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_both_ways_may_be_answered_before_its_first_message() {
    // As a client does that waits for the head, and then sends.
    let speaks_first = || {
        Fake::new(|request: Req| async move {
            let (mut sender, body) = piecewise();
            tokio::spawn(async move {
                let _ = request.into_body().collect().await;
                sender.send_trailers(status(Code::Ok)).await.unwrap();
            });
            Ok(streams(body))
        })
    };
    let unknown = || Grpc::new().key(FOLLOW, |_| "it").unwrap();
    let read = || unknown().reads([FOLLOW]).unwrap();
    for (grpc, read) in [(grpc(), false), (unknown(), false), (read(), true)] {
        for stage in Stage::ALL {
            let rig = at(stage, grpc.clone(), speaks_first(), speaks_first()).await;
            rig.handle.set_shadow_rate(1.0).unwrap();
            let (mut sender, body) = piecewise();
            let answer = timeout(Duration::from_secs(1), rig.send(call(FOLLOW, body)));
            let answer = answer.await.expect("its head comes").unwrap();
            sender.send_data(framed(&GetRequest { code: "A".into() })).await.unwrap();
            drop(sender);
            assert_eq!(seen(answer).await.code, Some(Code::Ok), "{stage} {read}");
            rig.assert_idle().await;
        }
    }
}
