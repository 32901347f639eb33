//! Who vouches for whom, case by case.

use std::{convert::Infallible, sync::Mutex, sync::atomic::AtomicUsize};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch;
use tower::{Layer, ServiceExt, service_fn};

use super::*;
use crate::{
    MigrationHandle, MigrationLayer,
    flag::{BoxFuture, FlagStore, Standing, StoreError, core::Start},
    reconcile::{Begun, Key, Keys, Lineage, LogFailed, LogProgress, LogStats, StoredMark, Wait},
    stage::Stage,
};

fn record(clean: bool, before_legs: bool) -> Record {
    let mut record = Record::at(Stage::WriteBoth);
    record.clean = clean;
    record.sync = record.sync.with(Side::New, SyncState::Unsynced);
    let sync = record.sync.with(Side::New, SyncState::Synced);
    record.journal = Some(JournalNote { id: 7, before_legs, sync, spans: record.spans });
    record
}

fn found(ids: &[u64]) -> Found {
    Found { ids: ids.to_vec(), ..Found::default() }
}

/// A journal that says whatever it is told to.
#[derive(Debug)]
enum Log {
    Works,
    Failed,
    Hangs,
}

const LOG: Log = Log::Works;

impl DirtyLog for Log {
    fn id(&self) -> u64 {
        9
    }

    fn marks_before(&self) -> bool {
        true
    }

    fn put(&self, _: &Key, _: StoredMark) {}

    fn remove(&self, _: &Key) {}

    fn side(&self, _: Side, _: SideNote) {}

