//! Dual writes: what is copied, who waits for whom, what becomes dirty.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, header};
use tokio_test::{assert_pending, assert_ready, task};
use tower::Service;
use tower_migration::{
    BoxError, Disagreement, Event, FailurePolicy, LegDetail, Limits, Outcome, Role, Side, Stage,
    WriteOrder, reconcile::RightSide, telemetry::SkippedLeg,
};

use crate::support::*;

fn both() -> Rig {
    Rig::new(Fake::says(200, "old"), Fake::says(200, "new"))
}

#[tokio::test]
async fn each_stage_sends_reads_and_writes_where_the_table_says() {
    for (stage, reads, writes) in [
        (Stage::OldOnly, [1, 0], [1, 0]),
        (Stage::WriteBoth, [1, 0], [1, 1]),
        (Stage::ReadNew, [0, 1], [1, 1]),
        (Stage::NewOnly, [0, 1], [0, 1]),
    ] {
        let rig = both().at(stage).await;
        let served = stage.authority().as_str();
        assert_eq!(rig.ask(get("/a")).await, (200, served.to_owned()));
        rig.quiesce().await;
        assert_eq!([rig.old.count(), rig.new.count()], reads, "{stage} read");
        let rig = both().at(stage).await;
        assert_eq!(rig.ask(put("/a", "v")).await, (200, served.to_owned()));
        rig.quiesce().await;
        assert_eq!([rig.old.count(), rig.new.count()], writes, "{stage} write");
    }
}

#[tokio::test]
async fn by_default_four_methods_are_reads() {
    for (method, legs) in [
        ("GET", 1),
        ("HEAD", 1),
        ("OPTIONS", 1),
        ("TRACE", 1),
        ("POST", 2),
        ("PUT", 2),
        ("PATCH", 2),
        ("DELETE", 2),
        ("PURGE", 2),
    ] {
        let rig = both().at(Stage::WriteBoth).await;
        rig.ask(Request::builder().method(method).uri("/a").body(body("")).unwrap()).await;
        rig.quiesce().await;
        assert_eq!(rig.old.count() + rig.new.count(), legs, "{method}");
    }
}

#[tokio::test]
async fn one_sided_requests_are_handed_on_untouched() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mine(u8);
    let rig = Rig::with(Fake::says(200, "old"), Fake::panics(), |layer| {
        layer.prepare(|_| panic!("not in a one-sided stage")).strip_extension::<Mine>()
    });
    let mut request = put("/a?b=c", "body");
    request.headers_mut().insert(header::EXPECT, "100-continue".parse().unwrap());
    request.extensions_mut().insert(Mine(7));
    rig.ask(request).await;
    let [call] = &rig.old.calls()[..] else { panic!("one call") };
    assert_eq!(call.dispatch, None);
    assert_eq!(call.extensions.get::<Mine>(), Some(&Mine(7)));
    assert_eq!(call.headers["expect"], "100-continue");
    assert_eq!((call.uri.to_string().as_str(), &call.body[..]), ("/a?b=c", &b"body"[..]));
    assert_eq!(rig.new.polled(), 0);
}

