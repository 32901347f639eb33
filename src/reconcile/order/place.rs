//! A place in the order, and the wait for its turn.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Standers, Turn};
use crate::stage::Side;

/// A leg's place in the queues of its keys on one side. Dropping it lets the
/// next one go.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) id: u64,
    pub(super) side: Side,
    pub(super) turn: Option<oneshot::Receiver<Turn>>,
    pub(super) write: Arc<Standers>,
}

impl Place {
    /// Its age: later places have greater ones.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Whether somebody is ahead.
    pub(crate) const fn waits(&self) -> bool {
        self.turn.is_some()
    }

    /// The future of this place's turn; ready at once when nobody is ahead.
    pub(crate) const fn turn(&mut self) -> Turning {
        Turning(self.turn.take())
    }
}

/// Waits for a place's turn.
#[derive(Debug)]
pub(crate) struct Turning(Option<oneshot::Receiver<Turn>>);

impl Future for Turning {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        match &mut self.0 {
            None => Poll::Ready(Turn::Run),
            // The sender lives in the table for as long as the place does.
            Some(turn) => Pin::new(turn).poll(cx).map(|turn| turn.unwrap_or(Turn::Run)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.write.ended_on(self.side).store(true, Ordering::Release);
        let order = &self.write.order;
        let (turns, waiting) = {
            let mut table = order.lock();
            (table.leave(self.id, &self.write.keys, self.side), table.waiting)
        };
        for turn in turns {
            // The receiver may be gone: its leg was abandoned, and its own drop lets the
            // next one go.
            let _ = turn.send(Turn::Run);
        }
        if waiting > 0 {
            order.left.notify_waiters();
        }
    }
}
