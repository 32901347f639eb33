//! Keeping what passes by, and handing it on at a body's end.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{Collected, Room};

/// Why a body was not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaptureError {
    /// Over the limit of one body.
    TooLarge,
    /// Over the limit of all bodies together.
    NoRoom,
    /// It was dropped before its end.
    Gone,
    /// It broke off.
    Broken,
}

type Captured = Result<(Collected, Room), CaptureError>;

/// What has been kept so far.
#[derive(Debug)]
struct Kept {
    /// Most bodies are one chunk, which needs no list.
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
    trailers: Option<HeaderMap>,
    room: Room,
}

/// What a sink and its reader share.
#[derive(Debug)]
struct Shared {
    watch: Mutex<Watch>,
    /// Whether the sink has said all that it will say. Only the sink asks.
    over: AtomicBool,
}

#[derive(Debug)]
struct Watch {
    /// A body that says how long it is may not be polled past its last byte.
    exact: Option<u64>,
    /// Nobody looks at what comes after that byte: the body may be polled for
    /// more or not, and is the same.
    stops: bool,
    seen: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The body goes on. `kept` is `None` in a sink that only counts, and while the
    /// chunks are made one.
    Open { kept: Option<Kept>, reader: Option<Waker> },
    /// It has ended, and the reader has not asked.
    Told(Captured),
    /// The reader has what it waited for, or has given up: a body that is open for
    /// hours keeps nothing for nobody.
    Over,
}

/// Where a body stands once a frame of it has been looked at.
enum Step {
    GoesOn,
    /// Nothing is left to be told.
    Over,
    /// Whoever waits for its end is to be woken.
    Told(Option<Waker>),
    /// It came in several chunks, which are to be made one.
    Joined(Kept),
    /// It ended badly. What was kept is dropped where no lock is held.
    Failed(CaptureError, Option<Kept>),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the reader, if there still is one.
    fn tell(&self, captured: Captured) {
        let reader = {
            let mut watch = self.lock();
            match &mut watch.state {
                State::Open { reader, .. } => {
                    let reader = reader.take();
                    watch.state = State::Told(captured);
                    reader
                }
                // It is dropped after the lock is.
                State::Told(_) | State::Over => return,
            }
        };
        wake(reader);
    }
}

/// Never under the lock: it is somebody else's.
fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Takes references to the chunks of a body, up to a limit, and hands them on
/// at the body's end; or only counts them.
#[derive(Debug)]
pub(crate) struct Sink(Arc<Shared>);

/// The other end of a [`Sink`]: a future, which nobody has to make another one of.
#[derive(Debug)]
pub(crate) enum Capture {
    /// There is nothing to wait for, and no byte. `None` once it was handed out.
    Nothing(Option<Room>),
    /// When the body has ended.
    Later(Reader),
}

/// Waits for a body's end. `None` once that was told.
#[derive(Debug)]
pub(crate) struct Reader(Option<Arc<Shared>>);

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let state = std::mem::replace(&mut shared.lock().state, State::Over);
            drop(state);
        }
    }
}

impl Reader {
    /// What it was told, if it has been told by now.
    fn told(&mut self) -> Option<Captured> {
        let shared = self.0.as_ref().expect("it is asked once");
        let captured = {
            let mut watch = shared.lock();
            match &watch.state {
                State::Open { .. } => return None,
                State::Told(_) => std::mem::replace(&mut watch.state, State::Over),
                State::Over => State::Over,
            }
        };
        self.0 = None;
        match captured {
            State::Told(captured) => Some(captured),
            State::Open { .. } | State::Over => Some(Err(CaptureError::Gone)),
        }
    }

    /// Has this one woken at the end, unless that has come.
    fn wait(&self, waker: &Waker) {
        let Some(shared) = &self.0 else { return };
        let mut new = Some(waker.clone());
        // The one before is dropped after the lock is.
        let _before = match &mut shared.lock().state {
            State::Open { reader, .. } => std::mem::replace(reader, new.take()),
            State::Told(_) | State::Over => None,
        };
    }
}

impl Capture {
    /// What was captured, if the body has ended well by now.
    pub(crate) fn now(self) -> Option<(Collected, Room)> {
        match self {
            Self::Nothing(room) => room.map(|room| (Collected::default(), room)),
            Self::Later(mut reader) => reader.told()?.ok(),
        }
    }
}

impl Future for Capture {
    type Output = Captured;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Captured> {
        match self.get_mut() {
            Self::Nothing(room) => {
                Poll::Ready(Ok((Collected::default(), room.take().expect("it is asked once"))))
            }
            Self::Later(reader) => {
                let mut told = reader.told();
                if told.is_none() {
                    reader.wait(cx.waker());
                    // The end may have come in between.
                    told = reader.told();
                }
                told.map_or(Poll::Pending, Poll::Ready)
            }
        }
    }
}

impl Sink {
    /// `length` is what a header says, where the body itself does not. One that
    /// `stops` is at its end with the last byte, where the length is known.
    pub(crate) fn new<B: Body>(
        body: &B,
        length: Option<u64>,
        stops: bool,
        room: Room,
    ) -> (Self, Capture) {
        let kept = Kept { first: Bytes::new(), rest: Vec::new(), len: 0, trailers: None, room };
        let sink = Self::of(body.size_hint().exact().or(length), stops, Some(kept));
        let reader = Reader(Some(Arc::clone(&sink.0)));
        (sink, Capture::Later(reader))
    }

    /// Keeps nothing: only waits for the last of so many bytes.
    pub(crate) fn counting(length: u64) -> Self {
        Self::of(Some(length), false, None)
    }

