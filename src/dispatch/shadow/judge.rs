//! Reading the other side, comparing, and reading again.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::time::sleep;
use tower_service::Service;

use super::{
    super::{Ready, guard::CatchPanic, inner::Inner},
    Shadow,
    ask::{Kept, Seen, lost},
    progress::Phase,
};
use crate::{
    body::CaptureError,
    compare::{Diff, Difference, FailReason, InconclusiveReason, SkipReason, Verdict},
    protocol::Protocol,
    reconcile::Observation,
    stage::Side,
};

/// What a shadow read has found out.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) verdict: Verdict,
    /// The error's text, for a read that failed with one.
    pub(super) error: Option<String>,
    /// Where the sides differ to the end, whatever is known of noise there.
    pub(super) differs: Vec<Difference>,
    /// Where they do, and the authority contradicted itself.
    pub(super) contradicted: Vec<String>,
}

impl Found {
    pub(super) const fn of(verdict: Verdict) -> Self {
        Self { verdict, error: None, differs: Vec::new(), contradicted: Vec::new() }
    }

    pub(super) fn with_error(self, error: String) -> Self {
        Self { error: Some(error), ..self }
    }
}

pub(super) const fn skipped(reason: SkipReason) -> Found {
    Found::of(Verdict::Skipped(reason))
}

pub(super) const fn failed(reason: FailReason) -> Found {
    Found::of(Verdict::Failed(reason))
}

const fn inconclusive(reason: InconclusiveReason) -> Found {
    Found::of(Verdict::Inconclusive(reason))
}

/// The read as it came, which the client's answer was teed from. Lent to those who
/// read: each part is taken when its turn has come, and is not carried about.
pub(super) struct Teed<W, N> {
    pub(super) request: Option<W>,
    pub(super) answer: Option<N>,
    /// Since before the authority was asked.
    pub(super) raced: Option<Observation>,
}

/// The authority's last answer, for when it is asked once more.
pub(super) struct Last<W, C> {
    pub(super) whole: Arc<W>,
    pub(super) mine: Kept<C>,
    /// Since before that answer.
    pub(super) raced: Observation,
}

impl<W, C> Last<W, C> {
    /// Waits, with nothing in hand but what is needed afterwards.
    async fn rest(&self, pause: &mut Duration) {
        sleep(*pause).await;
        *pause = pause.saturating_mul(2);
    }
}

/// The authority's first answer, and the other side's.
type Firsts<W, C> = (Last<W, C>, Seen<C>);

type LastOf<P, Req, S> = Option<
    Last<
        <P as Protocol<Req, <S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Whole,
        <P as Protocol<Req, <S as Service<Req>>::Response, <S as Service<Req>>::Error>>::Captured,
    >,
>;

