//! Reads of the two-sided stages that are more than handed on, and requests
//! whose side was not polled ready.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::{
    Ready, Settings,
    call::Call,
    guard::{CatchPanic, Panicked, guarded, run_leg},
    inner::Inner,
    shadow::{self, Skipped, Start},
};
use crate::{
    body::Room,
    compare::SkipReason,
    flag::{Admission, End, Mark},
    future::hand_on,
    protocol::{Dispatch, Protocol},
    reconcile::{Keys, Observation},
    stage::{Outcome, Role, Side, Stage},
    telemetry::Refused,
};

/// One leg, on a side that was not polled ready: the flag flipped between
/// `poll_ready` and `call`, the request is a held write whose stage turned out
/// to be one-sided, or another layer has decided already.
pub(crate) fn plain<P, S, Req>(
    glance: P::Glance,
    mut service: Ready<S>,
    request: Req,
    mut mark: Option<Mark>,
) -> impl Future<Output = Result<P::Answer, S::Error>>
where
    P: Protocol<Req, S::Response, S::Error>,
    S: Service<Req>,
{
    async move {
        let answer = match service.ready().await {
            Err(error) => Err(error),
            Ok(()) => {
                if let Some(mark) = &mut mark {
                    // Dropped from here on, a write may still land.
                    mark.set_lingers(true);
                }
                run_leg(mark.as_mut(), service.call(request)).await
            }
        };
        hand_on::<P, _, _, _>(&glance, answer, mark)
    }
}

/// A read that may be shadowed, and that the other side may answer if the
/// authority fails.
///
/// No `async fn`: that would hold its arguments twice.
pub(crate) fn watched_read<P, A, O, Req>(
    settings: Arc<Settings<P>>,
    admission: Admission,
    authority: Ready<A>,
    other: Ready<O>,
    request: Req,
) -> impl Future<Output = Result<P::Answer, A::Error>> + Send
where
    P: Protocol<Req, A::Response, A::Error>,
    A: Inner<Req>,
    O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
    Req: Send + 'static,
{
    async move {
        let core = &settings.core;
        let Admission { stage, authority: mut mark, other: cover, shadows, .. } = admission;
        let side = stage.authority();
        let protocol = &settings.protocol;
        let dispatch = Dispatch { stage, side, role: Role::Authority, migration: core.id() };
        let (request, watched) = protocol.watch(request, dispatch, settings.capturing()).await;
        // A key function that panics must not fail a read that did not need it.
        let keys = guarded(|| protocol.read_keys(&watched)).unwrap_or_else(Keys::none);
        let raced = core.order.observe(&keys);

        // What comes of this read is not counted once the count has begun anew.
        let generation = core.report.generation();
        let again = authority.again();
        let began = Instant::now();
        let first = Call::new(authority, request);
        let cover = match cover {
            Some(mark) if !protocol.covers(&watched) => {
                mark.unused();
                None
            }
            cover => cover.zip(settings.read_fallback),
        };
        let first = match &cover {
            // Without a fallback the layer adds no limit and catches no panic.
            None => Ok(run_leg(Some(&mut mark), first).await),
            // Boxed: few layers cover for the authority.
            Some((_, limit)) => match Box::pin(timeout(*limit, CatchPanic::new(first))).await {
                Ok(Ok(first)) => Ok(first),
                Ok(Err(Panicked)) => Err(Refused::AuthorityPanicked),
                Err(_) => Err(Refused::AuthorityTimeout),
            },
        };
        let headed = Instant::now();
        let took = headed - began;
        mark.record(took);

        let glance = protocol.glancing();
        let has_failed = match &first {
            Ok(answer) => P::glance(&glance, answer.as_ref()) == Some(Outcome::Unknown),
            Err(_) => true,
        };
        let answer = match first {
            Ok(Ok(answer)) if !has_failed => answer,
            failed => {
                mark.set_end(End::Unknown);
                if let Some(marks) = shadows {
                    marks.into_iter().for_each(Mark::unused);
                    let route = settings.route_of(&watched);
                    let reason = match has_failed {
                        true => SkipReason::AuthorityFailed,
                        false => SkipReason::AuthorityRefused,
                    };
                    let skipped = Skipped { route: &route, stage, generation, reason };
                    settings.skipped(skipped, keys.clone());
                }
                // An error may be an answer: "no such row".
                let cover = match cover {
                    Some((cover, _)) if !has_failed => {
                        cover.unused();
                        None
                    }
                    cover => cover,
                };
                if let Some((cover, limit)) = cover {
                    let read = Covered { stage, keys, raced, limit };
                    // Boxed: most reads are not covered for.
                    let answer = Box::pin(read.ask(&settings, other, watched, cover)).await;
                    if let Some(answer) = answer {
                        return Ok(answer);
                    }
                }
                return match failed {
                    Ok(failed) => hand_on::<P, _, _, _>(&glance, failed, Some(mark)),
                    Err(reason) => {
                        core.counters.refused(reason);
                        protocol.refuse(reason)
                    }
                };
            }
        };
        cover.into_iter().for_each(|(mark, _)| mark.unused());
        mark.set_end(P::glance(&glance, Ok(&answer)).map_or(End::Dropped, End::from));
        let Some(marks) = shadows else {
            return Ok(P::pass(answer, Some(mark)));
        };
        let slot = protocol.comparable(&answer).and_then(|()| {
            Arc::clone(&settings.shadows).try_acquire_owned().map_err(|_| SkipReason::NoSlot)
        });
        let slot = match slot {
            Ok(slot) => slot,
            Err(reason) => {
                marks.into_iter().for_each(Mark::unused);
                let route = settings.route_of(&watched);
                settings.skipped(Skipped { route: &route, stage, generation, reason }, keys);
                return Ok(P::pass(answer, Some(mark)));
            }
        };
        let (answer, pending) = protocol.tee(&watched, answer, mark, settings.capturing());
        let start = Start {
            stage,
            generation,
            keys,
            authority: again,
            other,
            request: watched,
            answer: pending,
            headed,
            authority_took: took,
            raced,
            marks,
            slot,
        };
        shadow::start(settings, start);
        Ok(answer)
    }
}

