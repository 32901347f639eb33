//! What a step waits for, and what it says of it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_took_too_long_says_so() {
    let handle = MigrationHandle::builder("x").hold(MS * 20).build().unwrap();
    let slow = || {
        Fake::new(|_| async {
            sleep(MS * 100).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Rig::on(handle, slow(), slow(), |layer| layer);
    rig.walk(Stage::WriteBoth).await;
    let until = Arc::new(AtomicBool::new(false));
    let load = busy_service(&rig, Arc::clone(&until));
    let (mut overtaken, mut told, mut moved) = (0, 0, 0);
    for _ in 0..60 {
        match rig.handle.move_to(Stage::ReadNew).await {
            Ok(_) => {
                moved += 1;
                rig.handle.move_to(Stage::WriteBoth).await.ok();
            }
            Err(blocked) => match blocked.reasons() {
                [Reason::HoldTooLong { .. }] => told += 1,
                [Reason::Overtaken] => overtaken += 1,
                other => eprintln!("{other:?}"),
            },
        }
    }
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    eprintln!("hold too long: {told}, overtaken: {overtaken}, moved: {moved}");
    assert_eq!(overtaken, 0, "nobody else has asked for a step");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_a_copy_holds_up_names_the_copy() {
    let rig = Rig::new(Fake::says(200, ""), Fake::says(200, ""));
    rig.walk(Stage::ReadNew).await;
    let handle = rig.handle.clone();
    let copy = tokio::spawn(async move {
        let key = Key::from("/airports/EDDF");
        handle.copy_key(&key, Side::Old, pending::<Result<(), std::io::Error>>).await
    });
    rig.quiesce().await;
    let blocked = rig.handle.advance().await.unwrap_err();
    copy.abort();
    assert!(blocked.to_string().contains("/airports/EDDF"), "{blocked}");
}

#[tokio::test]
async fn settled_resolves_under_load_after_many_epochs() {
    let handle = MigrationHandle::builder("x").linger(Duration::ZERO).hold(MS).build().unwrap();
    let latch = Latch::default();
    let at_latch = latch.clone();
    let old = Fake::new(move |call| {
        let latch = at_latch.clone();
        async move {
            if call.uri.path().starts_with("/slow") {
                latch.passed().await;
            }
            let long = call.uri.path().as_bytes().last().map_or(0, |last| last % 16);
            sleep(MS * (7 + 6 * u32::from(long))).await;
            Ok(answer(200, ""))
        }
    });
    let rig = Rig::on(handle, old, Fake::says(200, ""), |layer| layer);
    let mut slow = Vec::new();
    for n in 0..20 {
        let to = if n % 2 == 0 { Stage::WriteBoth } else { Stage::OldOnly };
        rig.handle.force(to, "to and fro").await.unwrap();
        let request = put(&format!("/slow/{n}"), "x");
        slow.push(tokio::spawn(go(&rig, request)));
        sleep(MS * 2).await;
    }
    latch.open();
    for write in slow {
        write.await.unwrap().unwrap();
    }
    // All of those have ended. From here on a steady load of short writes.
    let until = Arc::new(AtomicBool::new(false));
    let load = busy_service(&rig, Arc::clone(&until));
    sleep(MS * 50).await;
    let settled = timeout(Duration::from_secs(5), rig.handle.settled()).await.is_ok();
    let status = rig.handle.status();
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    assert!(settled, "every write of an earlier epoch has ended 5 s ago:\n{status}");
}

#[tokio::test]
async fn a_busy_key_can_be_copied_or_the_copy_says_that_it_cannot() {
    let side = || {
        Fake::new(|_| async {
            sleep(MS * 2).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Rig::new(side(), side());
    rig.walk(Stage::WriteBoth).await;
    // Two clients that write the same key, one request each at a time.
    let until = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (mut service, until) = (rig.service.clone(), Arc::clone(&until));
            tokio::spawn(async move {
                while !until.load(Ordering::SeqCst) {
                    let answer = {
                        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                        assert!(
                            tower::Service::<Req>::poll_ready(&mut service, &mut cx).is_ready()
                        );
                        tower::Service::call(&mut service, put("/hot", "x"))
                    };
                    drop(answer.await.unwrap());
                }
            })
        })
        .collect();
    sleep(MS * 20).await;
    let key = Key::from("/hot");
    let copy = rig.handle.copy_key(&key, Side::Old, || ready(Ok::<(), std::io::Error>(())));
    let copied = timeout(Duration::from_secs(10), copy).await;
    until.store(true, Ordering::SeqCst);
    for task in load {
        let _ = task.await;
    }
    assert!(
        copied.is_ok(),
        "copy_key neither copied nor said `Contended` in 10 s; dirty: {:?}",
        rig.dirty()
    );
}
