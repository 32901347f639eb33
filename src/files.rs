//! Small files that are read whole and replaced at once, and lines in them that
//! tell damage from content.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    hash::Hasher,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use httpdate::HttpDate;
use siphasher::sip::SipHasher13;

const CHECKSUM: &str = "checksum = ";

/// The path with `end` behind its name.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

/// Puts a file with these bytes in the place of the one at `path`, by way of
/// `next`: a crash leaves the one or the other. It survives a power cut once
/// [`sync_directory`] has been called too.
pub(crate) fn replace(path: &Path, next: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(next)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        // Before the name: else a power cut could leave the name without the
        // content.
        file.sync_all()?;
        drop(file);
        fs::rename(next, path)
    };
    write().inspect_err(|_| {
        // Nothing half-written stays behind, nor what fills the disk.
        let _ = fs::remove_file(next);
    })
}

/// Makes a name survive a power cut.
#[cfg(unix)]
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Elsewhere a directory cannot be synced, and a rename is as durable as the
/// file system makes it.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The text with a line behind it by which damage shows.
pub(crate) fn sealed(mut text: String) -> String {
    let sum = checksum(&text);
    let _ = writeln!(text, "{CHECKSUM}{sum:016x}");
    text
}

/// What [`sealed`] was given, or what is wrong.
pub(crate) fn unsealed(text: &str) -> Result<&str, &'static str> {
    let body = text.rfind(CHECKSUM).ok_or("its checksum is missing")?;
    let (body, last) = text.split_at(body);
    let sum = last.strip_prefix(CHECKSUM).and_then(|last| last.strip_suffix('\n'));
    // Spelt as `sealed` spells it, so that no two texts have the same content.
    if sum == Some(&*format!("{:016x}", checksum(body))) {
        Ok(body)
    } else {
        Err("its checksum is wrong")
    }
}

/// On one line, whatever is in it.
pub(crate) fn escaped(reason: &str) -> String {
    let mut text = String::new();
    for c in reason.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text
}

pub(crate) fn unescaped(text: &str) -> Option<String> {
    let mut reason = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        reason.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(reason)
}

fn checksum(text: &str) -> u64 {
    // Any fixed keys do: this is against damage, not against malice.
    let mut hasher = SipHasher13::new_with_keys(0x746f_7765_7221_6d69, 0x6772_6174_696f_6e21);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Sixteen hexadecimal digits, spelt in one way only.
pub(crate) fn number(text: &str) -> Option<u64> {
    (text.len() == 16 && !text.contains(|c: char| c.is_ascii_uppercase() || c == '+'))
        .then(|| u64::from_str_radix(text, 16).ok())?
}

/// A clock may say anything; a date has four digits for the year.
pub(crate) fn date(time: SystemTime) -> HttpDate {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    HttpDate::from(SystemTime::UNIX_EPOCH + since.min(LAST))
}

pub(crate) fn time(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}
