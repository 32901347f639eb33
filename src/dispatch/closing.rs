//! Writes that stream for hours, and keep a step waiting.

use std::{future::ready, pin::pin, sync::Arc};

use tokio::time::{Instant, sleep, timeout_at};
use tower_service::Service;

use super::{Ready, Settings, guard::run_leg, leg::until, other_leg::later_than};
use crate::{
    flag::{BoxFuture, End, Mark},
    future::hand_on,
    protocol::Protocol,
    stage::Role,
    telemetry::{LegFault, Refused},
};

impl<P> Settings<P> {
    /// Resolves a grace period after the flag has moved on from where the write
    /// was admitted, if the protocol wants such writes broken off.
    pub(super) fn closing<Req, Res, E>(&self, mark: &Mark) -> Option<BoxFuture<'static, ()>>
    where
        P: Protocol<Req, Res, E>,
    {
        let grace = self.protocol.closes()?;
        let (core, slot) = (Arc::clone(&self.core), mark.slot());
        Some(Box::pin(async move {
            core.superseded(slot).await;
            sleep(grace).await;
        }))
    }

    /// The same for the client's answer: counted.
    pub(super) fn closing_answer<Req, Res, E>(&self, mark: &Mark) -> Option<BoxFuture<'static, ()>>
    where
        P: Protocol<Req, Res, E>,
    {
        let closing = self.closing(mark)?;
        let core = Arc::clone(&self.core);
        Some(Box::pin(async move {
            closing.await;
            core.counters.closed_stream();
        }))
    }

    /// Resolves when nobody is to wait for a leg any longer: some time after it
    /// was given its whole request, or after it has stopped asking for more of
    /// it. Else a leg that hangs with half an upload would be in flight for
    /// ever, since nobody reads that its client is gone. `talks`: it may ask
    /// when it likes.
    pub(super) async fn patience<Req, Res, E>(
        &self,
        whole: &P::Whole,
        role: Role,
        closing: Option<BoxFuture<'static, ()>>,
        talks: impl Fn() -> bool,
    ) where
        P: Protocol<Req, Res, E>,
    {
        let limit = self.limits.leg_timeout;
        let mut given = pin!(self.given_or_closed(whole, role, closing));
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
    }

    /// Waits until a leg has been given its whole request. One that is still
    /// being given to the legs when `closing` resolves is broken off for both.
    async fn given_or_closed<Req, Res, E>(
        &self,
        whole: &P::Whole,
        role: Role,
        closing: Option<BoxFuture<'static, ()>>,
    ) where
        P: Protocol<Req, Res, E>,
    {
        let mut given = pin!(self.protocol.given(whole, role));
        if let Some(mut closing) = closing {
            if until(&mut given, closing.as_mut()).await.is_some() {
                return;
            }
            self.protocol.close(whole);
        }
        given.await;
    }
}

/// A write that runs alone, and is broken off when it keeps a step waiting for
/// longer than the protocol allows.
pub(crate) async fn closable<P, S, Req>(
    settings: Arc<Settings<P>>,
    mut service: Ready<S>,
    request: Req,
    mut mark: Mark,
) -> Result<P::Answer, S::Error>
where
    P: Protocol<Req, S::Response, S::Error>,
    S: Service<Req>,
{
    let protocol = &settings.protocol;
    let glance = protocol.glancing();
    mark.list(&protocol.name(&request), Instant::now());
    let closing = settings.closing_answer(&mark);
    if let Err(error) = service.ready().await {
        mark.ended(P::glance(&glance, Err(&error)));
        return Err(error);
    }
    // Dropped from here on, it may still land.
    mark.set_lingers(true);
    let Some(mut closing) = closing else {
        let answer = run_leg(Some(&mut mark), service.call(request)).await;
        return hand_on::<P, _, _, _>(&glance, answer, Some(mark));
    };
    let answer = {
        let mut leg = pin!(run_leg(Some(&mut mark), service.call(request)));
        until(&mut leg, closing.as_mut()).await
    };
    let Some(answer) = answer else {
        let counters = &settings.core.counters;
        counters.fault(mark.side(), LegFault::Closed);
        counters.refused(Refused::StreamClosed);
        mark.set_end(End::Unknown);
        return protocol.refuse(Refused::StreamClosed);
    };
    let answer = hand_on::<P, _, _, _>(&glance, answer, Some(mark))?;
    Ok(protocol.close_when(answer, closing))
}
