//! A checkpoint as text: one `name = value` a line, a checksum last.
//!
//! ```text
//! tower-migration checkpoint, format 1
//! job = backfill
//! migration = airports
//! from = old
//! stage = write-both
//! epoch = 7
//! span = 0123456789abcdef
//! began = Sat, 21 Nov 2026 23:59:00 GMT
//! finished = no
//! target-empty = no
//! up-to = /airports/EDDF
//! again-lost = 0
//! written = 1204
//! again = /airports/EDDB
//! checksum = 0123456789abcdef
//! ```
//!
//! A line for each deed that was done; `up-to` is missing before the first key, and
//! `again` comes as often as there are such keys. Keys are escaped.

use std::fmt::Write;

use super::{Checkpoint, JobKind};
use crate::{
    files::{date, escaped, number, sealed, time, unescaped, unsealed},
    reconcile::{
        Key,
        sweep::{Deed, Tally},
    },
    stage::{Side, Stage},
};

const HEAD: &str = "tower-migration checkpoint, format ";
pub(super) const FORMAT: u32 = 1;

/// Why a text is no checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Newer(u32),
    Damaged(&'static str),
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

pub(super) fn write(checkpoint: &Checkpoint) -> String {
    let c = checkpoint;
    let mut text = String::new();
    let _ = write!(
        text,
        "{HEAD}{FORMAT}\njob = {}\nmigration = {}\nfrom = {}\nstage = {}\nepoch = {}\n\
         span = {:016x}\nbegan = {}\nfinished = {}\ntarget-empty = {}\n",
        c.job,
        escaped(&c.migration),
        c.from,
        c.stage,
        c.epoch,
        c.span,
        date(c.began),
        yes(c.finished),
        yes(c.target_empty),
    );
    if let Some(key) = &c.up_to {
        let _ = writeln!(text, "up-to = {}", escaped(key.as_str()));
    }
    let _ = writeln!(text, "again-lost = {}", c.again_lost);
    for deed in Deed::ALL {
        let _ = writeln!(text, "{deed} = {}", c.tally.get(*deed));
    }
    for key in &c.again {
        let _ = writeln!(text, "again = {}", escaped(key.as_str()));
    }
    sealed(text)
}

pub(super) fn read(bytes: &[u8]) -> Result<Checkpoint, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Damaged("it is not text"))?;
    let format = text
        .strip_prefix(HEAD)
        .and_then(|rest| rest.split('\n').next())
        .and_then(|number| number.parse::<u32>().ok())
        .ok_or(Unreadable::Damaged("its first line does not name a format"))?;
    if format > FORMAT {
        return Err(Unreadable::Newer(format));
    }
    let body = unsealed(text).map_err(Unreadable::Damaged)?;
    parse(body).ok_or(Unreadable::Damaged("a line is not as it should be"))
}

fn parse(body: &str) -> Option<Checkpoint> {
    let mut lines = body.strip_suffix('\n')?.split('\n').skip(1).peekable();
    let mut value = |name: &str| {
        let line = lines
            .next_if(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" = ")))?;
        line.get(name.len() + 3..)
    };
    let key = |text: &str| unescaped(text).map(Key::from);
    let truth = |text: &str| [true, false].into_iter().find(|truth| yes(*truth) == text);
    let job = value("job")?;
    let job = JobKind::ALL.iter().copied().find(|kind| kind.as_str() == job)?;
    let migration = unescaped(value("migration")?)?;
    let from = value("from")?;
    let from = Side::ALL.into_iter().find(|side| side.as_str() == from)?;
    let stage = value("stage")?;
    let stage = Stage::ALL.into_iter().find(|known| known.as_str() == stage)?;
    let epoch = value("epoch")?.parse().ok()?;
    let span = number(value("span")?)?;
    let began = time(value("began")?)?;
    let finished = truth(value("finished")?)?;
    let target_empty = truth(value("target-empty")?)?;
    let up_to = match value("up-to") {
        Some(text) => Some(key(text)?),
        None => None,
    };
    let again_lost = value("again-lost")?.parse().ok()?;
    let mut tally = Tally::default();
    for deed in Deed::ALL {
        tally.set(*deed, value(deed.as_str())?.parse().ok()?);
    }
    let mut again = Vec::new();
    while let Some(text) = value("again") {
        again.push(key(text)?);
    }
    lines.next().is_none().then_some(Checkpoint {
        job,
        migration,
        from,
        stage,
        epoch,
        span,
        began,
        finished,
        target_empty,
        up_to,
        again,
        again_lost,
        tally,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn full() -> Checkpoint {
        let mut tally = Tally::default();
        Deed::ALL.iter().zip(1..).for_each(|(deed, count)| tally.set(*deed, count));
        Checkpoint {
            job: JobKind::Verify,
            migration: "two\nlines".to_owned(),
            from: Side::New,
            stage: Stage::ReadNew,
            epoch: 17,
            span: u64::MAX,
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_540),
            finished: true,
            target_empty: true,
            up_to: Some("/a\nchecksum = 0".into()),
            again: vec!["".into(), "\\".into(), "x = y".into()],
            again_lost: 3,
            tally,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(read(write(&full()).as_bytes()), Ok(full()));
        let short = Checkpoint { up_to: None, again: Vec::new(), finished: false, ..full() };
        assert_eq!(read(write(&short).as_bytes()), Ok(short));
        let newer = write(&full()).replace("format 1", "format 2");
        assert_eq!(read(newer.as_bytes()), Err(Unreadable::Newer(2)));
    }

    #[test]
    fn a_checkpoint_is_never_read_from_a_damaged_text() {
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
        }
    }
}
