//! Reads and their shadows.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_function_that_panics_on_a_read_does_not_fail_the_client() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.keys(|_: &Head<'_>, b: &Bytes| {
            let v: serde_json::Value = serde_json::from_slice(b).expect("json"); // fine for every write
            v["id"].as_str().map(str::to_owned)
        })
    })
    .at(Stage::WriteBoth)
    .await;
    assert_eq!(rig.ask(get("/a")).await.0, 200); // not sampled
    rig.handle.set_shadow_rate(1.0).unwrap();
    let service = rig.service.clone();
    let answer = tokio::spawn(service.oneshot(get("/a"))).await;
    assert!(
        answer.is_ok(),
        "switching shadow reads on fails the client's read: {:?}",
        answer.map(|_| ())
    );
}

fn trailered() -> Fake {
    Fake::new(|_| async {
        let mut t = http::HeaderMap::new();
        t.insert("grpc-status", "0".parse().unwrap());
        let b = Full::new(Bytes::from("x"))
            .with_trailers(std::future::ready(Some(Ok(t))))
            .map_err(|n: Infallible| match n {});
        Ok(http::Response::new(Body::new(b)))
    })
}

#[tokio::test(start_paused = true)]
async fn equal_answers_with_trailers_match() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let rig = Rig::with(trailered(), trailered(), |l| {
        l.limits(Limits::default().rereads(0)).unwrap().observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Match]);
}

#[tokio::test(start_paused = true)]
async fn no_shadow_deadline_is_no_panic_for_the_client() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.limits(Limits::default().shadow_deadline(Duration::MAX)).unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let answer = tokio::spawn(rig.service.clone().oneshot(get("/a"))).await;
    assert!(answer.is_ok(), "the client's read panicked");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_creates_answer_does_not_hold_the_key() {
    let more = Latch::default();
    let at = more.clone();
    let old = Fake::new(move |call| {
        let at = at.clone();
        async move {
            if call.method != http::Method::POST {
                return Ok(answer(200, "old"));
            }
            let s = futures_util::stream::unfold(0, move |n| {
                let at = at.clone();
                async move {
                    match n {
                        0 => Some((Ok(http_body::Frame::data(Bytes::from("a"))), 1)),
                        1 => {
                            at.passed().await;
                            Some((Ok(http_body::Frame::data(Bytes::from("b"))), 2))
                        }
                        _ => None,
                    }
                }
            });
            let mut r = http::Response::new(Body::new(StreamBody::new(s)));
            *r.status_mut() = http::StatusCode::CREATED;
            r.headers_mut().insert("location", "/a".parse().unwrap());
            Ok(r)
        }
    });
    // The hook declines: the other leg of the create is not run.
    let rig = Rig::with(old, Fake::says(200, "new"), |l| {
        l.limits(Limits::default().running_legs(1))
            .unwrap()
            .failure_policy(FailurePolicy::AwaitBoth)
    })
    .at(Stage::WriteBoth)
    .await;
    // one running leg: the create below gets no permit
    let (late, latch) = latched(200, "new");
    let fast = Fake::says(200, "new");
    rig.new.becomes(&late);
    let first = tokio::spawn(rig.service.clone().oneshot(put("/other", "")));
    rig.quiesce().await;
    let created = rig.send(post("/", "")).await.unwrap();
    assert_eq!(created.status(), 201);
    latch.open();
    first.await.unwrap().unwrap();
    rig.new.becomes(&fast);
    let began = tokio::time::Instant::now();
    let r = rig.ask(put("/a", "v")).await;
    assert!(
        began.elapsed() < SECOND,
        "{r:?} after {:?}, new saw {} calls",
        began.elapsed(),
        rig.new.count()
    );
    drop(created);
}

#[tokio::test(start_paused = true)]
async fn a_list_with_a_trailing_slash_that_races_a_write_is_inconclusive() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let (new, latch) = latched(200, "v2");
    let rig = Rig::with(Fake::says(200, "v1"), new, |l| {
        l.limits(Limits::default().rereads(0)).unwrap().observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        })
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/airports/")).await;
    rig.quiesce().await;
    rig.ask(put("/airports/EDDF", "v2")).await;
    latch.open();
    rig.handle.shutdown().await;
    assert!(matches!(verdicts.lock().unwrap()[..], [Verdict::Inconclusive(_)]), "{verdicts:?}");
}

