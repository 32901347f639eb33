//! Driven by hand: a source that gives what it is told, and readers that are
//! polled one step at a time.

mod bodies;
mod ends;
mod lag;
mod parallel;
mod random;
mod wakers;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio_test::task::{Spawn, spawn};

use super::{Branch, BranchError, Fan, Streaming, fan_out};
use crate::{
    BoxError,
    body::{Budget, Lease},
};

/// The defaults, for a client who waits for the other side.
fn holding() -> Streaming {
    Streaming::new().for_client(true)
}

/// What the source does at one poll.
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Break,
    Panic,
    /// Wakes its waker at once, as a source that gives way to others does.
    Yield,
    /// Runs this, and has nothing.
    Do(Box<dyn FnOnce() + Send>),
}

#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    ended: bool,
    /// Whether it knows that it has ended before it is asked for more.
    knows_end: bool,
    /// How long it says it is.
    left: Option<u64>,
    waker: Option<Waker>,
    polls: usize,
    dropped: bool,
    /// Runs when it is dropped.
    last_act: Option<Box<dyn FnOnce() + Send>>,
}

/// A body that does what the test says, and the test's grip on it.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<Script>>);

struct SourceBody(Source);

impl Source {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// One that has all of this, and then its end.
    fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        let this = Self::default();
        this.script().steps = steps.into_iter().collect();
        this.script().ended = true;
        this
    }

    fn knowing_its_end(self) -> Self {
        self.script().knows_end = true;
        self
    }

    fn of_length(self, length: u64) -> Self {
        self.script().left = Some(length);
        self
    }

    fn does(&self, step: Step) {
        self.script().steps.push_back(step);
        self.wakes();
    }

    fn ends(&self) {
        self.script().ended = true;
        self.wakes();
    }

    fn wakes(&self) {
        let waker = self.script().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn body(&self) -> SourceBody {
        SourceBody(self.clone())
    }

    fn is_dropped(&self) -> bool {
        self.script().dropped
    }
}

impl Drop for SourceBody {
    fn drop(&mut self) {
        let last_act = {
            let mut script = self.0.script();
            script.dropped = true;
            script.last_act.take()
        };
        if let Some(act) = last_act {
            act();
        }
    }
}

impl Body for SourceBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let step = {
            let mut script = self.0.script();
            script.polls += 1;
            match script.steps.pop_front() {
                None if script.ended => return Poll::Ready(None),
                None => {
                    script.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Some(step) => step,
            }
        };
        match step {
            Step::Data(data) => {
                if let Some(left) = &mut self.0.script().left {
                    *left = left.saturating_sub(data.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Step::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Step::Break => Poll::Ready(Some(Err("the line is dead".into()))),
            Step::Panic => panic!("a source that panics"),
            Step::Yield => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Do(act) => {
                act();
                self.0.script().waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let script = self.0.script();
        script.knows_end && script.ended && script.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.script().left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What a poll of a branch gave.
#[derive(Clone, Debug, PartialEq)]
enum Got {
    Nothing,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Broken(String),
    CutOff,
    Closed,
}

/// A branch in a task of its own, polled by hand.
struct Reader(Spawn<Branch>);

impl Reader {
    fn poll(&mut self) -> Got {
        match self.0.enter(|cx, branch| branch.poll_frame(cx)) {
            Poll::Pending => Got::Nothing,
            Poll::Ready(None) => Got::End,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Got::Data(data),
                Err(frame) => Got::Trailers(frame.into_trailers().unwrap()),
            },
            Poll::Ready(Some(Err(error))) => match error {
                BranchError::Broken(error) => Got::Broken(error.to_string()),
                BranchError::CutOff => Got::CutOff,
                BranchError::Closed => Got::Closed,
            },
        }
    }

    fn is_woken(&self) -> bool {
        self.0.is_woken()
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    /// Everything that comes without waiting, but for the last answer.
    fn read_on(&mut self) -> (Vec<u8>, Got) {
        let mut all = Vec::new();
        loop {
            match self.poll() {
                Got::Data(data) => all.extend_from_slice(&data),
                got => return (all, got),
            }
        }
    }
}

fn budget() -> Arc<Budget> {
    Arc::default()
}

fn lease() -> Lease {
    budget().lease(usize::MAX)
}

fn split(source: &Source, streaming: Streaming) -> (Fan, Reader, Reader) {
    split_on(source, streaming, lease())
}

fn split_on(source: &Source, streaming: Streaming, lease: Lease) -> (Fan, Reader, Reader) {
    let (fan, [authority, other]) = fan_out([], source.body(), streaming, lease);
    (fan, Reader(spawn(authority)), Reader(spawn(other)))
}

fn kept(fan: &Fan) -> usize {
    fan.0.look(super::state::State::kept)
}

fn data(bytes: &'static [u8]) -> Step {
    Step::Data(Bytes::from_static(bytes))
}

fn given(bytes: &'static [u8]) -> Got {
    Got::Data(Bytes::from_static(bytes))
}

fn checksum() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), "1".parse().unwrap())])
}
