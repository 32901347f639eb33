//! What the dispatching code asks, answered by closures.

use std::{
    any::type_name,
    panic::resume_unwind,
    sync::{Arc, Mutex},
};

use super::{Judge, Plain, WholePlain, guard::asked};
use crate::{
    body::{CaptureError, Ending, Room},
    compare::{Context, Diff, SkipReason},
    flag::Mark,
    protocol::{Class, Dispatch, Drained, Protocol, Said},
    reconcile::Keys,
    stage::Outcome,
    telemetry::{Refused, SkippedLeg},
};

#[inline]
fn said<Res, E>(judge: Option<&Judge<Res, E>>, answer: Result<&Res, &E>) -> Outcome {
    match (judge, &answer) {
        (Some(judge), _) => asked("judge", || judge(answer)).unwrap_or(Outcome::Unknown),
        (None, Ok(_)) => Outcome::Applied,
        (None, Err(_)) => Outcome::Unknown,
    }
}

impl<Req, Res, E, Seen> Plain<Req, Res, E, Seen> {
    fn outcome(&self, whole: &WholePlain<Req>, answer: Result<&Res, &E>) -> Outcome {
        match &self.done_when {
            Some(done) if asked("done_when", || done(&whole.lock(), answer)).unwrap_or(false) => {
                Outcome::Applied
            }
            _ => said(self.judge.as_deref(), answer),
        }
    }

    fn name_of(&self, request: &Req) -> Arc<str> {
        let name = self.name.as_ref().and_then(|name| asked("name", || name(request)));
        name.map_or_else(|| type_name::<Req>().into(), Arc::from)
    }

    fn route_of_request(&self, request: &Req) -> Arc<str> {
        let route = self.route.as_ref().and_then(|route| asked("route", || route(request)));
        route.unwrap_or("all").into()
    }

    /// `None`: nobody knows what is to be compared.
    fn seen(&self, answer: &Res) -> Option<Seen> {
        asked("observe", || (self.observe)(answer))
    }
}