impl<P: Send + Sync + 'static> Shadow<P> {
    /// Reads and compares. The second value is there where the authority may be
    /// asked once more.
    pub(super) async fn read<A, O, Req>(
        &self,
        authority: &mut Ready<A>,
        other: Ready<O>,
        teed: &mut Teed<P::Watched, P::Pending>,
        asked: &mut Option<Arc<P::Whole>>,
    ) -> (Found, LastOf<P, Req, A>)
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        let mut other_again = other.again();
        let (mut last, theirs) = match self.first(other, teed, asked).await {
            Ok(read) => read,
            Err(found) => return (found, None),
        };
        let found = self.judge(authority, &mut other_again, &mut last, theirs).await;
        (found, Some(last))
    }

    /// Compares the first answers, and reads again if they differ.
    async fn judge<A, O, Req>(
        &self,
        authority: &mut Ready<A>,
        other: &mut Ready<O>,
        last: &mut Last<P::Whole, P::Captured>,
        theirs: Seen<P::Captured>,
    ) -> Found
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        // Until it is known that they do not: what ends in between is unresolved.
        self.progress.set_differed(true);
        match self.compare(&last.whole, &last.mine, &theirs).await {
            Ok(diff) if diff.differences().is_empty() => {
                self.progress.set_differed(!diff.is_empty());
                Found::of(diff.why_unclear().map_or(Verdict::Match, Verdict::from))
            }
            Ok(_) if last.raced.raced() => inconclusive(InconclusiveReason::Raced),
            // Read again it would be asked twice more, and the authority too, to no end.
            Ok(diff) if self.progress.is_down() => self.confirmed(diff, Vec::new()),
            Ok(diff) => {
                drop(theirs);
                // Boxed: it is rare, and each shadow has room for what it may do.
                Box::pin(self.again(authority, other, last, diff)).await
            }
            Err(found) => found,
        }
    }

    /// Both sides' first answers.
    fn first<O, Req>(
        &self,
        other: Ready<O>,
        teed: &mut Teed<P::Watched, P::Pending>,
        asked: &mut Option<Arc<P::Whole>>,
    ) -> impl Future<Output = Result<Firsts<P::Whole, P::Captured>, Found>> + Send
    where
        P: Protocol<Req, O::Response, O::Error>,
        O: Inner<Req>,
        Req: Send + 'static,
    {
        async move {
            let protocol = &self.settings.protocol;
            let core = &self.settings.core;
            let other_side = self.stage.authority().other();
            self.progress.enter(Phase::Request);
            let request = protocol.watched(teed.request.take().expect("it is read once"));
            let whole = match request.await {
                Ok(whole) => Arc::new(whole),
                Err(CaptureError::TooLarge) => return Err(skipped(SkipReason::RequestTooLarge)),
                Err(CaptureError::Gone) => return Err(skipped(SkipReason::RequestUnread)),
                Err(error) => return Err(skipped(lost(error))),
            };
            *asked = Some(Arc::clone(&whole));

            let answer = teed.answer.take().expect("it is read once");
            let mut mine = pin!(P::pending(answer));
            let mut mine_is = None;
            // A block: only its answer is carried on.
            let theirs = {
                let mut theirs = pin!(self.ask(other, other_side, &whole));
                let theirs = poll_fn(|cx| {
                    let theirs = theirs.as_mut().poll(cx);
                    // After the other side: what broke on both sides breaks at once.
                    if mine_is.is_none()
                        && let Poll::Ready(captured) = mine.as_mut().poll(cx)
                    {
                        self.progress.mine.store(captured.is_ok(), Ordering::Relaxed);
                        mine_is = Some(captured);
                    }
                    match (theirs, &mine_is) {
                        // A body that broke off on both sides is not the other's fault.
                        (Poll::Ready(Err(found)), Some(Err(error)))
                            if found.verdict == Verdict::Failed(FailReason::BodyFailed) =>
                        {
                            Poll::Ready(Err(skipped(lost(*error))))
                        }
                        // There is nothing to compare with. The other side's head is
                        // here, and its body may be as endless as the authority's.
                        (Poll::Pending, Some(Err(error))) if self.progress.is(Phase::Body) => {
                            Poll::Ready(Err(skipped(lost(*error))))
                        }
                        (theirs, _) => theirs,
                    }
                });
                theirs.await
            };
            self.progress.enter(Phase::Answer);
            let theirs = theirs?;
            let mine = match mine_is {
                Some(mine) => mine,
                None => mine.await,
            };
            let (mine, room) = mine.map_err(|error| skipped(lost(error)))?;
            core.counters.captured(room.taken());
            protocol.comparable_whole(&mine).map_err(skipped)?;
            // Only now: what was dirty or unsynced while the sides were read.
            self.comparable_sides(other_side)?;
            let raced = teed.raced.take().expect("it is read once");
            Ok((Last { whole, mine: Arc::new((mine, room)), raced }, theirs))
        }
    }

    /// Whether the two sides should be equal, as far as the flag knows.
    fn comparable_sides(&self, other: Side) -> Result<(), Found> {
        let core = &self.settings.core;
        if !core.is_synced(other) {
            return Err(skipped(SkipReason::Unsynced));
        }
        if core.touches_dirty(&self.keys) {
            return Err(skipped(SkipReason::Dirty));
        }
        Ok(())
    }

    /// Reads both sides again, until they agree or there is no doubt. What stays is
    /// what differed each time, where the authority agreed with itself.
    async fn again<A, O, Req>(
        &self,
        authority: &mut Ready<A>,
        other: &mut Ready<O>,
        last: &mut Last<P::Whole, P::Captured>,
        mut diff: Diff,
    ) -> Found
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        let mut pause = self.settings.limits.reread_pause;
        let mut contradicted: Vec<String> = Vec::new();
        for _ in 0..self.settings.limits.rereads {
            self.progress.enter(Phase::Again);
            last.rest(&mut pause).await;
            self.progress.rereads.fetch_add(1, Ordering::Relaxed);
            let again = match self.once_more(authority, other, last).await {
                Ok(again) => again,
                Err(found) => return found,
            };
            contradicted.extend(again.contradicted);
            // Where not all places are listed, nothing is known of those that are not.
            let cut = is_cut(&diff) || is_cut(&again.diff);
            let still = |place: &String| {
                again.diff.differences().iter().any(|now| now.place == *place)
                    && !contradicted.contains(place)
            };
            if again.diff.is_empty() {
                return inconclusive(InconclusiveReason::Transient);
            }
            if let (true, Some(unclear)) =
                (again.diff.differences().is_empty(), again.diff.why_unclear())
            {
                return Found::of(unclear.into());
            }
            if again.raced {
                return inconclusive(InconclusiveReason::Raced);
            }
            if let Err(found) = self.comparable_sides(self.stage.authority().other()) {
                return found;
            }
            let listed = diff.differences().iter().filter(|found| !found.is_further());
            let places: Vec<_> = listed.map(|found| found.place.clone()).collect();
            let stays: Vec<_> = places.iter().filter(|place| still(place)).cloned().collect();
            if stays.is_empty() && cut {
                return inconclusive(InconclusiveReason::Unlisted);
            }
            if stays.is_empty() {
                // Each place has healed, or is noise.
                contradicted.retain(|place| places.contains(place));
                let noise = !contradicted.is_empty();
                let reason = match noise {
                    true => InconclusiveReason::Noise,
                    false => InconclusiveReason::Transient,
                };
                return Found { contradicted, ..inconclusive(reason) };
            }
            diff = again.diff.only(|difference| stays.contains(&difference.place));
            if cut {
                diff = diff.and(Diff::further());
            }
        }
        self.confirmed(diff, contradicted)
    }

    /// What differs for certain, but for what is known to be noise.
    fn confirmed(&self, diff: Diff, mut contradicted: Vec<String>) -> Found {
        contradicted.sort();
        contradicted.dedup();
        let differs = diff.differences().to_vec();
        let noise = self.settings.core.report.known_noise(&self.route, &differs);
        let diff = diff.only(|difference| !noise.contains(&difference.place));
        let verdict = match diff.differences() {
            [] => Verdict::Inconclusive(InconclusiveReason::Noise),
            [further] if further.is_further() => {
                Verdict::Inconclusive(InconclusiveReason::Unlisted)
            }
            _ => Verdict::Mismatch(diff),
        };
        Found { verdict, error: None, differs, contradicted }
    }

    /// Both sides' next answers.
    async fn once_more<A, O, Req>(
        &self,
        authority: &mut Ready<A>,
        other: &mut Ready<O>,
        last: &mut Last<P::Whole, P::Captured>,
    ) -> Result<Again, Found>
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        O: Inner<Req> + Service<Req, Response = A::Response, Error = A::Error>,
        Req: Send + 'static,
    {
        let side = self.stage.authority();
        let raced = self.settings.core.order.observe(&self.keys);
        let mine = self.ask_authority(authority, &last.whole).await?;
        let theirs = self.ask(other.again(), side.other(), &last.whole).await?;
        let diff = self.compare(&last.whole, &mine, &theirs).await?;
        let contradicted = self.compare_itself(&last.whole, &last.mine, &mine).await?;
        let places = contradicted.differences().iter().filter(|found| !found.is_further());
        let contradicted = places.map(|found| found.place.clone()).collect();
        // Since the answer before, the pause included: what a write has changed in it
        // is no contradiction, and noise that was not told from it is no difference.
        let was_raced = last.raced.raced();
        (last.mine, last.raced) = (mine, raced);
        Ok(Again { diff, raced: was_raced, contradicted })
    }

    /// The authority's answer, once more.
    pub(super) async fn ask_authority<A, Req>(
        &self,
        authority: &mut Ready<A>,
        whole: &P::Whole,
    ) -> Result<Kept<P::Captured>, Found>
    where
        P: Protocol<Req, A::Response, A::Error>,
        A: Inner<Req>,
        Req: Send + 'static,
    {
        // A panic of the authority says nothing about the other side.
        let asked = self.ask(authority.again(), self.stage.authority(), whole);
        match CatchPanic::new(asked).await {
            Ok(Ok(Seen::Answer(mine))) => {
                self.settings.protocol.comparable_whole(&mine.0).map_err(skipped)?;
                Ok(mine)
            }
            Ok(Ok(Seen::Refusal(_))) => Err(skipped(SkipReason::AuthorityRefused)),
            // What it said is gone; that it did not answer is not.
            Ok(Err(found)) if matches!(found.verdict, Verdict::Skipped(_)) => Err(found),
            Ok(Err(_)) | Err(_) => Err(skipped(SkipReason::AuthorityFailed)),
        }
    }
}

/// Whether there are more places than are listed.
fn is_cut(diff: &Diff) -> bool {
    diff.differences().iter().any(Difference::is_further)
}

/// What reading again has shown.
struct Again {
    diff: Diff,
    raced: bool,
    /// Where the authority contradicted itself.
    contradicted: Vec<String>,
}
