//! What becomes of a dual write's two outcomes.

mod report;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

pub(super) use self::report::Report;
use super::{Settings, guard::guarded};
use crate::{
    observe::{Disagreement, Event, LegDetail, LegResult},
    protocol::Protocol,
    reconcile::{Begun, Keys, Observation, Place},
    stage::{Agreement, Outcome, Role, Side, Stage, agreement},
    telemetry::LegFault,
};

/// One dual write, from its start until both outcomes are known.
pub(super) struct Record<P> {
    settings: Arc<Settings<P>>,
    request: Arc<str>,
    stage: Stage,
    authority: Side,
    /// The age of the write's places.
    age: u64,
    state: Mutex<State>,
    /// Told when the authority has said how it went.
    said: Notify,
    other_answers: AtomicBool,
    closed: AtomicBool,
    /// Told when that is set.
    broken_off: Notify,
    /// Its note in the journal, until nothing of it can go wrong any more.
    _begun: Option<Begun>,
}

struct State {
    keys: Keys,
    /// What each side's answer named as the thing that was created.
    created: [Option<Keys>; 2],
    results: [Option<LegResult>; 2],
    /// Places that the running other leg took on late; `None` once it ended.
    late: Option<Vec<Place>>,
    /// Something else may have been done to a late key meanwhile.
    overlapped: bool,
    /// What the authority's keys looked like when it gave up its place before its
    /// end.
    seen: Option<Observation>,
    crowded: bool,
    /// When the authority's outcome was known.
    said_at: Option<Instant>,
    /// Whether anybody waits for that.
    is_awaited: bool,
    /// Both outcomes are known, and the sides may differ.
    dirty: bool,
}

/// Two legs that did not agree.
struct Apart {
    results: [LegResult; 2],
    keys: Keys,
    /// No key was known but what the other side has named.
    nameless: bool,
    agreed: Agreement,
}

impl State {
    /// What both legs have come to, once both are known, unless they agree.
    fn apart(&mut self) -> Option<Apart> {
        if self.results.iter().any(Option::is_none) {
            return None;
        }
        let mut results = std::mem::take(&mut self.results).map(|result| result.expect("both"));
        if results[1].detail == LegDetail::Absorbed {
            // The copy brought what the authority made of it.
            results[1].outcome = results[0].outcome;
        }
        // Two answers that name different things have made two things.
        let [mine, theirs] = std::mem::take(&mut self.created);
        let two = mine.zip(theirs.as_ref()).is_some_and(|(mine, theirs)| mine != *theirs);
        let (agreed, same) = compared(&results, self.overlapped || two);
        if agreed == Agreement::Clean && same {
            return None;
        }
        let nameless = self.keys.is_empty();
        let mut keys = self.keys.clone();
        if let Some(theirs) = theirs {
            // What only the other side named may exist there alone, so it is
            // as doubtful as the rest.
            keys = keys.union(theirs);
        }
        Some(Apart { results, keys, nameless, agreed })
    }
}

