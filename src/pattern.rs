//! One small language for places: the paths of requests, and the fields of answers.
//!
//! `/airports/*/name`: segments after slashes, `*` is any one of them, `**` any
//! number, none included.

use crate::flag::ConfigError;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(Box<str>),
    One,
    Many,
}

/// A place, with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Box<[Segment]>,
}

impl Pattern {
    /// Of the empty text (the whole), or of one that begins with a slash.
    /// `unescape` makes a segment's name of its text.
    pub(crate) fn parse(
        text: &str,
        unescape: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let error = |why| ConfigError::Pattern { pattern: text.to_owned(), why };
        if text.is_empty() {
            return Ok(Self { segments: Box::default() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(error("it must be empty or begin with `/`"));
        };
        let segment = |part| match part {
            "*" => Ok(Segment::One),
            "**" => Ok(Segment::Many),
            name => match unescape(name) {
                Some(name) => Ok(Segment::Name(name.into())),
                None => Err(error("`~` must be followed by 0, 1 or 2")),
            },
        };
        let segments = rest.split('/').map(segment).collect::<Result<Box<[_]>, _>>()?;
        let many = segments.iter().filter(|segment| **segment == Segment::Many).count();
        if many > 4 {
            return Err(error("it has more than four `**`"));
        }
        if segments.windows(2).any(|two| two == [Segment::Many, Segment::Many]) {
            return Err(error("two `**` in a row say no more than one"));
        }
        Ok(Self { segments })
    }

    /// Whether the whole of a path fits.
    pub(crate) fn fits<'a>(&self, path: impl Iterator<Item = &'a str>) -> bool {
        let mut at = self.starts();
        let mut next = Vec::new();
        for name in path {
            next.clear();
            for position in &at {
                self.step(*position, |own| own == name, |position| reach(&mut next, 0, position));
            }
            std::mem::swap(&mut at, &mut next);
            if at.is_empty() {
                return false;
            }
        }
        at.iter().any(|position| self.ends(*position))
    }

    /// Where one may be at the start: `**` may stand for nothing.
    pub(crate) fn starts(&self) -> Vec<usize> {
        match self.segments.first() {
            Some(Segment::Many) => vec![0, 1],
            _ => vec![0],
        }
    }

    /// Where one may be after one more segment. `is` compares a name with it.
    pub(crate) fn step(
        &self,
        position: usize,
        is: impl FnOnce(&str) -> bool,
        mut reach: impl FnMut(usize),
    ) {
        let (next, again) = match self.segments.get(position) {
            Some(Segment::Name(name)) if is(name) => (position + 1, false),
            Some(Segment::One) => (position + 1, false),
            Some(Segment::Many) => (position, true),
            Some(Segment::Name(_)) | None => return,
        };
        reach(next);
        // `**` here, or next, may stand for nothing.
        if again || self.segments.get(next) == Some(&Segment::Many) {
            reach(next + 1);
        }
    }

    /// Whether nothing is missing.
    pub(crate) fn ends(&self, position: usize) -> bool {
        position == self.segments.len()
    }
}

/// Notes where one may be, once: two ways to one position would become four with the
/// next name. Those before `from` are of something else.
pub(crate) fn reach<T: PartialEq>(next: &mut Vec<T>, from: usize, position: T) {
    if !next[from..].contains(&position) {
        next.push(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, |name| Some(name.to_owned())).expect("valid")
    }

    #[test]
    fn wildcards_stand_for_one_segment_or_any_number() {
        for (text, fits, not) in [
            ("", vec![""], vec!["/a"]),
            ("/a", vec!["/a"], vec!["", "/b", "/a/b"]),
            ("/a/*", vec!["/a/b"], vec!["/a", "/a/b/c"]),
            ("/a/**", vec!["/a", "/a/b", "/a/b/c"], vec!["", "/b"]),
            ("/**/a", vec!["/a", "/b/a", "/a/a", "/b/c/a"], vec!["", "/a/b"]),
            ("/**/a/*/b", vec!["/a/x/b", "/y/a/a/b", "/a/a/x/b"], vec!["/a/b", "/a/x/y/b"]),
            ("/**", vec!["", "/a", "/a/b"], vec![]),
            ("/a/**/b/**/c", vec!["/a/b/c", "/a/x/b/y/z/c", "/a/b/b/c"], vec!["/a/c", "/b/c"]),
        ] {
            let pattern = pattern(text);
            let fit = |path: &&str| pattern.fits(path.split('/').skip(1));
            assert!(fits.iter().all(fit), "{text}");
            assert!(!not.iter().any(fit), "{text}");
        }
    }

    #[test]
    fn ways_that_meet_go_on_as_one() {
        let many = pattern("/**/a/**/a/**/a/**/b");
        let mut at = many.starts();
        for _ in 0..200 {
            let mut next = Vec::new();
            for position in at {
                many.step(position, |own| own == "a", |position| reach(&mut next, 0, position));
            }
            at = next;
        }
        assert_eq!(at.len(), 8, "not the more than a million ways there");
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for text in ["a", "a/b", "/**/**", "/**/a/**/a/**/a/**/a/**"] {
            let parsed = Pattern::parse(text, |name| Some(name.to_owned()));
            assert!(matches!(parsed, Err(ConfigError::Pattern { .. })), "{text}");
        }
        assert!(Pattern::parse("/a", |_| None).is_err());
    }
}
