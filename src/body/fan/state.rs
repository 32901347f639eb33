//! What the two branches know of each other, and who may read next.
//!
//! Nothing here waits, wakes, or drops what a user may have made: all of this
//! runs under a lock. What is to be done without it is left in [`After`].

use std::{mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{
    BranchError, BranchFault, SlowLeg, Streaming,
    lane::{Lane, Standing},
    piece::Piece,
    shared::After,
    source::{Arrived, Source, SourceBody},
};
use crate::{BoxError, body::Lease};

/// The index of the authority's branch.
pub(super) const AUTHORITY: usize = 0;

pub(super) type Given = Option<Result<Frame<Bytes>, BranchError>>;

/// What a branch is to do.
pub(super) enum Next {
    Give(Given),
    /// Poll the source, and bring it back.
    Read(SourceBody),
    Wait,
    /// Wait, but not longer than this.
    Held(Instant),
}

/// What bringing the source back came to.
pub(super) enum Back {
    Give(Given),
    Wait,
    Again,
}

pub(super) struct State {
    source: Source,
    /// What the source says that it still has.
    rest: SizeHint,
    /// It gave more than it said.
    overrun: bool,
    lanes: [Lane; 2],
    lease: Lease,
    streaming: Streaming,
    /// A branch wanted to read while its sibling did.
    turned_away: bool,
    /// Nobody waits for the answer any more.
    left: bool,
}

impl State {
    pub(super) fn new(
        first: impl IntoIterator<Item = Frame<Bytes>>,
        source: SourceBody,
        streaming: Streaming,
        lease: Lease,
    ) -> Self {
        let mut lanes = [Lane::new(), Lane::new()];
        for piece in first.into_iter().filter_map(Piece::of).filter(|piece| !piece.is_nothing()) {
            lanes[0].push(piece.clone());
            lanes[1].push(piece);
        }
        let (source, rest) = if source.is_end_stream() {
            (Source::Ended, SizeHint::with_exact(0))
        } else {
            let rest = source.size_hint();
            (Source::Here(source), rest)
        };
        let (overrun, turned_away, left) = (false, false, false);
        let mut this = Self { source, rest, overrun, lanes, lease, streaming, turned_away, left };
        this.settle();
        this.pay();
        this
    }

    /// What `lane` gets, reads or waits for.
    pub(super) fn next(&mut self, lane: usize, after: &mut After) -> Next {
        let next = self.step(lane, after);
        match next {
            Next::Give(_) => self.lanes[lane].got(),
            Next::Read(_) => {}
            Next::Wait | Next::Held(_) => self.waits(lane),
        }
        next
    }

    /// `lane` asks for what is not here yet. Not for ever, without a client.
    fn waits(&mut self, lane: usize) {
        if !self.left {
            self.lanes[lane].idle = None;
        }
    }

    fn step(&mut self, lane: usize, after: &mut After) -> Next {
        let held = self.lanes[lane].held.take();
        if let Some(given) = self.give(lane, after) {
            return Next::Give(given);
        }
        if matches!(self.source, Source::Out) {
            self.turned_away = true;
            return Next::Wait;
        }
        if !self.may_read(lane)
            && let Some(wait) = self.hold(lane, held, after)
        {
            return wait;
        }
        match mem::replace(&mut self.source, Source::Out) {
            Source::Here(body) => Next::Read(body),
            // All others were dealt with.
            source => {
                self.source = source;
                Next::Wait
            }
        }
    }

    /// What there is for `lane` without the source.
    fn give(&mut self, lane: usize, after: &mut After) -> Option<Given> {
        match self.lanes[lane].standing {
            Standing::Open => {}
            Standing::CutOff => return Some(self.fail(lane, BranchError::CutOff, after)),
            Standing::Closed => return Some(self.fail(lane, BranchError::Closed, after)),
            Standing::Done => return Some(None),
        }
        if let Some(piece) = self.lanes[lane].queue.pop_front() {
            self.lanes[lane].bytes -= piece.len();
            self.settle();
            self.stepped(lane, after);
            return Some(Some(Ok(piece.into_frame())));
        }
        match &self.source {
            Source::Here(_) | Source::Out => None,
            Source::Ended | Source::Closed => {
                self.leave(lane, Standing::Done, after);
                Some(None)
            }
            Source::Broken(error) => {
                let error = BranchError::Broken(Arc::clone(error));
                Some(self.fail(lane, error, after))
            }
        }
    }

    fn fail(&mut self, lane: usize, error: BranchError, after: &mut After) -> Given {
        let fault = match error {
            BranchError::Broken(_) => BranchFault::Broken,
            BranchError::CutOff => BranchFault::CutOff,
            BranchError::Closed => BranchFault::Closed,
        };
        self.leave(lane, Standing::Done, after);
        self.lanes[lane].fault = Some(fault);
        Some(Err(error))
    }

    /// `lane` has taken a chunk: its sibling may be waiting for that.
    fn stepped(&mut self, lane: usize, after: &mut After) {
        let sibling = 1 - lane;
        if self.lanes[sibling].held.is_some() {
            self.lanes[sibling].held = Some(Instant::now());
            after.wake[sibling] |= self.may_read(sibling);
        }
    }

    /// Whether the source may be polled, as far as the sibling is concerned.
    fn may_read(&mut self, lane: usize) -> bool {
        let behind = &self.lanes[1 - lane];
        if behind.queue.is_empty() {
            return true;
        }
        if behind.queue.len() >= self.streaming.most_chunks() {
            return false;
        }
        // To find the end of a body that has no more bytes costs nothing.
        let at_end = self.rest.upper() == Some(0);
        at_end || (behind.bytes < self.streaming.lag && self.pay())
    }

    /// Holds `lane` back. `None`: it need not wait, its sibling has been cut off.
    fn hold(&mut self, lane: usize, held: Option<Instant>, after: &mut After) -> Option<Next> {
        let now = Instant::now();
        let since = held.unwrap_or(now);
        self.lanes[lane].held = Some(since);
        if lane != AUTHORITY {
            return Some(Next::Wait);
        }
        let patience = match self.streaming.slow_leg {
            SlowLeg::Hold(patience) => patience,
            SlowLeg::CutOff | SlowLeg::ByPolicy => Duration::ZERO,
        };
        let Some(until) = since.checked_add(patience) else {
            return Some(Next::Wait);
        };
        if now < until {
            return Some(Next::Held(until));
        }
        self.lanes[lane].held = None;
        self.leave(1 - lane, Standing::CutOff, after);
        self.lanes[1 - lane].fault = Some(BranchFault::CutOff);
        // If it waited, it was woken for the first chunk that it did not take.
        None
    }

    /// Takes the source back from `lane`, with what it gave.
    pub(super) fn put_back(
        &mut self,
        lane: usize,
        body: SourceBody,
        arrived: Arrived,
        after: &mut After,
    ) -> Back {
        let turned_away = mem::take(&mut self.turned_away);
        // Once it has given something, the source owes nobody a wake-up. While
        // it has not, it will wake both.
        after.wake[1 - lane] |= turned_away || !matches!(arrived, Arrived::Pending);
        if !matches!(self.source, Source::Out) {
            // Closed in the meantime.
            after.dropped.body = Some(body);
            after.dropped.arrived = Some(arrived);
            return Back::Again;
        }
        match arrived {
            Arrived::Pending | Arrived::Nothing => {
                self.source = Source::Here(body);
                if matches!(arrived, Arrived::Nothing) {
                    return Back::Again;
                }
                self.waits(lane);
                Back::Wait
            }
            Arrived::Piece { piece, last, rest } => {
                self.overrun |= self.rest.upper().is_some_and(|most| most < piece.len() as u64);
                // A body that has lied about its length is not believed again:
                // `may_read` would let it fill the memory.
                self.rest = if self.overrun { SizeHint::default() } else { rest };
                if last {
                    after.dropped.body = Some(body);
                    self.end(Source::Ended, after);
                } else {
                    self.source = Source::Here(body);
                }
                self.share(1 - lane, &piece);
                self.lanes[lane].got();
                Back::Give(Some(Ok(piece.into_frame())))
            }
            Arrived::End => {
                after.dropped.body = Some(body);
                self.end(self.last_word(), after);
                Back::Again
            }
            Arrived::Broken(error) => {
                after.dropped.body = Some(body);
                self.end(Source::Broken(error), after);
                Back::Again
            }
        }
    }

    fn share(&mut self, lane: usize, piece: &Piece) {
        if self.lanes[lane].is_open() && !piece.is_nothing() {
            self.lanes[lane].push(piece.clone());
            self.lanes[lane].is_offered();
            // If there is no room, nobody reads on before there is.
            self.pay();
        }
    }

    /// What an end without an error means. The body of hyper before 1.12 ends
    /// like that too when its connection is dropped, that of HTTP/2 when the
    /// client resets it with `NO_ERROR`; and no leg must take a part for the
    /// whole.
    fn last_word(&self) -> Source {
        let missing = self.rest.lower();
        let error = if missing > 0 {
            format!("it ended {missing} bytes before its length")
        } else if self.left && self.rest.upper() != Some(0) {
            "its client left before it had ended".to_owned()
        } else {
            return Source::Ended;
        };
        Source::Broken(BoxError::from(error).into())
    }

    /// The client has left.
    pub(super) fn left(&mut self) {
        self.left = true;
        self.lanes.iter_mut().for_each(Lane::is_offered);
    }

    /// Since when `lane` has not asked for more, or nothing has come for it
    /// although its client has left.
    pub(super) fn idle(&self, lane: usize) -> Option<Instant> {
        self.lanes[lane].idle.filter(|_| !self.has_ended(lane))
    }

    /// Nothing more comes from the source. The branches are woken by whoever
    /// brings it back.
    fn end(&mut self, how: Source, after: &mut After) {
        // After an error nothing is promised. To say 0 would let a client send
        // what it has as if it were complete.
        self.rest = match how {
            Source::Ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        };
        self.source = how;
        after.ended = true;
    }

    /// The poll of the source has panicked: it will never come back.
    pub(super) fn lost(&mut self, lane: usize, after: &mut After) {
        self.turned_away = false;
        after.wake[1 - lane] = true;
        if matches!(self.source, Source::Out) {
            let error = BoxError::from("it panicked while it was read");
            self.end(Source::Broken(error.into()), after);
        }
    }

    /// `lane` gets nothing more, and nobody waits for it.
    fn leave(&mut self, lane: usize, standing: Standing, after: &mut After) {
        let this = &mut self.lanes[lane];
        this.standing = standing;
        this.held = None;
        this.bytes = 0;
        after.dropped.queues[lane] = mem::take(&mut this.queue);
        after.ended = true;
        after.wake[1 - lane] |= self.lanes[1 - lane].held.is_some();
        self.settle();
        if !self.lanes.iter().any(Lane::is_open) && matches!(self.source, Source::Here(_)) {
            after.dropped.source = Some(mem::replace(&mut self.source, Source::Closed));
        }
    }

    /// The branch was dropped.
    pub(super) fn gone(&mut self, lane: usize, after: &mut After) {
        if self.lanes[lane].standing != Standing::Done {
            self.leave(lane, Standing::Done, after);
        }
    }

    /// Ends both branches, except where one has everything.
    pub(super) fn close(&mut self, after: &mut After) {
        for lane in [0, 1] {
            if self.lanes[lane].is_open() && !self.is_end_stream(lane) {
                self.leave(lane, Standing::Closed, after);
                after.wake[lane] = true;
            }
        }
        if matches!(self.source, Source::Here(_) | Source::Out) {
            let source = mem::replace(&mut self.source, Source::Closed);
            after.dropped.source.get_or_insert(source);
        }
    }

    /// What is kept: one queue is the end of the other, in the same memory.
    pub(super) fn kept(&self) -> usize {
        self.lanes[0].bytes.max(self.lanes[1].bytes)
    }

    /// Pays for what is kept, if there is room.
    fn pay(&mut self) -> bool {
        let due = self.kept().saturating_sub(self.lease.bytes());
        due == 0 || self.lease.take(due)
    }

    /// Gives back what was paid for more than is kept.
    fn settle(&mut self) {
        let over = self.lease.bytes().saturating_sub(self.kept());
        self.lease.give(over);
    }

    pub(super) fn is_end_stream(&self, lane: usize) -> bool {
        let this = &self.lanes[lane];
        match this.standing {
            Standing::Open => matches!(self.source, Source::Ended) && this.queue.is_empty(),
            Standing::CutOff | Standing::Closed => false,
            Standing::Done => true,
        }
    }

    pub(super) fn size_hint(&self, lane: usize) -> SizeHint {
        let this = &self.lanes[lane];
        match this.standing {
            Standing::Open => {
                let kept = this.bytes as u64;
                let mut hint = SizeHint::new();
                hint.set_lower(self.rest.lower().saturating_add(kept));
                if let Some(upper) = self.rest.upper().and_then(|rest| rest.checked_add(kept)) {
                    hint.set_upper(upper);
                }
                hint
            }
            // Not 0, as in `end`.
            Standing::CutOff | Standing::Closed => SizeHint::default(),
            Standing::Done => SizeHint::with_exact(0),
        }
    }

    pub(super) fn has_ended(&self, lane: usize) -> bool {
        !self.lanes[lane].is_open() || !matches!(self.source, Source::Here(_) | Source::Out)
    }

    pub(super) fn fault(&self, lane: usize) -> Option<BranchFault> {
        self.lanes[lane].fault
    }
}
