//! Requests that are more than one leg.

use std::sync::Arc;

use tower_service::Service;

use super::{Both, FutureOf, Migration};
use crate::{
    dispatch::{Inner, Ready, closable, dual_write, plain, watched_read},
    flag::{Admission, Plan, Word},
    future::ResponseFuture,
    protocol::{Class, Protocol, UpgradeToken},
    stage::{Operation, Side},
};

impl<Old: Clone, New: Clone, P> Migration<Old, New, P> {
    /// Whatever is more than one leg, raced a flip, or has to wait for one.
    #[inline(never)]
    pub(super) fn route<Req>(
        &mut self,
        class: Class,
        sampled: bool,
        mut request: Req,
    ) -> FutureOf<Old, New, P, Req>
    where
        Old: Inner<Req>,
        New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
        P: Protocol<Req, Old::Response, Old::Error>,
        Req: Send + 'static,
    {
        let core = &self.settings.core;
        let operation = match class {
            Class::Write | Class::Unlisted => Operation::Write,
            Class::Read | Class::Aside | Class::Upgrade => Operation::Read,
        };
        let admitted = core.admit(operation, |word| match class {
            Class::Write | Class::Unlisted => Plan::write(word.stage()),
            Class::Read => {
                let stage = self.settings.stage_of_read(word, &request);
                let ramped = word.ramps() && self.settings.samples(stage);
                let other = self.settings.read_fallback.is_some();
                Plan { stage, other, shadow: sampled || ramped }
            }
            Class::Aside | Class::Upgrade => Plan::alone(word.stage()),
        });
        let Ok(admission) = admitted else {
            return self.hold(request);
        };
        let side = admission.stage.authority();
        if class == Class::Upgrade {
            core.counters.upgrade(side);
            let token = UpgradeToken::new(&core.upgraded, side);
            self.settings.protocol.upgrading(&mut request, token);
        }
        if admission.other.is_none() && admission.shadows.is_none() {
            return self.serve(side, request, Some(admission.authority));
        }
        self.release_all_but(side);
        self.dispatch(operation, side, admission, request)
    }

    /// Two legs, or one and a shadow.
    fn dispatch<Req>(
        &mut self,
        operation: Operation,
        side: Side,
        admission: Admission,
        request: Req,
    ) -> FutureOf<Old, New, P, Req>
    where
        Old: Inner<Req>,
        New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
        P: Protocol<Req, Old::Response, Old::Error>,
        Req: Send + 'static,
    {
        let settings = Arc::clone(&self.settings);
        let (old, new) = (self.take_old(), self.take_new());
        let glance = settings.protocol.glancing();
        let future: Both<_, _> = match (operation, side) {
            (Operation::Write, _) => Box::pin(dual_write(settings, admission, old, new, request)),
            (Operation::Read, Side::Old) => {
                Box::pin(watched_read(settings, admission, old, new, request))
            }
            (Operation::Read, Side::New) => {
                Box::pin(watched_read(settings, admission, new, old, request))
            }
        };
        ResponseFuture::both(future, glance)
    }

    /// A write that waits for a flip, and is admitted after it.
    fn hold<Req>(&mut self, request: Req) -> FutureOf<Old, New, P, Req>
    where
        Old: Inner<Req>,
        New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
        P: Protocol<Req, Old::Response, Old::Error>,
        Req: Send + 'static,
    {
        let settings = Arc::clone(&self.settings);
        // What being ready has reserved may be what those need that the flip
        // waits for.
        drop((self.take_old(), self.take_new()));
        let (old, new) = (Ready::clone_of(&self.old), Ready::clone_of(&self.new));
        let glance = settings.protocol.glancing();
        let future = async move {
            let mut admission = loop {
                settings.core.wait_released().await;
                let plan = |word: Word| Plan::write(word.stage());
                if let Ok(admission) = settings.core.admit(Operation::Write, plan) {
                    break admission;
                }
            };
            if admission.other.is_some() {
                return dual_write(settings, admission, old, new, request).await;
            }
            let side = admission.stage.authority();
            if let Some(grace) = settings.protocol.closes(&request) {
                let mark = admission.authority;
                return match side {
                    Side::Old => closable(settings, old, request, mark, grace).await,
                    Side::New => closable(settings, new, request, mark, grace).await,
                };
            }
            settings.name(&request, Some(&mut admission.authority));
            let mark = Some(admission.authority);
            let glance = settings.protocol.glancing();
            match side {
                Side::Old => plain::<P, _, _>(glance, old, request, mark).await,
                Side::New => plain::<P, _, _>(glance, new, request, mark).await,
            }
        };
        ResponseFuture::both(Box::pin(future), glance)
    }
}
