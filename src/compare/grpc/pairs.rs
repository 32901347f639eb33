//! The messages of two answers, side by side.

use bytes::Bytes;

use crate::{
    compare::{Answer, Answers, Diff},
    protocol::grpc::{
        frames::{Frame, FrameError, frames},
        packing::Encoding,
    },
};

/// How many differences are listed.
const LISTED: usize = 32;

/// How many bytes of each answer are unpacked, in all.
const UNPACKED: usize = 16 << 20;

/// A diff that grows to a bound, so that two long streams of which every
/// message differs do not make a long report.
#[derive(Debug, Default)]
pub(super) struct Findings(Diff);

impl Findings {
    pub(super) fn add(&mut self, more: Diff) {
        if !self.is_full() {
            self.0 = std::mem::take(&mut self.0).and(more);
        }
    }

    /// Whether nothing more is listed, so that looking on is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.0.differences().len() > LISTED
    }

    fn end(self) -> Diff {
        if !self.is_full() {
            return self.0;
        }
        self.0.first(LISTED).and(Diff::of("further differences", "not listed", "not listed"))
    }
}

/// Calls `differ` for each pair of messages that are not the same bytes.
/// What is no message, or cannot be unpacked, is compared as it was sent.
pub(super) fn each_pair(
    answers: &Answers<'_>,
    mut differ: impl FnMut(usize, &Bytes, &Bytes, &mut Findings),
) -> Diff {
    let Answers { authority, other, .. } = answers;
    let mut found = Findings::default();
    let (a, b) = match (whole(authority), whole(other)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            let what = format!("body ({error})");
            return bytes(&what, &authority.body, &other.body);
        }
    };
    if a.len() != b.len() {
        found.add(Diff::of("number of messages", a.len(), b.len()));
    }
    let (mut left, mut right) = (Unpacker::of(authority), Unpacker::of(other));
    for (at, (a, b)) in a.iter().zip(&b).enumerate() {
        if found.is_full() {
            break;
        }
        if a == b && (!a.compressed || left.encoding == right.encoding) {
            continue;
        }
        match (left.unpack(a), right.unpack(b)) {
            (Ok(a), Ok(b)) if a == b => {}
            (Ok(a), Ok(b)) => differ(at, &a, &b, &mut found),
            (Err(error), _) | (_, Err(error)) => {
                let what = format!("message {at} ({error})");
                found.add(as_sent(&what, (a, &left.encoding), (b, &right.encoding)));
            }
        }
    }
    found.end()
}

fn whole(answer: &Answer) -> Result<Vec<Frame>, FrameError> {
    frames(answer.body.clone()).collect()
}

fn as_sent(what: &str, a: (&Frame, &Encoding), b: (&Frame, &Encoding)) -> Diff {
    let how = |(frame, encoding): (&Frame, &Encoding)| match encoding {
        _ if !frame.compressed => "not compressed".to_owned(),
        Encoding::Other(name) => name.to_string(),
        known => format!("{known:?}").to_lowercase(),
    };
    if a.0.payload == b.0.payload {
        // Only the way in which it is compressed differs.
        return Diff::of(what, how(a), how(b));
    }
    bytes(what, &a.0.payload, &b.0.payload)
}

/// Where two strings of bytes differ, if they do.
pub(super) fn bytes(what: &str, authority: &[u8], other: &[u8]) -> Diff {
    if authority == other {
        return Diff::none();
    }
    let at = authority.iter().zip(other).take_while(|(a, b)| a == b).count();
    // A little of what is equal, so that a person finds the place.
    let from = at.saturating_sub(8);
    let shown = |bytes: &[u8]| {
        bytes[from.min(bytes.len())..(at + 32).min(bytes.len())].escape_ascii().to_string()
    };
    Diff::of(format!("{what} at byte {at}"), shown(authority), shown(other))
}

/// Unpacks the messages of one answer, up to a number of bytes in all.
struct Unpacker {
    encoding: Encoding,
    left: usize,
}

impl Unpacker {
    fn of(answer: &Answer) -> Self {
        Self { encoding: Encoding::of(&answer.headers), left: UNPACKED }
    }

    fn unpack(&mut self, frame: &Frame) -> Result<Bytes, FrameError> {
        let plain = self.encoding.unpack(frame, self.left);
        self.left = match &plain {
            Ok(plain) if frame.compressed => self.left - plain.len(),
            // So much has been unpacked in vain.
            Err(FrameError::TooLarge { .. }) => 0,
            Ok(_) | Err(_) => self.left,
        };
        plain.map_err(|error| match error {
            FrameError::TooLarge { .. } => FrameError::TooLarge { limit: UNPACKED },
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_end_with_one_that_says_so() {
        let mut found = Findings::default();
        for at in 0..LISTED {
            found.add(Diff::of(format!("{at}"), "a", "b"));
        }
        assert!(!found.is_full());
        found.add(Diff::of("x", "a", "b").and(Diff::of("y", "a", "b")));
        assert!(found.is_full());
        found.add(Diff::of("z", "a", "b"));
        let found = found.end();
        assert_eq!(found.differences().len(), LISTED + 1);
        assert_eq!(found.differences()[LISTED].what, "further differences");
    }

    #[test]
    fn bytes_show_the_place() {
        assert!(bytes("x", b"abc", b"abc").is_empty());
        assert_eq!(
            bytes("x", b"ab", b"ab\0").to_string(),
            r#"x at byte 2: "ab" against "ab\\x00""#
        );
    }
}
