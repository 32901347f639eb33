//! What a step waits for, and who makes it give way.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::OwnedRwLockWriteGuard,
    time::{Instant, timeout_at},
};

use crate::flag::{Core, Kind, OldestWrite, Reason, later};

/// While it is there, no copy to the authority runs.
pub(super) type NoCopies = OwnedRwLockWriteGuard<()>;

impl Core {
    pub(crate) fn is_settled(&self) -> bool {
        let slot = self.word().settling_slot();
        self.ledger.earlier_writes(slot) == 0 && !self.ledger.is_lingering(slot)
    }

    /// Waits for the writes of earlier epochs, at most `limit`, or until the
    /// step has lost its turn.
    pub(super) async fn wait_settled(
        &self,
        limit: Duration,
        lost: impl Future<Output = ()>,
    ) -> Result<(), Reason> {
        let began = Instant::now();
        let settled = self.ledger.settled(|| self.word().settling_slot());
        match timeout_at(later(limit), first_of(settled, lost)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(Reason::Overtaken),
            Err(_) => Err(self.not_settled(began.elapsed())),
        }
    }

    /// What keeps the stage from being settled.
    pub(in crate::flag) fn not_settled(&self, waited: Duration) -> Reason {
        let (writes, oldest) = self.earlier_writes();
        Reason::NotSettled { writes, waited, oldest }
    }

    /// How many writes of earlier epochs run, and the oldest.
    pub(in crate::flag) fn earlier_writes(&self) -> (u64, Option<OldestWrite>) {
        let slot = self.word().settling_slot();
        let writes = self.ledger.earlier_writes(slot);
        // It may have ended in between.
        (writes, self.ledger.oldest_write(slot).filter(|_| writes > 0))
    }

    /// Waits until no copy to the authority is left, and lets no new one in.
    pub(super) async fn shut_out_copies(
        &self,
        lost: impl Future<Output = ()>,
    ) -> Result<NoCopies, Reason> {
        let began = Instant::now();
        let ended = Arc::clone(&self.copies).write_owned();
        match timeout_at(later(self.options.step_deadline), first_of(ended, lost)).await {
            Ok(Ok(none)) => Ok(none),
            Ok(Err(())) => Err(Reason::Overtaken),
            Err(_) => {
                let target = self.word().stage().authority();
                let writes = self.ledger.in_flight(Kind::other_write(target));
                let oldest = self.ledger.oldest_write(usize::MAX);
                Err(Reason::NotSettled { writes, waited: began.elapsed(), oldest })
            }
        }
    }

    pub(super) async fn is_overtaken(&self) {
        loop {
            let mut overtaken = pin!(self.overtaken.notified());
            overtaken.as_mut().enable();
            if self.overtaking.load(Ordering::SeqCst) > 0 {
                return;
            }
            overtaken.await;
        }
    }
}

/// Which of the two comes first; the first one wins a tie.
pub(super) async fn first_of<T>(
    first: impl Future<Output = T>,
    second: impl Future<Output = ()>,
) -> Result<T, ()> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(first) => Poll::Ready(Ok(first)),
        Poll::Pending => second.as_mut().poll(cx).map(Err),
    })
    .await
}
