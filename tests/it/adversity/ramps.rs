//! Ramps under load, and what gates see of them.

use super::*;

fn post(path: &str) -> Req {
    http::Request::post(path).body(body("x")).unwrap()
}

/// `ramp`: "every write is acknowledged under `RequireBoth`, so both sides have
/// all that was acknowledged".
#[tokio::test]
async fn in_a_ramp_a_create_whose_sides_made_different_things_is_not_acknowledged() {
    let side = |id: &'static str| {
        Fake::new(move |call: Call| async move {
            if call.method == http::Method::POST {
                let mut made = answer(201, "");
                made.headers_mut().insert("location", id.parse().unwrap());
                return Ok(made);
            }
            let found = call.uri.path() == id;
            Ok(answer(if found { 200 } else { 404 }, ""))
        })
    };
    let rig = Rig::with(side("/airports/7"), side("/airports/9"), |layer| {
        layer.failure_policy(FailurePolicy::RequireBoth)
    });
    rig.walk(Stage::WriteBoth).await;
    rig.handle.ramp(1.0).await.unwrap();
    let created = rig.send(post("/airports")).await.unwrap();
    if created.status() != 201 {
        return;
    }
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    drop(created);
    rig.quiesce().await;
    let (status, _) = rig.ask(get(&location)).await;
    assert_eq!(
        status,
        200,
        "{location} was acknowledged with 201, and is not there; dirty: {:?}",
        rig.dirty()
    );
}

