//! Writes, their keys and their answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn buffered_bytes_bounds_the_bodies_of_legs_that_timed_out() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let (old, new) = (Fake::hangs(), Fake::says(200, ""));
    let rig = Rig::with(old, new, |l| {
        l.limits(
            Limits::default()
                .body(1 << 20)
                .buffered_bytes(2 << 20)
                .running_legs(4)
                .leg_timeout(Duration::from_millis(10)),
        )
        .unwrap()
    })
    .at(Stage::WriteBoth)
    .await;
    let big: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
    for n in 0..50 {
        let r = rig.ask(Request::put(format!("/{n}")).body(body(big)).unwrap()).await;
        if r.0 == 503 {
            return;
        }
        assert_eq!(r.0, 504);
    }
    let _ = &ALIVE;
    panic!(
        "{} legs hold a body of 1 MiB each, of at most 2 MiB together; limit of running legs 4",
        rig.old.alive()
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_key_that_was_written_meanwhile_is_not_clean() {
    // upserting stores; old answers the create late, new runs it late
    let (o, n) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(String::new())));
    let (go_old, go_new) = (Latch::default(), Latch::default());
    let make = |row: Arc<Mutex<String>>, go: Latch, before: bool| {
        Fake::new(move |call| {
            let (row, go) = (row.clone(), go.clone());
            async move {
                let create = call.method == http::Method::POST;
                if create && !before {
                    go.passed().await;
                }
                *row.lock().unwrap() = String::from_utf8(call.body.to_vec()).unwrap();
                if create && before {
                    go.passed().await;
                }
                let mut r = answer(if create { 201 } else { 200 }, "");
                if create {
                    r.headers_mut().insert("location", "/a".parse().unwrap());
                }
                Ok(r)
            }
        })
    };
    let rig =
        Rig::new(make(o.clone(), go_old.clone(), true), make(n.clone(), go_new.clone(), false))
            .at(Stage::WriteBoth)
            .await;
    let create = tokio::spawn(rig.service.clone().oneshot(post("/", "v1")));
    rig.quiesce().await;
    rig.ask(put("/a", "v2")).await; // somebody who saw it in a list
    rig.quiesce().await;
    go_old.open();
    rig.quiesce().await;
    go_new.open();
    create.await.unwrap().unwrap();
    rig.handle.shutdown().await;
    let (o, n) = (o.lock().unwrap().clone(), n.lock().unwrap().clone());
    assert!(o == n || !rig.dirty().is_empty(), "old {o}, new {n}, dirty {:?}", rig.dirty());
}

#[tokio::test(start_paused = true)]
async fn a_one_sided_authority_first_hook_panic_reaches_nobody() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.other_leg(|_r, _a| panic!("hook"))
    })
    .at(Stage::WriteBoth)
    .await;
    let answer = tokio::spawn(rig.service.clone().oneshot(put("/a", ""))).await;
    assert!(answer.is_ok(), "the authority had applied it; the client got a dead connection");
}

#[tokio::test(start_paused = true)]
async fn a_late_key_function_panic_reaches_nobody() {
    let rig = Rig::with(Fake::says(200, "old"), Fake::says(200, "new"), |l| {
        l.keys_with_answer(
            |h: &Head<'_>, _: &Bytes| h.uri.path().to_owned(),
            |_: &Head<'_>, _, h: &http::HeaderMap| {
                h.get("location").expect("always there").to_str().unwrap().to_owned()
            },
        )
    })
    .at(Stage::WriteBoth)
    .await;
    let answer = tokio::spawn(rig.service.clone().oneshot(put("/a", ""))).await;
    assert!(answer.is_ok(), "the authority had applied it; the client got a dead connection");
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_ignores_the_body_is_not_a_client_that_hung_up() {
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let v = verdicts.clone();
    let make = || {
        tower::service_fn(|r: Req| async move {
            drop(r);
            Ok::<_, tower_migration::BoxError>(answer(200, "x"))
        })
    };
    let handle = MigrationHandle::new("x");
    let layer = MigrationLayer::new(handle.clone(), make())
        .noise(tower_migration::compare::Noise::off())
        .classify(|_: &Head<'_>| tower_migration::Operation::Read)
        .observer(move |e: &Event<'_>| {
            if let Event::Shadow(r) = e {
                v.lock().unwrap().push(r.verdict.clone());
            }
        });
    let service = tower::Layer::layer(&layer, make());
    handle.advance().await.unwrap();
    handle.confirm_synced(Side::New).await.unwrap();
    handle.set_shadow_rate(1.0).unwrap();
    let r = service.oneshot(post("/search", "q")).await.unwrap();
    text(r).await;
    handle.shutdown().await;
    assert_ne!(
        verdicts.lock().unwrap()[0].reason(),
        Some("client_gone"),
        "the client read everything"
    );
}
