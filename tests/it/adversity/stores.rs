//! Stores that hang or panic.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bad {
    No,
    Hangs,
    Panics,
}

#[derive(Default)]
struct Knobs {
    load: Mutex<Option<Bad>>,
    claim: Mutex<Option<Bad>>,
    attend: Mutex<Option<Bad>>,
    leave: Mutex<Option<Bad>>,
    watch: Mutex<Option<Bad>>,
    owner: AtomicBool,
    claims: AtomicUsize,
}

#[derive(Clone)]
struct Odd {
    inner: MemoryStore,
    knobs: Arc<Knobs>,
    lease: Option<Duration>,
}

impl Odd {
    fn new() -> Self {
        let knobs = Knobs { owner: AtomicBool::new(true), ..Knobs::default() };
        Self { inner: MemoryStore::new(), knobs: Arc::new(knobs), lease: None }
    }
}

fn behave<'a, T: Send + 'a>(
    bad: &Mutex<Option<Bad>>,
    well: BoxFuture<'a, Result<T, StoreError>>,
) -> BoxFuture<'a, Result<T, StoreError>> {
    let bad = bad.lock().unwrap().unwrap_or(Bad::No);
    match bad {
        Bad::No => well,
        Bad::Hangs => Box::pin(pending()),
        Bad::Panics => Box::pin(async { std::panic::resume_unwind(Box::new("on purpose")) }),
    }
}

impl FlagStore for Odd {
    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        behave(&self.knobs.load, self.inner.load())
    }
    fn save(&self, replaces: u64, record: Record) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.save(replaces, record)
    }
    fn watch(&self, _: u64) -> BoxFuture<'_, Result<Record, StoreError>> {
        behave(&self.knobs.watch, Box::pin(pending()))
    }
    fn lease(&self) -> Option<Duration> {
        self.lease
    }
    fn attend(&self, _: Presence) -> BoxFuture<'_, Result<Standing, StoreError>> {
        let standing = if self.knobs.owner.load(Ordering::SeqCst) {
            Standing::Owner
        } else {
            Standing::Follower
        };
        behave(&self.knobs.attend, Box::pin(ready(Ok(standing))))
    }
    fn claim(&self) -> BoxFuture<'_, Result<Claim, StoreError>> {
        self.knobs.claims.fetch_add(1, Ordering::SeqCst);
        behave(&self.knobs.claim, Box::pin(ready(Ok(Claim::default()))))
    }
    fn leave(&self, _: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        behave(&self.knobs.leave, Box::pin(ready(Ok(()))))
    }
}

#[tokio::test]
async fn the_emergency_exit_is_open_although_the_store_panics_when_asked_for_a_claim() {
    let store = Odd::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    at(&handle, Stage::ReadNew).await;
    *store.knobs.claim.lock().unwrap() = Some(Bad::Panics);
    let h = handle.clone();
    let moved = tokio::spawn(async move { h.rollback().await }).await;
    assert!(moved.is_ok(), "rollback() panicked, the stage is {}", handle.stage());
    assert_eq!(handle.stage(), Stage::WriteBoth);
}

#[tokio::test]
async fn shutdown_survives_a_store_that_panics_in_leave() {
    let store = Odd::new();
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    *store.knobs.leave.lock().unwrap() = Some(Bad::Panics);
    let h = handle.clone();
    assert!(tokio::spawn(async move { h.shutdown().await }).await.is_ok(), "shutdown() panicked");
}

async fn follower_whose_owner_has_ended(spoil: impl FnOnce(&Knobs)) -> (MigrationHandle, Odd) {
    let mut store = Odd::new();
    store.lease = Some(MS * 100);
    store.knobs.owner.store(false, Ordering::SeqCst);
    let handle = MigrationHandle::open("x", store.clone()).await.unwrap();
    assert_eq!(handle.status().standing, Standing::Follower);
    spoil(&store.knobs);
    store.knobs.owner.store(true, Ordering::SeqCst);
    (handle, store)
}

#[tokio::test(start_paused = true)]
async fn a_follower_can_be_shut_down_while_the_store_hangs_in_a_takeover() {
    let (handle, _store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let ended = timeout(Duration::from_secs(3_600), handle.shutdown()).await;
    assert!(ended.is_ok(), "shutdown() did not end within an hour");
}

#[tokio::test(start_paused = true)]
async fn a_follower_answers_force_while_the_store_hangs_in_a_takeover() {
    let (handle, _store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let ended = timeout(Duration::from_secs(3_600), handle.force(Stage::WriteBoth, "now")).await;
    assert!(ended.is_ok(), "force() did not answer within an hour");
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_the_store_has_hung_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.load.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.load.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(
        handle.status().standing,
        Standing::Owner,
        "one lost answer, and it follows for ever"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_attend_has_hung_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.attend.lock().unwrap() = Some(Bad::Hangs);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.attend.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(handle.status().standing, Standing::Owner);
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_although_the_store_has_panicked_once() {
    let (handle, store) = follower_whose_owner_has_ended(|knobs| {
        *knobs.attend.lock().unwrap() = Some(Bad::Panics);
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    *store.knobs.attend.lock().unwrap() = None;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(handle.status().standing, Standing::Owner);
}

#[tokio::test(start_paused = true)]
async fn open_is_bounded() {
    let store = Odd::new();
    *store.knobs.load.lock().unwrap() = Some(Bad::Hangs);
    let opened = timeout(Duration::from_secs(3_600), MigrationHandle::open("x", store)).await;
    assert!(opened.is_ok(), "open() has waited for an hour");
}