    fn of(exact: Option<u64>, stops: bool, kept: Option<Kept>) -> Self {
        let state = State::Open { kept, reader: None };
        let watch = Mutex::new(Watch { exact, stops, seen: 0, state });
        Self(Arc::new(Shared { watch, over: AtomicBool::new(false) }))
    }

    /// Looks at what a body just gave, which may have `ended` with it. The sink
    /// is spent, and gone, once it has been told the end or has given up. Says
    /// whether a body that is only counted has come to its last byte.
    pub(crate) fn see<E>(
        sink: &mut Option<Self>,
        frame: Option<&Result<Frame<Bytes>, E>>,
        ended: bool,
    ) -> bool {
        let Some(this) = sink else {
            return false;
        };
        let (step, counted) = {
            let mut watch = this.0.lock();
            let counts = matches!(watch.state, State::Open { kept: None, .. });
            let step = watch.see(frame, ended);
            (step, counts && watch.is_past())
        };
        if !matches!(step, Step::GoesOn) {
            this.take(step);
            *sink = None;
        }
        counted
    }

    /// Does what is left to be done without the lock.
    fn take(&self, step: Step) {
        self.0.over.store(true, Ordering::Relaxed);
        match step {
            Step::GoesOn | Step::Over => {}
            Step::Told(reader) => wake(reader),
            Step::Joined(kept) => self.0.tell(Ok(kept.whole())),
            Step::Failed(error, kept) => {
                drop(kept);
                self.0.tell(Err(error));
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.0.over.load(Ordering::Relaxed) {
            return;
        }
        let step = {
            let mut watch = self.0.lock();
            // A server that knows a body's length drops it after its last byte.
            match watch.exact == Some(watch.seen) {
                true => watch.finish(),
                false => watch.fail(CaptureError::Gone),
            }
        };
        self.take(step);
    }
}

impl Watch {
    fn is_past(&self) -> bool {
        self.exact.is_some_and(|exact| self.seen >= exact)
    }

    fn see<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>, ended: bool) -> Step {
        match frame {
            None => return self.finish(),
            Some(Err(_)) => return self.fail(CaptureError::Broken),
            Some(Ok(frame)) => {
                if let Err(error) = self.keep(frame) {
                    return self.fail(error);
                }
            }
        }
        // Nothing comes after trailers, and a server may not ask for more.
        let trailers = matches!(frame, Some(Ok(frame)) if frame.is_trailers());
        if trailers || ended || (self.stops && self.is_past()) {
            return self.finish();
        }
        Step::GoesOn
    }

    fn keep(&mut self, frame: &Frame<Bytes>) -> Result<(), CaptureError> {
        self.seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        let kept = match &mut self.state {
            State::Open { kept: Some(kept), .. } => kept,
            State::Open { kept: None, .. } => return Ok(()),
            // Nobody waits any more.
            State::Told(_) | State::Over => return Err(CaptureError::Gone),
        };
        if let Some(data) = frame.data_ref() {
            kept.len += data.len();
            if kept.len > kept.room.limit() {
                return Err(CaptureError::TooLarge);
            }
            if !kept.room.take(data.len()) {
                return Err(CaptureError::NoRoom);
            }
            // An empty chunk is not kept: the next one would drop it here, under the lock,
            // and its owner may be anybody's.
            if kept.first.is_empty() {
                if !data.is_empty() {
                    kept.first = data.clone();
                }
            } else {
                kept.rest.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
        }
        Ok(())
    }

    fn finish(&mut self) -> Step {
        let State::Open { kept, reader } = &mut self.state else {
            return Step::Over;
        };
        match kept.take() {
            None => Step::Over,
            Some(kept) if kept.rest.is_empty() => {
                let reader = reader.take();
                self.state = State::Told(Ok(kept.whole()));
                Step::Told(reader)
            }
            Some(kept) => Step::Joined(kept),
        }
    }

    fn fail(&mut self, error: CaptureError) -> Step {
        match &mut self.state {
            State::Open { kept, .. } => Step::Failed(error, kept.take()),
            State::Told(_) | State::Over => Step::Over,
        }
    }
}

impl Kept {
    /// All of it, in one piece.
    fn whole(self) -> (Collected, Room) {
        let Self { first, rest, len, trailers, room } = self;
        let data = if rest.is_empty() {
            first
        } else {
            let mut all = BytesMut::with_capacity(len);
            all.extend_from_slice(&first);
            rest.iter().for_each(|chunk| all.extend_from_slice(chunk));
            all.freeze()
        };
        (Collected { data, trailers }, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Budget;

    /// Says, when it is dropped, whether the lock was free.
    struct Owner(Arc<Mutex<Option<Arc<Shared>>>>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            b""
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            let shared = self.0.lock().expect("not poisoned").take().expect("set by the test");
            self.1.store(shared.watch.try_lock().is_ok(), Ordering::Relaxed);
        }
    }

    #[test]
    fn the_owner_of_an_empty_chunk_is_not_dropped_under_the_lock() {
        let room = Room::new(10, Arc::new(Budget::default()).lease(10));
        let body = http_body_util::Full::new(Bytes::from_static(b"a"));
        let (sink, _capture) = Sink::new(&body, None, false, room);
        let (shared, free) = (Arc::default(), Arc::default());
        let empty = Bytes::from_owner(Owner(Arc::clone(&shared), Arc::clone(&free)));
        *shared.lock().expect("not poisoned") = Some(Arc::clone(&sink.0));
        let mut sink = Some(sink);
        let mut see = |data| {
            let frame: Result<_, ()> = Ok(Frame::data(data));
            Sink::see(&mut sink, Some(&frame), false)
        };
        see(empty);
        see(Bytes::from_static(b"a"));
        assert!(free.load(Ordering::Relaxed));
    }
}
