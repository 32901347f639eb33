//! What a backfill and a verify have in common before they begin, and at their end.

use std::{fmt, sync::Arc};

use futures_core::Stream;
use tokio::{sync::watch, time::sleep};

use super::{LOOK, Progress, Sweep, SweepError};
use crate::{
    BoxError,
    flag::{ConfigError, MigrationHandle, Reason},
    reconcile::{
        Checkpoint, Key, Listing, Uncounted,
        listing::{Source, boxed},
        stopping::{set, unless},
    },
    stage::Side,
};

/// Which keys are visited, and how.
pub(in crate::reconcile) struct Walk {
    pub(in crate::reconcile) handle: MigrationHandle,
    pub(in crate::reconcile) source: Option<Source>,
    pub(in crate::reconcile) sweep: Sweep,
    pub(in crate::reconcile) beside_others: bool,
    pub(in crate::reconcile) progress: watch::Sender<Progress>,
}

impl Walk {
    pub(in crate::reconcile) fn new(handle: &MigrationHandle) -> Self {
        let sweep = Sweep::default();
        let progress = watch::Sender::new(Progress::start(sweep.concurrency));
        Self { handle: handle.clone(), source: None, sweep, beside_others: false, progress }
    }

    pub(in crate::reconcile) fn listing(&mut self, listing: impl Listing) {
        self.source = Some(Source::Pages(Arc::new(listing)));
    }

    pub(in crate::reconcile) fn streams<S, K, E>(
        &mut self,
        streams: impl Fn(Side) -> S + Send + Sync + 'static,
    ) where
        S: Stream<Item = Result<K, E>> + Send + 'static,
        K: Into<Key> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.source = Some(Source::Streams(Arc::new(move |side| boxed(streams(side)))));
    }

    pub(in crate::reconcile) fn sweep(&mut self, sweep: Sweep) {
        self.progress.send_modify(|progress| progress.at_once = sweep.concurrency);
        self.sweep = sweep;
    }

    /// Waits until no write of an earlier epoch is left.
    pub(in crate::reconcile) async fn settled(&self) -> Result<(), SweepError> {
        let closing = set(self.handle.core.closing());
        unless(closing, self.handle.settled()).await.ok_or(SweepError::ShutDown)
    }

    /// Where the keys come from, if everything that was set up can work.
    pub(in crate::reconcile) fn check(&self) -> Result<&Source, ConfigError> {
        self.sweep.check()?;
        let source = self.source()?;
        let what = match source {
            Source::Streams(_) if self.sweep.checkpoints.is_some() => {
                "an order of keys (checkpoints need a listing)"
            }
            Source::Changed(_) if self.sweep.checkpoints.is_none() => {
                "the checkpoint of the run ahead of the flag"
            }
            _ => return Ok(source),
        };
        Err(ConfigError::Missing { what })
    }

    pub(in crate::reconcile) fn source(&self) -> Result<&Source, ConfigError> {
        let what = "where the keys come from (a listing, or streams)";
        self.source.as_ref().ok_or(ConfigError::Missing { what })
    }

    /// Puts on record that a side is synced, or says why not. Waits for other processes to
    /// go, unless the run does not mind them.
    pub(in crate::reconcile) async fn attest(
        &self,
        side: Side,
        span: u64,
    ) -> Result<Option<Uncounted>, SweepError> {
        loop {
            // A write that hangs may keep the flag from settling.
            let closing = set(self.handle.core.closing());
            let attested = unless(closing, self.handle.core.attest(side, span)).await;
            match attested.ok_or(SweepError::ShutDown)? {
                Ok(synced) => return Ok((!synced).then_some(Uncounted::Voided)),
                Err(blocked) => match blocked.reasons() {
                    [Reason::Shared | Reason::Follower] if self.beside_others => {
                        return Ok(Some(Uncounted::Shared));
                    }
                    [Reason::Shared | Reason::Follower] => sleep(LOOK).await,
                    [Reason::ShutDown] => return Err(SweepError::ShutDown),
                    _ => return Err(SweepError::Blocked(blocked)),
                },
            }
        }
    }
}

impl Checkpoint {
    /// Of the same kind of run, and what it has copied is still equal.
    pub(in crate::reconcile) fn is_of(&self, now: &Self) -> bool {
        self.job == now.job
            && self.migration == now.migration
            && self.from == now.from
            && self.span == now.span
    }

    pub(in crate::reconcile) fn is_complete(&self) -> bool {
        self.finished && self.again.is_empty() && self.again_lost == 0
    }

    /// Whether a run that begins now goes on from here.
    pub(in crate::reconcile) fn goes_on(&self, now: &Self) -> bool {
        // One that ran ahead of the flag does not count once both sides are written.
        self.is_of(now) && self.stage == now.stage && !self.is_complete() && self.again_lost == 0
    }
}

impl Source {
    /// A key of this side, if there is any.
    pub(in crate::reconcile) async fn first(&self, side: Side) -> Result<Option<Key>, SweepError> {
        let failed = |says| SweepError::Keys { side: Some(side), says };
        match self {
            Self::Pages(pages) => {
                Ok(pages.page(side, None, 1).await.map_err(failed)?.into_iter().next())
            }
            Self::Streams(streams) => {
                let mut stream = streams(side);
                let first = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await;
                first.transpose().map_err(failed)
            }
            Self::Changed(_) => {
                Err(ConfigError::Missing { what: "a listing of the target" }.into())
            }
        }
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("handle", &self.handle)
            .field("source", &self.source)
            .field("sweep", &self.sweep)
            .field("beside_others", &self.beside_others)
            .finish_non_exhaustive()
    }
}
