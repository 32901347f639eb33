//! A store that keeps its rows, does as it is told, and remembers what it saw;
//! and two of them behind the layer.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use tower::{Layer, Service, ServiceExt};
use tower_migration::{
    Dispatch, Event, Migration, MigrationHandle, MigrationLayer, Operation, Outcome, Side, Stage,
    compare::Verdict, protocol::Plain, telemetry::Refused,
};

use crate::support::{Latch, settle_tasks};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Get(String),
    List,
    Put(String, String),
    /// Fails if the row is there.
    Add(String, String),
    Delete(String),
    /// The store chooses the id.
    Create(String),
}

/// What the service takes: `Clone + Send`, and not `Sync`.
#[derive(Clone, Debug)]
pub struct Call {
    pub op: Op,
    pub leg: Option<Dispatch>,
    pub stamp: Cell<u32>,
}

impl From<Op> for Call {
    fn from(op: Op) -> Self {
        Self { op, leg: None, stamp: Cell::new(0) }
    }
}

pub fn get(id: &str) -> Call {
    Op::Get(id.to_owned()).into()
}

pub fn put(id: &str, value: &str) -> Call {
    Op::Put(id.to_owned(), value.to_owned()).into()
}

pub fn delete(id: &str) -> Call {
    Op::Delete(id.to_owned()).into()
}