#[tokio::test]
async fn both_sides_get_the_same_request_marked_with_its_leg() {
    #[derive(Clone)]
    struct Secret;
    #[derive(Clone, PartialEq, Debug)]
    struct Kept(&'static str);
    let rig = Rig::with(Fake::says(200, ""), Fake::says(200, ""), |layer| {
        layer
            .prepare(|request| {
                request.headers_mut().insert("x-id", "17".parse().unwrap());
                let stamped = [&request.body()[..], b" stamped"].concat();
                *request.body_mut() = stamped.into();
            })
            .strip_extension::<Secret>()
            .dispatch_header("x-leg".parse().unwrap())
    })
    .at(Stage::WriteBoth)
    .await;
    let mut request = put("/a?b=c", "body");
    request.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
    request.headers_mut().insert(header::EXPECT, "100-continue".parse().unwrap());
    request.extensions_mut().insert(Secret);
    request.extensions_mut().insert(Kept("yes"));
    rig.ask(request).await;
    rig.quiesce().await;
    for (side, role) in [(Side::Old, Role::Authority), (Side::New, Role::Other)] {
        let [call] = &rig.side(side).calls()[..] else { panic!("one call") };
        let dispatch = call.dispatch.expect("marked");
        assert_eq!((dispatch.stage, dispatch.side, dispatch.role), (Stage::WriteBoth, side, role));
        assert_eq!(call.headers["x-leg"], format!("write-both; {side}; {role}"));
        assert_eq!(call.headers["x-id"], "17");
        assert_eq!(call.headers["content-length"], "12", "put right after the hook");
        assert!(!call.headers.contains_key("expect"));
        assert_eq!(call.body, "body stamped");
        assert_eq!(call.uri, "/a?b=c");
        assert_eq!(call.extensions.get::<Kept>(), Some(&Kept("yes")));
        assert!(call.extensions.get::<Secret>().is_none());
    }
}

#[tokio::test]
async fn authority_wins_answers_while_the_other_leg_still_runs() {
    let (new, latch) = latched(200, "new");
    let rig = Rig::new(Fake::says(200, "old"), new).at(Stage::WriteBoth).await;
    assert_eq!(rig.ask(put("/a", "v")).await.1, "old");
    rig.quiesce().await;
    assert_eq!(rig.new.alive(), 1);
    assert_eq!(rig.handle.status().on_new.writes, 1);
    latch.open();
    rig.quiesce().await;
    assert_eq!(rig.new.alive(), 0);
    assert_eq!(rig.handle.status().on_new.writes, 0);
    assert_eq!(rig.dirty(), Vec::<String>::new());
}

#[tokio::test]
async fn await_both_waits_for_the_other_leg_and_is_woken_by_it() {
    for policy in [FailurePolicy::AwaitBoth, FailurePolicy::RequireBoth] {
        let (new, latch) = latched(200, "new");
        let rig = Rig::with(Fake::says(200, "old"), new, |layer| layer.failure_policy(policy))
            .at(Stage::WriteBoth)
            .await;
        let mut write = task::spawn(rig.service.clone().call(put("/a", "v")));
        assert_pending!(write.poll());
        rig.quiesce().await;
        assert_pending!(write.poll());
        latch.open();
        rig.quiesce().await;
        assert!(write.is_woken());
        assert_eq!(assert_ready!(write.poll()).unwrap().status(), 200);
    }
}

#[tokio::test]
async fn concurrent_legs_start_together_and_authority_first_ones_do_not() {
    for (order, started) in [(WriteOrder::Concurrent, 1), (WriteOrder::AuthorityFirst, 0)] {
        let (old, latch) = latched(200, "old");
        let rig = Rig::with(old, Fake::says(200, "new"), |layer| layer.write_order(order))
            .at(Stage::WriteBoth)
            .await;
        let mut write = task::spawn(rig.service.clone().call(put("/a", "v")));
        assert_pending!(write.poll());
        rig.quiesce().await;
        assert_eq!(rig.new.count(), started, "{order:?}");
        latch.open();
        rig.quiesce().await;
        assert_ready!(write.poll()).unwrap();
        rig.quiesce().await;
        assert_eq!(rig.new.count(), 1);
    }
}

#[tokio::test]
async fn the_other_leg_can_be_built_from_the_authoritys_answer() {
    let old = Fake::new(|_| async {
        let mut created = answer(201, r#"{"id":17}"#);
        created.headers_mut().insert(header::LOCATION, "/things/17".parse().unwrap());
        Ok(created)
    });
    let rig = Rig::with(old, Fake::says(201, ""), |layer| {
        layer.other_leg(|mut request, answer| {
            assert_eq!(answer.body, r#"{"id":17}"#);
            *request.uri_mut() = answer.headers.get("location")?.to_str().ok()?.parse().ok()?;
            *request.method_mut() = Method::PUT;
            Some(request)
        })
    })
    .at(Stage::WriteBoth)
    .await;
    let post = Request::post("/things").body(body("{}")).unwrap();
    assert_eq!(rig.ask(post).await, (201, r#"{"id":17}"#.to_owned()), "all of it, after all");
    rig.quiesce().await;
    let [call] = &rig.new.calls()[..] else { panic!("one call") };
    assert_eq!((&call.method, call.uri.path()), (&Method::PUT, "/things/17"));
    assert_eq!(call.body, "{}");
    assert!(rig.handle.dirty_keys().is_empty());
}

#[tokio::test]
async fn a_hook_that_gives_no_request_leaves_the_key_dirty() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |layer| {
        layer.other_leg(|_, _| None)
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(put("/a", "v")).await.1, "old");
    assert_eq!(rig.new.count(), 0);
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test]
async fn an_answer_too_large_for_the_hook_still_reaches_the_client_whole() {
    let rig = Rig::with(Fake::says(200, "0123456789"), Fake::says(200, ""), |layer| {
        layer
            .other_leg(|request, _| Some(request))
            .limits(Limits::default().captured_body(4))
            .unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(put("/a", "v")).await.1, "0123456789");
    assert_eq!(rig.new.count(), 0);
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test]
async fn a_disagreement_reaches_the_observer_with_everything_known() {
    let seen = Arc::new(Mutex::new(Vec::<Disagreement>::new()));
    let sink = Arc::clone(&seen);
    let rig = Rig::with(Fake::says(201, "old"), Fake::says(422, "new"), |layer| {
        layer.observer(move |event: &Event<'_>| {
            if let Event::Disagreement(d) = event {
                sink.lock().unwrap().push((*d).clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    rig.ask(put("/a", "v")).await;
    rig.quiesce().await;
    let seen = seen.lock().unwrap();
    let [d] = &seen[..] else { panic!("one disagreement") };
    assert_eq!(&*d.request, "PUT /a");
    assert_eq!(d.keys.to_string(), "/a");
    assert_eq!((d.stage, d.authority), (Stage::WriteBoth, Side::Old));
    assert_eq!(d.authority_leg.outcome, Outcome::Applied);
    assert_eq!(d.authority_leg.detail, LegDetail::Code(201));
    assert_eq!(d.other_leg.outcome, Outcome::Refused);
    assert_eq!(d.other_leg.detail, LegDetail::Code(422));
    assert_eq!(rig.handle.dirty_keys()[0].right, RightSide::Is(Side::Old));
}

#[tokio::test]
async fn refusals_that_differ_are_reported_and_clean() {
    let seen = Arc::new(Mutex::new(0));
    for (code, expected) in [(409, 0), (422, 1)] {
        *seen.lock().unwrap() = 0;
        let sink = Arc::clone(&seen);
        let rig = Rig::with(Fake::says(409, ""), Fake::says(code, ""), |layer| {
            layer.observer(move |_: &Event<'_>| *sink.lock().unwrap() += 1)
        })
        .at(Stage::WriteBoth)
        .await;
        rig.ask(put("/a", "v")).await;
        rig.quiesce().await;
        assert_eq!(*seen.lock().unwrap(), expected, "409 against {code}");
        assert!(rig.handle.dirty_keys().is_empty());
    }
}

#[tokio::test]
async fn an_observer_that_panics_harms_nobody() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(500, ""), |layer| {
        layer
            .failure_policy(FailurePolicy::AwaitBoth)
            .observer(|_: &Event<'_>| std::panic::resume_unwind(Box::new("observer")))
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(put("/a", "v")).await, (200, "old".to_owned()));
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test]
async fn a_delete_agrees_with_not_found() {
    for (old, new) in [(204, 404), (404, 204), (410, 404), (200, 410)] {
        let rig = Rig::new(Fake::says(old, ""), Fake::says(new, "")).at(Stage::WriteBoth).await;
        let delete = Request::delete("/a").body(body("")).unwrap();
        assert_eq!(rig.ask(delete).await.0, old);
        rig.quiesce().await;
        assert!(rig.handle.dirty_keys().is_empty(), "{old} {new}");
    }
    let rig = Rig::new(Fake::says(200, ""), Fake::says(404, "")).at(Stage::WriteBoth).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    assert_eq!(rig.dirty(), ["/a"], "but only a delete does");
}

#[tokio::test]
async fn a_failed_write_without_a_key_makes_the_side_suspect() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(500, "")).at(Stage::WriteBoth).await;
    assert!(rig.handle.status().sync.new.is_synced());
    rig.ask(Request::post("/bulk").body(body("")).unwrap()).await;
    rig.quiesce().await;
    assert!(rig.handle.dirty_keys().is_empty());
    assert_eq!(rig.handle.status().sync.new.as_str(), "suspect");
    let blocked = rig.handle.advance().await.unwrap_err();
    assert!(blocked.to_string().contains("new is suspect"), "{blocked}");
}

#[tokio::test]
async fn a_create_is_dirty_under_the_location_that_its_answer_names() {
    let created = |location: &'static str| {
        Fake::new(move |_| async move {
            let mut created = answer(201, "");
            created.headers_mut().insert(header::LOCATION, location.parse().unwrap());
            Ok(created)
        })
    };
    let post = || Request::post("/things").body(body("")).unwrap();
    let rig = Rig::new(created("/things/1"), Fake::says(500, "")).at(Stage::WriteBoth).await;
    rig.ask(post()).await;
    rig.quiesce().await;
    assert_eq!(rig.dirty(), ["/things/1"]);

    let rig = Rig::new(created("http://host/things/1"), created("/things/1"));
    let rig = rig.at(Stage::WriteBoth).await;
    rig.ask(post()).await;
    rig.quiesce().await;
    assert_eq!(rig.dirty(), Vec::<String>::new(), "the same thing, said in two ways");

    let rig = Rig::new(created("/things/1"), created("/things/2")).at(Stage::WriteBoth).await;
    rig.ask(post()).await;
    rig.quiesce().await;
    assert_eq!(rig.dirty(), ["/things/1", "/things/2"], "each side gave its own id");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_waiting_and_not_the_leg() {
    let (old, latch) = latched(200, "old");
    let rig = Rig::with(old, Fake::says(200, ""), |layer| {
        layer.limits(Limits::default().leg_timeout(SECOND * 3)).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    let (status, problem) = rig.ask(put("/a", "v")).await;
    assert_eq!(status, 504);
    assert!(problem.contains(r#""type":"authority-timeout""#), "{problem}");
    assert_eq!(rig.old.alive(), 1, "it goes on");
    assert_eq!(rig.dirty(), ["/a"]);
    assert_eq!(rig.handle.status().on_old.writes, 1, "and holds its mark");
    latch.open();
    rig.quiesce().await;
    assert_eq!(rig.old.alive(), 0);
    assert_eq!(rig.handle.status().on_old.writes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_leg_is_given_up_after_a_longer_bound_and_lingers() {
    let rig = Rig::with(Fake::says(200, ""), Fake::hangs(), |layer| {
        let limits = Limits::default().leg_timeout(SECOND).abandon_after(SECOND * 10);
        layer.limits(limits).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    rig.ask(put("/a", "v")).await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(rig.new.alive(), 1);
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert_eq!(rig.new.alive(), 0, "dropped");
    assert_eq!(rig.handle.status().on_new.writes, 1, "it may still land");
    tokio::time::sleep(SECOND).await;
    assert_eq!(rig.handle.status().on_new.writes, 0);
}

#[tokio::test]
async fn over_the_bound_of_running_legs_the_key_turns_dirty_or_the_write_is_refused() {
    for (policy, status, problem) in
        [(FailurePolicy::AuthorityWins, 200, ""), (FailurePolicy::RequireBoth, 503, "overloaded")]
    {
        let (new, latch) = latched(200, "");
        let rig = Rig::with(Fake::says(200, ""), new, |layer| {
            let limits = Limits::default().running_legs(1);
            layer.limits(limits).unwrap().failure_policy(policy)
        })
        .at(Stage::WriteBoth)
        .await;
        let first = tokio::spawn(rig.service.clone().call(put("/a", "")));
        rig.quiesce().await;
        let (got, text) = rig.ask(put("/b", "")).await;
        assert_eq!(got, status);
        assert!(text.contains(problem), "{text}");
        if policy == FailurePolicy::RequireBoth {
            assert_eq!(rig.old.count(), 1, "refused before either side has seen it");
            assert!(rig.handle.dirty_keys().is_empty());
        } else {
            assert_eq!(rig.dirty(), ["/b"]);
        }
        latch.open();
        first.await.unwrap().unwrap();
        rig.quiesce().await;
        assert_eq!(rig.ask(put("/c", "")).await.0, 200, "there is room again");
    }
    assert_eq!(SkippedLeg::RunningLegs.as_str(), "running_legs");
}

#[tokio::test]
async fn a_layer_applied_twice_runs_each_leg_once() {
    use tower::Layer;
    use tower_migration::{MigrationHandle, MigrationLayer};
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let handle = MigrationHandle::new("twice");
        handle.set_shadow_rate(1.0).unwrap();
        let (old, new) = (Fake::says(200, "old"), Fake::says(200, "old"));
        let layer = MigrationLayer::new(handle.clone(), new.clone())
            .noise(tower_migration::compare::Noise::off());
        let service = layer.layer(old.clone());
        let rig = Rig::on(handle.clone(), old.clone(), new.clone(), |layer| layer);
        rig.walk(stage).await;
        // Around itself on the old side: the outer one decides.
        let twice = MigrationLayer::new(handle, new.clone()).layer(AsFake(service));
        let send = |request| tower::ServiceExt::oneshot(twice.clone(), request);
        assert_eq!(send(put("/a", "")).await.unwrap().status(), 200);
        rig.quiesce().await;
        assert_eq!([old.count(), new.count()], [1, 1], "{stage} write");
        assert_eq!(send(get("/a")).await.unwrap().status(), 200);
        rig.quiesce().await;
        let shadowed = old.count() + new.count();
        assert!((3..=4).contains(&shadowed), "{stage} read: {shadowed}");
        assert!(rig.handle.dirty_keys().is_empty());
    }
}

/// A layered service as an inner one: boxes its answer's body.
#[derive(Clone)]
struct AsFake(tower_migration::Migration<Fake, Fake>);

impl Service<Req> for AsFake {
    type Response = Res;
    type Error = tower_migration::BoxError;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Res, tower_migration::BoxError>> + Send>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let (parts, body) = answer.await?.into_parts();
            Ok(Res::from_parts(parts, Body::new(body)))
        })
    }
}

#[tokio::test]
async fn a_key_can_be_anything_that_the_request_tells() {
    let rig = Rig::with(Fake::says(200, ""), Fake::says(500, ""), |layer| {
        layer.keys_with_answer(
            |_: &tower_migration::protocol::Head<'_>, body: &Bytes| {
                let names = String::from_utf8_lossy(body).into_owned();
                names.split(',').map(str::to_owned).collect::<tower_migration::reconcile::Keys>()
            },
            |_, status, _| Some(format!("status {status}")),
        )
    })
    .at(Stage::WriteBoth)
    .await;
    rig.ask(Request::post("/rename").body(body("b,a")).unwrap()).await;
    rig.quiesce().await;
    assert_eq!(rig.dirty(), ["a", "b", "status 200 OK"]);
}

#[tokio::test]
async fn an_answer_that_was_read_ahead_is_not_asked_for_more_than_its_end() {
    // Panics if it is polled after it has ended, as a body may.
    let old = Fake::new(|_| async {
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        sender.send_data("whole".into()).await.unwrap();
        Ok(http::Response::new(Body::new(body)))
    });
    let rig = Rig::with(old, Fake::says(200, "new"), |layer| {
        layer.write_order(WriteOrder::AuthorityFirst).other_leg(|request, _| Some(request))
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(put("/a", "v")).await.1, "whole");
    rig.quiesce().await;
    assert_eq!(rig.new.count(), 1);
}
