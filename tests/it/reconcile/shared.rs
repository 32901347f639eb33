//! Two processes under one flag. (Two stores of one file in one process are as two
//! processes.)

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_migration::{
    FileStore, MigrationHandle, Side, WriteOrder,
    reconcile::{Phase, Uncounted},
};

use super::world::*;
use crate::support::*;

struct Two {
    _dir: tempfile::TempDir,
    owner: World,
    follower: World,
}

async fn two() -> Two {
    let dir = tempfile::tempdir().unwrap();
    let tables = Tables::default();
    tables.fill(Side::Old, (0..40).map(|key| (key, 1)));
    let world = async || {
        let store = FileStore::create_or_open(dir.path().join("flag")).unwrap();
        let builder = MigrationHandle::builder("test").hold(DISK).linger(Duration::ZERO);
        let handle = builder.open(store).await.unwrap();
        let first = WriteOrder::AuthorityFirst;
        World::over(tables.clone(), handle, |layer| layer.write_order(first))
    };
    let owner = world().await;
    owner.advance().await;
    let follower = world().await;
    Two { owner, follower, _dir: dir }
}

#[tokio::test]
async fn a_run_waits_for_the_other_process_to_go() {
    let Two { owner, follower, _dir } = two().await;
    let backfill = owner.backfill();
    let mut progress = backfill.progress();
    let mut run = Box::pin(backfill.run());
    let waits = async { progress.wait_for(|now| now.phase == Phase::Waiting).await.map(drop) };
    tokio::select! {
        ended = &mut run => panic!("it did not wait: {ended:?}"),
        waits = timeout(SECOND * 20, waits) => waits.unwrap().unwrap(),
    }
    assert!(owner.tables.newer().is_empty());
    follower.handle().shutdown().await;
    drop(follower);
    let report = timeout(SECOND * 30, run).await.unwrap().unwrap();
    assert!(report.synced, "{report}");
    owner.tables.assert_equal();
}

#[tokio::test]
async fn beside_another_process_it_copies_and_counts_once_that_has_gone() {
    let Two { owner, follower, _dir } = two().await;
    let service = follower.rig.service.clone();
    let writer = tokio::spawn(async move {
        for n in 0..200_u32 {
            let answer = tower::Service::call(&mut service.clone(), set(n % 40, n.into())).await;
            assert_eq!(answer.unwrap().status(), 200);
            sleep(Duration::from_micros(200)).await;
        }
    });
    let report = owner.backfill().beside_other_processes().run().await.unwrap();
    assert_eq!((report.synced, report.uncounted), (false, Some(Uncounted::Shared)));
    assert_eq!(report.written, 40);
    writer.await.unwrap();
    follower.handle().shutdown().await;
    drop(follower);
    let report = owner.verify().run().await.unwrap();
    assert_eq!((report.differ, report.synced), (0, true), "{report}");
    owner.tables.assert_equal();
}

#[tokio::test]
async fn a_repair_waits_too_or_works_beside_it_if_it_may() {
    for beside in [false, true] {
        let Two { owner, follower, _dir } = two().await;
        owner.handle().mark_dirty(&name(1).into(), Side::Old);
        let repair = owner.repair();
        let repair = if beside { repair.beside_other_processes() } else { repair };
        repair.start().unwrap();
        let healed = async {
            while !owner.handle().dirty_keys().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let mut healed = Box::pin(healed);
        let soon = timeout(Duration::from_millis(500), &mut healed).await.is_ok();
        assert_eq!(soon, beside);
        follower.handle().shutdown().await;
        drop(follower);
        if !beside {
            timeout(SECOND * 20, healed).await.unwrap();
        }
        assert_eq!(owner.tables.newer().get(&name(1)), Some(&1));
    }
}
