//! The operator's runtime ends, or nobody drives it.

use super::*;

/// The service runs on one runtime; the operator's thread drives the handle with
/// a `block_on` of its own. The hold after the last step is released by a task
/// on the operator's runtime, which nobody drives any more.
fn last_step_from_another_runtime(keep: bool) -> bool {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let slow = || {
        Fake::new(|_| async {
            sleep(MS * 20).await;
            Ok(answer(200, ""))
        })
    };
    let rig = Arc::new(Rig::new(slow(), slow()));
    runtime.block_on(rig.walk(Stage::ReadNew));
    let until = Arc::new(AtomicBool::new(false));
    let _guard = runtime.enter();
    let load = busy_service(&rig, Arc::clone(&until));
    std::thread::sleep(MS * 200);
    let handle = rig.handle.clone();
    let kept = std::thread::spawn(move || {
        let operator = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        operator.block_on(handle.advance()).unwrap();
        keep.then_some(operator)
    })
    .join()
    .unwrap();
    // Ten times what any hold may last… the default is 1 s.
    std::thread::sleep(Duration::from_secs(4));
    let holding = rig.handle.status().holding;
    let served = runtime
        .block_on(async { timeout(Duration::from_secs(2), rig.ask(put("/z", "x"))).await.is_ok() });
    drop(kept);
    until.store(true, Ordering::SeqCst);
    for task in load {
        task.abort();
    }
    eprintln!("holding: {holding}, served: {served}");
    served && !holding
}

#[test]
fn writes_are_released_although_the_operators_runtime_has_ended() {
    assert!(last_step_from_another_runtime(false), "writes are held for ever");
}

#[test]
fn writes_are_released_although_nobody_drives_the_operators_runtime() {
    assert!(last_step_from_another_runtime(true), "writes are held for ever");
}

#[cfg(target_os = "linux")]
#[test]
fn an_exit_is_put_on_record_although_the_operators_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.flag");
    let next = path.with_extension("flag.next");
    let service = runtime();
    let rig = service.block_on(async {
        let handle = on_disk("x", FileStore::create(&path)).await;
        Rig::on(handle, Fake::says(200, "old"), Fake::says(200, "new"), |l| l)
            .at(Stage::ReadNew)
            .await
    });
    // A disk that is full for once.
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let operator = runtime();
    let moved = operator.block_on(rig.handle.rollback()).unwrap();
    assert_eq!(moved.to, Stage::WriteBoth);
    drop(operator);
    assert!(std::fs::read_to_string(&path).unwrap().contains("stage = read-new"));
    let recorded = async {
        while !std::fs::read_to_string(&path).unwrap().contains("stage = write-both") {
            rig.ask(get("/a")).await;
            sleep(MS * 20).await;
        }
        // And whoever waited for it goes on.
        while rig.handle.confirm_synced(Side::New).await.is_err() {
            sleep(MS * 20).await;
        }
    };
    service.block_on(async { timeout(20 * SECOND, recorded).await }).unwrap();
}
