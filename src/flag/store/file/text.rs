//! The record as text: one `name = value` a line, a checksum last.
//!
//! ```text
//! tower-migration flag, format 2
//! stage = write-both
//! epoch = 7
//! old = synced
//! new = unsynced
//! clean = no
//! ramp = 0
//! seed = 00c0ffee00c0ffee
//! spans = 0123456789abcdef fedcba9876543210
//! journal = 0011223344556677 before-legs synced synced 0123456789abcdef fedcba9876543210
//! written = Sat, 21 Nov 2026 23:59:00 GMT
//! forced = read-new write-both Sat, 21 Nov 2026 23:58:00 GMT because I say so
//! checksum = 0123456789abcdef
//! ```
//!
//! `forced` comes as often as there are forced stages; `journal` is `none` where
//! there is none. Format 1 lacks `spans` and `journal`, and is still read. The checksum is SipHash
//! 1-3 of all lines before it. Reading is strict: what is not exactly what
//! [`write`] makes is damaged, since a flag is not the place for guesses.

use std::{fmt::Write, str::FromStr};

use crate::{
    files::{date, escaped, number, sealed, time, unescaped, unsealed},
    flag::{Forced, JournalNote, Record, Spans},
    stage::{Share, Stage, SyncState, SyncTable},
};

const HEAD: &str = "tower-migration flag, format ";
/// The newest that can be read, and the one that is written.
pub(super) const FORMAT: u32 = 2;
const NONE: &str = "none";

/// Why a text is no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A newer version wrote it.
    Newer(u32),
    /// It is damaged: what about it.
    Damaged(String),
}

pub(super) fn write(record: &Record) -> String {
    let mut text = String::new();
    let Record { stage, epoch, sync, clean, ramp, seed, spans, journal, forced, written } = record;
    let clean = if *clean { "yes" } else { "no" };
    let (old, new) = (sync.old.as_str(), sync.new.as_str());
    let _ = write!(
        text,
        "{HEAD}{FORMAT}\nstage = {stage}\nepoch = {epoch}\nold = {old}\nnew = {new}\n\
         clean = {clean}\nramp = {ramp}\nseed = {seed:016x}\nspans = {:016x} {:016x}\njournal = {}\nwritten = {}\n",
        spans.old,
        spans.new,
        journal.map_or_else(|| NONE.to_owned(), note),
        date(*written)
    );
    for Forced { from, to, at, reason } in forced {
        let _ = writeln!(text, "forced = {from} {to} {} {}", date(*at), escaped(reason));
    }
    sealed(text)
}

pub(super) fn read(bytes: &[u8]) -> Result<Record, Unreadable> {
    let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let format = text
        .strip_prefix(HEAD)
        .and_then(|rest| rest.split('\n').next())
        .and_then(|number| number.parse::<u32>().ok())
        .ok_or_else(|| damaged("its first line does not name a format"))?;
    if format > FORMAT {
        return Err(Unreadable::Newer(format));
    }
    let body = unsealed(text).map_err(damaged)?;
    let record = parse(body, format).ok_or_else(|| damaged("a line is not as it should be"))?;
    record.check().map_err(damaged)?;
    Ok(record)
}

fn parse(body: &str, format: u32) -> Option<Record> {
    let mut lines = body.strip_suffix('\n')?.split('\n').skip(1).peekable();
    let mut value = |name: &str| {
        let line = lines
            .next_if(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" = ")))?;
        line.get(name.len() + 3..)
    };
    let stage = value("stage").and_then(stage)?;
    let epoch = value("epoch")?.parse().ok()?;
    let old = value("old").and_then(sync)?;
    let new = value("new").and_then(sync)?;
    let clean = match value("clean")? {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    let ramp = Share::from_str(value("ramp")?).ok()?;
    let seed = u64::from_str_radix(value("seed")?, 16).ok()?;
    let (spans, journal) = match format {
        2 => (parse_spans(value("spans")?)?, parse_note(value("journal")?)?),
        1 => (Spans::new(), None),
        _ => return None,
    };
    let written = time(value("written")?)?;
    let mut forced = Vec::new();
    while let Some(line) = value("forced") {
        forced.push(parse_forced(line)?);
    }
    let sync = SyncTable { old, new };
    let record = Record { stage, epoch, sync, clean, ramp, seed, spans, journal, forced, written };
    lines.next().is_none().then_some(record)
}

fn parse_spans(text: &str) -> Option<Spans> {
    let (old, new) = text.split_once(' ')?;
    Some(Spans { old: number(old)?, new: number(new)? })
}

fn note(note: JournalNote) -> String {
    let JournalNote { id, before_legs, sync: SyncTable { old, new }, spans } = note;
    let mode = if before_legs { BEFORE_LEGS } else { ON_FAILURE };
    let (old, new) = (old.as_str(), new.as_str());
    format!("{id:016x} {mode} {old} {new} {:016x} {:016x}", spans.old, spans.new)
}

const BEFORE_LEGS: &str = "before-legs";
const ON_FAILURE: &str = "on-failure";