pub fn create(value: &str) -> Call {
    Op::Create(value.to_owned()).into()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Row(String),
    Rows(Vec<String>),
    Done,
    Created(String),
    /// In an `Ok`, and still a refusal.
    Rejected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    NotFound,
    Exists,
    Broken,
    Layer(Refused),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

pub type Reply = Result<Answer, StoreError>;
pub type Protocol = Plain<Call, Answer, StoreError>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How a store behaves.
#[derive(Clone)]
pub enum Way {
    Well,
    Says(Reply),
    Hangs,
    Panics,
    /// Does it once the latch is open.
    At(Latch),
    /// Gives created rows ids that start so.
    Names(&'static str),
}

struct Shared {
    rows: Mutex<BTreeMap<String, String>>,
    calls: Mutex<Vec<Call>>,
    way: Mutex<Way>,
    ready: Mutex<(bool, Vec<Waker>)>,
}

/// It panics when it is called without having been polled ready.
pub struct Store {
    shared: Arc<Shared>,
    ready: bool,
}

impl Store {
    pub fn new(way: Way) -> Self {
        let shared = Shared {
            rows: Mutex::default(),
            calls: Mutex::default(),
            way: Mutex::new(way),
            ready: Mutex::new((true, Vec::new())),
        };
        Self { shared: Arc::new(shared), ready: false }
    }

    pub fn well() -> Self {
        Self::new(Way::Well)
    }

    pub fn says(reply: Reply) -> Self {
        Self::new(Way::Says(reply))
    }

    pub fn latched() -> (Self, Latch) {
        let latch = Latch::default();
        (Self::new(Way::At(latch.clone())), latch)
    }

    pub fn with(self, id: &str, value: &str) -> Self {
        self.shared.rows.lock().unwrap().insert(id.to_owned(), value.to_owned());
        self
    }

    pub fn becomes(&self, way: Way) {
        *self.shared.way.lock().unwrap() = way;
    }

    pub fn set_ready(&self, ready: bool) {
        let mut state = self.shared.ready.lock().unwrap();
        state.0 = ready;
        state.1.drain(..).for_each(Waker::wake);
    }

    pub fn row(&self, id: &str) -> Option<String> {
        self.shared.rows.lock().unwrap().get(id).cloned()
    }

    pub fn rows(&self) -> BTreeMap<String, String> {
        self.shared.rows.lock().unwrap().clone()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.calls.lock().unwrap().len()
    }
}

impl Clone for Store {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl Shared {
    fn run(&self, op: Op, prefix: &str) -> Reply {
        let mut rows = self.rows.lock().unwrap();
        match op {
            Op::Get(id) => rows.get(&id).cloned().map(Answer::Row).ok_or(StoreError::NotFound),
            Op::List => Ok(Answer::Rows(rows.values().cloned().collect())),
            Op::Put(id, value) => {
                rows.insert(id, value);
                Ok(Answer::Done)
            }
            Op::Add(id, _) if rows.contains_key(&id) => Err(StoreError::Exists),
            Op::Add(id, value) => {
                rows.insert(id, value);
                Ok(Answer::Done)
            }
            Op::Delete(id) => rows.remove(&id).map(|_| Answer::Done).ok_or(StoreError::NotFound),
            Op::Create(value) => {
                let id = format!("{prefix}{}", rows.len() + 1);
                rows.insert(id.clone(), value);
                Ok(Answer::Created(id))
            }
        }
    }
}

impl Service<Call> for Store {
    type Response = Answer;
    type Error = StoreError;
    type Future = Boxed<Reply>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let mut state = self.shared.ready.lock().unwrap();
        if !state.0 {
            state.1.push(cx.waker().clone());
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being polled ready");
        let shared = Arc::clone(&self.shared);
        shared.calls.lock().unwrap().push(call.clone());
        let way = shared.way.lock().unwrap().clone();
        Box::pin(async move {
            match way {
                Way::Well => shared.run(call.op, ""),
                Way::Names(prefix) => shared.run(call.op, prefix),
                Way::Says(reply) => reply,
                Way::Hangs => std::future::pending().await,
                // Unwinds without the hook: a report would say nothing.
                Way::Panics => std::panic::resume_unwind(Box::new("on purpose")),
                Way::At(latch) => {
                    latch.passed().await;
                    shared.run(call.op, "")
                }
            }
        })
    }
}

pub fn classify(call: &Call) -> Operation {
    match call.op {
        Op::Get(_) | Op::List => Operation::Read,
        Op::Put(..) | Op::Add(..) | Op::Delete(_) | Op::Create(_) => Operation::Write,
    }
}

pub fn key(call: &Call) -> Option<String> {
    match &call.op {
        Op::Get(id) | Op::Put(id, _) | Op::Add(id, _) | Op::Delete(id) => Some(format!("/{id}")),
        Op::List => Some("/".to_owned()),
        Op::Create(_) => None,
    }
}

pub fn judge(answer: Result<&Answer, &StoreError>) -> Outcome {
    match answer {
        Ok(Answer::Rejected) | Err(StoreError::NotFound | StoreError::Exists) => Outcome::Refused,
        Ok(_) => Outcome::Applied,
        Err(StoreError::Broken | StoreError::Layer(_)) => Outcome::Unknown,
    }
}

/// With the parts that a repository has: keys, and errors that are judged.
pub fn protocol() -> Protocol {
    Plain::new(classify, StoreError::Layer)
        .keys(key)
        .judge(judge)
        .done_when(|call: &Call, answer| {
            matches!((&call.op, answer), (Op::Delete(_), Err(StoreError::NotFound)))
        })
        .answer_keys(|_, answer| match answer {
            Answer::Created(id) => Some(format!("/{id}")),
            _ => None,
        })
        .dispatch(|call: &mut Call, leg| call.leg = Some(leg), |call| call.leg)
}

/// Two stores and the layer around them.
pub struct Rig<P = Protocol> {
    pub handle: MigrationHandle,
    pub old: Store,
    pub new: Store,
    pub service: Migration<Store, Store, P>,
    pub verdicts: Arc<Mutex<Vec<Verdict>>>,
    pub disagreements: Arc<Mutex<Vec<tower_migration::Disagreement>>>,
}

impl Rig {
    pub fn new(old: Store, new: Store) -> Self {
        Self::with(old, new, protocol(), |layer| layer)
    }
}

impl<P> Rig<P>
where
    P: tower_migration::protocol::Protocol<Call, Answer, StoreError, Answer = Answer>
        + tower_migration::protocol::HasKeys
        + Clone,
{
    pub fn with(
        old: Store,
        new: Store,
        protocol: P,
        set: impl FnOnce(MigrationLayer<Store, P>) -> MigrationLayer<Store, P>,
    ) -> Self {
        Self::on(MigrationHandle::new("rows"), old, new, protocol, set)
    }

    pub fn on(
        handle: MigrationHandle,
        old: Store,
        new: Store,
        protocol: P,
        set: impl FnOnce(MigrationLayer<Store, P>) -> MigrationLayer<Store, P>,
    ) -> Self {
        let verdicts = Arc::new(Mutex::new(Vec::new()));
        let disagreements = Arc::new(Mutex::new(Vec::new()));
        let (seen, told) = (Arc::clone(&verdicts), Arc::clone(&disagreements));
        let layer = MigrationLayer::with_protocol(handle.clone(), new.clone(), protocol)
            .noise(tower_migration::compare::Noise::off());
        let layer = set(layer.observer(move |event: &Event<'_>| match event {
            Event::Shadow(read) => seen.lock().unwrap().push(read.verdict.clone()),
            Event::Disagreement(d) => told.lock().unwrap().push((*d).clone()),
            _ => {}
        }));
        let service = layer.layer(old.clone());
        Self { handle, old, new, service, verdicts, disagreements }
    }

    /// Walks to `stage` in order, new confirmed on the way.
    pub async fn at(self, stage: Stage) -> Self {
        self.walk(stage).await;
        self
    }

    pub async fn walk(&self, stage: Stage) {
        while self.handle.stage() < stage {
            self.handle.advance().await.unwrap();
            if self.handle.stage() == Stage::WriteBoth {
                self.handle.confirm_synced(Side::New).await.unwrap();
            }
        }
    }

    pub async fn send(&self, call: Call) -> Reply {
        self.service.clone().oneshot(call).await
    }

    /// The same, until all that it left behind has gone on as far as it can.
    pub async fn sent(&self, call: Call) -> Reply {
        let reply = self.send(call).await;
        settle_tasks().await;
        reply
    }

    /// The verdict of one shadowed read.
    pub async fn verdict_of(&self, call: Call) -> Verdict {
        self.handle.set_shadow_rate(1.0).unwrap();
        let _ = self.send(call).await;
        self.handle.shutdown().await;
        self.verdicts.lock().unwrap().pop().expect("a verdict")
    }

    pub fn dirty(&self) -> Vec<String> {
        self.handle.dirty_keys().iter().map(|dirty| dirty.key.to_string()).collect()
    }

    pub fn side(&self, side: Side) -> &Store {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}
