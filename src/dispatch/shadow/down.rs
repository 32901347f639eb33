//! A side that fails one shadow read after the other.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::stage::Side;

/// So many failures in a row, whatever was read, and the side is taken to be down: as
/// many as nobody gets by chance from one that works.
const STEADILY: u32 = 16;

/// How many shadow reads in a row each side has answered with a failure.
#[derive(Debug, Default)]
pub(crate) struct Down([AtomicU32; 2]);

impl Down {
    /// Counts an answer. Says whether the side has failed for so long that a difference
    /// need not be read again to be sure.
    pub(super) fn steadily(&self, side: Side, failed: bool) -> bool {
        let count = &self.0[side.index()];
        let before = count.load(Ordering::Relaxed);
        if !failed {
            // Nearly always it is: no cache line is written then.
            if before > 0 {
                count.store(0, Ordering::Relaxed);
            }
            return false;
        }
        // What two threads count at once may count once.
        count.store(before.saturating_add(1), Ordering::Relaxed);
        before >= STEADILY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_answer_begins_the_count_anew_and_each_side_has_its_own() {
        let down = Down::default();
        for _ in 0..2 {
            for _ in 0..STEADILY {
                assert!(!down.steadily(Side::New, true));
            }
            assert!(down.steadily(Side::New, true));
            assert!(!down.steadily(Side::Old, true));
            assert!(!down.steadily(Side::New, false));
        }
    }
}