#[tokio::test]
async fn a_gate_over_errors_sees_how_new_fails_the_clients_of_a_ramp() {
    use tower_migration::gates::MaxErrorShare;
    let handle =
        MigrationHandle::builder("x").gate(MaxErrorShare::new(0.05).unwrap()).build().unwrap();
    let new = Fake::new(|call: Call| async move {
        // New fails whoever reads from it, and takes every write.
        Ok(answer(if call.method == http::Method::GET { 500 } else { 200 }, ""))
    });
    let rig = Rig::on(handle, Fake::says(200, ""), new, |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    for n in 0..200 {
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    sleep(MS * 200).await;
    rig.handle.ramp(0.5).await.unwrap();
    let mut failed = 0;
    for n in 0..200 {
        failed += u32::from(rig.ask(get(&format!("/{n}"))).await.0 == 500);
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    rig.quiesce().await;
    let evidence = rig.handle.evidence();
    let raised = rig.handle.ramp(0.9).await;
    assert!(
        raised.is_err(),
        "new failed {failed} of 200 clients' reads with 500, and the gate let more of them go there:\n{evidence}"
    );
}

#[tokio::test]
async fn a_whole_ramp_can_be_completed_although_there_are_gates() {
    use tower_migration::gates::MaxErrorShare;
    let handle =
        MigrationHandle::builder("x").gate(MaxErrorShare::new(0.05).unwrap()).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    for n in 0..200 {
        rig.ask(put(&format!("/{n}"), "")).await;
    }
    sleep(MS * 200).await;
    rig.handle.ramp(1.0).await.unwrap();
    for n in 0..1_000 {
        assert_eq!(rig.ask(get(&format!("/{n}"))).await.0, 200);
        assert_eq!(rig.ask(put(&format!("/{n}"), "")).await.0, 200);
    }
    sleep(MS * 200).await;
    let step = rig.handle.advance().await;
    assert!(
        step.is_ok(),
        "2000 requests went well on new, all of them:\n{}\n{}",
        step.unwrap_err(),
        rig.handle.evidence()
    );
}

#[tokio::test]
async fn the_shadow_reads_that_a_gate_has_seen_are_not_forgotten_by_a_ramp() {
    use tower_migration::gates::MinComparisons;
    let handle =
        MigrationHandle::builder("x").gate(MinComparisons::new(50).unwrap()).build().unwrap();
    let rig = Rig::on(handle, Fake::says(200, ""), Fake::says(200, ""), |layer| layer);
    rig.handle.advance().await.unwrap();
    rig.handle.confirm_synced(Side::New).await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    for n in 0..100 {
        rig.ask(get(&format!("/{n}"))).await;
    }
    sleep(MS * 300).await;
    rig.handle.ramp(0.1).await.unwrap();
    // "everything counted since the present stage was entered"
    let seen = rig.handle.evidence().shadows.compared();
    assert!(seen >= 50, "{seen} of 100, at the same stage");
}

type Rows = Arc<Mutex<std::collections::BTreeMap<String, u64>>>;

fn shelf(rows: &Rows, sick: &Arc<AtomicBool>) -> Fake {
    let (rows, sick) = (Arc::clone(rows), Arc::clone(sick));
    Fake::new(move |call: Call| {
        let (rows, sick) = (Arc::clone(&rows), Arc::clone(&sick));
        async move {
            let dice = fastrand::u8(..100);
            if dice % 3 == 0 {
                sleep(MS * u32::from(dice / 10)).await;
            } else if dice % 3 == 1 {
                tokio::task::yield_now().await;
            }
            let path = call.uri.path().to_owned();
            if call.method == http::Method::GET {
                let number = rows.lock().unwrap().get(&path).copied().unwrap_or(0);
                return Ok(answer(200, number.to_string()));
            }
            let number: u64 = std::str::from_utf8(&call.body).unwrap().parse().unwrap();
            let dice = if sick.load(Ordering::SeqCst) { fastrand::u8(..100) } else { 99 };
            match dice {
                0..3 => return Ok(answer(500, "")),
                3 => sleep(MS * 40).await,
                4..6 => {
                    rows.lock().unwrap().insert(path, number);
                    return Ok(answer(500, ""));
                }
                6 => return Ok(answer(409, "")),
                _ => {}
            }
            rows.lock().unwrap().insert(path, number);
            Ok(answer(200, ""))
        }
    })
}

async fn ramp_under_load(seconds: u64, order: tower_migration::WriteOrder) {
    let (old, new): (Rows, Rows) = Default::default();
    let sick = Arc::new(AtomicBool::new(false));
    let handle = MigrationHandle::builder("x").linger(MS * 5).build().unwrap();
    let limits = tower_migration::Limits::default();
    let rig = Arc::new(Rig::on(handle, shelf(&old, &sick), shelf(&new, &sick), |layer| {
        let limits = limits.leg_timeout(MS * 25);
        layer.write_order(order).limits(limits).unwrap()
    }));
    rig.walk(Stage::WriteBoth).await;
    let done = Arc::new(AtomicBool::new(false));
    let acked: Arc<Vec<std::sync::atomic::AtomicU64>> =
        Arc::new((0..6).map(|_| std::sync::atomic::AtomicU64::new(0)).collect());
    let stale = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let request = |method: &str, key: usize, text: String| {
        http::Request::builder().method(method).uri(format!("/{key}")).body(body(text)).unwrap()
    };
    for key in 0..6 {
        let (rig2, done2, acked2) = (Arc::clone(&rig), Arc::clone(&done), Arc::clone(&acked));
        tasks.spawn(async move {
            let mut number = 0;
            while !done2.load(Ordering::SeqCst) {
                number += 1;
                let answer = go(&rig2, request("PUT", key, number.to_string()));
                if fastrand::u8(..10) == 0 {
                    let _ = timeout(MS * 4, answer).await;
                } else if answer.await.is_ok_and(|answer| answer.status() == 200) {
                    acked2[key].fetch_max(number, Ordering::SeqCst);
                }
                // Else no copy of the key ever comes to an end.
                sleep(MS * u32::from(fastrand::u8(1..6))).await;
            }
        });
        let (rig2, done2, acked2) = (Arc::clone(&rig), Arc::clone(&done), Arc::clone(&acked));
        let stale2 = Arc::clone(&stale);
        tasks.spawn(async move {
            while !done2.load(Ordering::SeqCst) {
                let before = acked2[key].load(Ordering::SeqCst);
                let ramp = rig2.handle.status().ramp;
                let answer = go(&rig2, request("GET", key, String::new())).await.unwrap();
                let found: u64 = text(answer).await.parse().unwrap();
                if found < before {
                    stale2.lock().unwrap().push(format!(
                        "/{key}: {found} after {before} was acknowledged, ramp {ramp} -> {}",
                        rig2.handle.status().ramp
                    ));
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let began = Instant::now();
    let (mut raised, mut ended, mut refused) = (0, 0, 0);
    let mut why = String::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        let up = rig.handle.status().ramp > 0.0;
        if !up || fastrand::bool() {
            sick.store(false, Ordering::SeqCst);
            sleep(MS * 20).await;
        }
        for dirty in rig.handle.dirty_keys() {
            let Some(right) = dirty.right.source() else {
                rig.handle.resolve_conflict(&dirty.key, Side::Old);
                continue;
            };
            let (from, to) = if right == Side::Old { (&old, &new) } else { (&new, &old) };
            let path = dirty.key.to_string();
            let copy = rig.handle.copy_key(&dirty.key, right, || {
                let row = from.lock().unwrap().get(&path).copied();
                match row {
                    Some(row) => to.lock().unwrap().insert(path.clone(), row),
                    None => to.lock().unwrap().remove(&path),
                };
                ready(Ok::<(), std::io::Error>(()))
            });
            let _ = timeout(Duration::from_secs(2), copy).await;
        }
        if rig.handle.status().ramp > 0.0 && fastrand::bool() {
            rig.handle.rollback().await.unwrap();
            ended += 1;
        } else {
            let share = f64::from(fastrand::u8(..=10)) / 10.0;
            match timeout(Duration::from_secs(2), rig.handle.ramp(share)).await {
                Ok(Ok(_)) => raised += 1,
                Ok(Err(blocked)) => {
                    refused += 1;
                    why = blocked.to_string();
                }
                Err(_) => {
                    refused += 1;
                    why = rig.handle.status().to_string();
                }
            }
        }
        sick.store(true, Ordering::SeqCst);
        sleep(MS * u32::from(fastrand::u8(..12))).await;
    }
    done.store(true, Ordering::SeqCst);
    while tasks.join_next().await.is_some() {}
    let acked: Vec<_> = acked.iter().map(|n| n.load(Ordering::SeqCst)).collect();
    let stale = stale.lock().unwrap();
    eprintln!(
        "ramped {raised}, ended {ended}, refused {refused}; acked {acked:?}; stale {}; {why}",
        stale.len()
    );
    assert!(stale.is_empty(), "{:#?}", &stale[..stale.len().min(8)]);
}

#[tokio::test]
async fn a_ramp_under_load_on_one_thread() {
    for order in
        [tower_migration::WriteOrder::Concurrent, tower_migration::WriteOrder::AuthorityFirst]
    {
        ramp_under_load(2, order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_ramp_under_load_on_several_threads() {
    for order in
        [tower_migration::WriteOrder::Concurrent, tower_migration::WriteOrder::AuthorityFirst]
    {
        ramp_under_load(2, order).await;
    }
}
