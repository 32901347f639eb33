//! What hangs on the end of the authority's answer to a dual write.

use std::{
    fmt,
    future::{pending, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{runtime, time::timeout};

use super::CaptureError;
use crate::{
    flag::{BoxFuture, Mark},
    protocol::Drained,
    stage::Outcome,
    telemetry::{LegFault, Refused},
};

/// Told how the answer ended; says what to put in its end's place.
pub(crate) type Conclude =
    Box<dyn FnOnce(Result<Drained, LegFault>) -> BoxFuture<'static, Option<Refused>> + Send>;

/// What hangs on the end of the authority's answer to a dual write: the request
/// is in flight until then, and a protocol that says only there how the write
/// went ([`Said::AtEnd`](crate::protocol::Said::AtEnd)) must tell it.
///
/// The body of the answer owns it, and calls [`well`](Self::well),
/// [`said`](Self::said) or [`broke`](Self::broke); or, if it is dropped before its
/// end, [`finish`](Self::finish): both legs run to their end. Dropped without a
/// word, an [awaited](Self::is_awaited) one says that the leg was dropped, and
/// the keys are dirty; any other counts as [`well`](Self::well).
#[must_use = "an answer must tell how it ended"]
pub struct Ending {
    pub(crate) tail: Tail,
    pub(crate) patience: Duration,
    /// Resolves when a task that reads on without a client keeps a step waiting
    /// for too long.
    pub(crate) closing: Option<BoxFuture<'static, ()>>,
    pub(crate) then: Then,
}

/// What a leg keeps until its answer has ended.
pub(crate) struct Tail {
    mark: Option<Mark>,
    /// What must have happened besides, for the leg to be over.
    until: Option<BoxFuture<'static, ()>>,
    runtime: runtime::Handle,
}

impl Tail {
    pub(crate) const fn new(
        mark: Mark,
        until: Option<BoxFuture<'static, ()>>,
        runtime: runtime::Handle,
    ) -> Self {
        Self { mark: Some(mark), until, runtime }
    }

    fn mark(&mut self) -> Option<&mut Mark> {
        self.mark.as_mut()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.as_mut().filter(|mark| mark.is_open()) {
            // Nobody has told how the leg went: it may still land.
            mark.set_lingers(true);
        }
        if let Some(until) = self.until.take() {
            let mark = self.mark.take();
            self.runtime.spawn(async move {
                until.await;
                drop(mark);
            });
        }
    }
}

/// What the answer's end is good for.
pub(crate) enum Then {
    /// The head has said it. Called if the rest breaks off.
    Known(Box<dyn FnOnce() + Send>),
    Awaited(Conclude),
}

impl Ending {
    /// Whether the outcome is still to be told.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        matches!(self.then, Then::Awaited(_))
    }

    /// How long a task reads on without a client.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// The runtime for such a task: an answer may be dropped outside of it.
    #[must_use]
    pub const fn runtime(&self) -> &runtime::Handle {
        &self.tail.runtime
    }

    /// The answer has ended. Where the outcome is [awaited](Self::is_awaited),
    /// this says that nobody told it.
    pub fn well(self) {
        if self.is_awaited() {
            self.broke();
        }
    }

    /// The answer broke off: what its head has said does not count.
    pub fn broke(self) {
        self.broke_off(LegFault::BodyFailed);
    }

    fn broke_off(self, fault: LegFault) {
        let Self { then, tail, .. } = self;
        match then {
            Then::Known(broken) => broken(),
            Then::Awaited(conclude) => {
                let concluded = conclude(Err(fault));
                tail.runtime.clone().spawn(async move {
                    concluded.await;
                    drop(tail);
                });
            }
        }
    }

    /// The body was dropped before its end: `rest` reads on in a task, for
    /// [`patience`](Self::patience) at most, and tells what the end said.
    ///
    /// # Errors
    ///
    /// If `rest` fails, or takes too long, nobody knows what the write has done:
    /// it may still land.
    pub fn finish(
        mut self,
        rest: impl Future<Output = Result<Drained, CaptureError>> + Send + 'static,
    ) {
        let runtime = self.tail.runtime.clone();
        let closing = self.closing.take();
        runtime.spawn(async move {
            let mut closing = pin!(async {
                match closing {
                    Some(closing) => closing.await,
                    None => pending().await,
                }
            });
            let read = {
                let mut rest = pin!(timeout(self.patience, rest));
                poll_fn(|cx| match rest.as_mut().poll(cx) {
                    Poll::Ready(read) => Poll::Ready(Some(read)),
                    Poll::Pending => closing.as_mut().poll(cx).map(|()| None),
                })
                .await
            };
            match read {
                Some(Ok(Ok(drained))) if self.is_awaited() => {
                    self.said(drained).await;
                }
                Some(Ok(Ok(_))) => self.well(),
                Some(Ok(Err(_)) | Err(_)) => self.gave_up(),
                None => self.closed(),
            }
        });
    }

    /// The layer ends the answer here: what its leg has done so far may land.
    pub(crate) fn closed(mut self) {
        if let Some(mark) = self.tail.mark() {
            mark.set_lingers(true);
        }
        self.broke_off(LegFault::Closed);
    }

    /// The same of one that nobody waits for any more: it may still land.
    pub fn gave_up(mut self) {
        if let Some(mark) = self.tail.mark() {
            mark.set_lingers(true);
        }
        self.broke();
    }

    /// The answer has ended, and this is what it said. Resolves once the end may
    /// be handed on, as the failure policy wants it; to a reason, if the client
    /// must be told that instead.
    ///
    /// # Cancel safety
    ///
    /// What is to be done is done when this is called; the future only waits.
    pub fn said(self, drained: Drained) -> BoxFuture<'static, Option<Refused>> {
        let Self { then, mut tail, .. } = self;
        if let (Some(mark), Some((outcome, _))) = (tail.mark(), drained.said) {
            mark.set_end(outcome.into());
        }
        match then {
            Then::Known(broken) => {
                // The end knows better than the head.
                if matches!(drained.said, Some((outcome, _)) if outcome != Outcome::Applied) {
                    broken();
                }
                Box::pin(std::future::ready(None))
            }
            Then::Awaited(conclude) => {
                let concluded = conclude(Ok(drained));
                Box::pin(async move {
                    let _tail = tail;
                    concluded.await
                })
            }
        }
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").field("awaited", &self.is_awaited()).finish_non_exhaustive()
    }
}

/// When the layer ends an answer that keeps a step waiting: see
/// [`Protocol::close_when`](crate::protocol::Protocol::close_when).
pub struct Closing {
    when: Option<BoxFuture<'static, ()>>,
    then: Box<dyn FnOnce() + Send>,
}

impl Closing {
    pub(crate) fn new(when: BoxFuture<'static, ()>, then: impl FnOnce() + Send + 'static) -> Self {
        Self { when: Some(when), then: Box::new(then) }
    }

    /// Waits until the answer is to be ended.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn wait(&mut self) {
        if let Some(when) = &mut self.when {
            when.await;
            self.when = None;
        }
    }

    /// The answer has been ended.
    pub fn closed(self) {
        (self.then)();
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing").field("due", &self.when.is_none()).finish_non_exhaustive()
    }
}
