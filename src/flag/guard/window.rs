//! What was counted within the last so many seconds.

use std::{collections::VecDeque, time::Duration};

use super::AlarmReason;

/// New's legs as the authority, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Answered or failed.
    pub(super) ended: u64,
    /// Those of them that failed.
    pub(super) unknown: u64,
    /// Left by their clients.
    pub(super) dropped: u64,
    /// Whose head was timed.
    pub(super) timed: u64,
    /// Those of them that were too slow.
    pub(super) slow: u64,
}

impl Counts {
    const fn since(self, earlier: Self) -> Self {
        Self {
            ended: self.ended.saturating_sub(earlier.ended),
            unknown: self.unknown.saturating_sub(earlier.unknown),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            timed: self.timed.saturating_sub(earlier.timed),
            slow: self.slow.saturating_sub(earlier.slow),
        }
    }

    /// How many did it, of how many.
    pub(super) const fn share(self, reason: AlarmReason) -> (u64, u64) {
        match reason {
            AlarmReason::Errors => (self.unknown, self.ended),
            AlarmReason::Latency => (self.slow, self.timed),
            AlarmReason::HungUp => (self.dropped, self.ended + self.dropped),
        }
    }
}

/// Counters as they stood at the moments when they were looked at.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    /// The first one is where the window begins: as young as it can be without
    /// being inside.
    seen: VecDeque<(Duration, Counts)>,
}

impl Window {
    pub(super) const fn new(length: Duration) -> Self {
        Self { length, seen: VecDeque::new() }
    }

    /// Forgets everything: the window begins at the next look.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    /// Notes what has been counted in all by `now`, and answers what of it was
    /// counted within the window. Where looks are further apart than the window
    /// is long, it is as long as they are.
    pub(super) fn look(&mut self, now: Duration, counts: Counts) -> Counts {
        self.seen.push_back((now, counts));
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= self.length) {
            self.seen.pop_front();
        }
        let (_, begin) = self.seen.front().copied().unwrap_or((now, counts));
        counts.since(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn ended(ended: u64) -> Counts {
        Counts { ended, ..Counts::default() }
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut window = Window::new(s(3));
        // Ten a second, counted from 100 on.
        let seen: Vec<_> = (0..8).map(|n| window.look(s(n), ended(100 + n * 10)).ended).collect();
        assert_eq!(seen, [0, 10, 20, 30, 30, 30, 30, 30]);
        assert_eq!(window.seen.len(), 4, "and is not kept");
        // Nothing more comes.
        let seen: Vec<_> = (8..12).map(|n| window.look(s(n), ended(170)).ended).collect();
        assert_eq!(seen, [20, 10, 0, 0]);
    }

    #[test]
    fn a_pause_makes_it_longer_not_blind() {
        let mut window = Window::new(s(3));
        window.look(s(0), ended(0));
        window.look(s(1), ended(10));
        assert_eq!(window.look(s(60), ended(500)).ended, 490);
        assert_eq!(window.look(s(61), ended(510)).ended, 500, "still reaches over the pause");
        window.clear();
        assert_eq!(window.look(s(62), ended(520)).ended, 0);
    }

    #[test]
    fn each_share_is_of_those_that_can_have_it() {
        let counts = Counts { ended: 100, unknown: 5, dropped: 20, timed: 40, slow: 4 };
        assert_eq!(counts.share(AlarmReason::Errors), (5, 100));
        assert_eq!(counts.share(AlarmReason::Latency), (4, 40));
        assert_eq!(counts.share(AlarmReason::HungUp), (20, 120));
    }
}
