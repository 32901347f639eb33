//! Texts that somebody else has written, cut where they are long.

use std::fmt::{self, Display, Write};

/// How long an error's text may be that is kept, in bytes.
const LONGEST: usize = 1_000;

/// A text, cut to a thousand bytes: an error may quote a whole answer. No more than that
/// is ever written.
pub(crate) fn short(of: &impl Display) -> String {
    let mut cut = Cut(String::new());
    // An error says that it is full.
    if write!(cut, "{of}").is_err() {
        cut.0.push('…');
    }
    cut.0
}

struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = LONGEST - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=left).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(short(&"disk full"), "disk full");
        let long = short(&"ü".repeat(5_000));
        assert_eq!((long.len(), long.chars().count()), (1_003, 501));
        assert_eq!(short(&"a".repeat(1_000)).len(), 1_000);
        assert!(short(&format_args!("{}{}", "a".repeat(999), "ü")).ends_with("a…"));
    }
}
