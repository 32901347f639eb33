//! A write in a two-sided stage: its body, its keys, its places.

use std::sync::Arc;

use tokio::{runtime, time::Instant};
use tower_service::Service;

use super::{
    Ready, Settings,
    both_legs::Write,
    closing::Grace,
    guard::{Detached, IfDropped, guarded},
    inner::Inner,
    leg::within,
    other_leg::{Hold, OtherLeg},
    record::Record,
};
use crate::{
    body::Room,
    flag::{Admission, Mark, Word},
    protocol::Protocol,
    reconcile::Keys,
    stage::{FailurePolicy, Role, Side, stage_in_force},
    telemetry::{Refused, SkippedLeg},
};

/// Collects the request, takes the places of both legs, and runs them. From
/// the first leg's start on, dropping this future stops nothing.
///
/// No `async fn`: that would hold its arguments twice.
pub(crate) fn dual_write<P, Old, New, Req>(
    settings: Arc<Settings<P>>,
    mut admission: Admission,
    old: Ready<Old>,
    new: Ready<New>,
    request: Req,
) -> impl Future<Output = Result<P::Answer, Old::Error>> + Send
where
    P: Protocol<Req, Old::Response, Old::Error>,
    Old: Inner<Req>,
    New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
    Req: Send + 'static,
{
    async move {
        let (core, protocol) = (&settings.core, &settings.protocol);
        // Panics without one, before anything has been begun that would be in doubt then.
        drop(runtime::Handle::current());
        let label = protocol.name(&request);
        let grace = protocol.closes(&request).map(Grace::new);
        admission.list(&label, Instant::now());
        let whole = {
            let collecting = protocol.collect(request, settings.buffering(&admission));
            match within(settings.limits.body_timeout, collecting).await {
                // The legs share it.
                Some(Ok(whole)) => Arc::new(whole),
                Some(Err(reason)) => return settings.refuse_unseen(reason, admission),
                None => return settings.refuse_unseen(Refused::BodyTimeout, admission),
            }
        };
        // A block: what it takes to begin is not carried on.
        let running = {
            let keys = protocol.keys(&whole);
            let admission = settings.turned_if_covered(admission, &whole, &keys);
            let Admission { word, stage, .. } = admission;
            let side = stage.authority();
            // A ramp began with new synced, and keeps the sides equal.
            let synced = word.ramps() || core.is_synced(side.other());
            let permit = Arc::clone(&settings.legs).try_acquire_owned().ok();
            let places = core.order.take(&keys, side, settings.limits.key_queue);
            let age = places.authority.id();
            let learns = protocol.learns(&whole);
            let unsure = (learns && !keys.is_empty()).then(|| core.order.unsure());
            let room = match (permit, places.other) {
                (None, _) => Err(SkippedLeg::RunningLegs),
                (Some(_), None) => Err(SkippedLeg::KeyQueue),
                (Some(permit), Some(place)) => Ok((permit, place)),
            };
            // Refused before either side has seen it, rather than split for certain.
            let policy = settings.policy_under(word);
            if room.is_err() && policy == FailurePolicy::RequireBoth && synced {
                return settings.refuse_unseen(Refused::Overloaded, admission);
            }
            let begun = if core.notes_writes() {
                let nameless = || keys.is_empty() || learns;
                // Boxed: a write that is not noted needs no room for it.
                match Box::pin(core.begin(&keys, nameless, side)).await {
                    Ok(begun) => begun,
                    Err(()) => return settings.refuse_unseen(Refused::Journal, admission),
                }
            } else {
                None
            };

            let Admission { authority: mark, other: other_mark, .. } = admission;
            let other_mark = other_mark.expect("a dual write is admitted with two marks");
            let (record, mine, theirs) =
                Record::new(Arc::clone(&settings), label, stage, age, keys, begun);
            let write = Write {
                word,
                synced,
                stage,
                grace,
                _unsure: unsure,
                whole: Arc::clone(&whole),
                record,
            };
            let hold = Hold { mark, place: places.authority, _permit: None };
            let theirs = match room {
                Ok((permit, place)) => {
                    Some((Hold { mark: other_mark, place, _permit: Some(permit) }, theirs))
                }
                Err(reason) => {
                    other_mark.unused();
                    protocol.unneeded(&whole, Role::Other);
                    theirs.skipped(reason);
                    None
                }
            };
            match side {
                Side::Old => {
                    let running = write.run(old, hold, mine, OtherLeg::of(new, theirs));
                    Detached::polled_at_once(running)
                }
                Side::New => {
                    let running = write.run(new, hold, mine, OtherLeg::of(old, theirs));
                    Detached::polled_at_once(running)
                }
            }
        };
        let leaves = IfDropped::then(|| protocol.left(&whole));
        let answer = running.await;
        leaves.disarm();
        answer
    }
}

impl<P> Settings<P> {
    /// Room for a write's request.
    fn buffering(&self, admission: &Admission) -> Room {
        let policy = self.policy_under(admission.word).effective(admission.word.raises(), false);
        let lease = Arc::clone(&self.core.buffered).lease(self.limits.buffered_bytes);
        Room::new(self.limits.body, lease)
            .streaming(self.order.starts_other(None), policy.awaits_other())
    }

    /// The same admission, or the one that the write's keys want in a ramp.
    fn turned_if_covered<Req, Res, E>(
        &self,
        admission: Admission,
        whole: &P::Whole,
        keys: &Keys,
    ) -> Admission
    where
        P: Protocol<Req, Res, E>,
    {
        let word = admission.word;
        let covered = || {
            let covered = || {
                let by = self.protocol.ramp_keys_of(whole);
                by.as_ref().unwrap_or(keys).covered_by(word.share(), self.core.seed())
            };
            guarded(covered).unwrap_or(false)
        };
        match stage_in_force(word.stage(), word.share(), covered) {
            stage if stage == admission.stage => admission,
            _ => admission.turned(),
        }
    }

    /// Answers a write that neither side has seen.
    fn refuse_unseen<Req, Res, E>(
        &self,
        reason: Refused,
        admission: Admission,
    ) -> Result<P::Answer, E>
    where
        P: Protocol<Req, Res, E>,
    {
        self.core.counters.refused(reason);
        admission.authority.unused();
        admission.other.into_iter().for_each(Mark::unused);
        self.protocol.refuse(reason)
    }

    /// The policy of a write that was admitted under `word`: while a ramp lasts,
    /// reads of some keys go to the other side, so nothing is acknowledged that
    /// is not on both.
    pub(super) const fn policy_under(&self, word: Word) -> FailurePolicy {
        if word.ramps() { FailurePolicy::RequireBoth } else { self.policy }
    }
}