impl<Req, Res, E, Seen> Protocol<Req, Res, E> for Plain<Req, Res, E, Seen>
where
    Req: Clone + Send + 'static,
    Res: Send + 'static,
    E: 'static,
    Seen: Send + Sync + 'static,
{
    type Answer = Res;
    type Whole = WholePlain<Req>;
    type Watched = Req;
    type Captured = Option<Seen>;
    type Pending = (Option<Seen>, Room);
    type Ahead = Res;
    type Glance = Option<Arc<Judge<Res, E>>>;

    #[inline]
    fn dispatched(&self, request: &Req) -> Option<Dispatch> {
        self.get_dispatch.as_ref().and_then(|get| get(request))
    }

    #[inline]
    fn classify(&self, request: &Req) -> Class {
        (self.classify)(request).into()
    }

    fn name(&self, request: &Req) -> Arc<str> {
        self.name_of(request)
    }

    fn label(&self, whole: &WholePlain<Req>) -> Arc<str> {
        self.name_of(&whole.lock())
    }

    fn read_keys(&self, watched: &Req) -> Keys {
        self.keys_of(watched)
    }

    fn keys(&self, whole: &WholePlain<Req>) -> Keys {
        self.keys_of(&whole.lock())
    }

    fn late_keys(&self, whole: &WholePlain<Req>, answer: &Res) -> Keys {
        match &self.answer_keys {
            Some(keys) => keys(&whole.lock(), answer),
            None => Keys::none(),
        }
    }

    fn learns(&self, _: &WholePlain<Req>) -> bool {
        self.answer_keys.is_some()
    }

    fn ramp_keys(&self, request: &Req) -> Keys {
        match &self.ramp_by {
            Some(by) => by(request),
            None => self.keys_of(request),
        }
    }

    fn ramp_keys_of(&self, whole: &WholePlain<Req>) -> Option<Keys> {
        self.ramp_by.as_ref().map(|by| by(&whole.lock()))
    }

    async fn collect(&self, mut request: Req, _: Room) -> Result<WholePlain<Req>, Refused> {
        if let Some(prepare) = &self.prepare {
            prepare(&mut request);
        }
        Ok(WholePlain(Mutex::new(request)))
    }

    fn copy(&self, whole: &WholePlain<Req>, dispatch: Dispatch) -> Req {
        let copy = whole.lock().clone();
        self.stamped(copy, dispatch)
    }

    fn follows(&self) -> bool {
        self.follow.is_some()
    }

    fn copy_after(
        &self,
        whole: &WholePlain<Req>,
        dispatch: Dispatch,
        ahead: &mut Res,
        _: usize,
    ) -> impl Future<Output = Result<Req, SkippedLeg>> + Send {
        // Asked here, so that no reference to the answer has to be sent along.
        let built = asked("other_leg", || {
            let copy = whole.lock().clone();
            let request = match &self.follow {
                Some(follow) => follow(copy, ahead)?,
                None => copy,
            };
            Some(self.stamped(request, dispatch))
        });
        std::future::ready(built.flatten().ok_or(SkippedLeg::HookDeclined))
    }

    async fn watch(&self, request: Req, dispatch: Dispatch, _: Room) -> (Req, Req) {
        let copy = request.clone();
        (self.stamped(request, dispatch), copy)
    }

    async fn watched(&self, watched: Req) -> Result<WholePlain<Req>, CaptureError> {
        Ok(WholePlain(Mutex::new(watched)))
    }

    fn watched_now(&self, watched: Req) -> Option<WholePlain<Req>> {
        Some(WholePlain(Mutex::new(watched)))
    }

    #[inline]
    fn glancing(&self) -> Option<Arc<Judge<Res, E>>> {
        self.judge.clone()
    }

    #[inline]
    fn glance(judge: &Option<Arc<Judge<Res, E>>>, answer: Result<&Res, &E>) -> Option<Outcome> {
        Some(said(judge.as_deref(), answer))
    }

    fn judge(&self, whole: &WholePlain<Req>, answer: &Res) -> Said {
        Said::Now(self.outcome(whole, Ok(answer)), 0)
    }

    fn judge_error(&self, whole: &WholePlain<Req>, error: &E) -> Outcome {
        self.outcome(whole, Err(error))
    }

    fn comparable(&self, answer: &Res) -> Result<(), SkipReason> {
        match said(self.judge.as_deref(), Ok(answer)) {
            Outcome::Applied => Ok(()),
            Outcome::Unknown => Err(SkipReason::AuthorityFailed),
            _ => Err(SkipReason::AuthorityRefused),
        }
    }

    #[inline]
    fn pass(answer: Res, mark: Option<Mark>) -> Res {
        if let Some(mark) = mark {
            mark.ended(None);
        }
        answer
    }

    fn ahead(answer: Res) -> Res {
        answer
    }

    fn keep(&self, _: &WholePlain<Req>, ahead: Res, ending: Ending) -> Res {
        ending.well();
        ahead
    }

    fn tee(&self, _: &Req, answer: Res, mark: Mark, room: Room) -> (Res, Self::Pending) {
        let seen = self.seen(&answer);
        mark.ended(None);
        (answer, (seen, room))
    }

    async fn pending(pending: Self::Pending) -> Result<(Option<Seen>, Room), CaptureError> {
        Ok(pending)
    }

    fn capture(
        &self,
        _: &WholePlain<Req>,
        answer: Res,
        room: Room,
    ) -> impl Future<Output = Result<(Option<Seen>, Room), CaptureError>> + Send {
        std::future::ready(Ok((self.seen(&answer), room)))
    }

    fn drain(
        &self,
        _: &WholePlain<Req>,
        answer: Res,
    ) -> impl Future<Output = Result<Drained, CaptureError>> + Send {
        drop(answer);
        std::future::ready(Ok(Drained::default()))
    }

    fn route(&self, whole: &WholePlain<Req>) -> Arc<str> {
        self.route_of_request(&whole.lock())
    }

    fn route_of(&self, watched: &Req) -> Arc<str> {
        self.route_of_request(watched)
    }

    fn compare(
        &self,
        _: &WholePlain<Req>,
        authority: &Option<Seen>,
        other: &Option<Seen>,
        _: Context,
    ) -> Diff {
        match (authority, other) {
            (Some(authority), Some(other)) => (self.compare)(authority, other),
            // Neither side is to blame for a closure that panicked, so it counts
            // as the comparer. The panic hook has seen it already.
            _ => resume_unwind(Box::new("what is to be compared could not be observed")),
        }
    }

    fn refuse(&self, reason: Refused) -> Result<Res, E> {
        Err((self.refuse)(reason))
    }
}