impl<P: Send + Sync + 'static> Record<P> {
    pub(super) fn new(
        settings: Arc<Settings<P>>,
        request: Arc<str>,
        stage: Stage,
        age: u64,
        keys: Keys,
        begun: Option<Begun>,
    ) -> (Arc<Self>, Report<P>, Report<P>) {
        let record = Arc::new(Self {
            settings,
            request,
            stage,
            authority: stage.authority(),
            age,
            state: Mutex::new(State {
                keys,
                created: [None, None],
                results: [None, None],
                late: Some(Vec::new()),
                overlapped: false,
                seen: None,
                crowded: false,
                said_at: None,
                is_awaited: false,
                dirty: false,
            }),
            said: Notify::new(),
            other_answers: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            broken_off: Notify::new(),
            _begun: begun,
        });
        let began = Instant::now();
        let report = |role| Report { record: Some(Arc::clone(&record)), role, began, took: None };
        let (authority, other) = (report(Role::Authority), report(Role::Other));
        (record, authority, other)
    }

    pub(super) const fn settings(&self) -> &Arc<Settings<P>> {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`learn`](Self::learn), from an answer. A key function that panics
    /// leaves the write's keys unknown, and harms nobody else.
    pub(super) fn learn_from<Req, Res, E>(&self, role: Role, whole: &P::Whole, answer: &Res)
    where
        P: Protocol<Req, Res, E>,
    {
        match guarded(|| self.settings.protocol.late_keys(whole, answer)) {
            Some(keys) => self.learn(role, keys),
            None => self.doubt(),
        }
    }

    /// A key that only an answer told. The authority's makes the other leg, if
    /// it is still running, take its place before the answer is released.
    pub(super) fn learn(&self, role: Role, keys: Keys) {
        if keys.is_empty() {
            return;
        }
        let mut state = self.lock();
        let late = keys.without(&state.keys);
        state.created[index(role)] = Some(keys);
        if role != Role::Authority || late.is_empty() {
            return;
        }
        state.keys = std::mem::take(&mut state.keys).union(late.clone());
        let order = &self.settings.core.order;
        if let Some(places) = &mut state.late {
            let (place, busy) = order.take_one(&late, self.authority.other());
            places.push(place);
            state.overlapped |= busy;
        }
        // A write or a copy of the key that did not know of this write may have
        // come before it on one side and after it on the other. Asked after the
        // place was taken: what ends in between is seen here or there.
        state.overlapped |= order.touched_since(self.age, &late);
    }

    /// The authority gives up its place with its head, although it goes on: for
    /// hours, perhaps, in which others write the same keys. Called while it still
    /// has it; says whether there is any key to look after.
    pub(super) fn watch_keys(&self) -> bool {
        let mut state = self.lock();
        if state.keys.is_empty() {
            return false;
        }
        let seen = self.settings.core.order.observe(&state.keys);
        let mut own = [0, 0];
        own[self.authority.index()] = 1;
        own[self.authority.other().index()] = usize::from(state.late.is_some());
        state.crowded = seen.crowded(own);
        state.seen = Some(seen);
        true
    }

    /// Whether others have come in between: the other side may have had them in
    /// another order.
    pub(super) fn doubt_if_overlapped(&self) -> bool {
        let mut state = self.lock();
        let seen = state.seen.take();
        let overlapped = state.crowded || seen.as_ref().is_some_and(Observation::turned);
        state.overlapped |= overlapped;
        drop(state);
        // Its drop takes the table's lock.
        drop(seen);
        overlapped
    }

    /// The same, once the write has been reported.
    pub(super) fn mark_if_overlapped(&self) {
        if self.doubt_if_overlapped() {
            let keys = self.lock().keys.clone();
            self.settings.core.mark_dirty(&keys, self.authority);
        }
    }

    /// What the write was about could not be told.
    pub(super) fn doubt(&self) {
        self.lock().overlapped = true;
    }

    /// Whether the sides may differ, as far as is known by now.
    pub(super) fn is_dirty(&self) -> bool {
        self.lock().dirty
    }

    /// The other leg's head is here.
    pub(super) fn other_answers(&self) {
        self.other_answers.store(true, Ordering::Relaxed);
    }

    pub(super) fn other_has_answered(&self) -> bool {
        self.other_answers.load(Ordering::Relaxed)
    }

    /// The layer has broken the write off.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.broken_off.notify_waiters();
    }

    /// Waits until the layer breaks the write off.
    pub(super) async fn closed(&self) {
        let mut broken_off = pin!(self.broken_off.notified());
        broken_off.as_mut().enable();
        if !self.is_closed() {
            broken_off.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether it is known how the authority's leg went.
    pub(super) fn authority_has_said(&self) -> bool {
        self.lock().said_at.is_some()
    }

    /// Waits until it is known how the authority's leg went, and says since
    /// when.
    pub(super) async fn authority_said(&self) -> Instant {
        loop {
            let mut said = pin!(self.said.notified());
            said.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(at) = state.said_at {
                    return at;
                }
                state.is_awaited = true;
            }
            said.await;
        }
    }

    /// The other leg, of which it was said that nobody waits for it, has ended: its
    /// late places are free.
    pub(super) fn other_ended(&self) {
        let places = self.lock().late.take();
        drop(places);
    }

    /// The authority's answer broke off after its head had said that the write
    /// was applied: nobody knows.
    pub(super) fn answer_broke(&self) {
        self.came_to_harm(LegFault::BodyFailed);
    }

    /// The same of the authority's request, or of its answer.
    pub(super) fn came_to_harm(&self, fault: LegFault) {
        let keys = self.lock().keys.clone();
        self.settings.core.counters.fault(self.authority, fault);
        self.settings.core.mark_dirty(&keys, self.authority);
        tracing::warn!(
            target: "tower_migration",
            migration = %self.settings.core.name(),
            request = %self.request, %keys, %fault,
            "the authority came to harm after it had answered a write: its keys are dirty"
        );
    }

    /// A leg has come to this. `over`: it does not run on, which it may although nobody
    /// waits for it any longer.
    fn reported(&self, role: Role, at: Instant, result: LegResult, over: bool) {
        // Its late places are let go once its keys are marked, and after the lock: that
        // takes the table's.
        let ends_other = over && role == Role::Other;
        // Those who wait are somebody else's, too.
        let wake = |awaited: bool| {
            if awaited && role == Role::Authority {
                self.said.notify_waiters();
            }
        };
        let (Apart { results, keys, nameless, agreed }, awaited) = {
            let mut state = self.lock();
            state.results[index(role)] = Some(result);
            if role == Role::Authority {
                state.said_at = Some(at);
            }
            let awaited = state.is_awaited;
            let Some(apart) = state.apart() else {
                let late = if ends_other { state.late.take() } else { None };
                drop(state);
                drop(late);
                wake(awaited);
                return;
            };
            (apart, awaited)
        };
        wake(awaited);
        let [authority_leg, other_leg] = results;
        if agreed == Agreement::Dirty {
            self.lock().dirty = true;
        }
        if nameless && !keys.is_empty() && authority_leg.outcome == Outcome::Unknown {
            // The authority may hold the thing under a name that nobody knows.
            self.settings.core.mark_dirty(&Keys::none(), self.authority);
        }
        self.disagree(&Disagreement {
            request: Arc::clone(&self.request),
            keys,
            stage: self.stage,
            authority: self.authority,
            authority_leg,
            other_leg,
            agreement: agreed,
        });
        if ends_other {
            self.other_ended();
        }
    }

    fn disagree(&self, disagreement: &Disagreement) {
        let core = &self.settings.core;
        let Disagreement { request, keys, authority_leg, other_leg, .. } = disagreement;
        core.counters.disagreement(authority_leg.outcome, other_leg.outcome);
        if disagreement.agreement == Agreement::Dirty {
            core.mark_dirty(keys, self.authority);
        }
        tracing::warn!(
            target: "tower_migration",
            migration = %core.name(),
            %request, %keys,
            authority = %self.authority,
            authority_outcome = %authority_leg.outcome,
            authority_detail = %authority_leg.detail,
            other_outcome = %other_leg.outcome,
            other_detail = %other_leg.detail,
            dirty = disagreement.agreement == Agreement::Dirty,
            "the legs of a write did not agree"
        );
        self.settings.observe(&Event::Disagreement(disagreement));
    }
}

/// Whether the sides are equal after such a write, and the legs ended in the same way.
fn compared([authority, other]: &[LegResult; 2], doubtful: bool) -> (Agreement, bool) {
    let both_applied = authority.outcome == Outcome::Applied && other.outcome == Outcome::Applied;
    let agreed = match agreement(authority.outcome, other.outcome) {
        Agreement::Clean if both_applied && doubtful => Agreement::Dirty,
        agreed => agreed,
    };
    let same = match (&authority.detail, &other.detail) {
        (LegDetail::Code(a), LegDetail::Code(b)) => both_applied || a == b,
        (LegDetail::Error(a), LegDetail::Error(b)) => both_applied || a == b,
        (LegDetail::Code(_), LegDetail::Error(_)) | (LegDetail::Error(_), LegDetail::Code(_)) => {
            both_applied
        }
        _ => true,
    };
    (agreed, same)
}

const fn index(role: Role) -> usize {
    matches!(role, Role::Other) as usize
}
