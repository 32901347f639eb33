//! A write in a two-sided stage: its body, its keys, its places.

use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::{
    Ready, Settings,
    both_legs::Write,
    closing::Grace,
    guard::{Detached, IfDropped, guarded},
    inner::Inner,
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
pub(crate) async fn dual_write<P, Old, New, Req>(
    settings: Arc<Settings<P>>,
    mut admission: Admission,
    old: Ready<Old>,
    new: Ready<New>,
    request: Req,
) -> Result<P::Answer, Old::Error>
where
    P: Protocol<Req, Old::Response, Old::Error>,
    Old: Inner<Req>,
    New: Inner<Req> + Service<Req, Response = Old::Response, Error = Old::Error>,
    Req: Send + 'static,
{
    let core = &settings.core;
    let label = settings.protocol.name(&request);
    let grace = settings.protocol.closes(&request).map(Grace::new);
    admission.list(&label, Instant::now());
    let limits = &settings.limits;
    let policy = settings.policy_under(admission.word).effective(admission.word.raises(), false);
    let room = Room::new(limits.body, Arc::clone(&core.buffered).lease(limits.buffered_bytes))
        .streaming(settings.order.starts_other(None), policy.awaits_other());
    let collecting = settings.protocol.collect(request, room);
    let collected = timeout(limits.body_timeout, collecting).await;
    let whole = match collected.unwrap_or(Err(Refused::BodyTimeout)) {
        Ok(whole) => whole,
        Err(reason) => return settings.refuse_unseen(reason, admission),
    };
    let keys = settings.protocol.keys(&whole);
    let word = admission.word;
    let covered = || {
        let covered = || {
            let by = settings.protocol.ramp_keys_of(&whole);
            by.as_ref().unwrap_or(&keys).covered_by(word.share(), core.seed())
        };
        guarded(covered).unwrap_or(false)
    };
    let admission = match stage_in_force(word.stage(), word.share(), covered) {
        stage if stage == admission.stage => admission,
        _ => admission.turned(),
    };
    match admission.stage.authority() {
        Side::Old => two_legs(settings, admission, old, new, (whole, label, keys, grace)).await,
        Side::New => two_legs(settings, admission, new, old, (whole, label, keys, grace)).await,
    }
}

/// Runs both legs of a write that is here as a whole.
async fn two_legs<P, A, O, Req>(
    settings: Arc<Settings<P>>,
    admission: Admission,
    authority: Ready<A>,
    other: Ready<O>,
    (whole, label, keys, grace): (P::Whole, Arc<str>, Keys, Option<Grace>),
) -> Result<P::Answer, A::Error>
where
    P: Protocol<Req, A::Response, A::Error>,
    A: Inner<Req>,
    O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
    Req: Send + 'static,
{
    let core = &settings.core;
    let Admission { word, stage, .. } = admission;
    let side = stage.authority();
    // A ramp began with new synced, and keeps the sides equal.
    let synced = word.ramps() || core.is_synced(side.other());
    let permit = Arc::clone(&settings.legs).try_acquire_owned().ok();
    let places = core.order.take(&keys, side, settings.limits.key_queue);
    let age = places.authority.id();
    let unsure = !keys.is_empty() && settings.protocol.learns(&whole);
    let unsure = unsure.then(|| core.order.unsure());
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
    let nameless = || keys.is_empty() || settings.protocol.learns(&whole);
    let Ok(begun) = core.begin(&keys, nameless, side).await else {
        return settings.refuse_unseen(Refused::Journal, admission);
    };

    let Admission { authority: mark, other: other_mark, .. } = admission;
    let other_mark = other_mark.expect("a dual write is admitted with two marks");
    let whole = Arc::new(whole);
    let (record, mine, theirs) = Record::new(Arc::clone(&settings), label, stage, age, keys, begun);
    let write = Write {
        word,
        synced,
        stage,
        grace,
        _unsure: unsure,
        whole: Arc::clone(&whole),
        record: Arc::clone(&record),
        settings: Arc::clone(&settings),
    };
    let other_leg = match room {
        Ok((permit, place)) => Ok(OtherLeg {
            service: other,
            hold: Hold { mark: other_mark, place, _permit: Some(permit) },
            report: theirs,
        }),
        Err(reason) => {
            other_mark.unused();
            settings.protocol.unneeded(&whole, Role::Other);
            theirs.skipped(reason);
            Err(reason)
        }
    };
    let leaves = IfDropped::then(move || settings.protocol.left(&whole));
    let answer =
        Detached::new(write.run(authority, mark, places.authority, mine, other_leg.ok())).await;
    leaves.disarm();
    answer
}

impl<P> Settings<P> {
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