fn parse_note(text: &str) -> Option<Option<JournalNote>> {
    if text == NONE {
        return Some(None);
    }
    let mut words = text.split(' ');
    let id = number(words.next()?)?;
    let before_legs = match words.next()? {
        BEFORE_LEGS => true,
        ON_FAILURE => false,
        _ => return None,
    };
    let (old, new) = (sync(words.next()?)?, sync(words.next()?)?);
    let spans = Spans { old: number(words.next()?)?, new: number(words.next()?)? };
    let note = JournalNote { id, before_legs, sync: SyncTable { old, new }, spans };
    words.next().is_none().then_some(Some(note))
}

fn parse_forced(line: &str) -> Option<Forced> {
    let (from, rest) = line.split_once(' ')?;
    let (to, rest) = rest.split_once(' ')?;
    let at = rest.find("GMT")? + "GMT".len();
    let (at, reason) = rest.split_at_checked(at)?;
    let reason = unescaped(reason.strip_prefix(' ')?)?;
    Some(Forced { from: stage(from)?, to: stage(to)?, at: time(at)?, reason })
}

fn stage(text: &str) -> Option<Stage> {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == text)
}

fn sync(text: &str) -> Option<SyncState> {
    [SyncState::Unsynced, SyncState::Suspect, SyncState::Synced]
        .into_iter()
        .find(|state| state.as_str() == text)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn full() -> Record {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_540);
        let forced = |reason: &str| Forced {
            from: Stage::ReadNew,
            to: Stage::WriteBoth,
            at,
            reason: reason.to_owned(),
        };
        Record {
            stage: Stage::WriteBoth,
            epoch: 12_345,
            sync: SyncTable { old: SyncState::Synced, new: SyncState::Suspect },
            clean: false,
            ramp: Share::new(0.25).unwrap(),
            seed: 0xfeed,
            spans: Spans { old: 7, new: u64::MAX },
            journal: Some(JournalNote {
                id: 0xabc,
                before_legs: true,
                sync: SyncTable { old: SyncState::Synced, new: SyncState::Synced },
                spans: Spans { old: 3, new: 4 },
            }),
            forced: vec![
                forced("two\nlines, a \\ and GMT\r\nchecksum = 0"),
                forced(""),
                forced(" spaces "),
            ],
            written: at,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for stage in Stage::ALL {
            for state in [SyncState::Unsynced, SyncState::Suspect, SyncState::Synced] {
                let sync = SyncTable { old: state, new: SyncState::Synced };
                let record = Record {
                    stage,
                    sync,
                    ramp: Share::NONE,
                    clean: stage.is_two_sided(),
                    ..full()
                };
                assert_eq!(read(write(&record).as_bytes()), Ok(record));
            }
        }
        assert_eq!(read(write(&full()).as_bytes()), Ok(full()));
        let without = Record { journal: None, ..full() };
        assert_eq!(read(write(&without).as_bytes()), Ok(without));
        let journal = full().journal.map(|note| JournalNote { before_legs: false, ..note });
        let on_failure = Record { journal, ..full() };
        assert_eq!(read(write(&on_failure).as_bytes()), Ok(on_failure));
    }

    #[test]
    fn the_format_before_is_still_read() {
        let text = write(&Record { forced: Vec::new(), ..full() });
        let lines = text.lines().filter(|line| {
            !["spans", "journal", "checksum"].iter().any(|name| line.starts_with(name))
        });
        let mut text = lines.fold(String::new(), |text, line| text + line + "\n");
        text = text.replace("format 2", "format 1");
        let read = read(sealed(text).as_bytes()).expect("format 1");
        let Record { spans, .. } = read;
        assert_eq!(read, Record { spans, journal: None, forced: Vec::new(), ..full() });
    }

    #[test]
    fn a_record_is_never_read_from_a_damaged_text() {
        let text = write(&full());
        for end in 0..text.len() {
            assert!(read(&text.as_bytes()[..end]).is_err(), "cut off after {end} bytes");
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
            }
            let mut bytes = text.clone().into_bytes();
            bytes.remove(at);
            assert!(read(&bytes).is_err(), "without byte {at}");
        }
        let doubled = [text.as_bytes(), text.as_bytes()].concat();
        assert!(read(&doubled).is_err());
        assert!(read(&vec![0; text.len()]).is_err(), "zeros, as after a power cut");
        assert!(read((text + "\n").as_bytes()).is_err());
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let newer = write(&full()).replace("format 2", "format 3");
        assert_eq!(read(newer.as_bytes()), Err(Unreadable::Newer(3)));
        let older = write(&full()).replace("format 2", "format 0");
        assert!(matches!(read(older.as_bytes()), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn a_record_that_cannot_be_is_damaged_whatever_its_checksum_says() {
        let ramp = Record { stage: Stage::ReadNew, ..full() };
        assert!(matches!(read(write(&ramp).as_bytes()), Err(Unreadable::Damaged(_))));
        let epoch = Record { epoch: u64::MAX, ..full() };
        assert!(matches!(read(write(&epoch).as_bytes()), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn a_clock_that_is_far_off_does_not_keep_a_record_from_being_written() {
        let ages = Duration::from_secs(1 << 40);
        for written in [SystemTime::UNIX_EPOCH - ages, SystemTime::UNIX_EPOCH + ages] {
            let text = write(&Record { written, ..full() });
            assert!(read(text.as_bytes()).is_ok(), "{text}");
        }
    }
}
