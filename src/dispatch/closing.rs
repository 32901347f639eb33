//! Writes that stream for hours, and keep a step waiting.

use std::{
    future::ready,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tower_service::Service;

use super::{Ready, Settings, both_legs::Write, guard::run_leg, leg::until, other_leg::later_than};
use crate::{
    body::Room,
    flag::{BoxFuture, End, Mark, later},
    future::hand_on,
    protocol::{Closing, Protocol},
    stage::Role,
    telemetry::{LegFault, Refused},
};

/// When a write is broken off that keeps a step waiting: at the same moment for
/// both of its legs.
#[derive(Clone, Debug)]
pub(super) struct Grace {
    length: Duration,
    /// Known once the flag has moved on.
    over: Arc<OnceLock<Instant>>,
}

impl Grace {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, over: Arc::default() }
    }
}

impl<P> Settings<P> {
    /// Resolves a grace period after the flag has moved on from where the write
    /// was admitted.
    pub(super) fn closing(&self, grace: &Grace, mark: &Mark) -> BoxFuture<'static, ()> {
        let (core, slot, grace) = (Arc::clone(&self.core), mark.slot(), grace.clone());
        Box::pin(async move {
            core.superseded(slot).await;
            let over = *grace.over.get_or_init(|| later(grace.length));
            sleep_until(over).await;
        })
    }

    /// Resolves when nobody is to wait for a leg any longer: some time after it
    /// was given its whole request, or after it has stopped asking for more of
    /// it. Else a leg that hangs with half an upload would be in flight for
    /// ever, since nobody reads that its client is gone. `talks`: it may ask
    /// when it likes. Says whether the request was broken off meanwhile.
    pub(super) async fn patience<Req, Res, E>(
        &self,
        whole: &P::Whole,
        role: Role,
        closing: Option<BoxFuture<'static, ()>>,
        talks: impl Fn() -> bool,
    ) -> bool
    where
        P: Protocol<Req, Res, E>,
    {
        let limit = self.limits.leg_timeout;
        let mut wait = pin!(async {
            let mut given = pin!(self.protocol.given(whole, role));
            // Most requests are here already: no clock is asked.
            let mut is_given = until(&mut given, ready(())).await.is_some();
            while !is_given {
                let now = Instant::now();
                let idle = self.protocol.idle(whole, role).filter(|_| !talks());
                let due = later_than(idle.unwrap_or(now), limit);
                if due <= now {
                    return;
                }
                is_given = timeout_at(due, &mut given).await.is_ok();
            }
            sleep(limit).await;
        });
        let Some(closing) = closing else {
            wait.await;
            return false;
        };
        let closed = until(&mut wait, closing).await.is_none();
        if closed {
            self.protocol.close(whole);
        }
        closed
    }

    /// Room for what a leg that runs alone has not read of its request.
    fn breaking(&self) -> Room {
        let lease = Arc::clone(&self.core.buffered).lease(self.limits.buffered_bytes);
        Room::new(self.limits.body, lease)
    }
}

impl<P, Req, Res, E> Write<P, Req, Res, E>
where
    P: Protocol<Req, Res, E>,
{
    /// Resolves when the write is to be broken off.
    pub(super) fn closing(&self, mark: &Mark) -> Option<BoxFuture<'static, ()>> {
        self.grace.as_ref().map(|grace| self.settings().closing(grace, mark))
    }

    /// The write was broken off: the other leg ends with it.
    pub(super) fn closed(&self) {
        self.settings().core.counters.closed_stream();
        self.record.close();
        self.settings().protocol.close(&self.whole);
    }
}

/// A write that runs alone, and is broken off when it keeps a step waiting for
/// longer than `grace`.
pub(crate) async fn closable<P, S, Req>(
    settings: Arc<Settings<P>>,
    mut service: Ready<S>,
    request: Req,
    mut mark: Mark,
    grace: Duration,
) -> Result<P::Answer, S::Error>
where
    P: Protocol<Req, S::Response, S::Error>,
    S: Service<Req>,
{
    let protocol = &settings.protocol;
    let glance = protocol.glancing();
    mark.list(&protocol.name(&request), Instant::now());
    let when = settings.closing(&Grace::new(grace), &mark);
    let (request, break_off) = protocol.breakable(request, settings.breaking());
    let (core, side) = (Arc::clone(&settings.core), mark.side());
    let mut closing = Closing::new(when, move || {
        core.counters.closed_stream();
        core.counters.fault(side, LegFault::Closed);
        if let Some(break_off) = break_off {
            break_off();
        }
    });
    if let Err(error) = service.ready().await {
        mark.ended(P::glance(&glance, Err(&error)));
        return Err(error);
    }
    // Dropped from here on, it may still land.
    mark.set_lingers(true);
    let answer = {
        let mut leg = pin!(run_leg(Some(&mut mark), service.call(request)));
        until(&mut leg, closing.wait()).await
    };
    let Some(answer) = answer else {
        closing.closed();
        settings.core.counters.refused(Refused::StreamClosed);
        mark.set_end(End::Unknown);
        return protocol.refuse(Refused::StreamClosed);
    };
    let answer = hand_on::<P, _, _, _>(&glance, answer, Some(mark))?;
    Ok(protocol.close_when(answer, closing))
}
