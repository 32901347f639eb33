//! What lies in a journal's file before redb's part of it.
//!
//! One page says whose file it is, and never changes. Two more say, in turns,
//! which commit was the last that somebody relied on. redb goes back to the
//! commit before the last one when the last one does not verify, since after a
//! power cut that is one that nobody was told of. After damage it is one that
//! somebody was told of, which only this number gives away.

use std::{hash::Hasher, io};

use siphasher::sip::SipHasher13;

use super::medium::Medium;

/// Where redb's part begins.
pub(super) const BODY: u64 = 3 * PAGE as u64;
const PAGE: usize = 4096;
/// Of the format that this version writes.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 24] = b"tower-migration\njournal\n";
/// How much of a migration's name is kept in clear.
const NAME: usize = 1024;

/// A checksum, not a secret: this is against damage, not against malice.
pub(super) fn checksum(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x746f_7765_7221_6a6f, 0x7572_6e61_6c6b_6579);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// Whose file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The file's own number.
    pub(super) id: u64,
    /// The migration's name; only its beginning, if it is very long.
    pub(super) name: String,
    name_sum: u64,
}

/// Why a file is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Damaged(&'static str),
    Newer(u32),
    Foreign,
}

impl Identity {
    pub(super) fn new(id: u64, name: &str) -> Self {
        let end = (0..=NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
        let kept = name.get(..end.unwrap_or_default()).unwrap_or_default();
        Self { id, name: kept.to_owned(), name_sum: checksum(&[name.as_bytes()]) }
    }

    /// Whether it is this migration's.
    pub(super) fn is_of(&self, name: &str) -> bool {
        self.name_sum == checksum(&[name.as_bytes()])
    }

    fn to_page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend(MAGIC);
        page.extend(FORMAT.to_le_bytes());
        // These bytes are the same in every format, whatever follows.
        page.extend(checksum(&[&page]).to_le_bytes());
        page.extend(self.id.to_le_bytes());
        page.extend(self.name_sum.to_le_bytes());
        page.extend((self.name.len() as u64).to_le_bytes());
        page.extend(self.name.as_bytes());
        page.resize(PAGE - 8, 0);
        page.extend(checksum(&[&page]).to_le_bytes());
        page
    }

    /// Reads a file's first page.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        use Unreadable::{Damaged, Foreign, Newer};
        if bytes.is_empty() {
            return Err(Damaged("it is empty"));
        }
        if bytes.starts_with(b"redb") {
            return Err(Foreign);
        }
        let mut rest = bytes.get(..PAGE).ok_or(Damaged("it is cut off"))?;
        let page = rest;
        if take::<24>(&mut rest) != Some(*MAGIC) {
            return Err(Damaged("its first bytes are not those of a journal"));
        }
        let format = take(&mut rest).map(u32::from_le_bytes).unwrap_or_default();
        if number(&mut rest) != page.get(..28).map(|start| checksum(&[start])) {
            return Err(Damaged("its first bytes have changed"));
        }
        if format > FORMAT {
            return Err(Newer(format));
        }
        let (start, mut sum) = page.split_at(PAGE - 8);
        if number(&mut sum) != Some(checksum(&[start])) {
            return Err(Damaged("its first page has changed"));
        }
        Self::read_fields(rest).ok_or(Damaged("its first page makes no sense"))
    }

    fn read_fields(mut rest: &[u8]) -> Option<Self> {
        let id = number(&mut rest)?;
        let name_sum = number(&mut rest)?;
        let len = usize::try_from(number(&mut rest)?).ok()?;
        let name = str::from_utf8(rest.get(..len)?).ok()?.to_owned();
        Some(Self { id, name, name_sum })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

/// Begins a file. redb's part follows.
pub(super) fn begin(medium: &dyn Medium, identity: &Identity) -> io::Result<()> {
    medium.set_len(BODY)?;
    medium.write(0, &identity.to_page())?;
    for commit in [0, 1] {
        rely(medium, identity.id, commit, 0)?;
    }
    Ok(())
}

/// Notes that somebody relies on this commit now. Not synced: what is lost in a
/// power cut only makes the check weaker.
pub(super) fn rely_on(medium: &dyn Medium, id: u64, commit: u64) -> io::Result<()> {
    rely(medium, id, commit, commit)
}

/// In turns, so that one that is torn leaves the other.
fn rely(medium: &dyn Medium, id: u64, turn: u64, commit: u64) -> io::Result<()> {
    let mut bytes = commit.to_le_bytes().to_vec();
    bytes.extend(relied_sum(id, turn % 2, commit).to_le_bytes());
    medium.write((1 + turn % 2) * PAGE as u64, &bytes)
}

fn relied_sum(id: u64, turn: u64, commit: u64) -> u64 {
    checksum(&[&id.to_le_bytes(), &turn.to_le_bytes(), &commit.to_le_bytes()])
}

/// The last commit that somebody relied on.
pub(super) fn relied_on(bytes: &[u8], id: u64) -> Result<u64, Unreadable> {
    let read = |turn: u64| {
        let mut bytes = bytes.get((1 + usize::try_from(turn).ok()?) * PAGE..)?;
        let commit = number(&mut bytes)?;
        (number(&mut bytes)? == relied_sum(id, turn, commit)).then_some(commit)
    };
    read(0).max(read(1)).ok_or(Unreadable::Damaged("the number of its last commit is lost"))
}
