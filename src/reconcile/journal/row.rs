//! The journal's rows, as bytes.

use std::time::{Duration, SystemTime};

use crate::{
    reconcile::{
        Key, RightSide,
        dirty_log::{SideNote, StoredMark},
    },
    stage::{Side, SyncState},
};

/// What a row is about.
///
/// What was found in the files of dead processes, and is not yet the flag's own,
/// is kept apart from what this process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About<K> {
    Mark(K),
    /// A write of the key runs, or ran a moment ago.
    Begun(K),
    /// So does one that has no key; its authority.
    Nameless(Side),
    Side(Side),
    FoundMark(K),
    FoundSide(Side),
    /// The side that is wrong.
    FoundNameless(Side),
    /// Which files were taken over.
    Ids,
}

impl About<&Key> {
    /// The row's place in the table.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (tag, text): (u8, &[u8]) = match &self {
            Self::Mark(key) => (b'm', key.as_str().as_bytes()),
            Self::Begun(key) => (b'b', key.as_str().as_bytes()),
            Self::Nameless(side) => (b'n', side_bytes(*side)),
            Self::Side(side) => (b's', side_bytes(*side)),
            Self::FoundMark(key) => (b'M', key.as_str().as_bytes()),
            Self::FoundSide(side) => (b'S', side_bytes(*side)),
            Self::FoundNameless(side) => (b'N', side_bytes(*side)),
            Self::Ids => (b'i', b""),
        };
        let mut bytes = Vec::with_capacity(1 + text.len());
        bytes.push(tag);
        bytes.extend(text);
        bytes
    }
}

impl About<Key> {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, text) = bytes.split_first()?;
        let key = || str::from_utf8(text).ok().map(Key::from);
        let side = || Side::ALL.into_iter().find(|side| side_bytes(*side) == text);
        Some(match tag {
            b'm' => Self::Mark(key()?),
            b'b' => Self::Begun(key()?),
            b'n' => Self::Nameless(side()?),
            b's' => Self::Side(side()?),
            b'M' => Self::FoundMark(key()?),
            b'S' => Self::FoundSide(side()?),
            b'N' => Self::FoundNameless(side()?),
            b'i' if text.is_empty() => Self::Ids,
            _ => return None,
        })
    }
}

const fn side_bytes(side: Side) -> &'static [u8] {
    match side {
        Side::Old => b"o",
        Side::New => b"n",
    }
}

/// The value of a mark's row, and of a key's that has begun.
pub(super) fn mark(mark: StoredMark) -> Vec<u8> {
    let right = match mark.right {
        RightSide::Is(Side::Old) => b'o',
        RightSide::Is(Side::New) => b'n',
        RightSide::Conflict => b'?',
    };
    // A clock may say anything; before 1970 is not worth a sign.
    let since = mark.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut bytes = vec![right];
    bytes.extend(mark.marks.to_le_bytes());
    bytes.extend(since.as_secs().to_le_bytes());
    bytes.extend(since.subsec_nanos().to_le_bytes());
    bytes
}

pub(super) fn read_mark(bytes: &[u8]) -> Option<StoredMark> {
    let (right, rest) = bytes.split_first()?;
    let right = match right {
        b'o' => RightSide::Is(Side::Old),
        b'n' => RightSide::Is(Side::New),
        b'?' => RightSide::Conflict,
        _ => return None,
    };
    let (marks, rest) = rest.split_first_chunk()?;
    let (secs, rest) = rest.split_first_chunk()?;
    let nanos = u32::from_le_bytes(rest.try_into().ok()?);
    if nanos >= 1_000_000_000 {
        return None;
    }
    let since = Duration::new(u64::from_le_bytes(*secs), nanos);
    Some(StoredMark {
        right,
        marks: u64::from_le_bytes(*marks),
        since: SystemTime::UNIX_EPOCH.checked_add(since)?,
    })
}

/// The value of a side's row.
pub(super) fn side(note: SideNote) -> Vec<u8> {
    let state = match note.state {
        SyncState::Unsynced => b'-',
        SyncState::Suspect => b'?',
        SyncState::Synced => b'+',
    };
    let mut bytes = vec![state];
    bytes.extend(note.span.to_le_bytes());
    bytes
}

pub(super) fn read_side(bytes: &[u8]) -> Option<SideNote> {
    let (state, span) = bytes.split_first()?;
    let state = match state {
        b'-' => SyncState::Unsynced,
        b'?' => SyncState::Suspect,
        b'+' => SyncState::Synced,
        _ => return None,
    };
    Some(SideNote { state, span: u64::from_le_bytes(span.try_into().ok()?) })
}

/// The value of the row of files that were taken over.
pub(super) fn ids(ids: &[u64]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

pub(super) fn read_ids(bytes: &[u8]) -> Option<Vec<u64>> {
    let (ids, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| ids.iter().map(|id| u64::from_le_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let key = Key::from("/a\0é");
        let (old, new) = (Side::Old, Side::New);
        let places = [
            (About::Mark(&key), About::Mark(key.clone())),
            (About::Begun(&key), About::Begun(key.clone())),
            (About::Nameless(old), About::Nameless(old)),
            (About::Side(new), About::Side(new)),
            (About::FoundMark(&key), About::FoundMark(key.clone())),
            (About::FoundSide(old), About::FoundSide(old)),
            (About::FoundNameless(new), About::FoundNameless(new)),
            (About::Ids, About::Ids),
        ];
        for (about, read) in places {
            assert_eq!(About::from_bytes(&about.to_bytes()), Some(read));
        }
        for right in [RightSide::Is(old), RightSide::Is(new), RightSide::Conflict] {
            let since = SystemTime::UNIX_EPOCH + Duration::new(1_795_305_540, 123_456_789);
            let stored = StoredMark { right, marks: u64::MAX, since };
            assert_eq!(read_mark(&mark(stored)), Some(stored));
        }
        for state in [SyncState::Unsynced, SyncState::Suspect, SyncState::Synced] {
            let note = SideNote { state, span: 7 };
            assert_eq!(read_side(&side(note)), Some(note));
        }
        assert_eq!(read_ids(&ids(&[1, u64::MAX])), Some(vec![1, u64::MAX]));
    }

    #[test]
    fn what_nobody_has_written_is_not_read() {
        let sides = [b"n".as_slice(), b"nx", b"no?", b"so\0"];
        let places = [b"".as_slice(), b"x", b"i?", b"m\xff"];
        for bytes in sides.into_iter().chain(places) {
            assert_eq!(About::from_bytes(bytes), None, "{bytes:?}");
        }
        let whole = mark(StoredMark {
            right: RightSide::Conflict,
            marks: 1,
            since: SystemTime::UNIX_EPOCH,
        });
        for end in 0..whole.len() {
            assert_eq!(read_mark(&whole[..end]), None);
        }
        assert_eq!(read_mark(&[whole.as_slice(), b"\0"].concat()), None);
        assert_eq!(read_side(b"+1234567"), None);
        assert_eq!(read_ids(b"1234567"), None);
    }

    #[test]
    fn a_clock_that_is_far_off_does_not_keep_a_mark_from_being_written() {
        let since = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let stored = StoredMark { right: RightSide::Conflict, marks: 1, since };
        let read = read_mark(&mark(stored)).expect("read");
        assert_eq!(read.since, SystemTime::UNIX_EPOCH);
    }
}