    fn begin(&self, _: &Keys, _: bool, _: Side) -> Begun {
        match self {
            Self::Works => Begun::unnoted(),
            Self::Failed => Begun::failed(LogFailed::new("no room", "free some space")),
            Self::Hangs => {
                let (never, progress) = watch::channel(LogProgress::default());
                Begun::noted(Some(Wait { commit: 1, progress }), never)
            }
        }
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), LogFailed>> {
        match self {
            Self::Hangs => Box::pin(std::future::pending()),
            Self::Works | Self::Failed => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn adopt(&self, _: Option<Lineage>) -> BoxFuture<'static, Result<Found, LogFailed>> {
        Box::pin(std::future::ready(Ok(Found::default())))
    }

    fn took_over(&self, _: u64) {}

    fn failure(&self) -> Option<Arc<str>> {
        matches!(self, Self::Failed).then(|| "no room".into())
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}

fn new_is(inherited: Result<Inherited, OpenError>) -> SyncState {
    inherited.expect("it can be taken over").record.sync.new
}

#[test]
fn a_journal_vouches_after_a_crash_if_it_notes_writes_before_their_legs() {
    let table = [
        // clean, before legs: new's state
        (true, true, SyncState::Synced),
        (true, false, SyncState::Synced),
        (false, true, SyncState::Synced),
        (false, false, SyncState::Unsynced),
    ];
    for (clean, before, expected) in table {
        let inherited = inherit(record(clean, before), Some(&LOG), found(&[3, 7]), false);
        assert_eq!(new_is(inherited), expected, "clean {clean} before {before}");
    }
}

#[test]
fn a_journal_that_is_not_there_is_an_error_until_it_is_given_up() {
    let none = || found(&[]);
    assert!(inherit(record(true, true), None, none(), false).is_err());
    assert!(inherit(record(true, true), Some(&LOG), found(&[8]), false).is_err());
    for log in [None, Some(&LOG as &dyn DirtyLog)] {
        let before = record(true, true);
        let spans = before.spans;
        let inherited = inherit(before, log, none(), true);
        let inherited = inherited.expect("given up");
        assert_eq!(inherited.record.sync.new, SyncState::Unsynced);
        assert_ne!(inherited.record.spans, spans);
    }
    let mut unknown = record(true, true);
    unknown.journal = None;
    let mark = StoredMark {
        right: RightSide::Is(Side::Old),
        marks: 1,
        since: std::time::SystemTime::now(),
    };
    let strange = Found { marks: vec![("/a".into(), mark)], ..found(&[8]) };
    // It had failed, and was taken off the record: what it knows of keys counts.
    let kept = inherit(unknown.clone(), Some(&LOG), strange.clone(), false).expect("opened");
    assert_eq!(kept.found.marks.len(), 1);
    assert_eq!(kept.record.sync.new, SyncState::Unsynced);
    let given_up = inherit(unknown.clone(), Some(&LOG), strange, true);
    assert!(given_up.is_ok_and(|inherited| inherited.found.marks.is_empty()));
    assert!(inherit(unknown, Some(&LOG), found(&[8]), false).is_ok(), "a new journal");
}

#[test]
fn what_the_journal_knows_of_a_side_makes_it_worse_and_voids_checkpoints() {
    let record = record(false, true);
    let same = SideNote { state: SyncState::Synced, span: record.spans.new };
    let with = |sides, nameless| Found { sides, nameless, ..found(&[7]) };
    let take = |found| {
        let inherited = inherit(record.clone(), Some(&LOG), found, false).expect("vouched");
        (inherited.record.sync.new, inherited.record.spans.new == record.spans.new)
    };
    assert_eq!(take(with([None, Some(same)], [false, false])), (SyncState::Synced, true));
    let suspect = SideNote { state: SyncState::Suspect, ..same };
    assert_eq!(take(with([None, Some(suspect)], [false, false])), (SyncState::Suspect, true));
    let moved = SideNote { span: same.span + 1, ..same };
    assert_eq!(take(with([None, Some(moved)], [false, false])), (SyncState::Synced, false));
    assert_eq!(take(with([None, None], [false, true])), (SyncState::Suspect, false));
    assert_eq!(take(with([None, None], [true, false])), (SyncState::Synced, true));
}

/// Keeps what it is given, if it is not broken.
#[derive(Clone, Default)]
struct Kept {
    record: Arc<Mutex<Option<Record>>>,
    broken: Arc<std::sync::atomic::AtomicBool>,
}

impl FlagStore for Kept {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let record = self.record.lock().expect("no panic").clone();
        Box::pin(std::future::ready(Ok(record)))
    }

    fn save(&self, _: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        let broken = self.broken.load(Ordering::SeqCst);
        if !broken {
            *self.record.lock().expect("no panic") = Some(record);
        }
        let saved = if broken { Err(StoreError::new("no room")) } else { Ok(()) };
        Box::pin(std::future::ready(saved))
    }
}

/// At write-both, with this journal on record.
fn with_journal(store: &Kept, log: Log) -> MigrationHandle {
    let name: Arc<str> = "test".into();
    let (standing, instance) = (Standing::Owner, "one".into());
    let log: Option<Arc<dyn DirtyLog>> = Some(Arc::new(log));
    let start = Start { record: record(true, true), standing, instance, log };
    let store = Arc::new(store.clone());
    MigrationHandle { core: Core::new(name, Options::default(), store, false, start) }
}

type Call = Request<Full<Bytes>>;

#[tokio::test(start_paused = true)]
async fn a_journal_that_fails_is_taken_off_the_record_before_a_write_begins() {
    let hangs = |hangs| if hangs { Log::Hangs } else { Log::Failed };
    for (log, broken) in [(false, false), (false, true), (true, false), (true, true)] {
        let store = Kept::default();
        store.broken.store(broken, Ordering::SeqCst);
        let calls = Arc::new(AtomicUsize::new(0));
        let side = {
            let (calls, store) = (Arc::clone(&calls), store.clone());
            service_fn(move |_: Call| {
                calls.fetch_add(1, Ordering::SeqCst);
                let record = store.record.lock().expect("no panic").clone();
                assert!(record.is_some_and(|record| record.journal.is_none()), "first of all");
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
            })
        };
        let handle = with_journal(&store, hangs(log));
        let layer = MigrationLayer::new(handle.clone(), side.clone());
        let service = layer.layer(side);
        let put = || Request::put("/a").body(Full::<Bytes>::default()).expect("a request");
        let answer = service.clone().oneshot(put()).await.expect("an answer");
        assert!(handle.status().journal.is_some_and(|journal| journal.failure.is_some()));
        if broken {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let second = service.clone().oneshot(put()).await.expect("an answer");
            assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(calls.load(Ordering::SeqCst), 0, "neither side has seen it");
            // Once the record can be written, clients are served.
            store.broken.store(false, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let answer = service.oneshot(put()).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
        } else {
            assert_eq!(answer.status(), StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_journal_that_hangs_and_it_does_not_vouch() {
    for (log, vouches) in [(Log::Works, true), (Log::Hangs, false)] {
        let store = Kept::default();
        with_journal(&store, log).shutdown().await;
        let kept = store.record.lock().expect("no panic").clone().expect("a record");
        assert_eq!(kept.journal.is_some(), vouches);
        assert!(kept.clean);
    }
}