#[tokio::test(start_paused = true)]
async fn readiness_and_key_order_do_not_deadlock() {
    use tower::{Layer, limit::GlobalConcurrencyLimitLayer};
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let (old, new) = (Fake::says(200, "old"), Fake::says(200, "new"));
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), new.clone())
        .noise(tower_migration::compare::Noise::off())
        .failure_policy(FailurePolicy::AwaitBoth);
    let service = layer.layer(limit.layer(old.clone()));
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.advance().await.unwrap();
    let slow = |ms: u64| {
        let s = futures_util::stream::unfold(0, move |n| async move {
            match n {
                0 => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Some((Ok(http_body::Frame::data(Bytes::from("x"))), 1))
                }
                _ => None,
            }
        });
        Request::put("/k").body(Body::new(StreamBody::new(s))).unwrap()
    };
    // admitted at read-new; its body comes a little later
    let y = tokio::spawn(service.clone().oneshot(slow(10)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    handle.rollback().await.unwrap();
    // admitted at write-both, with old's only permit; its body comes later still
    let began = tokio::time::Instant::now();
    let x = tokio::spawn(service.clone().oneshot(slow(20)));
    let (_x, _y) = (x.await.unwrap(), y.await.unwrap());
    assert!(
        began.elapsed() < SECOND,
        "took {:?}, dirty {:?}",
        began.elapsed(),
        handle.dirty_keys()
    );
}

#[tokio::test]
async fn the_rate_reads_back_as_it_was_set() {
    let h = MigrationHandle::new("x");
    h.set_shadow_rate(0.1).unwrap();
    assert_eq!(h.status().shadow_rate, 0.1, "{}", h.status());
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_gave_up_gives_its_bytes_back() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let make = || {
        Fake::new(|call| async move {
            if call.uri.path() == "/b" {
                return Ok(answer(200, "12345678"));
            }
            let s = futures_util::stream::unfold(0, |n| async move {
                match n {
                    0 => Some((Ok(http_body::Frame::data(Bytes::from("12345678"))), 1)),
                    _ => {
                        std::future::pending::<()>().await;
                        None
                    }
                }
            });
            Ok(http::Response::new(Body::new(StreamBody::new(s))))
        })
    };
    let rig = Rig::with(make(), make(), |l| {
        l.limits(Limits::default().captured_body(24).captured_bytes(30)).unwrap().observer(
            move |e: &Event<'_>| {
                if let Event::Shadow(r) = e {
                    v.lock().unwrap().push(r.verdict.clone());
                }
            },
        )
    })
    .at(Stage::WriteBoth)
    .await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut r = rig.send(get("/a")).await.unwrap();
        r.body_mut().frame().await.unwrap().unwrap();
        open.push(r); // an event stream, open for hours
    }
    tokio::time::sleep(SECOND * 3600).await;
    assert_eq!(rig.handle.status().on_new.shadows, 0);
    verdicts.lock().unwrap().clear();
    rig.ask(get("/b")).await;
    rig.handle.shutdown().await;
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Match]);
}
// one-sided write that failed with a timeout of its own: it may still land

#[tokio::test(start_paused = true)]
async fn a_fallback_read_is_not_stale() {
    // a write of the key ends between the authority's failure and the fallback: AuthorityWins, other leg still to come
    let (new, latch) = latched(200, "new");
    let rig = Rig::with(Fake::says(200, "old"), new, |l| l.read_fallback(SECOND).unwrap())
        .at(Stage::WriteBoth)
        .await;
    rig.ask(put("/a", "v2")).await; // acknowledged by old; new's leg still runs
    rig.old.becomes(&Fake::says(500, "down"));
    let (status, t) = rig.ask(get("/a")).await;
    latch.open();
    assert_eq!((status, t.as_str()), (500, "down"));
}
// list read without relation to the dirty key's path
