//! What there is to know about one leg in flight, in one word.

use std::{fmt, num::NonZeroU32};

use super::{End, Kind};

/// Where a leg was admitted, what it is, how it ended, and its number in the shard's
/// roster if it has a name.
///
/// One number and no fields: each request's mark is handed on a few times, and a
/// structure that was written byte by byte and is read as a whole has to wait for
/// each of the bytes.
#[derive(Clone, Copy)]
pub(super) struct About(u64);

const KIND: u32 = 8;
const ROW: u32 = 16;
const SHARD: u32 = 24;
/// With a bit to spare: there are 64 shards at most.
const LINGERS: u32 = 31;
const LISTED: u32 = 32;

impl About {
    #[inline]
    pub(super) const fn new(shard: usize, row: usize, kind: Kind) -> Self {
        let (shard, row, kind) = (shard as u64, row as u64, kind.index() as u64);
        Self(shard << SHARD | row << ROW | kind << KIND | End::Dropped as u64)
    }

    const fn byte(self, at: u32) -> u8 {
        (self.0 >> at) as u8
    }

    #[inline]
    pub(super) const fn shard(self) -> usize {
        (self.byte(SHARD) & 0x7f) as usize
    }

    #[inline]
    pub(super) const fn row(self) -> usize {
        self.byte(ROW) as usize
    }

    #[inline]
    pub(super) const fn kind(self) -> Kind {
        Kind::of_index(self.byte(KIND))
    }

    #[inline]
    pub(super) const fn set_kind(&mut self, kind: Kind) {
        self.0 = self.0 & !(0xff << KIND) | (kind.index() as u64) << KIND;
    }

    #[inline]
    pub(super) const fn end(self) -> End {
        End::of_index(self.byte(0))
    }

    #[inline]
    pub(super) const fn set_end(&mut self, end: End) {
        self.0 = self.0 & !0xff | end as u64;
    }

    #[inline]
    pub(super) const fn lingers(self) -> bool {
        self.0 >> LINGERS & 1 == 1
    }

    #[inline]
    pub(super) const fn set_lingers(&mut self, lingers: bool) {
        self.0 = self.0 & !(1 << LINGERS) | (lingers as u64) << LINGERS;
    }

    #[inline]
    pub(super) const fn listed(self) -> Option<NonZeroU32> {
        NonZeroU32::new((self.0 >> LISTED) as u32)
    }

    pub(super) fn set_listed(&mut self, listed: Option<NonZeroU32>) {
        let listed = listed.map_or(0, NonZeroU32::get);
        self.0 = self.0 & !(u64::MAX << LISTED) | u64::from(listed) << LISTED;
    }

    /// Whether its end has to be told elsewhere, too: it has a name, or it lingers.
    #[inline]
    pub(super) const fn leaves_traces(self) -> bool {
        self.0 >> LINGERS != 0
    }
}

impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About")
            .field("shard", &self.shard())
            .field("row", &self.row())
            .field("kind", &self.kind())
            .field("end", &self.end())
            .field("lingers", &self.lingers())
            .field("listed", &self.listed())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::ledger::ROWS;

    #[test]
    fn each_part_is_what_was_put_there_whatever_the_others_are() {
        let ends =
            [End::Applied, End::Refused, End::Unknown, End::Dropped, End::Unused].into_iter();
        for (shard, row) in [(0, 0), (63, ROWS - 1), (1, 5)] {
            for (kind, end) in Kind::all().flat_map(|kind| ends.clone().map(move |end| (kind, end)))
            {
                let mut about = About::new(shard, row, Kind::all().last().expect("eight"));
                assert_eq!(about.end(), End::Dropped);
                assert!(!about.leaves_traces());
                about.set_kind(kind);
                about.set_end(end);
                about.set_lingers(true);
                assert!(about.leaves_traces());
                about.set_listed(NonZeroU32::new(u32::MAX));
                about.set_lingers(false);
                assert!(about.leaves_traces());
                assert_eq!((about.shard(), about.row(), about.kind()), (shard, row, kind));
                assert_eq!((about.end(), about.lingers()), (end, false));
                assert_eq!(about.listed(), NonZeroU32::new(u32::MAX));
                about.set_listed(None);
                about.set_lingers(true);
                assert_eq!((about.shard(), about.end(), about.listed()), (shard, end, None));
            }
        }
    }
}
