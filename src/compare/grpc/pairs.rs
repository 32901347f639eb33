//! The messages of two answers, side by side.

use bytes::Bytes;

use crate::{
    compare::{Answer, Answers, Diff, InconclusiveReason, SkipReason, findings::Findings},
    protocol::grpc::{
        frames::{Frame, FrameError, frames},
        packing::Encoding,
    },
};

/// How many bytes of each answer are unpacked, in all.
const UNPACKED: usize = 16 << 20;

/// Calls `differ` for each pair of messages that are not the same bytes.
/// What is no message, or is damaged, is compared as it was sent; what may be right
/// and cannot be looked into is skipped.
pub(super) fn each_pair(
    answers: &Answers<'_>,
    how: How,
    mut differ: impl FnMut(usize, &Bytes, &Bytes, &mut Findings),
) -> Diff {
    let Answers { authority, other, .. } = answers;
    let mut found = Findings::default();
    let (a, b) = match (whole(authority), whole(other)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            let what = format!("body ({error})");
            return how.bytes("body", &what, &authority.body, &other.body);
        }
    };
    if a.len() != b.len() {
        let place = "number of messages";
        found.add(place, || Diff::of(place, a.len(), b.len()));
    }
    let (mut left, mut right) = (Unpacker::of(authority), Unpacker::of(other));
    for (at, (a, b)) in a.iter().zip(&b).enumerate() {
        if found.is_full() {
            break;
        }
        let same = a == b && (!a.compressed || left.encoding == right.encoding);
        if same && !how.tells_apart {
            continue;
        }
        if answers.context.is_late() {
            found.unclear(InconclusiveReason::Deadline);
            break;
        }
        match (left.unpack(a), right.unpack(b)) {
            (Ok(a), Ok(b)) if a == b && !how.tells_apart => {}
            (Ok(a), Ok(b)) => differ(at, &a, &b, &mut found),
            (Err(_), _) | (_, Err(_)) if same => {}
            (Err(FrameError::TooLarge { .. }), _) | (_, Err(FrameError::TooLarge { .. })) => {
                found.unclear(SkipReason::TooLarge);
                break;
            }
            (Err(FrameError::UnknownEncoding { .. }), _)
            | (_, Err(FrameError::UnknownEncoding { .. })) => {
                found.unclear(SkipReason::Encoding);
            }
            (Err(error), _) | (_, Err(error)) => {
                let what = format!("message {at} ({error})");
                found.add("message", || {
                    as_sent(how, &what, (a, &left.encoding), (b, &right.encoding))
                });
            }
        }
    }
    found.end()
}

fn whole(answer: &Answer) -> Result<Vec<Frame>, FrameError> {
    frames(answer.body.clone()).collect()
}

fn as_sent(how: How, what: &str, a: (&Frame, &Encoding), b: (&Frame, &Encoding)) -> Diff {
    let packed = |(frame, encoding): (&Frame, &Encoding)| match encoding {
        _ if !frame.compressed => "not compressed".to_owned(),
        Encoding::Other(name) => name.to_string(),
        known => format!("{known:?}").to_lowercase(),
    };
    if a.0.payload == b.0.payload {
        // Only the way in which it is compressed differs.
        return Diff::at("message", what, packed(a), packed(b));
    }
    how.bytes("message", what, &a.0.payload, &b.0.payload)
}

/// How messages are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// Equal bytes may mean different things on the two sides.
    pub(super) tells_apart: bool,
    /// What they say is not shown where no rule can tell what is secret.
    pub(super) hides: bool,
}

impl How {
    /// Where two strings of bytes differ, if they do.
    pub(super) fn bytes(self, place: &str, what: &str, authority: &[u8], other: &[u8]) -> Diff {
        if authority == other {
            return Diff::none();
        }
        let at = authority.iter().zip(other).take_while(|(a, b)| a == b).count();
        // A little of what is equal, so that a person finds the place.
        let from = at.saturating_sub(8);
        let shown = |bytes: &[u8]| {
            if self.hides {
                return format!("({} bytes, not shown)", bytes.len());
            }
            bytes[from.min(bytes.len())..(at + 32).min(bytes.len())].escape_ascii().to_string()
        };
        Diff::at(place, format!("{what} at byte {at}"), shown(authority), shown(other))
    }
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
    fn bytes_show_the_place() {
        let how = How::default();
        assert!(how.bytes("x", "x", b"abc", b"abc").is_empty());
        assert_eq!(
            how.bytes("x", "x", b"ab", b"ab\0").to_string(),
            r#"x at byte 2: "ab" against "ab\\x00""#
        );
    }
}
