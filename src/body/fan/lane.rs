//! One branch, as the other one sees it.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{BranchFault, piece::Piece};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    /// Will be told that it was cut off.
    CutOff,
    /// Will be told that the layer ended the request.
    Closed,
    /// It has its end or its error, or it was dropped.
    Done,
}

/// What one branch has not read yet.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Piece>,
    pub(super) bytes: usize,
    pub(super) standing: Standing,
    pub(super) fault: Option<BranchFault>,
    /// While it is held back: since when, or since its sibling's last step.
    pub(super) held: Option<Instant>,
    /// Since when its reader has not asked for what there is. `None` while it
    /// waits for something to come.
    pub(super) idle: Option<Instant>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            standing: Standing::Open,
            fault: None,
            held: None,
            idle: Some(Instant::now()),
        }
    }

    /// It has got something: the next step is its reader's.
    pub(super) fn got(&mut self) {
        self.idle = Some(Instant::now());
    }

    /// There is something for it.
    pub(super) fn is_offered(&mut self) {
        self.idle.get_or_insert_with(Instant::now);
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.queue.push_back(piece);
    }

    pub(super) fn is_open(&self) -> bool {
        self.standing == Standing::Open
    }
}