/// A read that the authority has failed.
struct Covered {
    stage: Stage,
    keys: Keys,
    raced: Observation,
    limit: Duration,
}

impl Covered {
    /// The other side's answer, if its data is known to be good.
    async fn ask<P, O, Req>(
        self,
        settings: &Settings<P>,
        other: Ready<O>,
        watched: P::Watched,
        mut mark: Mark,
    ) -> Option<P::Answer>
    where
        P: Protocol<Req, O::Response, O::Error>,
        O: Service<Req>,
    {
        let core = &settings.core;
        let side: Side = self.stage.authority().other();
        let safe =
            || core.is_synced(side) && !core.touches_dirty(&self.keys) && !self.raced.raced();
        let whole = settings.protocol.watched_now(watched).filter(|_| safe());
        let Some(whole) = whole else {
            mark.unused();
            return None;
        };
        let dispatch =
            Dispatch { stage: self.stage, side, role: Role::Authority, migration: core.id() };
        let request = settings.protocol.copy(&whole, dispatch);
        let call = CatchPanic::new(Call::new(other, request));
        let answer = match timeout(self.limit, call).await {
            // A write of the key may have begun meanwhile.
            Ok(Ok(Ok(answer))) if settings.protocol.comparable(&answer).is_ok() && safe() => {
                Some(answer)
            }
            _ => None,
        };
        mark.set_end(if answer.is_some() { End::Applied } else { End::Unknown });
        let mut answer = answer?;
        core.counters.fallback(side);
        tracing::warn!(
            target: "tower_migration",
            migration = %core.name(),
            request = %settings.protocol.label(&whole),
            "the authority failed a read, the other side answered it"
        );
        settings.protocol.fell_back(&mut answer, side);
        Some(P::pass(answer, Some(mark)))
    }
}

impl<P> Settings<P> {
    /// Room for one body that is kept for comparing.
    pub(super) fn capturing(&self) -> Room {
        let lease = Arc::clone(&self.core.captured).lease(self.limits.captured_bytes);
        Room::new(self.limits.captured_body, lease)
    }
}
